"""scripts/chaos loses nothing with a store that keeps, and notices what is lost with one that does not.

Thirty seconds of it are worth their time; `--deselect tests/live/test_chaos.py` goes without.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import wait_until

SCRIPTS = Path(__file__).parents[2] / "scripts"
SECONDS = 30


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that does the sums."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return __import__("chaos_ledger")


def chaos(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start it, with all that it writes in the folder."""
    return subprocess.Popen(
        [sys.executable, SCRIPTS / "chaos.py", *arguments],
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process: subprocess.Popen[str]) -> tuple[int, dict[str, int], str]:
    """Wait for its end; return its exit status, the rows that it has printed, and all of its words."""
    with process:
        out, err = process.communicate()
    rows = {name.strip(): int(number) for name, number in re.findall(r"^(\D+?) +(\d+)$", out, re.MULTILINE)}
    return process.returncode, rows, out + err


def processes(folder: Path) -> Iterator[str]:
    """Yield the command lines of processes that run with something in the folder."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text().replace("\0", " ")
        except OSError:
            continue
        if str(folder) in words:
            yield words


@pytest.mark.timeout(300)
def test_nothing_is_lost(tmp_path: Path) -> None:
    status, rows, words = outcome(chaos(tmp_path, f"--seconds={SECONDS}"))
    assert status == 0, words
    assert rows["accepted"] > 100
    assert [rows[name] for name in ("lost", "accepted twice", "buried for no reason", "out of order")] == [
        0
    ] * 4
    assert "for no reason" not in rows
    assert rows["handled once"] + rows["dead"] <= rows["accepted"] + rows["handled again"]
    assert not list(processes(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.timeout(120)
def test_what_a_broker_has_lost_is_noticed(tmp_path: Path) -> None:
    seed = 168  # begins by killing the broker three times
    fault = "--fault=lose-on-recovery"
    status, rows, words = outcome(chaos(tmp_path, "--seconds=4", f"--seed={seed}", fault))
    assert status == 1, words
    assert rows["lost"] > 0
    assert ": lost" in words
    assert not list(processes(tmp_path))


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    process = chaos(tmp_path, "--seconds=60")
    wait_until(lambda: list(tmp_path.glob("*/accepted/*")), "the first messages")
    process.send_signal(signal.SIGINT)
    status, _, words = outcome(process)
    assert status == 128 + signal.SIGINT, words
    assert not list(processes(tmp_path))
    assert not list(tmp_path.iterdir())


SECOND = 10**9
KEPT = "accepted 5 1 m s1 own 1"
FIRST, SECOND_TURN = (
    "b 11 7 1 any m s1 own 1; f 12 7 m s1 own 1",
    "b 61 8 2 any m s1 own 1; f 62 8 m s1 own 1",
)


def write(folder: Path, journal: str, told: str = "", **handled: str) -> Path:
    """Write down what a broker, a sender and mules (`_PID`) say. Times are in seconds."""
    for name in ("accepted", "handled"):
        (folder / name).mkdir(parents=True)
    (folder / "journal").write_text(timed("born 1 100; " + journal))
    (folder / "accepted" / "s1").write_text(told.replace("; ", "\n"))
    for pid, lines in handled.items():
        (folder / "handled" / pid[1:]).write_text(timed(lines))
    return folder


def timed(lines: str) -> str:
    """Return lines with their times, the second words, in nanoseconds."""
    words = [line.split(" ") for line in lines.split("; ") if line]
    return "".join(
        "\n" * (word == "born") + " ".join([word, str(int(float(time) * SECOND)), *rest]) + "\n"
        for word, time, *rest in words
    )


@pytest.fixture
def blow(ledger: ModuleType) -> Callable[..., Any]:
    """Makes a blow, with times in seconds."""

    def make(what: str, begun: float, ended: float, *pids: int) -> Any:
        return ledger.Blow(what, int(begun * SECOND), int(ended * SECOND), pids)

    return make


def test_what_is_kept_and_neither_handled_nor_dead_is_lost_though_nobody_was_told(
    ledger: ModuleType, tmp_path: Path
) -> None:
    journal = f"{KEPT}; accepted 5 2 m s1 own 2; delivered 10 7 1 1; forgotten 13 1,2"
    sums = ledger.balance(write(tmp_path, journal, "m s1 own 1", _7=FIRST), {}, [])
    assert (sums.accepted, sums.orphans, sums.once, sums.lost) == (2, 1, 1, 1)
    assert sums.wrong == ["m s1 own 2 (2): lost"]


def test_what_a_sender_was_told_must_have_been_kept(ledger: ModuleType, tmp_path: Path) -> None:
    sums = ledger.balance(write(tmp_path, "", "m s1 own 9"), {}, [])
    assert sums.lost == 1
    assert sums.wrong == ["m s1 own 9: confirmed and never kept"]


def test_a_message_under_two_numbers_was_accepted_twice(ledger: ModuleType, tmp_path: Path) -> None:
    journal = f"{KEPT}; delivered 10 7 1 1; accepted 50 2 m s1 own 1; delivered 60 8 1 2"
    turns = {"_7": FIRST, "_8": SECOND_TURN.replace(" 2 any", " 1 any")}
    sums = ledger.balance(write(tmp_path, journal, **turns), {}, [blow_of_all(ledger)])
    assert sums.twice == 1
    assert "m s1 own 1: accepted twice, as [1, 2]" in sums.wrong


def blow_of_all(ledger: ModuleType) -> Any:
    return ledger.Blow("the broker was suspended", 0, 100 * SECOND)


@pytest.mark.parametrize(
    ("sign", "begun", "pids", "reason"),
    [
        ("vanished 20 7", 19, (7,), "its mule died"),
        ("vanished 20 7", 19, (), "its mule died"),
        ("vanished 20 7", 19, (8,), "for no reason"),  # it was done to another
        ("vanished 20 8", 19, (7,), "for no reason"),  # another was seen to go
        ("vanished 20 7", 21, (7,), "for no reason"),  # it came later
        ("vanished 20 7", 10, (7,), "for no reason"),  # it was long over
        ("vanished 70 7", 69, (7,), "for no reason"),  # the message had been delivered again by then
        ("accepted 20 9 x s1 own 9", 19, (7,), "for no reason"),  # the broker has seen nothing of it
        (f"silent 20 7 {2 * SECOND}", 90, (7,), "its mule was not heard in time"),
        (f"silent 20 7 {SECOND}", 90, (7,), "for no reason"),
    ],
)
def test_a_second_time_needs_a_reason(
    ledger: ModuleType,
    blow: Callable[..., Any],
    tmp_path: Path,
    sign: str,
    begun: int,
    pids: tuple[int, ...],
    reason: str,
) -> None:
    journal = f"{KEPT}; delivered 10 7 1 1; {sign}; delivered 60 8 2 1"
    folder = write(tmp_path, journal, _7=FIRST, _8=SECOND_TURN)
    sums = ledger.balance(folder, {9: ""}, [blow("its mule died", begun, begun + 2, *pids)])
    assert sums.again == {reason: 1}
    assert len([line for line in sums.wrong if "again" in line]) == (reason == "for no reason")


def test_a_cause_shows_for_longer_while_the_broker_is_suspended(
    ledger: ModuleType, blow: Callable[..., Any], tmp_path: Path
) -> None:
    folder = write(
        tmp_path, f"{KEPT}; delivered 10 7 1 1; vanished 24 7; delivered 60 8 2 1", _7=FIRST, _8=SECOND_TURN
    )
    cut, stop = blow("cut", 19, 21, 7), blow("the broker was suspended", 20, 23)
    assert ledger.balance(folder, {}, [cut, stop]).again == {"cut": 1}
    assert ledger.balance(folder, {}, [cut]).again == {"for no reason": 1}


def test_what_nobody_has_begun_may_be_delivered_once_more_under_the_same_number(
    ledger: ModuleType, tmp_path: Path
) -> None:
    journal = f"{KEPT}; delivered 10 7 1 1; delivered 60 8 1 1"
    once = {"_8": SECOND_TURN.replace(" 2 any", " 1 any")}
    assert not ledger.balance(write(tmp_path, journal, **once), {}, []).wrong
    again = ledger.balance(write(tmp_path / "again", journal, _7=FIRST, **once), {}, [])
    assert again.again == {"for no reason": 1}


def test_what_was_delivered_first_may_be_begun_last(
    ledger: ModuleType, blow: Callable[..., Any], tmp_path: Path
) -> None:
    late = "b 71 7 1 any m s1 own 1; f 72 7 m s1 own 1"
    journal = f"{KEPT}; delivered 10 7 1 1; silent 20 7 {2 * SECOND}; delivered 60 8 2 1"
    sums = ledger.balance(write(tmp_path, journal, _7=late, _8=SECOND_TURN), {}, [blow("stopped", 15, 21, 7)])
    assert sums.again == {"stopped": 1}
    assert not sums.wrong


@pytest.mark.parametrize(
    "turns", [f"{FIRST}; {FIRST.replace('11', '13')}", FIRST.replace(" 1 any", " 3 any")]
)
def test_what_a_mule_begins_was_delivered_to_it_once(ledger: ModuleType, tmp_path: Path, turns: str) -> None:
    sums = ledger.balance(write(tmp_path, f"{KEPT}; delivered 10 7 1 1", _7=turns), {}, [])
    assert any("begun" in line for line in sums.wrong)


@pytest.mark.parametrize(
    ("ack", "failing", "reason"),
    [("", "", "the broker died"), ("forgotten 49 1; ", "", "the broker died"),
     ("forgotten 40 1; ", "", "for no reason"), ("forgotten 40 1; ", "failing 41; ", "the broker died"),
     ("forgotten 40 1; ", "failing 20; works 30; ", "for no reason")],
)  # fmt: skip
def test_over_a_death_of_the_broker_comes_back_what_it_had_not_noted(
    ledger: ModuleType, tmp_path: Path, ack: str, failing: str, reason: str
) -> None:
    lines = [f"{KEPT}", "delivered 10 7 1 1", f"{failing}{ack}born 50 101", "holds 50 1 1 m s1 own 1"]
    lines[2] = "; ".join(sorted(filter(None, lines[2].split("; ")), key=lambda line: float(line.split()[1])))
    folder = write(tmp_path, "; ".join([*lines, "delivered 60 8 2 1"]), _7=FIRST, _8=SECOND_TURN)
    assert ledger.balance(folder, {}, []).again == {reason: 1}


def test_a_line_that_a_kill_has_cut_does_not_count(ledger: ModuleType, tmp_path: Path) -> None:
    folder = write(tmp_path, "")
    for line, count in (("accepted 5 1 m s1 ow", 0), ("accepted 5 1 m s1 own 1\n", 1)):
        (folder / "journal").write_text(f"\nborn 1 100\n{line}\nborn 50 101\n")
        assert ledger.balance(folder, {}, []).accepted == count


FIVE = "".join(f"; delivered {place}0 7 {place} 1; vanished {place}5 7" for place in range(1, 6))
SPENT = "mule 3 died with it, at delivery 5 of 5"


@pytest.mark.parametrize(
    ("journal", "turns", "reason", "good"),
    [
        (f"{FIVE}; buried 56 1 {SPENT}", "", SPENT, True),
        (f"{FIVE}; buried 56 1 {SPENT}", "", "expired", False),  # it says another reason than it said
        (FIVE, "", SPENT, False),  # the broker has not buried it
        (f"{FIVE[:-15]}; buried 56 1 {SPENT}", "", SPENT, False),  # the last mule lives
        (f"{FIVE.replace('delivered 30 7 3 1; ', '')}; buried 56 1 {SPENT}", "", SPENT, False),
        (f"{FIVE}; buried 56 1 mule 3 died with it, at delivery 2 of 2", "", "", False),
        ("; delivered 10 7 1 1; buried 13 1 mule 3 rejected it", FIRST.replace("f", "r"), "", True),
        ("; delivered 10 7 1 1; buried 13 1 mule 3 rejected it", FIRST, "", False),
        ("; delivered 10 7 1 1; buried 13 1 expired", "", "", False),
    ],
)
def test_a_dead_letter_has_the_reason_that_it_says(
    ledger: ModuleType,
    blow: Callable[..., Any],
    tmp_path: Path,
    journal: str,
    turns: str,
    reason: str,
    good: bool,
) -> None:
    reason = reason or journal.rpartition("buried ")[2].split(" ", 2)[2]
    folder = write(tmp_path, KEPT + journal, _7=turns)
    sums = ledger.balance(folder, {1: reason}, [blow("cut", 0, 100, 7)])
    assert sums.buried == (not good), sums.wrong


def test_what_one_thread_is_given_first_comes_in_order(ledger: ModuleType, tmp_path: Path) -> None:
    numbers = (2, 1, 0)
    kept = "; ".join(f"accepted 5 {n} m s1 own {n}; delivered 6 7 {1 + (not n)} {n}" for n in numbers)
    lines = "b 10 7 1 mule:1 m s1 own 2; b 20 7 1 mule:1 m s1 own 1; b 30 7 2 mule:1 m s1 own 0"
    sums = ledger.balance(write(tmp_path, kept, _7=lines), {0: "", 1: "", 2: ""}, [])
    assert sums.unordered == 1
    assert "m s1 own 1: out of order" in sums.wrong
