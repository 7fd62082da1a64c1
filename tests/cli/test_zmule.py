"""`zmule` against a real broker."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from typing import IO

import pytest

from tests.cli.conftest import Shell, in_process
from tests.conftest import COMMANDS, wait_until
from zmule.cli.zmule import main
from zmule.mules.mule import Mule
from zmule.version import VERSION


def statuses(stream: IO[bytes]) -> Iterator[dict[str, object]]:
    """The lines of `status --json --watch`."""
    return (json.loads(line)["broker"] for line in stream)


def test_status_is_a_picture_for_people(busy_shell: Shell) -> None:
    code, out, err = busy_shell.run("zmule", "status")
    assert (code, err) == (0, "")
    assert out.startswith(f"zmuled {VERSION}  pid ")
    assert "record.py" in out
    assert "farm:busy" in out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 80


def test_status_that_goes_into_a_pipe_is_not_cut(busy_shell: Shell) -> None:
    wide = Shell(busy_shell.zmuled)
    del wide.environ["COLUMNS"]
    program = f"{'deep/' * 30}end.py"
    with Mule(program=program, endpoint=wide.zmuled.endpoint):
        assert program in wide.run("zmule", "status").out


def test_status_is_json_for_programs(busy_shell: Shell) -> None:
    code, out, err = busy_shell.run("zmule", "status", "--json")
    status = json.loads(out)
    assert (code, err) == (0, "")
    assert {"broker", "mules", "farms", "queues", "dead", "totals"} <= set(status)
    assert status["farms"] == {"busy": [1]}


def test_a_stranger_cannot_write_to_the_terminal(busy_shell: Shell) -> None:
    with Mule(program="\x1b[31m\x07", endpoint=busy_shell.zmuled.endpoint):
        out = busy_shell.run("zmule", "status").out
    assert not any(char in out for char in "\x1b\x07")


def test_a_watcher_survives_a_restart_of_the_broker(shell: Shell) -> None:
    zmuled = shell.zmuled.start()
    assert zmuled.process is not None
    with shell.start("zmule", "status", "--json", "--watch=0.05") as watching:
        assert next(statuses(watching.out))["pid"] == zmuled.process.pid
        zmuled.kill()
        assert b"no zmuled at" in watching.err.readline()
        zmuled.start()
        pid = zmuled.process.pid
        assert any(broker["pid"] == pid for broker in statuses(watching.out))
        watching.process.send_signal(signal.SIGINT)
        assert watching.process.wait() == 0


def test_a_watcher_of_the_picture_says_that_the_broker_is_away(shell: Shell) -> None:
    shell.zmuled.start()
    with shell.start("zmule", "status", "--watch=0.05") as watching:
        assert watching.out.readline().startswith(b"zmuled")
        shell.zmuled.kill()
        assert any(line.startswith(b"no zmuled at") for line in watching.out)
        watching.process.send_signal(signal.SIGINT)
        assert watching.end().code == 0


def test_a_watcher_on_a_terminal_draws_in_place_and_leaves_the_screen_as_it_was(busy_shell: Shell) -> None:
    ours, theirs = pty.openpty()
    environ = busy_shell.environ | {"TERM": "xterm", "LINES": "30"}
    command = [str(COMMANDS / "zmule"), "status", "--watch", "0.05"]
    with subprocess.Popen(command, env=environ, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        try:
            seen = b""
            while seen.count(b"zmuled") < 3:
                seen += os.read(ours, 4096)
            process.send_signal(signal.SIGINT)
            while b"\x1b[?1049l" not in seen:
                seen += os.read(ours, 4096)
        except BaseException:
            process.kill()
            raise
    os.close(ours)
    assert process.returncode == 0
    assert seen.startswith(b"\x1b[?1049h")
    assert b"Traceback" not in seen


def test_a_reader_who_has_seen_enough(busy_shell: Shell) -> None:
    with busy_shell.start("zmule", "status", "--watch=0.01") as watching:
        watching.out.readline()
        watching.out.close()
        assert watching.process.wait() == 1
        assert watching.err.read() == b""


def test_ping(busy_shell: Shell) -> None:
    code, out, err = busy_shell.run("zmule", "ping")
    assert (code, err) == (0, "")
    assert out.startswith(f"{busy_shell.zmuled.endpoint} answered in ")
    code, out, err = busy_shell.run("zmule", "ping", "--count", "3")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == [busy_shell.zmuled.endpoint] * 3 + ["least"]


@pytest.mark.parametrize("words", [["status"], ["status", "--watch=1"], ["ping"], ["run", "record.py"]])
def test_a_broker_out_of_reach(shell: Shell, words: list[str]) -> None:
    done = shell.run("zmule", *words, "--timeout=0.1")
    text = f"no zmuled at {shell.zmuled.endpoint}: is zmuled running?"
    assert done == (69, "", f"zmule: {text}\n")


def test_a_program_joins_as_a_mule_and_control_c_ends_it(busy_shell: Shell) -> None:
    endpoint = busy_shell.zmuled.endpoint
    with busy_shell.start("zmule", "run", "--farm=own", "--farm", "other", "record.py") as running:
        assert running.err.readline() == f"zmule: record.py is mule 3 of {endpoint}\n".encode()
        wait_until(lambda: busy_shell.zmuled.mule(3)["state"] == "idle")
        mule = busy_shell.zmuled.mule(3)
        assert (mule["program"], mule["farms"]) == ("record.py", ["own", "other"])
        for target in ("3", "own", "other"):
            assert busy_shell.run("zmule-send", target, "x").code == 0
        busy_shell.wait_for_record(["mule:3 'x'", "farm:own 'x'", "farm:other 'x'"])
        running.process.send_signal(signal.SIGINT)
        assert running.end() == (0, "", "")
    assert {mule["id"] for mule in busy_shell.zmuled.status()["mules"]} == {1, 2}


def test_a_mule_has_the_broker_of_its_option_for_its_own_messages(busy_shell: Shell) -> None:
    shell = Shell(busy_shell.zmuled)
    shell.environ["ZMULE_ENDPOINT"] = "ipc:///nowhere/z.sock"
    shell.zmuled.program("answer.py", "import uwsgi; uwsgi.mule_msg(str(uwsgi.mule_id()), 1)")
    done = shell.run("zmule", "run", "--endpoint", shell.zmuled.endpoint, "--id", "77", "answer.py")
    assert (done.code, done.out) == (0, "")
    shell.wait_for_record(["mule:1 '77'"])


@pytest.mark.parametrize(
    ("number", "code", "complaint"),
    [("50", 1, "mule 50 is another process already"), ("1", 77, "mule 1 is one that zmuled starts itself")],
)
def test_a_number_that_is_taken(busy_shell: Shell, number: str, code: int, complaint: str) -> None:
    with Mule(50, endpoint=busy_shell.zmuled.endpoint):
        done = busy_shell.run("zmule", "run", "--id", number, "record.py")
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith(f"zmule: {complaint}")


def test_the_end_of_a_program_is_that_of_the_command(busy_shell: Shell) -> None:
    busy_shell.zmuled.program("leave.py", "import sys; sys.exit(3)")
    busy_shell.zmuled.program("crash.py", "1 / 0")
    assert busy_shell.run("zmule", "run", "leave.py").code == 3
    done = busy_shell.run("zmule", "run", "crash.py")
    assert done.code == 1
    assert done.err.endswith("ZeroDivisionError: division by zero\n")
    assert busy_shell.run("zmule", "run", "os:getpid").code == 0


@pytest.mark.parametrize(
    ("program", "complaint"),
    [
        ("nosuch.py", "cannot read the program nosuch.py: No such file or directory"),
        ("record", "'record' is no program: name a path ending in .py, or package.module:callable"),
    ],
)
def test_what_is_no_program_never_becomes_a_mule(shell: Shell, program: str, complaint: str) -> None:
    assert shell.run("zmule", "run", program) == (2, "", f"zmule: {complaint}\n")


def test_a_callable_that_is_not_there(busy_shell: Shell) -> None:
    for program in ("nosuch:run", "os:nosuch", "os:"):
        done = busy_shell.run("zmule", "run", program)
        assert done.code == 78
        assert len(done.err.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nosuch"], "there is no command 'nosuch' (see zmule --help)"),
        (["statsu"], "there is no command 'statsu': did you mean status? (see zmule --help)"),
        (["dead", "lsit"], "there is no command 'lsit': did you mean list? (see zmule dead --help)"),
        (["status", "--jsno"], "there is no option --jsno: did you mean --json? (see zmule status --help)"),
        (["status", "--nothing"], "there is no option --nothing (see zmule status --help)"),
        (["dead", "list", "--queue=foo"], "'foo' is no queue: write any, mule:N or farm:NAME (see"),
        (["dead", "list", "--queue="], "'' is no queue"),
        (["dead", "list", "--queue=mule:0"], "'mule:0' is no queue"),
        (["dead", "list", "--queue=mlue:1"], "farm:NAME: did you mean mule? (see"),
        (["dead", "drop", "0"], "'0' is not a whole number"),
        (["dead", "show", "1.5"], "'1.5' is not a whole number"),
        (["signal", "256"], "'256' is not a whole number from 0 to 255"),
        (["run", "--id=0", "os:getpid"], "'0' is not a whole number from 1 to 1000000"),
        (["run", "--farm=a", "--farm=a", "os:getpid"], "a farm is named twice"),
        (["run", "--farm=", "os:getpid"], "'' cannot be the name of a farm"),
        (["ping", "--timeout=-1"], "'-1' is not a number of seconds"),
        (["ping", "--timeout=nan"], "'nan' is not a number of seconds"),
        (["status", "--watch=0"], "'0' is not a number of seconds"),
        (["status", "--endpoint=x"], "'x' is not an endpoint"),
        (["ping", "--count=0"], "'--count'"),
        (["run"], "Missing argument 'PROGRAM'"),
        (["run", "--id=-1", "os:getpid"], "'--id'"),
        (["run", "--farm=1", "os:getpid"], "'1' cannot be the name of a farm"),
        (["run", "--farm=any", "os:getpid"], "'any' cannot be the name of a farm"),
    ],
)
def test_a_command_line_that_cannot_be_understood(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = in_process(main, ["zmule", *words], capsys, monkeypatch)
    assert (code, out) == (2, "")
    assert complaint in err
    assert len(err.splitlines()) == 1


def test_help_and_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (["--help"], ["status", "--help"], ["ping", "--help"], ["run", "--help"]):
        assert in_process(main, ["zmule", *words], capsys, monkeypatch).code == 0
    for words in ([], ["dead"]):
        shown = in_process(main, ["zmule", *words], capsys, monkeypatch)
        assert shown.code == 0
        assert "Commands:" in shown.out
        assert not any(sign in shown.out for sign in "<>{}")
    version = in_process(main, ["zmule", "--version"], capsys, monkeypatch)
    assert version == (0, f"zmule {VERSION}\n", "")
