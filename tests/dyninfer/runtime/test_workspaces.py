"""Workspaces that other threads take and give back between any two steps of a call."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dyninfer.runtime.workspaces import Loan, WorkspacePool


class Buffers:
    """A workspace that knows whether it was freed."""

    busy = closed = False

    def close(self) -> None:
        self.closed = True


class Maker:
    """As much of a backend as a pool uses."""

    def workspace(self) -> Buffers:
        return Buffers()


class Loans(set):
    """Runs ``act`` once, just after somebody has looked through the loans."""

    act = staticmethod(lambda: None)

    def __iter__(self) -> Iterator[object]:
        seen = list(super().__iter__())
        act, self.act = self.act, lambda: None
        act()
        return iter(seen)


@pytest.fixture
def pool() -> WorkspacePool:
    made = WorkspacePool(Maker(), {})
    made._lent = Loans()
    return made


def test_what_another_call_takes_during_a_sweep_is_not_freed(pool) -> None:
    """It was given back just before the sweep looks through the loans, and is taken just after."""
    first, second = Loan(pool), Loan(pool)
    workspace = first.__enter__()
    pool.reopen = lambda: first.__exit__(None)  # called once the third call has found none free
    pool._lent.act = second.__enter__
    with Loan(pool) as third:
        assert third is not workspace
        assert not workspace.closed
        second.__exit__(None)
    assert pool._free == [workspace, third]


def test_what_nobody_holds_is_freed_at_the_next_call_that_finds_none(pool) -> None:
    with Loan(pool) as lost:
        pass
    pool._free.clear()  # an exception just after it was taken
    with Loan(pool) as mine:
        assert lost.closed
        assert not mine.closed
    assert pool._made == [mine]
