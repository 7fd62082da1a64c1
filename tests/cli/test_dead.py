"""`zmule dead` against a real broker."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Iterator

import pytest

from tests.cli.conftest import Shell, in_process
from tests.conftest import COMMANDS, PATIENCE, wait_until
from zmule.cli.zmule import main
from zmule.mules.mule import Mule


@pytest.fixture
def dead(shell: Shell) -> Iterator[Shell]:
    """A shell whose broker has two dead letters, and one of another queue."""
    zmuled = shell.zmuled.start("--max-deliveries=1")
    client = zmuled.client()
    with Mule(7, farms=["busy"], endpoint=zmuled.endpoint) as mule:
        for message in ("first", b"\xff\n", "third"):
            client.mule_msg(message, headers={"trace": "abc"})
            assert mule.get_msg(timeout=PATIENCE) == message
            mule.nack()
        client.farm_msg("busy", "\x1b[31mred\nline", ttl=0.01, delay=0.02)
        wait_until(lambda: client.status()["dead"]["count"] == 4)
        yield shell


def numbers(shell: Shell, *words: str) -> list[int]:
    out = shell.run("zmule", "dead", "list", "--json", *words).out
    return [letter["id"] for letter in json.loads(out)["letters"]]


def test_a_list_for_people(dead: Shell) -> None:
    code, out, err = dead.run("zmule", "dead", "list")
    assert (code, err) == (0, "")
    head, *rows = out.splitlines()
    assert head.split() == ["ID", "QUEUE", "DIED", "AT", "BYTES", "REASON", "MESSAGE"]
    assert len(rows) == 4
    assert rows[0].split()[1] == "any"
    assert "expired" in rows[3]
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_list_for_programs(dead: Shell) -> None:
    found = json.loads(dead.run("zmule", "dead", "list", "--json", "--queue=farm:busy").out)
    assert found["count"] == 1
    (letter,) = found["letters"]
    assert (letter["queue"], letter["reason"], letter["mule"]) == ("farm:busy", "expired", 0)


def test_a_list_in_pieces(dead: Shell) -> None:
    every = numbers(dead)
    code, out, err = dead.run("zmule", "dead", "list", "--limit=3")
    assert (code, len(out.splitlines())) == (0, 4)
    assert err == f"3 of 4 shown: go on with --after {every[2]}\n"
    assert numbers(dead, f"--after={every[2]}") == every[3:]
    assert numbers(dead, "--limit=2", "--queue=any") == every[:2]


def test_one_is_shown(dead: Shell) -> None:
    first, second, _, last = numbers(dead)
    out = dead.run("zmule", "dead", "show", str(first)).out
    assert "mule 7 failed with it, at delivery 1 of 1" in out
    assert "{'trace': 'abc'}" in out
    assert out.endswith("\n\nfirst\n")
    assert dead.run("zmule", "dead", "show", str(second)).out.endswith("\n\nb'\\xff\\n'\n")
    out = dead.run("zmule", "dead", "show", str(last)).out
    assert out.endswith("[31mred\nline\n")
    assert "\x1b" not in out
    letter = json.loads(dead.run("zmule", "dead", "show", "--json", str(second)).out)
    assert (letter["body"], letter["headers"]) == ({"base64": "/wo="}, {"trace": "abc"})


def test_some_are_requeued(dead: Shell) -> None:
    first, second, *_ = numbers(dead)
    assert dead.run("zmule", "dead", "requeue", str(first), str(second)) == (
        0,
        "2 dead letters requeued\n",
        "",
    )
    assert dead.run("zmule", "dead", "requeue", "--queue=farm:busy").code == 0
    assert len(numbers(dead)) == 1
    assert dead.zmuled.status()["queues"]["any"]["ready"] == 2


@pytest.mark.parametrize("words", [["show", "999"], ["requeue", "1", "999"], ["drop", "1", "999"]])
def test_one_that_is_not_there_is_an_error(dead: Shell, words: list[str]) -> None:
    assert dead.run("zmule", "dead", *words) == (1, "", "zmule: there is no dead letter 999\n")
    assert len(numbers(dead)) == 4


def test_what_nobody_reads_any_more_cannot_be_requeued(shell: Shell) -> None:
    zmuled = shell.zmuled.start("--max-deliveries=1")
    client = zmuled.client()
    with Mule(7, endpoint=zmuled.endpoint) as mule:
        client.mule_msg("x", 7)
        mule.get_msg(timeout=PATIENCE)
        mule.nack(dead=True)
        wait_until(lambda: client.status()["dead"]["count"] == 1)
    code, out, err = shell.run("zmule", "dead", "requeue", "--all")
    assert (code, out) == (1, "")
    assert err == "zmule: 0 dead letters were requeued, 1 had to stay: there is no mule 7\n"


def test_some_are_dropped(dead: Shell) -> None:
    first, *_ = numbers(dead)
    assert dead.run("zmule", "dead", "drop", str(first)) == (0, "1 dead letters dropped\n", "")
    assert dead.run("zmule", "dead", "drop", "--all") == (0, "3 dead letters dropped\n", "")
    assert dead.run("zmule", "dead", "list").out == "no dead letters\n"
    assert dead.zmuled.status()["totals"]["dropped"] == 4


@pytest.mark.parametrize(("answer", "left"), [(b"y\n", 0), (b"n\n", 4)])
def test_a_terminal_is_asked_before_anything_is_dropped(dead: Shell, answer: bytes, left: int) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "wb", buffering=0) as terminal, os.fdopen(theirs, "rb", buffering=0) as stdin:
        terminal.write(answer)
        done = subprocess.run(
            [COMMANDS / "zmule", "dead", "drop", "--all"],
            env=dead.environ,
            stdin=stdin,
            capture_output=True,
            timeout=PATIENCE,
        )
    assert b"are gone for good. Drop all dead letters?" in done.stderr
    assert done.returncode == (1 if left else 0)
    assert len(numbers(dead)) == left


@pytest.mark.parametrize(
    "words",
    [["requeue"], ["drop"], ["drop", "1", "--all"], ["requeue", "--queue=any", "--all"], ["drop", "x"]],
)
def test_a_command_line_that_says_too_little_or_too_much(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = in_process(main, ["zmule", "dead", *words], capsys, monkeypatch)
    assert (code, out) == (2, "")
