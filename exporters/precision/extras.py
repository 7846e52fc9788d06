"""The libraries that change precision, imported where they are needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dyninfer.errors import MissingExtra


def require_float16() -> Callable[..., Any]:
    """``convert_float_to_float16`` of onnxconverter-common.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        from onnxconverter_common.float16 import convert_float_to_float16
    except ImportError as error:
        raise _missing("fp16", "onnxconverter-common", error) from None
    return convert_float_to_float16  # type: ignore[no-any-return]  # ships no types


def require_quantization() -> Any:
    """The module ``onnxruntime.quantization``.

    Raises:
        MissingExtra: ONNX Runtime is not installed.
    """
    try:
        from onnxruntime import quantization
    except ImportError as error:
        raise _missing("int8", "onnxruntime", error) from None
    return quantization


def _missing(precision: str, package: str, error: ImportError) -> MissingExtra:
    return MissingExtra(
        f'{precision} needs {package} ({error}); install with pip install "dyninfer[cpu,export]"'
    )
