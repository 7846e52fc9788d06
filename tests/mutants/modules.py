"""The modules that decide answers and figures, with the tests that have to notice a change."""

from __future__ import annotations

_ROUTES = "tests/dyninfer/routing/"
_RUNTIME = "tests/dyninfer/runtime/"
_RESULTS = "tests/dyninfer/results/"
_EVALUATION = "tests/dyninfer/evaluation/"
_PRECISION = "tests/exporters/precision/"

MODULES: dict[str, tuple[str, ...]] = {
    "dyninfer/images/spec.py": ("tests/dyninfer/images/test_spec.py",),
    "dyninfer/images/prepare.py": ("tests/dyninfer/images/test_spec.py",),
    "dyninfer/results/nms.py": (_RESULTS,),
    "dyninfer/results/postprocess.py": (_RESULTS,),
    "dyninfer/results/candidates.py": (_RESULTS,),
    "dyninfer/results/tasks.py": (_RESULTS, _RUNTIME + "test_detector.py"),
    "dyninfer/results/answers.py": (_RESULTS, _RUNTIME + "test_detector.py"),
    "dyninfer/routing/policy.py": (_ROUTES + "test_policy.py",),
    "dyninfer/routing/thresholds.py": (_ROUTES,),
    "dyninfer/routing/certify.py": (_ROUTES + "test_certify.py",),
    "dyninfer/routing/control_law.py": (_ROUTES + "test_control.py",),
    "dyninfer/routing/control.py": (_ROUTES + "test_control.py",),
    "dyninfer/routing/goals.py": (_ROUTES, _RUNTIME + "test_detector_goals.py"),
    "dyninfer/routing/latency.py": (_ROUTES, _RUNTIME + "test_detector_goals.py"),
    "dyninfer/runtime/plan.py": (_RUNTIME + "test_plan.py", _RUNTIME + "test_executor.py"),
    "dyninfer/runtime/executor.py": (_RUNTIME + "test_executor.py", _RUNTIME + "test_failures.py"),
    "dyninfer/runtime/batches.py": (_RUNTIME + "test_detector.py", _RUNTIME + "test_failures.py"),
    "dyninfer/runtime/session.py": (_RUNTIME + "test_session.py",),
    "dyninfer/runtime/failures.py": (_RUNTIME + "test_failures.py", _RUNTIME + "test_session.py"),
    "dyninfer/monitoring/drift.py": ("tests/dyninfer/monitoring/",),
    "dyninfer/monitoring/audit.py": ("tests/dyninfer/monitoring/",),
    "dyninfer/monitoring/alarms.py": ("tests/dyninfer/monitoring/test_alarms.py",),
    "dyninfer/evaluation/outcomes.py": (_EVALUATION,),
    "dyninfer/evaluation/routed_curve.py": (_EVALUATION,),
    "dyninfer/evaluation/routed_precision.py": (_EVALUATION,),
    "dyninfer/evaluation/router_quality.py": (_EVALUATION,),
    "dyninfer/evaluation/scoring.py": (_EVALUATION,),
    "dyninfer/bundle/manifest.py": ("tests/dyninfer/bundle/",),
    "engines/signature.py": ("tests/engines/test_hostile_bundles.py", _RUNTIME + "test_session.py"),
    "engines/ort/runtime.py": ("tests/engines/test_ort_backend.py",),
    "exporters/cascade/decodes.py": ("tests/exporters/cascade/",),
    "exporters/cascade/boxes.py": ("tests/exporters/cascade/",),
    "exporters/cascade/numbering.py": ("tests/exporters/cascade/",),
    "exporters/cascade/recognise.py": ("tests/exporters/cascade/",),
    "exporters/cascade/recognise_grids.py": ("tests/exporters/cascade/",),
    "exporters/cascade/recognise_lists.py": ("tests/exporters/cascade/",),
    "exporters/cascade/recognise_maps.py": ("tests/exporters/cascade/",),
    "exporters/dynamicdet/stages.py": (
        "tests/exporters/test_model.py",
        "tests/exporters/test_fold.py",
    ),
    "exporters/parity.py": ("tests/exporters/test_parity.py", "tests/exporters/test_tolerances.py"),
    "exporters/precision/fp16.py": (_PRECISION + "test_fp16.py",),
    "exporters/precision/int8.py": (_PRECISION + "test_int8.py",),
    "exporters/precision/ranges.py": (_PRECISION + "test_ranges.py",),
    "exporters/precision/graph.py": (_PRECISION,),
    "exporters/router/fit.py": ("tests/exporters/router/",),
    "exporters/router/learning.py": ("tests/exporters/router/",),
    "benchmarks/latency/statistics.py": ("tests/benchmarks/latency/",),
    "benchmarks/latency/model.py": ("tests/benchmarks/latency/test_model.py",),
    "benchmarks/latency/compare.py": ("tests/benchmarks/latency/test_compare.py",),
}
