"""Errors after which a process can use its GPU no more, told apart from those that pass."""

from __future__ import annotations

CODES = frozenset({226, 700, 702, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911})
"""Numbers of ``cudaError_t`` and ``CUresult`` of which CUDA's reference says: "To continue using
CUDA, the process must be terminated and relaunched." Both have the same."""
PHRASES = (
    "illegal memory access",
    "launch timed out",
    "device-side assert",
    "hardware stack error",
    "illegal instruction",
    "misaligned address",
    "not supported on global/shared address space",
    "invalid program counter",
    "unspecified launch failure",
)
"""The same in the words of ``cudaGetErrorString``: what PyCUDA and TensorRT pass on."""
ADVICE = "after this error nothing can run on the GPU in this process; restart the process"


def advised(message: str, code: int | None = None) -> str:
    """A message, with what to do where a code or the words say that the GPU is lost."""
    lost = code in CODES if code is not None else any(words in message for words in PHRASES)
    return f"{message}; {ADVICE}" if lost and ADVICE not in message else message
