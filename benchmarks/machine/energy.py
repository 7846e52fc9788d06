"""Joules of an image: finding a meter, what the machine draws at rest, and the sums."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Protocol

import numpy as np

from dyninfer.benchmarks.machine.gpu_energy import open_gpu_energy
from dyninfer.benchmarks.machine.jetson import read_jetson_model
from dyninfer.benchmarks.machine.jtop_api import Jtop
from dyninfer.benchmarks.machine.nvml import LoadNvml, load_nvml
from dyninfer.benchmarks.machine.rails import open_jtop_power, open_rails
from dyninfer.benchmarks.machine.rapl import open_rapl
from dyninfer.errors import InputError

LEAST_SINGULAR_VALUE = 0.05
"""Below it, an error of the energies comes back twentyfold in the exits' figures."""


class EnergyMeter(Protocol):
    """Counts energy from when it was opened."""

    source: str

    def joules(self) -> float:
        """Energy so far; it never falls.

        Raises:
            DyninferError: the meter does not answer any more.
        """
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


def find_energy_meter(
    device: str = "cpu",
    *,
    root: Path = Path("/"),
    load_nvml: LoadNvml = load_nvml,
    open_jtop: Callable[[], Jtop] | None = None,
) -> tuple[EnergyMeter | None, str]:
    """The meter for what runs on a device and its name, or None and why there is none.

    A Jetson's rails tell of the whole module, on either device. Elsewhere a GPU is measured by
    NVML and a processor by RAPL; neither is taken for the other.
    """
    meter: EnergyMeter | None
    if read_jetson_model(root) is not None:
        meter, why = open_rails(root)
        if meter is None:
            meter, of_jtop = open_jtop_power(open_jtop)
            why = f"{why}; {of_jtop}"
    elif device.startswith("cuda"):
        meter, why = open_gpu_energy(load_nvml, device)
    else:
        meter, why = open_rapl(root)
    return meter, why if meter is None else meter.source


def measure_idle_watts(
    meter: EnergyMeter,
    seconds: float,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Mean power while this process waits. Whatever else runs is in it.

    Raises:
        InputError: the time is not positive.
    """
    if seconds <= 0:
        raise InputError(f"idle power over {seconds:g} s, expected a time above 0; 10 s is good")
    start, before = clock(), meter.joules()
    sleep(seconds)
    after, end = meter.joules(), clock()
    return (after - before) / (end - start)


def joules_per_image(total_joules: float, seconds: float, idle_watts: float, images: int) -> float:
    """Energy above idle for each of the images of a slice; below 0 where noise outweighs it.

    Raises:
        InputError: there are no images.
    """
    if images < 1:
        raise InputError(f"energy over {images} images, expected at least one")
    return (total_joules - idle_watts * seconds) / images


def joules_by_exit(shares: Sequence[Sequence[float]], joules: Sequence[float]) -> tuple[float, ...]:
    """Energy of an image that leaves at each exit, from slices with different mixtures.

    Non-negative least squares: the minimum is the ordinary least-squares solution over one subset
    of the exits with the others at 0 (the problem is convex), so for the few exits there are every
    subset is tried.

    Args:
        shares: (slices, exits): of the images of a slice, those that left at each exit.
        joules: (slices,): energy per image of each slice.

    Raises:
        InputError: a slice's shares are not shares, or the slices do not tell the exits apart.
    """
    mixtures, energies = np.asarray(shares, np.float64), np.asarray(joules, np.float64)
    if mixtures.ndim != 2 or energies.shape != mixtures.shape[:1]:
        raise InputError(
            f"shares of shape {mixtures.shape} and energies of shape {energies.shape}, expected "
            "(slices, exits) and (slices,)"
        )
    if not (np.all(mixtures >= 0) and np.allclose(mixtures.sum(axis=1), 1, atol=1e-6)):
        raise InputError("a slice's shares do not add up to 1: give the shares of all exits")
    exits = mixtures.shape[1]
    if len(energies) < exits or _weakest(mixtures) < LEAST_SINGULAR_VALUE:
        unseen = [str(index) for index in range(exits) if not mixtures[:, index].any()]
        raise InputError(
            f"{len(energies)} slices do not tell {exits} exits apart"
            + (f" (no image left at exit {', '.join(unseen)})" if unseen else "")
            + f": measure at least {exits} mixtures that differ by a tenth or more"
        )
    best = min(
        (_solve(mixtures, energies, kept) for kept in _subsets(exits)),
        key=lambda found: np.inf if found.min() < 0 else _residual(mixtures, energies, found),
    )
    return tuple(float(value) for value in best)


def _weakest(mixtures: np.ndarray) -> float:
    """Smallest singular value, as if there were as many slices as exits: repeats add nothing."""
    slices, exits = mixtures.shape
    return float(np.linalg.svd(mixtures, compute_uv=False)[-1] / np.sqrt(slices / exits))


def _subsets(exits: int) -> list[tuple[int, ...]]:
    return [kept for size in range(exits + 1) for kept in combinations(range(exits), size)]


def _solve(mixtures: np.ndarray, energies: np.ndarray, kept: tuple[int, ...]) -> np.ndarray:
    found = np.zeros(mixtures.shape[1])
    if kept:
        found[list(kept)] = np.linalg.lstsq(mixtures[:, list(kept)], energies, rcond=None)[0]
    return found


def _residual(mixtures: np.ndarray, energies: np.ndarray, found: np.ndarray) -> float:
    return float(np.sum((mixtures @ found - energies) ** 2))
