"""`zmule-send`, from its words and lines to what a mule gets of them, and to its exit code."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from tests.cli.conftest import Shell, in_process
from tests.conftest import COMMANDS, PATIENCE, wait_until
from zmule.cli.send import as_body, main, read_lines
from zmule.mules.mule import Mule
from zmule.version import VERSION


@pytest.mark.parametrize(
    ("target", "queue"),
    [("1", "mule:1"), ("001", "mule:1"), ("any", "any"), ("0", "any"), ("busy", "farm:busy")],
)
def test_each_target_has_its_queue(busy_shell: Shell, target: str, queue: str) -> None:
    assert busy_shell.run("zmule-send", target, "ciuchino") == (0, "", "")
    busy_shell.wait_for_record([f"{queue} 'ciuchino'"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("eat stuff", "'eat stuff'"),
        ("", "''"),
        ("perché", "'perché'"),
        (b"a\xffb", r"b'a\xffb'"),
        ("a\nb", r"'a\nb'"),
    ],
)
def test_a_word_is_text_if_it_is_utf_8_and_else_bytes(
    busy_shell: Shell, word: str | bytes, message: str
) -> None:
    assert busy_shell.run("zmule-send", "any", word) == (0, "", "")
    busy_shell.wait_for_record([f"any {message}"])


def test_each_line_is_a_message(busy_shell: Shell) -> None:
    lines = b"one\n\n  two \r\n\xff\xc3\xa8\nperch\xc3\xa9\n\nno newline"
    assert busy_shell.run("zmule-send", "1", "-", stdin=lines) == (0, "", "")
    bodies = ["'one'", "''", r"'  two \r'", r"b'\xff\xc3\xa8'", "'perché'", "''", "'no newline'"]
    busy_shell.wait_for_record([f"mule:1 {body}" for body in bodies])


def test_no_lines_are_no_messages(busy_shell: Shell) -> None:
    assert busy_shell.run("zmule-send", "--verbose", "any", "-").code == 0
    assert busy_shell.record() == []


def test_many_lines_stay_in_order(busy_shell: Shell) -> None:
    lines = [str(number) for number in range(6_000)]
    done = busy_shell.run("zmule-send", "--verbose", "busy", "-", stdin="\n".join(lines).encode())
    assert done.code == 0
    assert done.err.startswith("zmule-send: 6000 messages sent to busy in ")
    busy_shell.wait_for_record([f"farm:busy {line!r}" for line in lines])


def test_options_and_a_message_that_begins_with_a_dash(busy_shell: Shell) -> None:
    endpoint = busy_shell.zmuled.endpoint
    busy_shell = Shell(busy_shell.zmuled)
    busy_shell.environ["ZMULE_ENDPOINT"] = "ipc:///nowhere/z.sock"
    done = busy_shell.run("zmule-send", "--endpoint", endpoint, "--timeout=20", "--verbose", "1", "--", "-5")
    assert done.code == 0
    assert done.err.startswith("zmule-send: 1 message sent to 1 in ")
    busy_shell.wait_for_record(["mule:1 '-5'"])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["9", "x"], "there is no mule 9"),
        (["12345678", "x"], "there is no mule 12345678"),
        (["9" * 5000, "x"], "there is no mule " + "9" * 80),
        (["nosuch", "x"], "there is no farm 'nosuch'"),
        ([b"\xff", "x"], r"there is no farm '\udcff'"),
        (["two\nlines", "x"], r"there is no farm 'two\nlines'"),
        (["x" * 1000, "x"], f"there is no farm '{'x' * 80}'"),
        (["2", "x"], "mule 2 is signal-only: it reads no messages"),
        (["any", "x" * 1001], "the message has 1001 bytes, the limit (max_message) is 1000"),
    ],
)
def test_a_refusal_is_one_line(busy_shell: Shell, words: list[str | bytes], complaint: str) -> None:
    assert busy_shell.run("zmule-send", *words) == (1, "", f"zmule-send: {complaint}\n")


def test_a_line_that_is_too_long_is_named_and_those_before_it_are_sent(busy_shell: Shell) -> None:
    done = busy_shell.run("zmule-send", "busy", "-", stdin=b"a\nb\n" + b"x" * 1001 + b"\nc\n")
    text = "line 3: more than 1000 bytes, the limit (max_message) for a message"
    assert done == (1, "", f"zmule-send: {text}\n")
    busy_shell.wait_for_record(["farm:busy 'a'", "farm:busy 'b'"])


@pytest.mark.parametrize("words", [["bussy", "x"], ["bussy", "-"]])
def test_the_farm_that_was_meant(busy_shell: Shell, words: list[str]) -> None:
    done = busy_shell.run("zmule-send", *words, stdin=b"a\n")
    assert done.code == 1
    assert done.err.endswith("there is no farm 'bussy': did you mean busy?\n")


def test_an_empty_target(busy_shell: Shell) -> None:
    text = "the target is empty: name a mule's number, any, or a farm"
    assert busy_shell.run("zmule-send", "", "x") == (2, "", f"zmule-send: {text}\n")


def test_refused_lines_are_named(busy_shell: Shell) -> None:
    done = busy_shell.run("zmule-send", "nosuch", "-", stdin=b"a\nb\nc\n")
    text = "lines 1 to 3: there is no farm 'nosuch' (and 2 more were refused)"
    assert done == (1, "", f"zmule-send: {text}\n")


def test_a_line_that_never_ends_is_refused(busy_shell: Shell) -> None:
    with busy_shell.start("zmule-send", "any", "-") as sending:
        with suppress(BrokenPipeError):
            while True:
                sending.type(bytes(65_536))
        assert sending.err.read().startswith(b"zmule-send: line 1: more than 1000 bytes")
        assert sending.process.wait() == 1


def test_a_pipeline_that_stays_open_sends_at_once(busy_shell: Shell) -> None:
    with busy_shell.start("zmule-send", "busy", "-") as sending:
        sending.type(b"now\nthe rest of thi")
        busy_shell.wait_for_record(["farm:busy 'now'"])
        sending.type(b"s\n")
        busy_shell.wait_for_record(["farm:busy 'the rest of this'"])
        assert sending.end() == (0, "", "")


def test_a_pipeline_that_stays_open_hears_of_refusals(busy_shell: Shell) -> None:
    with busy_shell.start("zmule-send", "2", "-") as sending:
        sending.type(b"now\n")
        assert sending.err.read() == b"zmule-send: line 1: mule 2 is signal-only: it reads no messages\n"
        assert sending.process.wait() == 1


def test_control_c_ends_it_as_it_would_end_a_program_without_a_handler(busy_shell: Shell) -> None:
    with busy_shell.start("zmule-send", "busy", "-") as sending:
        sending.type(b"first\n")
        busy_shell.wait_for_record(["farm:busy 'first'"])
        sending.process.send_signal(signal.SIGINT)
        assert sending.end() == (-signal.SIGINT, "", "")


def test_standard_input_that_is_closed(busy_shell: Shell) -> None:
    command = f"{COMMANDS / 'zmule-send'} any - <&-"
    done = subprocess.run(["sh", "-c", command], env=busy_shell.environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "zmule-send: standard input is closed\n")


def test_an_exit_code_does_not_need_somebody_to_read_the_complaint(shell: Shell) -> None:
    with shell.start("zmule-send", "--timeout=0.1", "any", "x") as sending:
        sending.err.close()
        assert sending.process.wait() == 69


def test_somebody_who_looks_on_sees_the_count_grow(busy_shell: Shell) -> None:
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    command = [str(COMMANDS / "zmule-send"), "busy", "-"]
    lines: list[str] = []
    seen = b""
    with subprocess.Popen(
        command, env=busy_shell.environ, stdin=subprocess.PIPE, stderr=theirs, bufsize=0
    ) as process:
        os.close(theirs)
        assert process.stdin is not None
        while b" messages sent to busy" not in seen:
            process.stdin.write(b"%d\n" % len(lines))
            lines.append(f"farm:busy '{len(lines)}'")
            wait_until(lambda: len(busy_shell.record()) == len(lines), "the next message")
            with suppress(BlockingIOError):
                seen += os.read(ours, 4096)
    assert process.returncode == 0
    assert os.read(ours, 4096).endswith(b"\r\x1b[K")
    os.close(ours)
    busy_shell.wait_for_record(lines)


def test_a_plain_call_imports_nothing_that_is_slow(busy_shell: Shell) -> None:
    program = (
        "import sys; from zmule.cli.send import main; sys.argv = ['zmule-send', 'any', 'quick']; main()\n"
        "print(*{'typer', 'rich', 'dataclasses', 'inspect', 'logging', 'subprocess'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=busy_shell.environ, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
    busy_shell.wait_for_record(["any 'quick'"])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "Missing argument 'TARGET'"),
        (["any"], "Missing argument 'MESSAGE'"),
        (["any", "a", "b"], "unexpected extra argument"),
        (["any", "-x"], "there is no option -x"),
        (["--nosuch", "any"], "there is no option --nosuch"),
        (["--endpoint", "nonsense", "any", "x"], "'nonsense' is not an endpoint"),
        (["--endpoint", f"ipc:///{'x' * 107}", "any", "x"], "108 bytes"),
        (["--timeout", "soon", "any", "x"], "'soon' is not a number of seconds"),
        (["--timeout", "nan", "any", "x"], "'nan' is not a number of seconds"),
        (["--timeout", "0", "any", "x"], "'0' is not a number of seconds"),
    ],
)
def test_a_command_line_that_cannot_be_understood(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = in_process(main, ["zmule-send", *words], capsys, monkeypatch)
    assert (code, out) == (2, "")
    assert complaint in " ".join(err.replace("│", " ").split())


def test_help_and_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = in_process(main, ["zmule-send", "--help"], capsys, monkeypatch)
    assert (code, err) == (0, "")
    for word in ("TARGET", "MESSAGE", "--endpoint", "--timeout", "--verbose", "--version"):
        assert word in out
    version = in_process(main, ["zmule-send", "--version"], capsys, monkeypatch)
    assert version == (0, f"zmule-send {VERSION}\n", "")


@pytest.mark.parametrize("message", ["x", "-"])
def test_a_broker_out_of_reach(shell: Shell, message: str) -> None:
    done = shell.run("zmule-send", "--timeout=0.1", "any", message, stdin=b"x\n")
    text = f"no zmuled at {shell.zmuled.endpoint}: is zmuled running?"
    assert done == (69, "", f"zmule-send: {text}\n")


def test_a_queue_that_is_full(shell: Shell) -> None:
    shell.zmuled.start("--queue-messages=2")
    assert shell.run("zmule-send", "any", "a").code == 0
    done = shell.run("zmule-send", "any", "-", stdin=b"b\nc\nd\n")
    assert done.code == 75
    assert done.err.startswith("zmule-send: lines 1 to 3: queue any is full")
    assert done.err.endswith("(and 1 more were refused)\n")
    assert shell.run("zmule-send", "any", "e").code == 75


def test_a_broker_that_hangs_does_not_make_control_c_wait(shell: Shell) -> None:
    zmuled = shell.zmuled.start()
    assert zmuled.process is not None
    with shell.start("zmule-send", "--timeout=1000", "any", "-") as sending:
        sending.type(b"x\n")
        wait_until(lambda: zmuled.status()["totals"]["accepted"] == 1, "the first line")
        zmuled.process.send_signal(signal.SIGSTOP)
        try:
            sending.type(b"y\n")
            sending.process.send_signal(signal.SIGINT)
            assert sending.end() == (-signal.SIGINT, "", "")
        finally:
            zmuled.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_lines_are_found_wherever_the_reads_end(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmule.cli.send.CHUNK", size)
    ours, theirs = os.pipe()
    os.write(theirs, b"a\n\nlonger\n123456789\n\nend")
    os.close(theirs)
    lines = [line for some in read_lines(ours, 9) for line in some]
    os.close(ours)
    assert lines == [b"a", b"", b"longer", b"123456789", b"", b"end"]


def test_bytes_are_a_text_only_if_all_of_them_are() -> None:
    assert as_body(b"perch\xc3\xa9") == "perché"
    assert as_body(b"ok \xc3") == b"ok \xc3"


def test_a_message_with_a_delay_and_one_that_expires(shell: Shell) -> None:
    zmuled = shell.zmuled.start()
    assert shell.run("zmule-send", "--delay=1000", "any", "later").code == 0
    assert shell.run("zmule-send", "--ttl=0.01", "any", "soon").code == 0
    wait_until(lambda: zmuled.status()["dead"]["count"] == 1)
    assert zmuled.status()["queues"]["any"]["delayed"] == 1


def test_a_full_queue_is_an_error_or_waited_for_in_order(shell: Shell) -> None:
    zmuled = shell.zmuled.start("--queue-messages=3")
    lines = [f"line {number}" for number in range(50)]
    data = "".join(f"{line}\n" for line in lines).encode()
    code, _, err = shell.run("zmule-send", "any", "-", stdin=data)
    assert (code, "queue any is full: it holds 3 messages" in err) == (75, True)
    begun = zmuled.status()["totals"]["accepted"]
    code, _, err = shell.run("zmule-send", "--timeout=0.1", "any", "-", stdin=data)
    assert (code, "queue any is full" in err) == (75, True)
    code, _, err = shell.run("zmule-send", "--timeout=0.1", "any", "x")
    assert (code, "queue any is full" in err) == (75, True)
    assert zmuled.status()["totals"]["accepted"] == begun
    with Mule(endpoint=zmuled.endpoint) as mule:
        assert [mule.get_msg(timeout=0) for _ in range(4)] == [*lines[:3], None]
        with shell.start("zmule-send", "--timeout=30", "--verbose", "any", "-") as sending:
            sending.type(data)
            assert [mule.get_msg(timeout=PATIENCE) for _ in lines] == lines
            assert sending.end().code == 0
