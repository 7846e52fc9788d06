"""The figures that the model of docs/one-image-on-a-gpu.md assumes, measured.

On the simulated machine their values mean nothing; there it only shows that they can be taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from onnx import helper

from dyninfer.benchmarks.lab.image_cost import Coefficients
from dyninfer.bundle.manifest import StaticRoute
from dyninfer.engines.trt.cuda import Cuda
from tests import support
from tests.dyninfer.cli.run import run
from tests.gpu.grounds import Ground, Kind
from tests.gpu.report import FIGURE

Note = Callable[[str, object], None]
TURNS = 20


def convolutions(path: Path, count: int, channels: int, size: int) -> Path:
    """A classifier of ``count`` 3x3 convolutions, one after the other, as wide as each other."""
    generator = np.random.default_rng(0)
    constants, nodes, before = {}, [], "images"
    for index in range(count):
        inputs = 3 if index == 0 else channels
        scale = np.sqrt(2 / (9 * inputs))
        weights = generator.normal(0, scale, (channels, inputs, 3, 3)).astype(np.float32)
        constants[f"w{index}"] = weights
        nodes += [
            helper.make_node("Conv", [before, f"w{index}"], [f"c{index}"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"c{index}"], [f"r{index}"]),
        ]
        before = f"r{index}"
    nodes.append(helper.make_node("ReduceMean", [before], ["logits"], axes=[2, 3], keepdims=0))
    inputs_, outputs = {"images": ["batch", 3, size, size]}, {"logits": ["batch", channels]}
    body = support.tiny_model(inputs_, outputs, nodes, constants)
    names = [f"class {index}" for index in range(channels)]
    return support.write_tiny_bundle(
        path, {"body": body}, StaticRoute(body="body"), {"images": size},
        task="classify", class_names=names,
    )  # fmt: skip


def stage_ms(ground: Ground, path: Path, **options: str) -> float:
    """Median time of the only stage, by the GPU's events."""
    picture, spent = support.random_pictures(1), []
    with ground.load(path, **options) as detector:
        for _ in range(3 if ground.kind is Kind.STAND_IN else 50):
            (found,) = detector(picture)
            spent.append(found.timings_ms["body"])
    return float(np.median(spent))


def test_engines(ground: Ground, tmp_path: Path, capsys, record_property: Note) -> None:
    """How fast engines compute in fp16, and what each kernel takes besides."""
    simulated = ground.kind is Kind.STAND_IN
    count, channels, size = (3, 8, 8) if simulated else (9, 256, 80)
    path = convolutions(tmp_path / "wide.dyn", count, channels, size)
    status, _, complaint = run(
        capsys, "build", str(path), "--backend", ground.backend, "--precision", "fp16"
    )
    assert status == 0, complaint
    took = stage_ms(ground, path, precision="fp16")
    gflops = (count - 1) * 2 * 9 * channels**2 * size**2 / 1e9
    narrow = 3 if simulated else 65
    gap = stage_ms(ground, convolutions(tmp_path / "narrow.dyn", narrow, 8, 8)) / narrow
    assert took > 0
    record_property(f"{FIGURE}kernel_us", round(1e3 * gap, 3))
    record_property(f"{FIGURE}tflops", round(gflops / max(took - count * gap, took / 10), 3))


def test_copies_and_waits(ground: Ground, record_property: Note) -> None:
    """What bus, memory, calls of CUDA and waits take."""
    gpu = ground.open_gpu(0)
    with gpu.active():
        found = taken(gpu, 1 << 16 if ground.kind is Kind.STAND_IN else 64 << 20)
    for name, value in found.items():
        record_property(f"{FIGURE}{name}", round(value, 3))
    assert min(found.values()) > 0


def taken(gpu: Cuda, size: int) -> dict[str, float]:
    """The figures; nothing is left of what was made for them, which PyCUDA wants gone by then."""
    stream, events = gpu.new_stream(), [gpu.new_event(timing=True) for _ in range(2)]
    host, blocks = gpu.allocate_host(size), [gpu.allocate(size) for _ in range(2)]

    def within() -> None:
        gpu.copy_all([(blocks[1], blocks[0], size)], stream)

    try:
        gpu.upload(blocks[0], host, stream)  # a first copy takes longer
        up = timed(gpu, stream, events, lambda: gpu.upload(blocks[0], host, stream))
        back = [(host.ctypes.data, blocks[0], size)]
        down = timed(gpu, stream, events, lambda: gpu.download(back, stream))
        return {
            "bus_gb_s": 2 * size / 1e6 / (up + down),
            "memory_gb_s": 2 * size / 1e6 / timed(gpu, stream, events, within),  # reads and writes
            "call_us": called(gpu, stream, events[0]),
            "wait_us": waited(gpu, stream, events, within),
        }
    finally:
        gpu.synchronize(stream)
        gpu.free_host(host)
        for block in blocks:
            gpu.free(block)
        for event in events:
            gpu.destroy_event(event)
        gpu.destroy_stream(stream)


def timed(gpu: Cuda, stream: object, events: list, work: Callable[[], None]) -> float:
    """Median milliseconds of some work on the GPU."""
    spent = []
    for _ in range(TURNS):
        gpu.record(events[0], stream)
        work()
        gpu.record(events[1], stream)
        gpu.wait(events[1])
        spent.append(gpu.elapsed_ms(*events))
    return float(np.median(spent))


def called(gpu: Cuda, stream: object, event: object) -> float:
    """Microseconds of the host for a call that only enqueues."""
    start = time.perf_counter_ns()
    for _ in range(50 * TURNS):
        gpu.record(event, stream)
    took = (time.perf_counter_ns() - start) / 1e3 / (50 * TURNS)
    gpu.synchronize(stream)
    return took


def waited(gpu: Cuda, stream: object, events: list, work: Callable[[], None]) -> float:
    """Median microseconds from the end of what the host waits for to the GPU's next work."""
    stood = []
    for _ in range(TURNS):
        work()
        gpu.record(events[0], stream)
        gpu.wait(events[0])
        gpu.record(events[1], stream)
        work()
        gpu.wait(events[1])
        stood.append(1e3 * gpu.elapsed_ms(*events))
    return float(np.median(stood)) + 1e-3


def test_every_figure_of_the_model_is_measured_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    for name in Coefficients.names():
        assert (name in source) is (name != "branch" + "_us")
