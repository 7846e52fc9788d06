"""Inputs that already live on the GPU."""

from __future__ import annotations

import numpy as np
import pytest

import dyninfer
from dyninfer import InputError, Threshold
from dyninfer.engines import open_backend
from dyninfer.engines.device_array import device_array
from tests import support
from tests.engines.trt.rig import DEVICE, assert_same, make_rig
from tests.engines.trt.standin.arrays import DlpackValues, InterfaceValues
from tests.engines.trt.standin.machine import Misuse

EASY, MIDDLE, HARD = (0.9, 0.9), (0.1, 0.9), (0.1, 0.1)
KINDS = [EASY, MIDDLE, HARD, HARD, EASY, MIDDLE, HARD, EASY, HARD]


def coded(size: int) -> np.ndarray:
    return support.coded_images([(*kind, row) for row, kind in enumerate(KINDS)], size)


@pytest.mark.parametrize("kind", [DlpackValues, InterfaceValues])
@pytest.mark.parametrize("offset", [0, 4])
@pytest.mark.parametrize("package", ["cuda-python", "pycuda"])
def test_values_on_the_gpu_never_reach_the_host_and_give_the_same(
    tmp_path, kind, offset, package
) -> None:
    path = support.write_three_exits(tmp_path / "three.dyn")
    rig = make_rig(package=package)
    host = {"images": coded(8), "images_2": coded(4)}
    with dyninfer.load(path, max_batch=4) as reference, rig.detector(path, max_batch=4) as detector:
        detector.policy = reference.policy = Threshold(0.5)
        expected = reference.infer(host)
        rig.machine.calls.clear()
        for _ in range(3):
            shared = {n: kind(rig.machine, DEVICE, array, offset) for n, array in host.items()}
            with rig.cuda.active():
                found = detector.infer(shared)
            assert_same(found, expected)
            for values in shared.values():
                values.free()
        assert rig.machine.calls["cudaMemcpyHostToDevice"] == 0


def test_without_waiting_for_the_owner_it_would_be_a_race(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = make_rig()
    with rig.detector(path, max_batch=16) as detector:
        values = InterfaceValues(rig.machine, DEVICE, coded(8))
        values.says_stream = False
        with pytest.raises(Misuse, match="races with"):
            detector.infer({"images": values})
        values.free()


def test_an_owner_that_shares_through_dlpack_is_told_our_stream(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = make_rig()
    with rig.detector(path, max_batch=4) as detector:
        values = DlpackValues(rig.machine, DEVICE, coded(8))
        with rig.cuda.active():
            detector.infer({"images": values})
        (workspace,) = rig.workspaces
        assert set(values.waited) == {workspace.handle}
        values.free()


def test_values_that_do_not_fit_are_refused_before_anything_runs(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = make_rig()
    with rig.detector(path) as detector:

        def refused(values, *parts: str) -> None:
            with support.refuses(InputError, *parts):
                detector.infer({"images": values})
            values.free()

        machine, images = rig.machine, coded(8)
        refused(DlpackValues(machine, 0, images), "'cuda:0'", "'cuda:1'")
        refused(DlpackValues(machine, DEVICE, images.astype(np.float64)), "type code 2", "64 bits")
        refused(InterfaceValues(machine, DEVICE, images[:, :2]), "(9, 2, 8, 8)")
        refused(InterfaceValues(machine, DEVICE, images.astype(np.float64)), "float64")
        refused(DlpackValues(machine, DEVICE, images[0]), "(3, 8, 8)", "batch axis")
        for kind, strides in (
            (DlpackValues, (192, 1, 8, 64)),
            (InterfaceValues, (768, 4, 96, 12)),
        ):
            values = kind(machine, DEVICE, images)
            values.strides = strides
            refused(values, "not contiguous")
        assert all(engine.run_count == 0 for engine in detector.engines.values())


def test_strides_of_a_contiguous_array_and_of_axes_of_one_do_not_matter() -> None:
    rig = make_rig()
    values = InterfaceValues(rig.machine, DEVICE, np.zeros((1, 3, 4, 5), np.float32))
    values.strides = (12345 * 4, 80, 20, 4)
    assert device_array(values, "images").shape == (1, 3, 4, 5)
    shared = DlpackValues(rig.machine, DEVICE, np.zeros((2, 3), np.float16), offset=6)
    shared.strides = (3, 1)
    array = device_array(shared, "x")
    assert (array.dtype, array.device, array.pointer) == (np.float16, DEVICE, shared.address + 6)
    rows = array.rows(1, 9)
    assert (len(rows), rows.pointer) == (1, array.pointer + 6)


def test_an_owner_that_refuses_to_share_is_one_line() -> None:
    class Refusing:
        def __dlpack_device__(self):
            return 2, 0

        def __dlpack__(self, *, stream=None):
            raise BufferError("a tensor that requires grad\ncannot be shared")

    with support.refuses(InputError, "images", "requires grad"):
        device_array(Refusing(), "images")


def test_a_cpu_detector_refuses_values_on_a_gpu_and_host_tensors_stay_refused(tmp_path) -> None:
    import torch

    rig = make_rig()
    with dyninfer.load(support.write_two_exits(tmp_path / "two.dyn"), max_batch=16) as detector:
        values = DlpackValues(rig.machine, DEVICE, coded(8))
        with support.refuses(InputError, "'cuda:1'", "'cpu'"):
            detector.infer({"images": values})
        other = InterfaceValues(rig.machine, DEVICE, coded(8))
        with support.refuses(InputError, "a GPU", "'cpu'"):
            detector.infer({"images": other})
        with support.refuses(InputError, "Tensor", "expected an array"):
            detector.infer({"images": torch.zeros(1, 3, 8, 8)})


def test_onnx_runtime_sends_an_image_to_its_gpu_once(monkeypatch) -> None:
    """The copy is made by ONNX Runtime; that it happens once can be seen without a GPU."""
    from dyninfer.engines.ort import tensor as module
    from dyninfer.engines.ort.runtime import OrtDevice

    sent = []

    class FakeValue:
        def __init__(self, array):
            self.array = array

        @classmethod
        def ortvalue_from_numpy(cls, array, *place):
            sent.append(place)
            return cls(array)

        def device_name(self):
            return "cuda"

        def data_ptr(self):
            return 4096

        def shape(self):
            return list(self.array.shape)

        def element_type(self):
            return 1  # float32

    monkeypatch.setattr(module.ort, "OrtValue", FakeValue)
    device = OrtDevice("cuda", 1, "cuda")
    tensor = open_backend().from_host(np.zeros((2, 3), np.float32), open_backend().workspace())
    moved = tensor.on(device)
    assert tensor.on(device) is moved
    assert moved.on(device) is moved
    assert sent == [("cuda", 1)]
    assert (moved.pointer, moved.shape, moved.place[1]) == (4096, (2, 3), 1)
    assert moved.run_of_rows(1, 1).pointer == 4096 + 12
