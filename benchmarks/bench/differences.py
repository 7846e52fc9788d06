"""What differs between two records beside their times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dyninfer.benchmarks.bench.record import BenchRecord
from dyninfer.errors import InputError

_MEASURED = (
    ("bundle", "bundle"),
    ("family", "family"),
    ("backend", "backend"),
    ("backend_version", "backend version"),
    ("provider", "provider"),
    ("device", "device"),
    ("policy", "policy"),
)


@dataclass(frozen=True)
class Difference:
    """Something that two records do not share, in words."""

    what: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.what}: {self.old} -> {self.new}"


def refuse_other_machine(old: BenchRecord, new: BenchRecord) -> None:
    """Refuse to compare records of two machines: their times say nothing of the code.

    Raises:
        InputError: processor, number of cores or GPUs differ.
    """
    for what, before, after in (
        ("processor", old.machine.cpu, new.machine.cpu),
        ("usable cores", old.machine.usable_cores, new.machine.usable_cores),
        ("GPUs", _gpus(old), _gpus(new)),
    ):
        if before != after:
            raise InputError(
                f"the records are of different machines ({what}: {before} and {after}), so their "
                "times cannot be compared; measure both on one machine"
            )


def _gpus(record: BenchRecord) -> str:
    return ", ".join(gpu.name or "unnamed" for gpu in record.machine.gpus) or "none"


def differences_of(old: BenchRecord, new: BenchRecord) -> tuple[Difference, ...]:
    """Everything that may explain a change of time."""
    return tuple(
        Difference(what, before, after)
        for what, before, after in _pairs(old, new)
        if before != after
    )


def _pairs(old: BenchRecord, new: BenchRecord) -> Iterator[tuple[str, str, str]]:
    for name, what in _MEASURED:
        yield what, getattr(old.measured, name), getattr(new.measured, name)
    yield "manifest", old.measured.manifest_sha256[:12], new.measured.manifest_sha256[:12]
    yield "precision", _precision(old), _precision(new)
    yield "image size", _image_sizes(old), _image_sizes(new)
    yield "pictures", _pictures(old), _pictures(new)
    yield "clock", old.clock, new.clock
    yield "yardstick", old.yardstick.what, new.yardstick.what
    yield "system", old.machine.system, new.machine.system
    yield "Python", old.machine.python, new.machine.python
    before, after = old.machine.versions, new.machine.versions
    for library in sorted({*before, *after}):
        yield library, before.get(library, "absent"), after.get(library, "absent")
    yield "throttled", _throttled(old), _throttled(new)


def _precision(record: BenchRecord) -> str:
    return ", ".join(f"{stage.name}={stage.precision}" for stage in record.measured.stages)


def _image_sizes(record: BenchRecord) -> str:
    return ", ".join(f"{name} {size}" for name, size in record.measured.image_inputs.items())


def _pictures(record: BenchRecord) -> str:
    return f"{record.pictures.count} of {record.pictures.what}"


def _throttled(record: BenchRecord) -> str:
    return ", ".join(record.log.throttled) or "no"
