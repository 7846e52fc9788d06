"""Stands in for ``jtop.jtop`` of jetson-stats 7.2.2."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class FakeJtop:
    def __init__(
        self, *, failure: str = "", milliwatts: int = 6000, mode: str | None = "15W"
    ) -> None:
        self.failure, self.milliwatts, self.mode = failure, milliwatts, mode
        self.closed = 0
        self.broken: Exception | None = None

    def __call__(self) -> FakeJtop:
        return self

    def __enter__(self) -> FakeJtop:
        if self.failure:
            raise RuntimeError(self.failure)
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> bool:
        self.close()
        return traceback is None

    def ok(self, spin: bool = False) -> bool:
        assert spin, "would wait for the next reading"
        if self.broken is not None:
            raise self.broken
        return True

    def close(self) -> None:
        self.closed += 1

    @property
    def board(self) -> dict[str, Any]:
        return {
            "hardware": {
                "Model": "NVIDIA Jetson Orin Nano Developer Kit Super",
                "Module": "NVIDIA Jetson Orin Nano (Developer kit)",
                "Serial Number": "1424124000001",
                "L4T": "36.4.3",
                "Jetpack": "6.2",
            }
        }

    @property
    def nvpmodel(self) -> Any:
        return None if self.mode is None else SimpleNamespace(name=self.mode, id=0)

    @property
    def jetson_clocks(self) -> Any:
        return SimpleNamespace(get_enable=lambda: True)

    @property
    def power(self) -> dict[str, Any]:
        return {"rail": {}, "tot": {"power": self.milliwatts, "avg": 1, "name": "VDD_IN"}}
