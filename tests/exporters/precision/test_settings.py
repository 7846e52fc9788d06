from __future__ import annotations

import pytest

from dyninfer.exporters.precision.settings import (
    Int8Target,
    QuantTypes,
    types_for,
)

UNSIGNED = QuantTypes(signed=False)
SATURATING = QuantTypes(signed=False, reduce_range=True)
SYMMETRIC = QuantTypes(signed=True)


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", {"avx2", "avx512_vnni"}, UNSIGNED),
        ("AMD64", {"avx_vnni"}, UNSIGNED),
        ("x86_64", {"avx2", "avx512f"}, SATURATING),
        ("x86_64", set(), SATURATING),
        ("aarch64", {"asimddp"}, SYMMETRIC),
    ],
)
def test_types_follow_the_processor(machine, flags, expected) -> None:
    assert types_for(Int8Target.CPU, machine, frozenset(flags)) == expected
    assert types_for(Int8Target.TENSORRT, machine, frozenset(flags)) == SYMMETRIC
