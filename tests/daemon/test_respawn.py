"""The respawn policy: minutes of crashing in no time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmule.daemon.respawn import CRASHES, FIRST, LONGEST, LONGEST_RETRY, PACE, RETRY, STEADY, Respawn


def crash(respawn: Respawn, now: float, after: float = 0.0) -> float:
    respawn.started(now)
    return respawn.ended(now + after, clean=False)


def test_crashes_at_start_double_the_pause_up_to_the_longest() -> None:
    respawn = Respawn()
    pauses = [crash(respawn, 0.0) for _ in range(CRASHES - 1)]
    assert pauses[:4] == [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST]
    assert pauses[-1] == LONGEST
    assert pauses == sorted(pauses)


def test_after_a_row_of_crashes_at_start_it_is_tried_seldom_and_for_ever() -> None:
    respawn = Respawn()
    for _ in range(CRASHES - 1):
        crash(respawn, 0.0, after=STEADY / 2)
    before = respawn.failed
    assert [crash(respawn, 0.0) for _ in range(4)] == [RETRY, 2 * RETRY, 4 * RETRY, LONGEST_RETRY]
    assert (before, respawn.failed) == (False, True)
    assert {crash(respawn, 0.0) for _ in range(2000)} == {LONGEST_RETRY}


def test_a_failed_one_that_is_forgiven_begins_a_new_row() -> None:
    respawn = Respawn()
    for _ in range(2 * CRASHES):
        crash(respawn, 0.0)
    respawn.forgive()
    assert not respawn.failed
    assert crash(respawn, 0.0) == FIRST


@pytest.mark.parametrize(("after", "clean"), [(STEADY, False), (0.0, True)])
def test_a_steady_run_or_a_clean_exit_ends_the_row(after: float, clean: bool) -> None:
    respawn = Respawn()
    for _ in range(CRASHES - 1):
        crash(respawn, 0.0)
    respawn.started(50.0)
    respawn.ended(50.0 + after, clean=clean)
    assert crash(respawn, 100.0) == 100.0 + FIRST


def test_a_crash_after_a_steady_run_is_respawned_at_once() -> None:
    assert crash(Respawn(), 10.0, after=STEADY) == 10.0 + STEADY + FIRST


def test_clean_exits_go_on_for_ever_at_the_pace_of_uwsgi() -> None:
    respawn = Respawn()
    for start in range(10 * CRASHES):
        respawn.started(float(start))
        assert respawn.ended(start + 0.01, clean=True) == start + PACE


@given(st.lists(st.tuples(st.floats(0.0, 2 * STEADY), st.booleans()), max_size=3 * CRASHES))
def test_failed_is_exactly_a_row_of_crashes_at_start(runs: list[tuple[float, bool]]) -> None:
    respawn, now, row = Respawn(), 0.0, 0
    for ran, clean in runs:
        respawn.started(now)
        ended = now + ran
        row = 0 if clean or ended - now >= STEADY else row + 1
        due = respawn.ended(ended, clean=clean)
        assert respawn.failed == (row >= CRASHES)
        assert ended < due <= ended + (LONGEST_RETRY if respawn.failed else LONGEST)
        now = due
