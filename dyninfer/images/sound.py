"""The sound of a source, packet by packet as it came, for whoever writes its pictures again."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple


class _Heard(NamedTuple):
    packet: Any
    start_s: float
    connection: int


class Sound:
    """Packets of the first sound track; one thread puts them in while another takes them.

    Attributes:
        stream: one like the first connection's; None where that has no sound.
    """

    def __init__(self) -> None:
        self.stream: Any = None
        self._holder: Any = None
        self._packets: deque[_Heard] = deque()
        self._offsets: dict[int, float] = {}
        self._connection = 0
        self._wanted = True

    @property
    def codec(self) -> str:
        """Its name, for messages."""
        return "none" if self.stream is None else str(self.stream.codec_context.name)

    def begin(self, av: Any, stream: Any, offset_s: float | None) -> None:
        """Another connection, or the first; where its codec is another one, it stays silent.

        ``av`` is the module.

        ``offset_s`` is what is added to its times; None where :meth:`place` will tell.
        """
        self._connection += 1
        if self.stream is None and stream is not None:
            self._keep(av, stream)
        elif stream is not None and _kind(stream) != _kind(self.stream):
            self._wanted = False
        if offset_s is not None:
            self.place(offset_s)

    def _keep(self, av: Any, stream: Any) -> None:
        """Make a stream like it: its own goes with its connection, maybe before it is used."""
        self._holder = av.open(os.devnull, "w", format="null")
        self.stream = self._holder.add_stream_from_template(stream)

    def place(self, offset_s: float) -> None:
        """Say what is added to the times of this connection."""
        self._offsets[self._connection] = offset_s

    def put(self, packet: Any, start_s: float) -> None:
        """Add a packet of a connection whose times begin at ``start_s``; none that flushes."""
        if self._wanted and packet.dts is not None:
            self._packets.append(_Heard(packet, start_s, self._connection))

    def take(self, until_s: float) -> Iterator[Any]:
        """All packets up to that time of the source, which their times are made of."""
        while self._packets:
            packet, start_s, connection = self._packets[0]
            if connection not in self._offsets:
                return
            shift_s = self._offsets[connection] - start_s
            if float(packet.dts * packet.time_base) + shift_s > until_s:
                return
            self._packets.popleft()
            shift = round(shift_s / packet.time_base)
            packet.dts += shift
            if packet.pts is not None:
                packet.pts += shift
            yield packet

    def stop(self) -> None:
        """Nobody wants any more."""
        self._wanted = False
        self._packets.clear()


def _kind(stream: Any) -> tuple[Any, ...]:
    context = stream.codec_context
    return context.name, context.sample_rate, context.channels
