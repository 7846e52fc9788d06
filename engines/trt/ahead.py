"""Images that travel to the GPU while it still works on those before them."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer.engines.device_array import DeviceArray
from dyninfer.engines.trt.cuda import Cuda
from dyninfer.engines.trt.freeing import Freeing
from dyninfer.engines.trt.memory import Block, Pool
from dyninfer.errors import EngineRunError
from dyninfer.plain_text import one_line

logger = logging.getLogger("dyninfer")
Shaped = Mapping[str, tuple[tuple[int, ...], "np.dtype[Any]"]]
"""Image input -> shape and element type of what is sent."""


class SendingAhead:
    """What one thread sends to the device before the call that runs it.

    The images lie in page-locked memory and go to a buffer of their own, on a stream of their own.
    A call waits for them on the device, and takes them within the device to where its contexts and
    graphs read them. What was sent may be replaced once that call has given its result.

    Within the context the GPU is the thread's current one.
    """

    def __init__(self, cuda: Cuda, device: Pool, pinned: Pool, inputs: Shaped) -> None:
        self._cuda, self._device, self._pinned, self._inputs = cuda, device, pinned, inputs
        self._sides: dict[str, tuple[npt.NDArray[Any], DeviceArray]] = {}
        self._blocks: list[tuple[Pool, Block]] = []
        self._stream: Any = None
        self._sent: Any = None  # an event behind the copies

    def __enter__(self) -> SendingAhead:
        self._cuda.active().__enter__()
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _open(self) -> None:
        cuda = self._cuda
        self._stream = cuda.new_stream()
        self._sent = cuda.new_event(timing=False)
        cuda.record(self._sent, self._stream)  # PyCUDA's are waited for before they go
        for name, (shape, dtype) in self._inputs.items():
            size = math.prod(shape) * dtype.itemsize
            host, place = self._take(self._pinned, size), self._take(self._device, size)
            assert host.host is not None  # of a pool of page-locked memory
            array = host.host[:size].view(dtype).reshape(shape)
            self._sides[name] = (
                array,
                DeviceArray(
                    place.pointer, shape, dtype, cuda.device, self, lambda _: None, self._sent
                ),
            )

    def _take(self, pool: Pool, size: int) -> Block:
        block = pool.take(size)
        self._blocks.append((pool, block))
        return block

    def __exit__(self, *_: object) -> None:
        try:
            with Freeing() as freeing:
                self._close(freeing)
                freeing.run(self._cuda.active().__exit__, None)
        except EngineRunError as error:  # the GPU is lost, and its memory is the process's
            logger.warning("what sends images could not be freed: %s", one_line(str(error)))

    def _close(self, freeing: Freeing) -> None:
        if self._stream is not None:
            freeing.run(self._cuda.synchronize, self._stream)
        while self._blocks:
            pool, block = self._blocks.pop()
            freeing.run(pool.give, block)
        if self._sent is not None:
            freeing.run(self._cuda.destroy_event, self._sent)
        if self._stream is not None:
            freeing.run(self._cuda.destroy_stream, self._stream)
        self._sides.clear()
        self._sent = self._stream = None  # PyCUDA destroys them with the last reference

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Where to put the next images, once those before are on the device."""
        self._cuda.wait(self._sent)
        return {name: array for name, (array, _) in self._sides.items()}

    def send(self) -> dict[str, DeviceArray]:
        """Start to copy what lies in :meth:`arrays`; the host does not wait."""
        for array, target in self._sides.values():
            self._cuda.upload(target.pointer, array.reshape(-1).view(np.uint8), self._stream)
        self._cuda.record(self._sent, self._stream)
        return {name: target for name, (_, target) in self._sides.items()}
