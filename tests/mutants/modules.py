"""The modules that decide answers and figures, with the tests that have to notice a change.

Tests run in the order that they have here: those that notice most in the least time come first.
"""

from __future__ import annotations

Tests = tuple[str, ...]

_RUNTIME = "tests/dyninfer/runtime/test_"
_EXPORTERS = "tests/exporters/test_"
_LATENCY = "tests/benchmarks/latency/test_"


def _files(start: str, names: str) -> Tests:
    return tuple(f"{start}{name}.py" for name in names.split())


_ROUTING: Tests = ("tests/dyninfer/routing/", _RUNTIME + "detector_goals.py")
_RUNNING = _files(
    _RUNTIME,
    "plan executor single decisions arrays batches session skipped_images failures detector "
    "detector_goals streaming",
)
_CASCADE = _files(
    "tests/exporters/cascade/test_",
    "numbering classes conventions boxes guesses trial plan decodes recognise onnx_file formats "
    "export arithmetic sizes",
)
_PRECISION = _files(
    "tests/exporters/precision/test_", "graph ranges measure fp16 sensitivity int8 convert"
)
_OF_ROOMS = {
    "dyninfer/images": (
        "headers inputs folders pictures prepare spec",
        ("tests/dyninfer/images/",),
    ),
    "dyninfer/results": (
        "answers candidates class_lists nms postprocess tasks",
        ("tests/dyninfer/results/",),
    ),
    "dyninfer/routing": (
        "certify control control_law goals latency policy speed thresholds",
        _ROUTING,
    ),
    "dyninfer/runtime": (
        "arrays batches decisions detector executor failures plan session single",
        _RUNNING,
    ),
    "dyninfer/monitoring": (
        "alarms audit drift expected monitor watch",
        ("tests/dyninfer/monitoring/",),
    ),
    "dyninfer/evaluation": (
        "calibrate class_labels coco coco_labels dataset interleaved object_labels outcomes "
        "routed_curve routed_precision router_quality runs scoring voc_labels worth yolo_labels",
        ("tests/dyninfer/evaluation/",),
    ),
    "dyninfer/bundle": ("calibration manifest", ("tests/dyninfer/bundle/", _RUNTIME + "plan.py")),
    "engines": (
        "signature",
        (_RUNTIME + "session.py", *_files("tests/engines/test_", "signature hostile_bundles")),
    ),
    "engines/ort": (
        "backend runtime tensor",
        _files("tests/engines/test_", "ort_backend ort_runtime rows_per_run memory"),
    ),
    "exporters": (
        "candidate_rows parity verify weights",
        _files(_EXPORTERS, "tolerances candidate_rows verify weights checkpoint parity"),
    ),
    "exporters/cascade": (
        "arithmetic boxes classes conventions decodes guesses measured numbering original plan "
        "recognise recognise_grids recognise_lists recognise_maps stage tensor_sizes trial",
        _CASCADE,
    ),
    "exporters/dynamicdet": (
        "config fold layers model plan protocol stages topology",
        _files(_EXPORTERS, "config protocol fold model stages checkpoint"),
    ),
    "exporters/efficientdet": (
        "anchors config cost fold layers model scaling stages structure",
        (
            *_files("tests/exporters/efficientdet/test_", "structure config published fold export"),
            "tests/exporters/cascade/test_efficientdets.py",
        ),
    ),
    "exporters/precision": ("convert fp16 graph int8 measure ranges sensitivity", _PRECISION),
    "exporters/router": ("fit learning model observe", ("tests/exporters/router/",)),
    "benchmarks/latency": (
        "compare comparison doubts model rounds slices statistics step_costs summary",
        _files(
            _LATENCY,
            "statistics doubts summary slices compare step_costs model rounds energy_log take",
        ),
    ),
}
MODULES: dict[str, Tests] = {
    f"{folder}/{name}.py": tests
    for folder, (names, tests) in _OF_ROOMS.items()
    for name in names.split()
}
