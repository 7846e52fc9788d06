"""ONNX Runtime's import, and what it raises."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from dyninfer import foreign_errors
from dyninfer.engines.onnx_guards import GUARD
from dyninfer.errors import BackendUnavailable, DyninferError
from dyninfer.foreign_errors import let_through, reason_of
from dyninfer.installing import pip_install

# ONNX Runtime 1.29 and later look up their vendor's host and write below the home folder, from a
# thread that no forked process survives. It reads this when it is imported, and only then.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
try:
    import onnxruntime as ort
except ImportError as _error:
    raise BackendUnavailable(
        f"ONNX Runtime cannot be imported ({_error}); install it with "
        f"{pip_install('cpu')} or, for an NVIDIA GPU, {pip_install('cuda')}"
    ) from _error

if foreign_errors.libraries_keep_quiet:
    ort.set_default_logger_severity(4)  # of what belongs to no session, as a provider's libraries

__all__ = ["ort"]  # for others of this folder, who are told what is missing as well

_GUARD = re.compile(  # its name is lost in branches that are always taken, and in early versions
    rf"(?:Name:'(?:\w+{GUARD.decode()}(?P<operator>\w+)|_if_\w+_Gather)' Status Message|ARGUMENT)"
    r" ?: indices element out of data bounds, idx=-?\d+ must be within the inclusive range \[-1,0\]"
)
_REFUSED = re.compile(r"Available memory of (\d+) is smaller than requested bytes of (\d+)")


def is_ort_error(error: Exception) -> bool:
    """Whether ONNX Runtime itself raised this.

    Its exceptions share no public base class; what its bindings could not name is a RuntimeError,
    and names in a file that are no UTF-8 are a UnicodeDecodeError.
    """
    ours = (RuntimeError, UnicodeDecodeError)
    return type(error).__module__.startswith("onnxruntime.") or type(error) in ours


@contextmanager
def ort_errors(kind: type[DyninferError], what: str) -> Iterator[None]:
    """Raise ``kind`` for what ONNX Runtime raises; all else passes through."""
    try:
        yield
    except Exception as error:
        let_through(error)
        if not is_ort_error(error):
            raise
        raise kind(f"{what}: {told(error)}") from error


def told(error: BaseException) -> str:
    """What ONNX Runtime's exception says; where it was refused memory, in plain words."""
    if refused := _REFUSED.search(str(error)):
        left, wanted = (int(number) / 2**30 for number in refused.groups())
        return (
            f"a tensor of {wanted:.2f} GB is wanted where its tensors may take {left:.2f} GB more; "
            "if the file is to be trusted, a larger max_batch allows that"
        )
    if stopped := _GUARD.search(str(error)):
        return (
            f"{stopped['operator'] or 'an operator'} may take more memory beside its tensors than "
            "is allowed; if the file is to be trusted, a larger max_batch allows more"
        )
    if "std::bad_alloc" in str(error):
        return "more memory is wanted than is left, or allowed for what is computed from constants"
    return reason_of(error)
