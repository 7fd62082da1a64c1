"""Courses in small: everybody's messages are counted, and whoever fails is left out with its last words."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import course, processes
from benchmarks.board import COUNT, Board
from benchmarks.jobs import Job
from benchmarks.line import Skipped
from benchmarks.plan import Plan, Role
from benchmarks.sections.fairness import done_jobs

SMALL = 300


@pytest.mark.parametrize("peer", ["zmule", "relay"])
def test_all_messages_are_handled(peer: str) -> None:
    plan = Plan(peer, senders=2, mules=2, messages=SMALL + 1)
    with course.done(plan) as board:
        assert sum(board.of(row, COUNT) for row in (2, 3)) == plan.total == SMALL


def test_a_durable_course_is_one_too() -> None:
    assert course.throughput(Plan("zmule", messages=SMALL, durable=True))[course.RATE] > 0


@pytest.mark.parametrize("peer", ["zmule", "relay", "zmule_signal"])
def test_each_time_that_is_measured_is_noted(peer: str) -> None:
    with course.done(Plan(peer, messages=20, rate=1000, single=True, notes=1)) as board:
        assert all(board.notes())


def test_jobs_are_noted_by_their_numbers(tmp_path: Path) -> None:
    board = Board(tmp_path / "board", rows=3, notes=6)
    board.note(1, Job(2, 30, 40))
    board.note(0, Job(1, 10, 20))
    assert done_jobs(board) == [Job(1, 10, 20), Job(2, 30, 40)]


def test_a_call_is_a_task() -> None:
    assert course.throughput(Plan("zmule_task", messages=20))[course.RATE] > 0


def test_who_fails_is_left_out_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PATIENCE", 10.0)
    plan = Plan("zmule", senders=1, mules=0, size=2 << 20, messages=1)
    with pytest.raises(Skipped, match=r"a process failed: .*MessageTooLarge"), course.done(plan):
        pass


def test_a_role_survives_being_told() -> None:
    role = Role(Plan("zmule", rate=2.5), 1, "board", "ipc://there")
    assert Role.read(role.text()) == role


def test_who_cannot_be_had_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processes, "PEERS_PYTHON", tmp_path / "python")
    with pytest.raises(Skipped, match="scripts/peers makes it"):
        processes.module("a module nobody has asked for")
    with pytest.raises(Skipped, match="no-such-server is not installed"):
        processes.binary("no-such-server")
