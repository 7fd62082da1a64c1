"""scripts/chaos loses nothing with a store that keeps, and notices what is lost with one that does not.

Thirty seconds of it are worth their time; `--deselect tests/live/test_chaos.py` goes without.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

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
    assert rows["lost"] == rows["out of order"] == 0
    assert "for no reason" not in rows
    assert rows["handled once"] + rows["dead"] <= rows["accepted"] + rows["handled again"]
    assert not list(processes(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.timeout(120)
def test_what_a_store_that_forgets_has_lost_is_noticed(tmp_path: Path) -> None:
    seed = 168  # begins by killing the broker three times
    status, rows, words = outcome(chaos(tmp_path, "--seconds=2.5", f"--seed={seed}", "--store=memory:"))
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


def write(folder: Path, accepted: str, **handled: str) -> Path:
    """Write down what a sender heard, and what mules (`_PID`) did."""
    for name in ("accepted", "handled"):
        (folder / name).mkdir()
    (folder / "accepted" / "s1").write_text(accepted.replace(", ", "\n"))
    for pid, lines in handled.items():
        (folder / "handled" / pid[1:]).write_text(lines.replace(", ", "\n"))
    return folder


def test_what_is_accepted_and_neither_handled_nor_dead_is_lost(ledger: ModuleType, tmp_path: Path) -> None:
    folder = write(
        tmp_path, "m s1 own 1, m s1 own 2, poison s1 own 3", _7="b 10 7 1 any m s1 own 1, f 20 7 m s1 own 1"
    )
    sums = ledger.balance(folder, ["poison s1 own 3"], [])
    assert (sums.accepted, sums.once, sums.dead, sums.lost) == (3, 1, 1, 1)
    assert sums.wrong == ["m s1 own 2: lost"]


@pytest.mark.parametrize(
    ("begun", "pid", "reason"),
    [(15, 7, "its mule died"), (30, 0, "its mule died"), (30, 8, "for no reason"), (70, 7, "for no reason")],
)
def test_a_second_time_needs_a_reason(
    ledger: ModuleType, tmp_path: Path, begun: int, pid: int, reason: str
) -> None:
    folder = write(
        tmp_path,
        "m s1 own 1",
        _7="b 10 7 1 any m s1 own 1, f 20 7 m s1 own 1",
        _8="b 60 8 2 any m s1 own 1, f 65 8 m s1 own 1",
    )
    sums = ledger.balance(folder, [], [ledger.Blow("its mule died", begun, begun + 1, pid)])
    assert sums.again == {reason: 1}
    assert len(sums.wrong) == (reason == "for no reason")


@pytest.mark.parametrize(("pid", "reason"), [(7, "its mule was suspended"), (8, "for no reason")])
def test_what_was_delivered_first_may_be_begun_last(
    ledger: ModuleType, tmp_path: Path, pid: int, reason: str
) -> None:
    folder = write(
        tmp_path,
        "m s1 own 1",
        _7="b 60 7 1 any m s1 own 1, f 65 7 m s1 own 1",
        _8="b 10 8 2 any m s1 own 1, f 20 8 m s1 own 1",
    )
    sums = ledger.balance(folder, [], [ledger.Blow("its mule was suspended", 5, 55, pid)])
    assert sums.again == {reason: 1}


def test_what_one_thread_is_given_first_comes_in_order(ledger: ModuleType, tmp_path: Path) -> None:
    lines = "b 10 7 1 mule:1 m s1 own 2, b 20 7 1 mule:1 m s1 own 1, b 30 7 2 mule:1 m s1 own 0"
    sums = ledger.balance(write(tmp_path, "", _7=lines), [], [])
    assert sums.wrong == ["m s1 own 1: out of order"]
