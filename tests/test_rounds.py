"""When a thread comes round to the lock under which it got its message."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from zmule.clients import rounds
from zmule.clients.rounds import Place, Token


class Mule:
    """A mule that gets message after message, and a lock of its own."""

    def __init__(self) -> None:
        self.got = 0
        self.has: Token | None = None
        self.acked: list[Token] = []
        self.last: rounds.Round | None = None
        self.round: rounds.Round | None = None

    def in_hand(self) -> Token | None:
        return self.has

    def ack(self) -> None:
        assert self.has is not None
        self.acked.append(self.has)
        self.has = None

    def get(self) -> int:
        self.got += 1
        self.has = self.got, 1
        return self.got

    def lock(self) -> None:
        self.round = rounds.begin(self.last, sys._getframe())

    def unlock(self) -> None:
        if rounds.end(self.round):
            self.last = self.round

    def get_locked(self) -> int:
        self.lock()
        try:
            return self.get()
        finally:
            self.unlock()


@pytest.fixture
def mule() -> Mule:
    mule = Mule()
    rounds.watch(mule)
    return mule


def loop(mule: Mule, work: Callable[[int], object]) -> None:
    for _ in range(3):
        mule.lock()
        try:
            message = mule.get()
        finally:
            mule.unlock()
        work(message)


def helper(mule: Mule, work: Callable[[int], object]) -> None:
    for _ in range(3):
        message = mule.get_locked()
        work(message)


def steps(mule: Mule, work: Callable[[int], object]) -> None:
    def step() -> None:
        work(mule.get_locked())

    for _ in range(3):
        step()


LOOPS = pytest.mark.parametrize("run", [loop, helper, steps])


@LOOPS
def test_what_is_finished_is_acknowledged_at_the_lock(mule: Mule, run: Callable[..., None]) -> None:
    seen = []
    run(mule, lambda message: seen.append((message, list(mule.acked))))
    assert seen == [(1, []), (2, [(1, 1)]), (3, [(1, 1), (2, 1)])]


def test_a_call_that_is_compiled_twice_is_one_place(mule: Mule) -> None:
    acked = []
    while mule.get_locked() < 4:
        acked.append(len(mule.acked))
    assert acked == [0, 1, 2]


@LOOPS
@pytest.mark.parametrize("depth", [1, 3])
def test_a_lock_in_the_work_acknowledges_nothing(mule: Mule, run: Callable[..., None], depth: int) -> None:
    def work(message: int, deeper: int = depth) -> None:
        before = len(mule.acked)
        mule.lock()
        mule.unlock()
        if deeper:
            work(message, deeper - 1)
        assert len(mule.acked) == before
        assert mule.has == (message, 1)

    run(mule, work)
    assert mule.acked == [(1, 1), (2, 1)]


def test_the_same_function_further_up_the_stack_is_another_place(mule: Mule) -> None:
    def step(deeper: int) -> None:
        mule.get_locked()
        before = mule.has
        if deeper:
            mule.lock()
            mule.unlock()
            assert mule.has == before
            step(deeper - 1)

    step(3)
    assert mule.acked == []


def test_what_is_got_without_the_lock_is_not_acknowledged_by_it(mule: Mule) -> None:
    for _ in range(3):
        mule.get()
        mule.lock()
        mule.unlock()
    assert mule.acked == []


def test_without_a_mule_there_are_no_rounds() -> None:
    rounds.watch(Mule())
    assert rounds.begin(None, sys._getframe()) is None
    assert not rounds.end(None)


def test_places_that_are_told_by_the_instruction_alone() -> None:
    def place() -> Place:
        return rounds.place_of(sys._getframe(1))

    first, second = place(), place()
    assert rounds.same(first, first)
    assert not rounds.same(first, second)
    assert not rounds.same(first, first[1:])
