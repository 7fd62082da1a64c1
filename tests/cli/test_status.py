"""The picture of a status, without a broker."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from rich.console import Console

from zmule.cli.status import WIDE, clock, picture, span, tail
from zmule.errors import BrokerUnavailable


def mule(number: int, **changes: Any) -> dict[str, Any]:
    """A mule's entry."""
    usual = {"id": number, "pid": 100_000, "mode": "programmed", "program": "feed.py", "state": "idle"}
    counts = {"farms": ["busy"], "waiting": 1, "in_flight": 0, "messages": 0, "restarts": 0}
    now = time.time()
    history: dict[str, Any] = {"since": now - 5, "started": now - 100, "last_exit": None, "work": []}
    return usual | counts | history | changes


def queue(**changes: Any) -> dict[str, Any]:
    """A queue's entry."""
    empty = {"ready": 0, "in_flight": 0, "delayed": 0, "dead": 0, "bytes": 0, "oldest_age_s": None}
    return empty | changes


def status(**changes: Any) -> dict[str, Any]:
    """A broker's status."""
    broker = {
        "version": "1.2.3",
        "pid": 4711,
        "uptime_s": 3723.5,
        "stopping": False,
        "clients": 1,
        "store": "memory:",
        "store_error": None,
        "endpoints": ["ipc:///run/zmule/zmule.sock", "tcp://127.0.0.1:5870"],
    }
    names = ("accepted", "delivered", "acked", "redelivered", "refused", "dead")
    return {
        "broker": broker,
        "mules": [mule(1)],
        "farms": {"busy": [1, 2]},
        "queues": {"any": queue(no_reader_since=None)},
        "signals": [],
        "timers": [],
        "locks": [],
        "dead": {"count": 0},
        "totals": dict.fromkeys(names, 0),
    } | changes


def drawn(status: dict[str, Any], width: int = 80, error: BrokerUnavailable | None = None) -> list[str]:
    """The lines of the picture on a terminal of that width."""
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(picture(status, error))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_it_says_who_the_broker_is_and_what_became_of_the_messages() -> None:
    lines = drawn(status(totals={**status()["totals"], "accepted": 1234, "dead": 2}))
    assert lines[0] == "zmuled 1.2.3  pid 4711  up 1 h 2 m  1 client  memory:"
    assert lines[1] == "ipc:///run/zmule/zmule.sock  tcp://127.0.0.1:5870"
    assert lines[3].split("  ") == [
        "ACCEPTED",
        "DELIVERED",
        "ACKED",
        "REDELIVERED",
        "REFUSED",
        "DEAD LETTERS",
    ]
    assert lines[4].split() == ["1234", "0", "0", "0", "0", "2"]


def test_it_has_a_row_for_each_mule_queue_and_farm() -> None:
    mules = [
        mule(1, state="busy", in_flight=3, messages=12, restarts=2),
        mule(2, mode="signal-only", program=None, farms=[], waiting=0),
        mule(3, state="failed", pid=0, program="pkg.mod:run"),
    ]
    queues = {"any": queue(no_reader_since=time.time() - 60), "farm:busy": queue(ready=5, oldest_age_s=61.0)}
    rows = [" ".join(line.split()) for line in drawn(status(mules=mules, queues=queues))]
    assert "1 busy 5 s feed.py busy -" in rows
    assert "2 idle 5 s - - -" in rows
    assert "3 failed 5 s pkg.mod:run busy -" in rows
    assert "1 100000 1 m 40 s 1 3 12 2 -" in rows
    assert "2 100000 1 m 40 s 0 0 0 0 -" in rows
    assert "3 - - 1 0 0 0 -" in rows
    assert "farm:busy 5 0 0 0 1 m 1 s" in rows
    assert any(row.startswith("any 0 0 0 0 - no reader since ") for row in rows)
    assert "busy 1 2" in rows


def test_it_shows_what_a_mule_works_on_and_how_its_last_process_ended() -> None:
    now = time.time()
    work = {"id": 17, "queue": "farm:busy", "attempt": 1, "age_s": 61.5}
    mules = [
        mule(1, state="busy", work=[work], last_exit={"code": None, "signal": 9, "at": now - 7200}),
        mule(2, work=[work, work, work], last_exit={"code": 1, "signal": None, "at": now - 5}),
        mule(3, last_exit={"code": None, "signal": 40, "at": now + 99}, since=now + 99),
    ]
    rows = [" ".join(line.split()) for line in drawn(status(mules=mules), 200)]
    assert (
        "1 busy 5 s feed.py busy #17 farm:busy, 1 m 1 s 100000 1 m 40 s 1 0 0 0 SIGKILL, 2 h 0 m ago" in rows
    )
    assert any("#17 farm:busy, 1 m 1 s and 2 more" in row and row.endswith("code 1, 5 s ago") for row in rows)
    assert any(row.startswith("3 idle 0 s") and row.endswith("signal 40, 0 s ago") for row in rows)
    narrow = [" ".join(line.split()) for line in drawn(status(mules=mules), 80)]
    assert "1 busy 5 s feed.py busy #17 farm:busy, 1 m 1 s" in narrow
    assert "1 100000 1 m 40 s 1 0 0 0 SIGKILL, 2 h 0 m ago" in narrow


@pytest.mark.parametrize("width", [80, 120, WIDE, 200])
def test_every_row_is_on_one_line_that_fits(width: int) -> None:
    work = [{"id": 7 * 10**12, "queue": "farm:" + "f" * 100, "attempt": 1, "age_s": 1e6}] * 10
    end = {"code": None, "signal": 15, "at": 0.0}
    long = [
        mule(1_000_000, program=f"/srv/{'deep/' * 30}the_end.py", farms=[f"farm{n}" for n in range(64)]),
        mule(
            2,
            program="骡子" * 40 + ".py",
            messages=1_234_567,
            restarts=12,
            state="starting",
            work=work,
            last_exit=end,
        ),
    ]
    farms = {"f" * 100: list(range(1, 200)), "g": []}
    queues = {"farm:" + "f" * 100: queue(ready=2_000_000, oldest_age_s=1e6, no_reader_since=1e9)}
    lines = drawn(status(mules=long, farms=farms, queues=queues), width)
    console = Console(file=io.StringIO(), width=10_000)
    assert max(console.measure(line).maximum for line in lines if line) <= width
    assert sum("1000000" in line for line in lines) == (1 if width >= WIDE else 2)
    assert any("_end.py " in line for line in lines)
    assert len(lines) == (17 if width >= WIDE else 21)


def test_names_cannot_move_the_cursor_or_be_taken_for_markup() -> None:
    wild = mule(1, program="\x1b[2J\r\u202e[red]x.py", farms=["[bold]"])
    text = "\n".join(drawn(status(mules=[wild], farms={"[bold]": [1]}), 200))
    assert "\ufffd[2J\ufffd\ufffd[red]x.py" in text
    assert "[bold]" in text
    assert "\x1b" not in text


def test_it_says_when_the_broker_is_out_of_reach_and_when_it_stops() -> None:
    assert drawn(status(), error=BrokerUnavailable("it is gone"))[0] == "it is gone"
    stopping = status()
    stopping["broker"]["stopping"] = True
    assert drawn(stopping)[0].endswith("memory:  stopping")


def test_a_broker_without_mules_has_no_table_of_them() -> None:
    assert not any("PROGRAM" in line or "FARM" in line for line in drawn(status(mules=[], farms={})))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.9, "0 s"),
        (59, "59 s"),
        (61, "1 m 1 s"),
        (3600, "1 h 0 m"),
        (90_000, "1 d 1 h"),
        (1e9, "11574 d 1 h"),
    ],
)
def test_a_span_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_a_moment_has_its_day_if_it_is_long_ago() -> None:
    now = time.time()
    assert clock(now - 60) == time.strftime("%H:%M:%S", time.localtime(now - 60))
    assert clock(now - 86_400) == time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now - 86_400))


@pytest.mark.parametrize(
    ("text", "width", "end"),
    [
        ("feed.py", 7, "feed.py"),
        ("a/feed.py", 8, "…feed.py"),
        ("骡子.py", 6, "…子.py"),
        ("feed.py", 1, "…"),
        ("feed.py", 0, ""),
    ],
)
def test_a_program_keeps_its_end(text: str, width: int, end: str) -> None:
    assert tail(text, width) == end


def test_a_store_that_cannot_write_is_told() -> None:
    broker = {**status()["broker"], "store_error": "/var/lib/zmule/zmule.db: the disk is full"}
    assert (
        drawn(status(broker=broker))[2] == "the store cannot write: /var/lib/zmule/zmule.db: the disk is full"
    )
