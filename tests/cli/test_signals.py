"""`zmule signal`, `signals`, `timers` and `locks`: their tables, and the commands against a real `zmuled`."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from tests.cli.conftest import Shell
from tests.conftest import wait_until
from zmule.cli.status import Status
from zmule.cli.tables import TABLES, ranges
from zmule.core.outbox import plain

SIGNAL = {"number": 17, "target": "mules", "mules": [1, 2, 3, 7], "workers": [], "raised": 5, "pending": 2}
TIMER = {"kind": "timer", "signal": 17, "spec": "every 30.0 s", "askers": 2, "fired": 3, "next_in_s": 4.25}
CRON = {
    "kind": "cron",
    "signal": 1,
    "spec": "0 4 * * * Europe/Rome",
    "askers": 1,
    "fired": 0,
    "next_in_s": 7e4,
}
FILEMON = {
    "kind": "filemon",
    "signal": 2,
    "spec": "/a/" + "x" * 100,
    "askers": 1,
    "fired": 0,
    "next_in_s": None,
}
MULE = {"id": 2, "pid": 100, "state": "busy"}
FREE: dict[str, Any] = {"name": 0, "holder": None, "token": None, "waiting": []}
HELD = {
    "name": "reports",
    "holder": {"pid": 100, "thread": 100},
    "token": 1_800_000_000_000_007,
    "waiting": [{"pid": 200, "thread": 201}, {"pid": 0, "thread": 9}],
}


def drawn(part: str, **status: Any) -> list[str]:
    """The lines of a table on a terminal of 80 columns."""
    console = Console(file=io.StringIO(), width=80, highlight=False)
    full: Status = {"mules": [MULE], **status}
    console.print(TABLES[part](full))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_signals() -> None:
    stray = SIGNAL | {"number": 200, "target": "", "mules": [], "workers": [1, 2]}
    assert drawn("signals", signals=[SIGNAL, stray]) == [
        "SIGNAL  TARGET  MULES  WORKERS  RAISED  PENDING",
        "    17  mules   1-3 7  -             5        2",
        "   200  ''      -      1-2           5        2",
    ]


def test_timers() -> None:
    lines = drawn("timers", timers=[TIMER, CRON, FILEMON])
    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines] == [
        ["SIGNAL", "SOURCE", "WHEN", "ASKERS", "FIRED", "NEXT", "IN"],
        ["17", "timer", "every", "30.0", "s", "2", "3", "4.2", "s"],
        ["1", "cron", "0", "4", "*", "*", "*", "Europe/Rome", "1", "0", "19", "h", "26", "m"],
        ["2", "filemon", f"/a/{'x' * 33}…", "1", "0", "-"],
    ]


def test_locks() -> None:
    lines = drawn("locks", locks=[FREE, HELD])
    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines[:2]] == [
        ["LOCK", "HOLDER", "TOKEN", "WAITING", "NEXT"],
        ["0", "-", "-", "0", "-"],
    ]
    assert lines[2] == "reports  mule 2 (pid 100)  1800000000000007        2  pid 200 thread 201"


def test_names_that_others_chose_cannot_move_the_cursor() -> None:
    assert "\x1b" not in "".join(drawn("locks", locks=[HELD | {"name": "a\x1b[2J"}]))
    assert "\n" not in drawn("timers", timers=[FILEMON | {"spec": "/a\nb"}])[1]


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([], "-"),
        ([5], "5"),
        ([1, 2], "1-2"),
        ([1, 3, 4, 5, 9], "1 3-5 9"),
        (list(range(1, 10_001)), "1-10000"),
    ],
)
def test_ranges(numbers: list[int], text: str) -> None:
    assert ranges(numbers) == text


APPLICATION = """
    import zmule
    mule = zmule.current_mule()
    mule.register_signal(17, "mule1", lambda number: open("ran", "a").write(f"{number}\\n"))
    mule.add_timer(18, 1000)
"""


def test_against_a_broker(shell: Shell) -> None:
    shell.zmuled.program("tasks.py", APPLICATION)
    shell.zmuled.start("--mule", "--app=tasks", "--locks=1")
    assert shell.run("zmule", "signal", "17") == (0, "", "")
    ran = shell.folder / "ran"
    wait_until(lambda: ran.exists() and ran.read_text() == "17\n", "the handler")
    with shell.zmuled.client().lock("mine"):
        parts = {part: json.loads(shell.run("zmule", part, "--json").out) for part in TABLES}
        assert parts["locks"][-1]["name"] == "mine"
        assert "mine" in shell.run("zmule", "locks").out
    assert [entry["number"] for entry in parts["signals"]] == [17]
    assert [entry["spec"] for entry in parts["timers"]] == ["every 1000.0 s"]
    assert "1 signal  1 timer  0 held locks" in shell.run("zmule", "status").out
    assert "every 1000.0 s" in shell.run("zmule", "timers").out


def test_nothing_to_show(shell: Shell) -> None:
    shell.zmuled.start()
    assert shell.run("zmule", "signals").out == "no signals\n"
    assert shell.run("zmule", "timers").out == "no timers\n"
    assert json.loads(shell.run("zmule", "timers", "--json").out) == []


def test_a_full_signal_is_told(shell: Shell) -> None:
    shell.zmuled.start()
    client = shell.zmuled.client(outbox_messages=20_000)
    for _ in range(10_000):
        client._post(plain("signal:9"), b"")
    client.flush()
    assert shell.run("zmule", "signal", "9") == (75, "", "zmule: signal 9 waits 10000 times already\n")


@pytest.mark.parametrize("words", [["256"], ["-1"], ["x"], [], ["1", "2"]])
def test_usage(shell: Shell, words: list[str]) -> None:
    done = shell.run("zmule", "signal", *words)
    assert done.code == 2
    assert "Traceback" not in done.err


def test_no_broker(shell: Shell) -> None:
    for words in (["signal", "1"], ["signals"], ["timers"], ["locks"]):
        done = shell.run("zmule", *words, "--timeout", "0.1")
        assert done.code == 69
        assert done.err.startswith("zmule: no zmuled at ")
