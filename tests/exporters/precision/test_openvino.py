"""What OpenVINO makes of stages in 8 bits that were placed for it."""

from __future__ import annotations

import platform
import shutil
from collections import Counter

import numpy as np
import onnx
import pytest

import dyninfer
from dyninfer.builds.builder import ConversionBuilder
from dyninfer.builds.files import Converted, Making
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Precision
from dyninfer.exporters.precision.convert import convert_bundle_stages
from dyninfer.exporters.precision.settings import Int8Settings, Int8Target
from tests import support
from tests.exporters.precision.helpers import feed_of, images, run
from tests.exporters.precision.test_int8 import quantised, split_map
from tests.exporters.precision.test_joined_maps import OPENVINO, block, pooled, repeated

ov = pytest.importorskip("openvino")


def kernels(model: onnx.ModelProto) -> tuple[Counter[str], dict[str, np.ndarray]]:
    """How often OpenVINO runs each kind of operator, and what it makes of a picture."""
    core = ov.Core()
    options = {"PERF_COUNT": True, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", options
    ).create_infer_request()
    request.infer(images(1, seed=5)[0])
    ran = (info for info in request.get_profiling_info() if info.status.name == "EXECUTED")
    made = {output.name: request.get_tensor(output.name).data for output in model.graph.output}
    return Counter(info.node_type for info in ran), made


@pytest.mark.skipif(platform.machine() != "x86_64", reason="seen on x86 only")
def test_an_activation_becomes_part_of_its_layer() -> None:
    files = {
        target: quantised(split_map(), feed_of(images()), Int8Settings(target=target))
        for target in (Int8Target.CPU, Int8Target.OPENVINO)
    }
    ran, made = kernels(files[Int8Target.OPENVINO])
    others, _ = kernels(files[Int8Target.CPU])
    assert ran["Convolution"] == 4
    assert ran.total() < others.total()
    exact = run(split_map(), images(1, seed=5)[0])
    for name, array in made.items():
        np.testing.assert_allclose(array, exact[name], atol=0.05 * np.abs(exact[name]).max())


@pytest.mark.skipif(platform.machine() != "x86_64", reason="seen on x86 only")
@pytest.mark.parametrize(
    "source", [block(), pooled(), repeated("nearest")], ids=["block", "pooled", "repeated"]
)
def test_only_the_image_is_rounded_by_a_kernel_of_its_own(source) -> None:
    ran, _ = kernels(quantised(source, feed_of(images()), OPENVINO))
    assert ran["FakeQuantize"] == 1, ran


def test_a_bundle_with_it_answers_on_both_backends(small_bundle, tmp_path) -> None:
    bundle = Bundle.open(shutil.copytree(small_bundle, tmp_path / "small.dyn"))
    plan = dict.fromkeys(bundle.manifest.stages, Precision.INT8) | {"router": Precision.FP32}
    pictures = support.random_pictures(4)
    made = convert_bundle_stages(
        bundle, plan, pictures, tmp_path, Int8Settings(target=Int8Target.OPENVINO)
    )
    builder = ConversionBuilder(backend_of=lambda _stage: "openvino")
    wanted = builder.wanted(bundle.manifest, plan, 1)
    assert wanted is not None
    files = {name: stage.path for name, stage in made.items() if name != "router"}
    build = builder.make(bundle, wanted, Making(converted=Converted(files)))
    found = {}
    for backend in ("openvino", "onnxruntime", "first=openvino"):
        with dyninfer.load(bundle.path, backend=backend, precision="int8") as detector:
            assert detector.build is not None
            assert detector.build.path == build.path
            inputs = detector.prepare(pictures)
            found[backend] = detector.infer(inputs, policy=dyninfer.AlwaysHard())
    with dyninfer.load(bundle.path) as detector:
        exact = detector.infer(detector.prepare(pictures), policy=dyninfer.AlwaysHard())
    for answers in found.values():
        for answer, other in zip(answers, exact, strict=True):
            for name, array in answer.outputs.items():
                off = np.abs(array - other.outputs[name]).mean()
                assert 0 < off < 0.05 * np.abs(other.outputs[name]).mean()
