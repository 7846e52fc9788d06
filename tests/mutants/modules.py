"""The modules that decide answers and figures, with the tests that have to notice a change.

Tests run in the order that they have here: those that notice most in the least time come first.
"""

from __future__ import annotations

Tests = tuple[str, ...]

_IMAGES = "tests/dyninfer/images/test_"
_RESULTS = "tests/dyninfer/results/"
_ROUTES = "tests/dyninfer/routing/"
_RUNTIME = "tests/dyninfer/runtime/test_"
_DETECTOR: Tests = tuple(
    f"{_RUNTIME}{name}.py" for name in ("detector", "failures", "skipped_images", "detector_goals")
)
_MONITORING = "tests/dyninfer/monitoring/"
_EVALUATION = "tests/dyninfer/evaluation/"
_BUNDLE = "tests/dyninfer/bundle/"
_EXPORTERS = "tests/exporters/test_"
_CASCADE: Tests = tuple(
    f"tests/exporters/cascade/test_{name}.py"
    for name in [
        "numbering",
        "classes",
        "plan",
        "decodes",
        "onnx_file",
        "formats",
        "export",
        "arithmetic",
    ]
)
_DYNAMICDET: Tests = tuple(f"{_EXPORTERS}{name}.py" for name in ("model", "fold", "stages"))
_EFFICIENTDET: Tests = tuple(
    f"tests/exporters/efficientdet/test_{name}.py"
    for name in ("structure", "config", "published", "fold", "export")
)
_PRECISION = "tests/exporters/precision/test_"
_ROUTER = "tests/exporters/router/"
_LATENCY = "tests/benchmarks/latency/test_"


def _all(folder: str, names: str, tests: Tests) -> dict[str, Tests]:
    """Modules of a folder that the same tests judge."""
    return {f"{folder}/{name}.py": tests for name in names.split()}


MODULES: dict[str, Tests] = {
    "dyninfer/images/spec.py": (_IMAGES + "spec.py",),
    "dyninfer/images/prepare.py": (_IMAGES + "spec.py",),
    "dyninfer/images/headers.py": (_IMAGES + "headers.py",),
    "dyninfer/images/pictures.py": (_IMAGES + "pictures.py", _IMAGES + "inputs.py"),
    "dyninfer/images/inputs.py": (_IMAGES + "inputs.py",),
    "dyninfer/images/folders.py": (_IMAGES + "folders.py", _IMAGES + "headers.py"),
    **_all("dyninfer/results", "class_lists nms postprocess candidates", (_RESULTS,)),
    **_all("dyninfer/results", "tasks answers", (_RESULTS, _RUNTIME + "detector.py")),
    "dyninfer/routing/speed.py": (_ROUTES + "test_speed.py",),
    "dyninfer/routing/policy.py": (_ROUTES + "test_policy.py",),
    "dyninfer/routing/thresholds.py": (_ROUTES,),
    "dyninfer/routing/certify.py": (_ROUTES + "test_certify.py",),
    **_all("dyninfer/routing", "control control_law", (_ROUTES + "test_control.py",)),
    **_all("dyninfer/routing", "goals latency", (_ROUTES, _RUNTIME + "detector_goals.py")),
    **_all(
        "dyninfer/runtime",
        "plan executor arrays",
        tuple(f"{_RUNTIME}{name}.py" for name in ("plan", "executor", "arrays", "failures")),
    ),
    **_all("dyninfer/runtime", "batches detector", _DETECTOR),
    **_all("dyninfer/runtime", "session failures", (_RUNTIME + "session.py", *_DETECTOR)),
    **_all("dyninfer/monitoring", "drift audit alarms expected monitor watch", (_MONITORING,)),
    **_all(
        "dyninfer/evaluation",
        "calibrate class_labels coco coco_labels dataset interleaved object_labels outcomes "
        "routed_curve routed_precision router_quality runs scoring voc_labels worth yolo_labels",
        (_EVALUATION,),
    ),
    **_all("dyninfer/bundle", "manifest calibration", (_BUNDLE, _RUNTIME + "plan.py")),
    "engines/signature.py": (_RUNTIME + "session.py", "tests/engines/test_hostile_bundles.py"),
    **_all(
        "engines/ort",
        "runtime backend tensor",
        tuple(f"tests/engines/test_{name}.py" for name in ("ort_backend", "rows_per_run")),
    ),
    **_all(
        "exporters/cascade",
        "arithmetic boxes classes conventions decodes guesses measured numbering original plan "
        "recognise recognise_grids recognise_lists recognise_maps stage tensor_sizes trial",
        _CASCADE,
    ),
    **_all("exporters/dynamicdet", "fold layers model stages", _DYNAMICDET),
    **_all("exporters/dynamicdet", "config plan topology", (_EXPORTERS + "config.py",)),
    "exporters/dynamicdet/protocol.py": (_EXPORTERS + "protocol.py",),
    **_all(
        "exporters/efficientdet",
        "anchors config cost fold layers model scaling stages structure",
        _EFFICIENTDET,
    ),
    "exporters/weights.py": (_EXPORTERS + "checkpoint.py",),
    "exporters/candidate_rows.py": (_EXPORTERS + "candidate_rows.py",),
    "exporters/parity.py": tuple(
        f"{_EXPORTERS}{name}.py" for name in ("tolerances", "candidate_rows", "verify", "parity")
    ),
    "exporters/verify.py": (_EXPORTERS + "verify.py",),
    "exporters/precision/fp16.py": (_PRECISION + "fp16.py",),
    "exporters/precision/int8.py": (_PRECISION + "int8.py",),
    "exporters/precision/ranges.py": (_PRECISION + "ranges.py",),
    "exporters/precision/graph.py": (_PRECISION + "graph.py", _PRECISION + "int8.py"),
    "exporters/precision/sensitivity.py": (_PRECISION + "sensitivity.py",),
    **_all(
        "exporters/precision",
        "convert measure",
        (_PRECISION + "convert.py", _PRECISION + "int8.py"),
    ),
    **_all("exporters/router", "fit learning model observe", (_ROUTER,)),
    "benchmarks/latency/statistics.py": (_LATENCY + "statistics.py", _LATENCY + "rounds.py"),
    **_all(
        "benchmarks/latency",
        "model step_costs",
        (_LATENCY + "step_costs.py", _LATENCY + "model.py"),
    ),
    **_all("benchmarks/latency", "compare comparison", (_LATENCY + "compare.py",)),
    "benchmarks/latency/slices.py": (_LATENCY + "slices.py",),
    "benchmarks/latency/summary.py": (_LATENCY + "summary.py",),
    "benchmarks/latency/rounds.py": (_LATENCY + "rounds.py",),
    "benchmarks/latency/doubts.py": (_LATENCY + "compare.py", _LATENCY + "take.py"),
}
