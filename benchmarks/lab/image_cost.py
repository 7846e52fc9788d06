"""What one image of Dy-YOLOv7 costs on a GPU by a model: bytes, launches, waits and engines.

An image takes up to two turns of the GPU: until the router's answer is there, and after the host
has decided. A turn takes as long as the longer of what the host enqueues and what the GPU does;
behind each the host waits. The engines' speed comes from the published table, everything else
from data sheets and from :data:`ASSUMPTIONS`, which a run on a GPU replaces by what it measures.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

from dyninfer.benchmarks.lab.published_times import (
    PUBLISHED,
    ROUTER_CONVOLUTIONS,
    SPPCSPC_CONVOLUTIONS,
    V100_TENSOR_TFLOPS,
    convolutions_in,
    fit_convolutions,
)
from dyninfer.exporters.dynamicdet.plan import Plan, plan_from_table
from dyninfer.exporters.dynamicdet.topology import Op, Part, Ref, published

VARIANT, SIDE = "dy-yolov7", 640
HALF, FLOAT, BYTE = 2, 4, 1
ANCHORS, ANSWER_VALUES = 25_200, 4 + 80
CANDIDATES = 1_000

MEMORY_SHARE = BUS_SHARE = 0.8
"""Of what the data sheets say of memory and bus: what copies usually attain."""


@dataclass(frozen=True)
class Coefficients:
    """What a GPU and its host take for each kind of work; a report names measured ones alike.

    ``tflops`` is of convolutions in fp16 within an engine, ``memory_gb_s`` what kernels read and
    write of the GPU's memory, ``bus_gb_s`` one way between page-locked memory and the GPU,
    ``kernel_us`` from one small kernel to the next, ``call_us`` the host's for one call of CUDA,
    ``wait_us`` how long the GPU stands still for the host: until that hears that the work is done,
    and until its next work has begun. ``branch_us`` is that of a conditional node.
    """

    tflops: float
    memory_gb_s: float
    bus_gb_s: float
    kernel_us: float
    call_us: float
    wait_us: float
    branch_us: float

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """All of them, in order."""
        return tuple(field.name for field in fields(cls))


@dataclass(frozen=True)
class Gpu:
    """A GPU by its data sheet: fp16 on tensor cores without sparsity, memory, bus one way."""

    name: str
    compute_capability: str
    peak_tflops: float
    sheet_memory_gb_s: float
    sheet_bus_gb_s: float | None  # None: host and GPU share the memory
    call_us: float
    kernel_us: float
    wait_us: float

    @property
    def coefficients(self) -> Coefficients:
        """What is assumed of it: shares of the sheet's figures, the published share of the peak."""
        memory = MEMORY_SHARE * self.sheet_memory_gb_s
        shared = memory / 2  # a copy within one memory reads and writes it
        bus = shared if self.sheet_bus_gb_s is None else BUS_SHARE * self.sheet_bus_gb_s
        return Coefficients(
            tflops=share_of_peak() * self.peak_tflops,
            memory_gb_s=memory,
            bus_gb_s=bus,
            kernel_us=self.kernel_us,
            call_us=self.call_us,
            wait_us=self.wait_us,
            branch_us=BRANCH_US,
        )


BRANCH_US = 10.0
GPUS = (
    Gpu("V100 SXM2", "7.0", V100_TENSOR_TFLOPS, 900, 15.75, 3, 2.0, 25),
    Gpu("T4", "7.5", 65, 320, 15.75, 3, 2.0, 25),
    Gpu("AGX Orin 64 GB", "8.7", 42.5, 204.8, None, 8, 3.0, 50),
    Gpu("H100 SXM", "9.0", 989, 3350, 63, 3, 1.5, 20),
)
ASSUMPTIONS = (
    "engines attain the same share of their GPU's fp16 peak as the published V100 did once the "
    "time of starting each convolution from Python is taken out",
    "memory and bus attain 80 % of the data sheet",
    "an engine has one kernel for each convolution, and its activations are written once and read "
    "once, in float16",
    "a stage takes the longer of computing and memory, and the gaps between its kernels besides",
    "host calls of 3 (Orin 8) microseconds, waits of 20 to 50, gaps of 1.5 to 3 and 10 for a "
    "conditional node are guesses: nobody measured them here",
    "preparing the picture and non-maximum suppression on the host are not counted, nor clocks "
    "that heat or a power limit lowers",
)


@dataclass(frozen=True)
class StageWork:
    """What a stage does for one image.

    ``activations`` are values that it writes, ``reads`` those that it fetches besides: the first
    stage's, and the picture's.
    """

    gflops: float
    kernels: int
    weights: int
    activations: int
    reads: int = 0

    def ms(self, cost: Coefficients, feature_bytes: int) -> float:
        """In an fp16 engine, reading features of so many bytes a value."""
        moved = HALF * (self.weights + 2 * self.activations) + feature_bytes * self.reads
        working = max(self.gflops / cost.tflops, moved / cost.memory_gb_s / 1e6)
        return working + self.kernels * cost.kernel_us / 1e3


@dataclass(frozen=True)
class Way:
    """How an image travels: values in bytes, and the host's calls before and after the decision."""

    name: str
    picture_bytes: int
    answer_rows: int
    feature_bytes: int
    calls: tuple[int, int]
    decides_on_device: bool = False

    @property
    def bytes_in(self) -> int:
        """To the GPU, for one image."""
        return 3 * SIDE * SIDE * self.picture_bytes

    @property
    def bytes_out(self) -> int:
        """From the GPU, for one image, its easiness included."""
        return FLOAT * (ANSWER_VALUES * self.answer_rows + 1)

    def ms(self, cost: Coefficients, *, hard: bool) -> float:
        """From the prepared picture in page-locked memory to the outputs on the host."""
        work = stage_works()
        turns = [
            self.bytes_in / cost.bus_gb_s / 1e6
            + sum(work[name].ms(cost, self.feature_bytes) for name in ("first", "router")),
            work["second" if hard else "head"].ms(cost, self.feature_bytes)
            + self.bytes_out / cost.bus_gb_s / 1e6,
        ]
        calls = self.calls
        if self.decides_on_device:
            turns, calls = [sum(turns) + cost.branch_us / 1e3], (sum(calls), 0)
        waits = len(turns) * cost.wait_us / 1e3
        enqueued = zip(turns, calls, strict=False)
        return waits + sum(max(turn, count * cost.call_us / 1e3) for turn, count in enqueued)

    def mean_ms(self, cost: Coefficients, hard_fraction: float) -> float:
        """Of images of which this share is hard."""
        easy, hard = (self.ms(cost, hard=side) for side in (False, True))
        return (1 - hard_fraction) * easy + hard_fraction * hard


WAYS = (
    Way("whole outputs", FLOAT, ANCHORS, FLOAT, (34, 22)),
    Way("lean", BYTE, CANDIDATES, HALF, (12, 8)),
    Way("decided on the device", BYTE, CANDIDATES, HALF, (5, 2), decides_on_device=True),
)
"""Float32, all anchors, 56 calls; uint8, the best 1,000, float16, 20 calls; that as one graph."""


@lru_cache(maxsize=1)
def share_of_peak() -> float:
    """Share of a V100's fp16 peak that is left of the published times without starting kernels."""
    return fit_convolutions(PUBLISHED).tflops / V100_TENSOR_TFLOPS


@lru_cache(maxsize=1)
def stage_works() -> dict[str, StageWork]:
    """The four stages of Dy-YOLOv7 at 640; GFLOPs are multiply-accumulates times two."""
    topology = published(VARIANT)
    plan = plan_from_table(topology)

    def work(gflops: float, weights: int, *parts: Part) -> StageWork:
        rows = [row for part in parts for row in topology.parts[part]]
        read = topology.read_by(*parts) if Part.FIRST not in parts else ()
        return StageWork(
            gflops,
            kernels=sum(convolutions_in(topology, part) for part in parts),
            weights=weights,
            activations=sum(_written(plan, row.ref) for row in rows),
            reads=sum(_values(plan, ref, plan.channels(ref)) for ref in read),
        )

    return {
        "first": work(66.14, 13_371_808, Part.FIRST),
        "router": StageWork(0.0041, ROUTER_CONVOLUTIONS, 2_075_041, 0),
        "head": work(38.37, 24_250_874, Part.HEAD),
        "second": work(115.57, 40_923_610, Part.SECOND, Part.HEAD2),
    }


def _values(plan: Plan, ref: Ref, channels: int) -> int:
    return channels * (SIDE // plan.stride(ref)) ** 2


def _written(plan: Plan, ref: Ref) -> int:
    """Values that the convolutions of a row write; concatenations are written in place."""
    row = plan.topology.row(ref)
    if row.op is Op.SPPCSPC:
        inner = (SPPCSPC_CONVOLUTIONS - 1) * plan.hidden[ref]
        return _values(plan, ref, inner + plan.channels(ref))
    if row.op is Op.DETECT:
        raw = plan.anchors_per_level * (5 + plan.classes)
        return sum(_values(plan, level, raw) for level in row.inputs)
    writes = (Op.CONV, Op.REP_CONV, Op.CB_LINEAR, Op.CB_FUSE)
    return _values(plan, ref, plan.channels(ref)) if row.op in writes else 0


def gpu_of(compute_capability: str) -> Gpu | None:
    """The one of the model with this compute capability ("7.0"), if there is one."""
    return next((gpu for gpu in GPUS if gpu.compute_capability == compute_capability), None)
