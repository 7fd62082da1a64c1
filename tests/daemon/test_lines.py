"""Who takes much of the loop's time waits while others speak, and only then."""

from __future__ import annotations

import pytest

from zmule.daemon.lines import COMPANY_SECONDS, CREDIT_SECONDS, FRAME_BYTES, MOST_BYTES, MOST_FRAMES, Lines

FLOOD, GOOD = b"flood", b"good"
SHORT = CREDIT_SECONDS / 100


@pytest.fixture
def lines() -> Lines:
    lines = Lines()
    lines.spoke(GOOD, 0.0)
    lines.spoke(FLOOD, 0.0)
    return lines


def test_who_spends_little_never_waits(lines: Lines) -> None:
    for turn in range(1, 1000):
        lines.spoke(GOOD, turn * 4 * SHORT)
        lines.spent(FLOOD, SHORT, turn * 4 * SHORT)
    assert FLOOD not in lines


def test_many_short_frames_are_as_dear_as_a_long_one(lines: Lines) -> None:
    for frame in range(1, 91):
        lines.spent(FLOOD, SHORT, frame * SHORT)
    assert FLOOD not in lines
    for frame in range(91, 111):
        lines.spent(FLOOD, SHORT, frame * SHORT)
    assert FLOOD in lines
    assert GOOD not in lines


def test_who_owes_waits_until_all_is_paid_and_is_then_heard_in_order(lines: Lines) -> None:
    lines.spent(FLOOD, 0.01, 0.01)
    assert lines.add(FLOOD, b"1")
    assert lines.add(FLOOD, b"2")
    assert list(lines.due(0.0199)) == []
    assert lines.next_deadline() == pytest.approx(0.02)
    assert list(lines.due(0.0201)) == [(FLOOD, b"1")]
    lines.spent(FLOOD, SHORT, 0.0201)
    assert list(lines.due(0.0201)) == [(FLOOD, b"2")], "a little may be owed again"
    assert list(lines.due(0.0201)) == []
    assert not lines
    assert lines.next_deadline() is None


def test_a_flood_has_half_of_the_time(lines: Lines) -> None:
    now = spent = 0.0
    while now < 1.0:
        lines.spoke(GOOD, now)
        if FLOOD in lines:
            now += SHORT
            list(lines.due(now))
        else:
            now, spent = now + 10 * SHORT, spent + 10 * SHORT
            lines.spent(FLOOD, 10 * SHORT, now)
    assert spent == pytest.approx(0.5, abs=0.02)


def test_who_is_alone_never_waits() -> None:
    lines = Lines()
    for turn in range(1, 100):
        lines.spoke(FLOOD, turn * 0.01)
        lines.spent(FLOOD, 0.01, turn * 0.01)
    assert not lines


def test_nobody_waits_for_those_who_have_fallen_silent(lines: Lines) -> None:
    lines.spent(FLOOD, 0.01, 0.01 + COMPANY_SECONDS)
    assert FLOOD not in lines, "they had fallen silent before"
    lines.spoke(GOOD, 1.0)
    lines.spoke(FLOOD, 1.0)
    lines.spent(FLOOD, 0.1, 1.1)
    lines.add(FLOOD, b"x")
    assert list(lines.due(1.1 + COMPANY_SECONDS * 0.9)) == []
    assert lines.next_deadline() == pytest.approx(1.1 + COMPANY_SECONDS)
    assert list(lines.due(1.1 + COMPANY_SECONDS * 1.1)) == [(FLOOD, b"x")]


def test_who_could_not_be_heard_has_not_fallen_silent(lines: Lines) -> None:
    lines.spent(FLOOD, 1.0, 1.0)
    lines.add(FLOOD, b"x")
    assert list(lines.due(1.0)) == []
    lines.spoke(GOOD, 1.0)
    assert lines.next_deadline() == pytest.approx(1.0 + COMPANY_SECONDS)


def test_who_leaves_is_forgiven_and_then_forgotten(lines: Lines) -> None:
    lines.spent(FLOOD, 0.04, 0.04)
    lines.add(FLOOD, b"x")
    lines.hurry(FLOOD)
    assert list(lines.due(0.04)) == [(FLOOD, b"x")]
    lines.drop(FLOOD)
    assert not lines
    lines.spent(FLOOD, SHORT, 0.04)
    assert FLOOD not in lines, "nothing is owed any more"


def test_a_line_has_an_end(lines: Lines) -> None:
    lines.spent(FLOOD, 0.01, 0.01)
    assert all(lines.add(FLOOD, b"") for _ in range(MOST_FRAMES))
    assert not lines.add(FLOOD, b"")


def test_nobody_waits_when_all_lines_together_are_too_long(lines: Lines) -> None:
    lines.spent(FLOOD, 0.01, 0.01)
    half = bytes(MOST_BYTES // 2 - FRAME_BYTES)
    lines.add(FLOOD, half)
    lines.add(FLOOD, half)
    assert list(lines.due(0.01)) == []
    lines.add(FLOOD, b"")
    assert list(lines.due(0.01)) == [(FLOOD, half)]
