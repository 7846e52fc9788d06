"""The stand-in refuses what would go wrong on a GPU: otherwise it would prove nothing."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from dyninfer.errors import EngineRunError
from tests import support
from tests.engines.trt.rig import DEVICE, make_rig
from tests.engines.trt.standin.library import VERSIONS, FakeLibrary, engine_bytes
from tests.engines.trt.standin.machine import Machine, Misuse

MODEL = support.means_of("images", 8, 8, "value")
IMAGE_BYTES, VALUE_BYTES, SCRATCH = 3 * 8 * 8 * 4, 3 * 4, 4096


@pytest.fixture
def rig():
    made = make_rig()
    with made.cuda.active():
        yield made


def opened(rig, **options):
    logger = rig.fake.module.ILogger()
    logger.log = lambda _severity, _message: None
    engine = rig.fake.module.Runtime(logger).deserialize_cuda_engine(engine_bytes(MODEL, **options))
    strategy = rig.fake.module.ExecutionContextAllocationStrategy.USER_MANAGED
    return engine, engine.create_execution_context(strategy)


def ready(rig, batch: int = 1):
    """A context that may run, its stream, and the addresses of its input and output."""
    cuda = rig.cuda
    engine, context = opened(rig)
    images, value = cuda.allocate(batch * IMAGE_BYTES), cuda.allocate(batch * VALUE_BYTES)
    context.set_device_memory(cuda.allocate(SCRATCH), SCRATCH)
    assert context.set_input_shape("images", (batch, 3, 8, 8))
    assert context.set_tensor_address("images", images)
    assert context.set_tensor_address("value", value)
    stream = cuda.new_stream()
    return engine, context, stream, images, value


def test_a_whole_run_gives_the_value(rig) -> None:
    cuda = rig.cuda
    _engine, context, stream, images, value = ready(rig)
    source, target = cuda.allocate_host(IMAGE_BYTES), cuda.allocate_host(VALUE_BYTES)
    source.view(np.float32)[:] = 0.25
    cuda.upload(images, source, stream)
    assert context.execute_async_v3(int(stream))
    cuda.download([(target.ctypes.data, value, VALUE_BYTES)], stream)
    assert np.isnan(target.view(np.float32)).all()  # not there before somebody waits
    cuda.synchronize(stream)
    np.testing.assert_allclose(target.view(np.float32), 0.25)


def test_running_before_everything_is_set(rig) -> None:
    cuda, stream = rig.cuda, rig.cuda.new_stream()
    _engine, context = opened(rig)
    with pytest.raises(Misuse, match="shapes of"):
        context.execute_async_v3(int(stream))
    context.set_input_shape("images", (1, 3, 8, 8))
    with pytest.raises(Misuse, match="scratch memory"):
        context.execute_async_v3(int(stream))
    context.set_device_memory(cuda.allocate(SCRATCH), SCRATCH)
    with pytest.raises(Misuse, match="images had an address"):
        context.execute_async_v3(int(stream))
    assert not context.set_input_shape("images", (17, 3, 8, 8))
    assert not context.set_tensor_address("nothing", 0)


def test_scratch_memory_that_is_too_small_and_addresses_that_are_not_aligned(rig) -> None:
    _engine, context = opened(rig)
    with pytest.raises(Misuse, match="scratch memory of"):
        context.set_device_memory(rig.cuda.allocate(SCRATCH - 1), SCRATCH - 1)
    with pytest.raises(Misuse, match="aligned"):
        context.set_tensor_address("images", rig.cuda.allocate(64) + 4)


def test_memory_that_is_too_small_freed_or_of_another_gpu(rig) -> None:
    cuda = rig.cuda
    _engine, context, stream, images, value = ready(rig, batch=2)
    context.set_tensor_address("value", small := cuda.allocate(VALUE_BYTES))
    with pytest.raises(Misuse, match="not within"):
        context.execute_async_v3(int(stream))
    cuda.free(small)
    context.set_tensor_address("value", gone := cuda.allocate(2 * VALUE_BYTES))
    cuda.free(gone)
    with pytest.raises(Misuse, match="was freed"):
        context.execute_async_v3(int(stream))
    with pytest.raises(Misuse, match="freed twice"):
        cuda.free(gone)
    with pytest.raises(Misuse, match="no device block"):
        cuda.free(12345)
    context.set_tensor_address("value", value)
    rig.machine.local.device = 0
    with pytest.raises(Misuse, match="belongs to GPU 1"):
        context.execute_async_v3(int(stream))
    rig.machine.local.device = DEVICE
    context.execute_async_v3(int(stream))
    with pytest.raises(Misuse, match="freed while"):
        cuda.free(images)


def test_host_memory_that_changes_before_it_was_read_or_is_not_page_locked(rig) -> None:
    cuda, stream = rig.cuda, rig.cuda.new_stream()
    device, source = cuda.allocate(64), cuda.allocate_host(64)
    cuda.upload(device, source, stream)
    source[3] = 1
    with pytest.raises(Misuse, match="changed before"):
        cuda.synchronize(stream)
    with pytest.raises(Misuse, match="page-locked"):
        cuda.upload(device, np.zeros(64, np.uint8), stream)


def test_two_streams_that_touch_the_same_memory_without_waiting(rig) -> None:
    cuda = rig.cuda
    _engine, context, stream, images, _value = ready(rig)
    other = cuda.new_stream()
    source = cuda.allocate_host(IMAGE_BYTES)
    cuda.upload(images, source, other)
    with pytest.raises(Misuse, match="races with"):
        context.execute_async_v3(int(stream))
    cuda.order_after(stream, int(other))
    assert context.execute_async_v3(int(stream))
    with pytest.raises(Misuse, match="two streams"):
        context.execute_async_v3(int(other))


def captured(rig):
    cuda = rig.cuda
    engine, context, stream, images, value = ready(rig)
    context.execute_async_v3(int(stream))
    cuda.begin_capture(stream)
    context.execute_async_v3(int(stream))
    return engine, context, stream, cuda.end_capture(stream), images, value


def test_graphs_of_contexts_that_were_changed_are_gone_or_were_not_warm(rig) -> None:
    cuda = rig.cuda
    engine, context, stream, graph, _images, value = captured(rig)
    cuda.launch(graph, stream)
    context.set_tensor_address("value", value)
    with pytest.raises(Misuse, match="gone or was changed"):
        cuda.launch(graph, stream)
    cuda.begin_capture(stream)
    with pytest.raises(Misuse, match="before a first run"):
        context.execute_async_v3(int(stream))
    cuda.destroy_graph(cuda.end_capture(stream))
    engine, context, stream, graph, _images, value = captured(rig)
    del context, engine
    with pytest.raises(Misuse, match="gone or was changed"):
        cuda.launch(graph, stream)
    cuda.destroy_graph(graph)
    with pytest.raises(Misuse, match="destroyed"):
        cuda.launch(graph, stream)


def test_a_graph_whose_memory_was_freed(rig) -> None:
    cuda = rig.cuda
    _engine, _context, stream, graph, images, _value = captured(rig)
    cuda.synchronize(stream)
    cuda.free(images)
    cuda.launch(graph, stream)
    with pytest.raises(Misuse, match="after free"):
        cuda.synchronize(stream)


def test_what_must_not_happen_while_a_graph_is_captured(rig) -> None:
    cuda = rig.cuda
    stream, event = cuda.new_stream(), cuda.new_event(timing=False)
    cuda.begin_capture(stream)
    for forbidden in (
        lambda: cuda.allocate(64),
        lambda: cuda.allocate_host(64),
        lambda: cuda.synchronize(stream),
        lambda: cuda.record(event, stream),
        lambda: cuda.begin_capture(stream),
    ):
        with pytest.raises(Misuse, match="captur"):
            forbidden()
    with pytest.raises(Misuse, match="empty graph"):
        cuda.launch(cuda.end_capture(stream), stream)


def test_work_of_another_thread_in_a_capture(rig) -> None:
    cuda = rig.cuda
    _engine, context, stream, *_ = ready(rig)
    context.execute_async_v3(int(stream))
    cuda.begin_capture(stream)
    caught = []

    def intrude() -> None:
        with cuda.active():
            try:
                context.execute_async_v3(int(stream))
            except Misuse as error:
                caught.append(str(error))

    thread = threading.Thread(target=intrude)
    thread.start()
    thread.join()
    assert "another thread" in caught[0]


def test_events_that_did_not_happen_and_streams_that_are_gone(rig) -> None:
    cuda = rig.cuda
    stream = cuda.new_stream()
    start, end = cuda.new_event(timing=True), cuda.new_event(timing=True)
    with pytest.raises(Misuse, match="never recorded"):
        cuda.wait(start)
    cuda.record(start, stream)
    cuda.record(end, stream)
    with pytest.raises(Misuse, match="not happened"):
        cuda.elapsed_ms(start, end)
    with pytest.raises(Misuse, match="had work"):
        cuda.destroy_stream(stream)
    cuda.wait(end)
    assert cuda.elapsed_ms(start, end) == 0
    cuda.destroy_stream(stream)
    with pytest.raises(Misuse, match="does not exist"):
        cuda.synchronize(stream)


def test_nothing_may_be_made_in_the_steady_state_and_what_stays_is_known(rig) -> None:
    kept = ready(rig)
    assert kept
    assert rig.machine.leaks() == {
        "device block": 3,
        "execution context": 1,
        "library engine": 1,
        "stream": 1,
    }
    with rig.machine.steady():
        for forbidden in (
            lambda: rig.cuda.allocate(64),
            lambda: rig.cuda.allocate_host(64),
            lambda: rig.cuda.new_stream(),
            lambda: rig.cuda.new_event(timing=False),
            lambda: opened(rig),
        ):
            with pytest.raises(Misuse, match="steady"):
                forbidden()


def test_a_context_with_memory_of_its_own(rig) -> None:
    engine, _context = opened(rig)
    with pytest.raises(Misuse, match="memory of its own"):
        engine.create_execution_context(None)


def test_an_engine_file_that_is_none() -> None:
    for version in VERSIONS:
        rig = make_rig(version)
        with rig.cuda.active():
            logger = rig.fake.module.ILogger()
            said = []
            logger.log = lambda _severity, message, said=said: said.append(message)
            assert rig.fake.module.Runtime(logger).deserialize_cuda_engine(b"ELF") is None
            assert said


def test_out_of_memory_is_an_answer_and_not_a_misuse() -> None:
    rig = make_rig(memory=1000)
    with rig.cuda.active(), pytest.raises(EngineRunError, match="cudaErrorMemoryAllocation"):
        rig.cuda.allocate(1001)


def test_versions_differ_in_what_they_have() -> None:
    def has(version: str, owner: str, name: str) -> bool:
        return hasattr(getattr(FakeLibrary(Machine(), version).module, owner), name)

    rows = {v: has(v, "IExecutionContext", "set_device_memory") for v in VERSIONS}
    assert [v for v, there in rows.items() if not there] == ["8.6"]
    rows = {v: has(v, "ICudaEngine", "device_memory_size") for v in VERSIONS}
    assert [v for v, there in rows.items() if there] == ["8.6", "10.3", "10.13"]
    rows = {v: has(v, "IExecutionContext", "is_stream_capturable") for v in VERSIONS}
    assert [v for v, there in rows.items() if there] == ["rtx"]
