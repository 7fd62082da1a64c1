"""The commands, run as a shell runs them, against a real `zmuled`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import pytest

from tests.conftest import COMMANDS, PATIENCE, Zmuled, wait_until

RECORDER = """
    import zmule
    mule = zmule.current_mule()
    with open("record", "a", buffering=1) as record:
        while True:
            with mule.message() as message:
                print(message.queue, repr(message.body), file=record)
"""


class Outcome(NamedTuple):
    """How a command has ended."""

    code: int
    out: str
    err: str


class Running:
    """A command that has been started."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.process, self.stdin, self.out, self.err = process, process.stdin, process.stdout, process.stderr

    def type(self, data: bytes) -> None:
        """Write to its standard input."""
        self.stdin.write(data)
        self.stdin.flush()

    def end(self) -> Outcome:
        """Wait for its end."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return Outcome(self.process.returncode, out.decode(), err.decode())


class Shell:
    """The commands, in the folder of a `zmuled` and told where that is."""

    def __init__(self, zmuled: Zmuled) -> None:
        self.zmuled = zmuled
        self.folder = zmuled.folder
        ours = {name: value for name, value in os.environ.items() if not name.startswith("ZMULE_")}
        self.environ = ours | {"ZMULE_ENDPOINT": zmuled.endpoint, "TERM": "dumb", "COLUMNS": "80"}
        zmuled.program("record.py", RECORDER)

    @contextmanager
    def start(self, command: str, *words: str) -> Iterator[Running]:
        """Start a command; it is over, one way or the other, when the block is."""
        process = subprocess.Popen(
            [COMMANDS / command, *words],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            try:
                yield Running(process)
            finally:
                process.kill()
                with suppress(BrokenPipeError):
                    process.communicate()

    def run(self, command: str, *words: str | bytes, stdin: bytes = b"") -> Outcome:
        """Run a command to its end."""
        done = subprocess.run(
            [COMMANDS / command, *words],
            cwd=self.folder,
            env=self.environ,
            input=stdin,
            capture_output=True,
            timeout=PATIENCE,
        )
        return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())

    def record(self) -> list[str]:
        """Return what mules that run record.py have got so far, each as its queue and the message."""
        path = self.folder / "record"
        return path.read_text().splitlines() if path.exists() else []

    def wait_for_record(self, lines: list[str]) -> None:
        """Wait until just these messages have been got since the last time, in this order."""
        wait_until(lambda: len(self.record()) >= len(lines), f"{len(lines)} messages")
        assert self.record() == lines
        (self.folder / "record").write_text("")


def in_process(
    main: Callable[[], None],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Outcome:
    """Run a command here, which is faster: for what ends before there is a broker to talk to."""
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    code = 0
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return Outcome(code, out, err)


@pytest.fixture(scope="module")
def busy_shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """With a broker for all tests of a module: mule 1 records, and is all of `busy`; mule 2 reads nothing."""
    zmuled = Zmuled(tmp_path_factory.mktemp("shell"))
    shell = Shell(zmuled)
    try:
        zmuled.start("--mule=record.py", "--mule", "--farm=busy:1", "--max-message=1000")
        yield shell
        assert zmuled.stop() == 0
    finally:
        zmuled.end()


@pytest.fixture
def shell(zmuled: Zmuled) -> Shell:
    """With a broker that the test starts itself."""
    return Shell(zmuled)
