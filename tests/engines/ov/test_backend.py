"""OpenVINO against ONNX Runtime on the same bundles, alone and mixed; and what it cannot do."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import dyninfer
from dyninfer.bundle.manifest import Precision
from dyninfer.engines import open_backend, parse_backends
from dyninfer.errors import BackendUnavailable, InputError
from tests import support
from tests.dyninfer.runtime.test_failures import MIXED, endless_body
from tests.dyninfer.runtime.test_failures import write as write_failing
from tests.dyninfer.runtime.test_forks import run as run_forking

pytest.importorskip("openvino")

WRITERS = (
    support.write_two_exits,
    support.write_three_exits,
    support.write_static_two_stages,
    support.write_select_detectors,
    support.write_select_classifiers,
    support.write_shared_weights,
    support.write_cascade_classifiers,
)
ROUNDS = 1_000_000
"""Of a loop, which take OpenVINO some seconds."""
HAS_BF16 = "avx512_bf16" in Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else False


def mixes(names: list[str]) -> list[str]:
    """Backends of a bundle with these stages: one for all, and two in turns."""
    turns = ",".join(f"{n}={('onnxruntime', 'openvino')[i % 2]}" for i, n in enumerate(names))
    return ["openvino", f"openvino,{names[-1]}=onnxruntime", turns]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_every_route_answers_as_on_onnx_runtime(tmp_path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path / "a.dyn")
    pictures = [*support.random_pictures(5), np.full((8, 8, 3), 250, np.uint8)]
    with dyninfer.load(path) as detector:
        names = list(detector.manifest.roles)
        policies = [None, dyninfer.Forced([0, 1, 0, 1, 1, 0])] if detector.points else [None]
        expected = [detector.infer(detector.prepare(pictures), policy=p) for p in policies]
    for mix in mixes(names):
        with dyninfer.load(path, backend=mix) as detector:
            inputs = detector.prepare(pictures)
            for policy, wanted in zip(policies, expected, strict=True):
                for _ in range(2):  # the second time, everything is bound
                    found = detector.infer(inputs, policy=policy)
                    compare(found, wanted)
            compare([detector.infer(detector.prepare([p]))[0] for p in pictures], expected[0])
            runs = {name: engine.library for name, engine in detector.engines.items()}
        if mix == "openvino":
            assert set(runs.values()) == {"OpenVINO"}
        elif len(names) > 1:
            assert set(runs.values()) == {"ONNX Runtime", "OpenVINO"}


def compare(found, wanted) -> None:
    assert [o.exit_index for o in found] == [o.exit_index for o in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.outputs.keys() == other.outputs.keys()
        for name, array in one.outputs.items():
            np.testing.assert_allclose(array, other.outputs[name], rtol=1e-4, atol=1e-4)


def test_tensors_cross_without_a_copy(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    with dyninfer.load(path, backend="first=openvino") as detector:
        backend, engines = detector.session.backend, detector.engines
        workspace = backend.workspace()
        images = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
        images.flags.writeable = False
        value = engines["first"].run({"images": backend.from_host(images, workspace)}, workspace)[
            "value"
        ]
        np.testing.assert_allclose(value.numpy(), images.mean((2, 3)), rtol=1e-5)
        bound = workspace.bound("first", 1)
        assert bound.binding.written["value"][0].data.ctypes.data == value.pointer
        engines["router"].run({"value": value}, workspace)
        assert workspace.bound("router", 1).inputs["value"][0] == value.pointer


def test_a_stage_that_hangs_is_given_up_at_the_deadline(tmp_path) -> None:
    """OpenVINO stops between operators, and a loop is one: its buffers are left to it."""
    path = write_failing(tmp_path / "endless.dyn", endless_body(ROUNDS))
    with dyninfer.load(path, backend="openvino", on_failure="degrade") as detector:
        start = time.monotonic()
        found = detector(MIXED, deadline_ms=100)
        took = time.monotonic() - start
        assert [answer.degraded for answer in found] == [False, True, False, True]
        assert [len(detector(MIXED[0])) for _ in range(3)] == [1, 1, 1]
        assert detector.failure_counts.deadlines == 2
    assert time.monotonic() - start > took + 0.3  # closing waited for it


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_opens_its_own(tmp_path) -> None:
    script = """
    def work():
        assert answers(detector) == expected
        detector.close()
    print(in_child(work), in_child(work), answers(detector) == expected)
    """
    assert run_forking(tmp_path, script, "backend='openvino'") == "0 0 True\n"


@pytest.mark.skipif(not HAS_BF16, reason="this processor has no bf16")
def test_bf16_runs_the_bundles_own_files_and_is_known_by_its_name(small_bundle) -> None:
    picture = support.random_pictures(1)[0]
    with dyninfer.load(small_bundle, backend="openvino") as detector:
        exact = detector.infer(detector.prepare([picture]), policy=dyninfer.AlwaysHard())[0]
        assert set(detector.engine_record().precision.values()) == {Precision.FP32}
    with dyninfer.load(small_bundle, backend="openvino", precision="bf16") as detector:
        rough = detector.infer(detector.prepare([picture]), policy=dyninfer.AlwaysHard())[0]
        record = detector.engine_record()
    assert record.precision == {
        name: Precision.FP32 if name == "router" else Precision.BF16 for name in record.precision
    }
    off = np.abs(rough.outputs["class_scores"] - exact.outputs["class_scores"]).max()
    assert 1e-6 < off < 0.05


def test_what_cannot_be_had_is_said_in_one_line(tmp_path, monkeypatch) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    with support.refuses(InputError, "bf16", "--backend openvino"):
        dyninfer.load(path, precision="bf16")
    told = ("bf16", "--backend openvino") if HAS_BF16 else ("does not compute in bf16",)
    with support.refuses(InputError, *told):
        dyninfer.load(path, backend="openvino,first=onnxruntime", precision="bf16")
    from dyninfer.engines.ov.backend import OvBackend

    backend = OvBackend()
    monkeypatch.setattr(backend, "_can", ["FP32", "INT8"])  # as an older processor's
    manifest = dyninfer.Bundle.open(path).manifest
    plan = dict.fromkeys(manifest.stages, Precision.BF16)
    with support.refuses(InputError, backend.device_name, "does not compute in bf16"):
        backend.configure(manifest, plan)
    for device in ("cuda:0", "npu", "gpu:x", ""):
        with support.refuses(BackendUnavailable, repr(device), "'gpu:0'"):
            open_backend("openvino", device)
    with support.refuses(BackendUnavailable, "GPU.7"):
        open_backend("openvino", "gpu:7")
    with support.refuses(BackendUnavailable, "'cpu'", "belongs to ONNX Runtime"):
        open_backend("openvino", provider="cpu")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("first=openvno", ("'openvno'", "onnxruntime or openvino")),
        ("first=tensorrt", ("'tensorrt'", "onnxruntime or openvino")),
        ("first=openvino,first=onnxruntime", ("names 'first' twice",)),
        ("openvino,onnxruntime", ("without a stage",)),
        ("=openvino", ("without a stage",)),
        ("first=", ("''",)),
        ("frist=openvino", ("'frist'", "did you mean 'first'?")),
    ],
)
def test_mixes_that_are_misspelt_are_refused(tmp_path, text, parts) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    with support.refuses(InputError, *parts):
        dyninfer.load(path, backend=text)


def test_a_mix_names_a_backend_for_every_stage() -> None:
    assert parse_backends("first = openvino") == {"": "onnxruntime", "first": "openvino"}
    assert parse_backends("openvino,head=onnxruntime") == {"": "openvino", "head": "onnxruntime"}


def test_a_mix_on_a_gpu_is_refused(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    with support.refuses(BackendUnavailable, "'cuda:0'", "expected 'cpu'"):
        dyninfer.load(path, backend="first=openvino", device="cuda:0")


def test_the_import_tells_nobody(tmp_path) -> None:
    script = (
        "import dyninfer, sys, logging\n"
        "from dyninfer.engines import open_backend\n"
        "open_backend('openvino')\n"
        "assert 'openvino' in sys.modules and 'openvino_telemetry' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_opened_is_named(tmp_path) -> None:
    bundle = dyninfer.Bundle.open(support.write_two_exits(tmp_path / "two.dyn"))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    backend = open_backend("openvino")
    with support.refuses(dyninfer.EngineBuildError, "broken.onnx", "'first'"):
        backend.open("first", bundle.manifest.stages["first"], broken, frozenset())


def test_calibrating_and_commands_name_the_mix(tmp_path, caplog) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    with caplog.at_level(logging.WARNING), dyninfer.load(path, backend="second=openvino") as d:
        record = d.engine_record()
        assert record.backend == "onnxruntime,second=openvino"
        with support.refuses(dyninfer.PolicyError, f"--backend {record.backend}"):
            d(MIXED[0], policy=dyninfer.HardFraction(0.3))


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no such signals")
def test_signals_are_handled_after_the_last_detector_is_freed(tmp_path) -> None:
    """OpenVINO gives its thread a stack for handlers, and may take it away in another one."""
    bundle = support.write_two_exits(tmp_path / "two.dyn")
    script = """
import dyninfer, gc, os, signal, sys, threading
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
kept = [dyninfer.load(sys.argv[1], backend="openvino")]
def free():
    kept.pop().close()
    gc.collect()
thread = threading.Thread(target=free)
thread.start()
thread.join()
gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(bundle)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
