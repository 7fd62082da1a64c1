"""The supervisor with real processes and a clock of our own."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from zmule.core.events import Event, MuleExited, MuleGivenUp, MuleSpawned
from zmule.daemon import supervisor
from zmule.daemon.respawn import CRASHES, FIRST, PACE, RETRY, STEADY
from zmule.daemon.supervisor import DEATH_SECONDS, Supervisor, ending

FOR_EVER = "exec sleep 1000"
DEAF = "trap '' TERM; sleep 1000 & echo $!; exec sleep 1000"
MERCY = 60.0
PR_SET_CHILD_SUBREAPER = 36

ORPHAN = """
import os
reading, writing = os.pipe()
child = os.fork()
if child:
    print(child, flush=True)
    os.close(reading)
    os.waitpid(child, 0)
os.close(writing)
os.read(reading, 1)
print("orphan", flush=True)
"""
"""Its child waits for its death by the end of a pipe, and then prints."""

LEAVER = """
import os, time
os.setpgid(0, os.getpgid(os.getppid()))
print("left", flush=True)
time.sleep(1000)
"""


class Spec(NamedTuple):
    number: int
    argv: list[str]


class Rig:
    """A supervisor of shell scripts, and all that it said. `now` is what time it is."""

    def __init__(self, *scripts: str | list[str]) -> None:
        argvs = [["/bin/sh", "-c", script] if isinstance(script, str) else script for script in scripts]
        self.now = 1000.0
        self.lines: list[tuple[int, int, str]] = []
        self.is_full = False
        self.room, self.make_room = socket.socketpair()
        self.events: list[Event] = []
        self.supervisor = Supervisor(
            [Spec(number, argv) for number, argv in enumerate(argvs, 1)],
            command=lambda spec: spec.argv,
            environment={"PATH": os.environ["PATH"], "COLOUR": "grey"},
            mercy=MERCY,
            output=self,
            files=1000,
        )

    def write(self, number: int, pid: int, lines: Iterable[str]) -> None:
        self.lines += [(number, pid, line) for line in lines]

    def full(self) -> bool:
        return self.is_full

    def fileno(self) -> int:
        return self.room.fileno()

    def heard(self) -> None:
        self.room.recv(1)

    def start(self) -> list[MuleSpawned]:
        self.events += self.supervisor.start(self.now)
        return [event for event in self.events if isinstance(event, MuleSpawned)]

    def pump(self, until: Callable[[], bool]) -> None:
        while not until():
            assert select.select([self.supervisor], [], [], 30.0)[0], "nothing happened"
            self.events += self.supervisor.readable(self.now)

    def exits(self) -> list[MuleExited]:
        return [event for event in self.events if isinstance(event, MuleExited)]

    def await_exits(self, count: int) -> list[MuleExited]:
        self.pump(lambda: len(self.exits()) >= count)
        return self.exits()

    def texts(self, number: int = 1) -> list[str]:
        return [line for who, _, line in self.lines if who == number]

    def await_text(self, text: str, number: int = 1) -> None:
        self.pump(lambda: text in self.texts(number))

    def advance(self) -> list[Event]:
        """Let the time of the next deadline come."""
        deadline = self.supervisor.next_deadline()
        assert deadline is not None
        assert deadline > self.now
        assert self.supervisor.tick((self.now + deadline) / 2) == []
        self.now = deadline
        events = self.supervisor.tick(self.now)
        self.events += events
        return events


Make = Callable[..., Rig]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make rigs; afterwards nothing of them may be left."""
    before = open_descriptors()
    rigs: list[Rig] = []

    def build(*scripts: str | list[str]) -> Rig:
        rigs.append(Rig(*scripts))
        return rigs[-1]

    yield build
    for rig in rigs:
        rig.supervisor.close()
        rig.room.close()
        rig.make_room.close()
        assert rig.supervisor.running() == 0
    assert open_descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.fixture
def subreaper() -> Iterator[None]:
    """Have orphans become children of this process, as they do of the first one of a container."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    assert prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    yield
    assert prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0


def open_descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()}


class Watched:
    """A process that is not ours, by pidfd: to see it die, and to kill it if it should not have."""

    def __init__(self, pid: int) -> None:
        self.pidfd = os.pidfd_open(pid)

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.dies(0.0):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.close(self.pidfd)

    def dies(self, within: float = 30.0) -> bool:
        return bool(select.select([self.pidfd], [], [], within)[0])


def test_start_spawns_all_in_order(make: Make) -> None:
    rig = make(FOR_EVER, FOR_EVER)
    one, two = rig.start()
    assert (one.number, two.number) == (1, 2)
    assert len(one.token) == 16
    assert one.token != two.token
    assert rig.supervisor.running() == 2
    assert rig.supervisor.next_deadline() is None


def test_a_mule_knows_who_it_is(make: Make) -> None:
    rig = make("echo $ZMULE_NUMBER $ZMULE_TOKEN ${ZMULE_SUPERVISOR%% *} $PYTHONUNBUFFERED $COLOUR")
    (spawned,) = rig.start()
    rig.await_text(f"1 {spawned.token.hex()} {os.getpid()} 1 grey")


def test_a_mule_leads_a_group_of_its_own(make: Make) -> None:
    """So the SIGINT of Ctrl-C, which goes to the group of the terminal, is zmuled's alone."""
    (spawned,) = make(FOR_EVER).start()
    assert os.getpgid(spawned.pid) == spawned.pid != os.getpgid(0)


def test_a_mule_does_not_read_our_stdin(make: Make) -> None:
    rig = make("cat; echo end of input; exec sleep 1000")
    reading, writing = os.pipe()
    os.write(writing, b"not for a mule\n")
    stdin = os.dup(0)
    try:
        os.dup2(reading, 0)
        rig.start()
        rig.await_text("end of input")
    finally:
        os.dup2(stdin, 0)
        for descriptor in (reading, writing, stdin):
            os.close(descriptor)
    assert rig.texts() == ["end of input"]


def test_output_is_tagged_line_by_line(make: Make) -> None:
    rig = make("echo one; echo oops >&2; exec sleep 1000", "printf 'a\\377b\\nlast words'")
    one, two = rig.start()
    rig.await_exits(1)
    rig.await_text("oops")
    assert [line for line in rig.lines if line[0] == 1] == [(1, one.pid, "one"), (1, one.pid, "oops")]
    assert [line for line in rig.lines if line[0] == 2] == [
        (2, two.pid, "a\\xffb"),
        (2, two.pid, "last words"),
    ]


def test_a_flood_holds_nobody_up(make: Make) -> None:
    rig = make("exec yes", "echo here I am; exec sleep 1000")
    rig.start()
    rig.await_text("here I am", number=2)
    rig.pump(lambda: len(rig.texts(1)) > 10)
    assert set(rig.texts(1)) == {"y"}


def test_who_prints_waits_while_there_is_no_room_and_loses_nothing(make: Make) -> None:
    count = 100_000
    rig = make(f"seq {count}; echo $? >&2; exec sleep 1000", "exec sleep 1000")
    rig.is_full = True
    _, other = rig.start()
    rig.supervisor.readable(rig.now)
    os.kill(other.pid, signal.SIGKILL)
    rig.await_exits(1)
    assert rig.texts(1) == []
    rig.is_full = False
    rig.make_room.send(b"!")
    rig.await_text("0")
    assert rig.texts(1)[:-1] == [str(number) for number in range(1, count + 1)]


def test_a_mule_that_closes_its_output_lives_on(make: Make) -> None:
    rig = make("printf unfinished; exec sleep 1000 >/dev/null 2>&1")
    (spawned,) = rig.start()
    rig.await_text("unfinished")
    os.kill(spawned.pid, signal.SIGKILL)
    assert [exited[:3] for exited in rig.await_exits(1)] == [(1, spawned.pid, -signal.SIGKILL)]


def test_a_killed_mule_is_respawned_after_the_first_pause(make: Make) -> None:
    rig = make(FOR_EVER)
    (spawned,) = rig.start()
    os.kill(spawned.pid, signal.SIGKILL)
    assert [exited[:3] for exited in rig.await_exits(1)] == [(1, spawned.pid, -signal.SIGKILL)]
    assert rig.supervisor.running() == 0
    assert rig.supervisor.next_deadline() == rig.now + FIRST
    (again,) = rig.advance()
    assert isinstance(again, MuleSpawned)
    assert again.number == 1
    assert again.pid != spawned.pid
    assert again.token != spawned.token
    assert rig.supervisor.next_deadline() is None


def test_a_clean_exit_is_respawned_too(make: Make) -> None:
    rig = make("exit 0")
    (spawned,) = rig.start()
    assert [exited[:3] for exited in rig.await_exits(1)] == [(1, spawned.pid, 0)]
    assert rig.supervisor.next_deadline() == rig.now + PACE


def test_a_crash_loop_is_given_up_and_the_others_run_on(make: Make) -> None:
    rig = make("exit 3", FOR_EVER)
    rig.start()
    for count in range(1, CRASHES):
        rig.await_exits(count)
        rig.advance()
    rig.await_exits(CRASHES)
    *_, last = rig.events
    assert isinstance(last, MuleGivenUp)
    assert last.number == 1
    assert last.reason.startswith(f"{CRASHES} crashes or more in a row")
    assert last.reason.endswith("last: exit code 3")
    assert rig.supervisor.next_deadline() == rig.now + RETRY
    assert rig.supervisor.running() == 1


def test_a_failed_mule_is_tried_again_and_at_once_after_a_reload(make: Make) -> None:
    rig = make("exit 3")
    rig.start()
    for count in range(1, CRASHES + 1):
        rig.await_exits(count)
        rig.advance()
    rig.await_exits(CRASHES + 1)
    assert rig.supervisor.next_deadline() == rig.now + 2 * RETRY
    rig.now += 1.0
    rig.supervisor.reload(rig.now)
    assert [type(event) for event in rig.supervisor.tick(rig.now)] == [MuleSpawned]
    rig.await_exits(CRASHES + 2)
    assert rig.supervisor.next_deadline() == rig.now + FIRST


def test_a_steady_run_begins_a_new_row(make: Make) -> None:
    rig = make(FOR_EVER)
    (spawned,) = rig.start()
    os.kill(spawned.pid, signal.SIGKILL)
    rig.await_exits(1)
    (again,) = rig.advance()
    assert isinstance(again, MuleSpawned)
    rig.now += STEADY
    os.kill(again.pid, signal.SIGKILL)
    rig.await_exits(2)
    assert rig.supervisor.next_deadline() == rig.now + FIRST


@pytest.mark.parametrize("argv", [["/no/such/program"], ["/bin/true", "a\0b"], ["/"]])
def test_a_mule_that_cannot_be_started_has_died(
    make: Make, argv: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    rig = make(argv, FOR_EVER)
    (spawned,) = rig.start()
    assert spawned.number == 2
    (line,) = caplog.messages
    reason = line.removeprefix("mule 1 ").removesuffix(f"; starts again in {FIRST:.1f} s")
    assert reason.startswith("cannot be started: ")
    for _ in range(CRASHES - 2):
        assert rig.advance() == []
    (given_up,) = rig.advance()
    assert isinstance(given_up, MuleGivenUp)
    assert f"last: {reason}" in given_up.reason
    assert rig.supervisor.next_deadline() == rig.now + RETRY


def test_a_process_that_cannot_be_watched_is_not_left_behind(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(pid: int) -> int:
        raise OSError(24, "Too many open files")

    rig = make(FOR_EVER)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pidfd_open", refuse)
        assert rig.start() == []
    assert "mule 1 cannot be started: [Errno 24] Too many open files" in caplog.text
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    (spawned,) = rig.advance()
    assert isinstance(spawned, MuleSpawned)


def test_what_a_mule_started_dies_with_it(make: Make) -> None:
    rig = make("sleep 1000 & echo $!; wait")
    (spawned,) = rig.start()
    rig.pump(lambda: len(rig.texts()) == 1)
    with Watched(int(rig.texts()[0])) as child:
        os.kill(spawned.pid, signal.SIGKILL)
        rig.await_exits(1)
        assert child.dies()


def test_who_left_the_group_keeps_the_pipe_and_blocks_nothing(make: Make) -> None:
    rig = make("setsid sh -c 'echo $$; printf more; exec sleep 1000' & wait")
    (spawned,) = rig.start()
    rig.pump(lambda: len(rig.texts()) == 1)
    with Watched(int(rig.texts()[0])) as stranger:
        os.kill(spawned.pid, signal.SIGKILL)
        rig.await_exits(1)
        assert not stranger.dies(0.0)
        (again,) = rig.advance()
        assert isinstance(again, MuleSpawned)
        rig.pump(lambda: len([text for text in rig.texts() if text.isdigit()]) == 2)
    with Watched(int(rig.texts()[-1])):
        rig.supervisor.kill(rig.now)
        rig.await_exits(2)


def test_words_that_come_after_the_death(make: Make) -> None:
    rig = make([sys.executable, "-Sc", ORPHAN])
    (spawned,) = rig.start()
    rig.pump(lambda: len(rig.texts()) == 1)
    with Watched(int(rig.texts()[0])) as orphan:
        assert rig.supervisor.readable(rig.now) == []  # so that epoll tells of the death before the words
        os.kill(spawned.pid, signal.SIGKILL)
        assert orphan.dies()
        rig.await_exits(1)
    assert rig.texts()[1:] == ["orphan"]


def test_a_mule_that_left_its_group_is_killed_too(make: Make) -> None:
    rig = make([sys.executable, "-Sc", LEAVER])
    rig.start()
    rig.await_text("left")
    rig.supervisor.kill(rig.now)
    rig.await_exits(1)


def test_stop_is_a_sigterm_and_nobody_comes_back(make: Make) -> None:
    rig = make("trap 'echo bye; exit 0' TERM; sleep 1000 & echo ready; wait", "exit 1")
    (spawned, _) = rig.start()
    rig.await_text("ready")
    rig.await_exits(1)
    rig.supervisor.stop(rig.now)
    assert rig.supervisor.next_deadline() == rig.now + MERCY
    assert rig.await_exits(2)[-1][:3] == (1, spawned.pid, 0)
    assert rig.texts()[-1] == "bye"
    assert rig.supervisor.running() == 0
    assert rig.advance() == []
    assert rig.supervisor.next_deadline() is None


def test_mercy_runs_out(make: Make) -> None:
    rig = make(DEAF)
    (spawned,) = rig.start()
    rig.pump(lambda: len(rig.texts()) == 1)
    with Watched(int(rig.texts()[0])) as grandchild:
        rig.supervisor.stop(rig.now)
        rig.supervisor.stop(rig.now + 1.0)
        assert rig.supervisor.next_deadline() == rig.now + MERCY
        assert rig.supervisor.tick(rig.now + MERCY - 0.1) == []
        assert not grandchild.dies(0.0)
        assert rig.supervisor.running() == 1
        rig.advance()
        assert [exited[:3] for exited in rig.await_exits(1)] == [(1, spawned.pid, -signal.SIGKILL)]
        assert grandchild.dies()


def test_reload_is_a_sigterm_and_everybody_comes_back(make: Make) -> None:
    rig = make(DEAF, FOR_EVER)
    rig.start()
    rig.pump(lambda: len(rig.texts()) == 1)
    rig.supervisor.reload(rig.now)
    (gone,) = rig.await_exits(1)
    assert (gone.number, gone.status) == (2, -signal.SIGTERM)
    assert [event.number for event in rig.advance() if isinstance(event, MuleSpawned)] == [2]
    rig.supervisor.reload(rig.now)
    rig.await_exits(2)
    rig.advance()
    rig.now = 1000.0 + MERCY
    rig.supervisor.tick(rig.now)
    assert [(exit.number, exit.status) for exit in rig.await_exits(3)][2] == (1, -signal.SIGKILL)
    assert [event.number for event in rig.advance() if isinstance(event, MuleSpawned)] == [1]
    assert rig.supervisor.next_deadline() is None
    assert rig.supervisor.running() == 2


def test_kill_is_at_once(make: Make) -> None:
    rig = make(DEAF, FOR_EVER)
    rig.start()
    rig.pump(lambda: len(rig.texts()) == 1)
    rig.supervisor.stop(rig.now)
    rig.supervisor.kill(rig.now)
    assert rig.supervisor.next_deadline() == rig.now + DEATH_SECONDS
    statuses = {exited.number: exited.status for exited in rig.await_exits(2)}
    assert statuses[1] == -signal.SIGKILL


def test_a_mule_that_cannot_be_killed_is_left_behind(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one in the hands of a network disk that does not answer; no test can make one."""
    rig = make(FOR_EVER)
    (spawned,) = rig.start()
    monkeypatch.setattr(supervisor._Child, "slay", lambda self: None)
    rig.supervisor.kill(rig.now)
    rig.advance()
    assert rig.supervisor.running() == 0
    assert rig.supervisor.next_deadline() is None
    assert caplog.messages == [f"mule 1: pid {spawned.pid} cannot be killed, and is left behind"]
    os.kill(spawned.pid, signal.SIGKILL)
    rig.supervisor._left_behind[0]._process.wait()


def test_a_stopped_mule_is_killed_all_the_same(make: Make) -> None:
    rig = make(FOR_EVER)
    (spawned,) = rig.start()
    os.kill(spawned.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, spawned.pid, os.WSTOPPED | os.WNOWAIT)
    rig.supervisor.stop(rig.now)
    rig.advance()
    assert rig.await_exits(1)[0].status == -signal.SIGKILL


def test_close_kills_and_passes_on_the_last_words(make: Make) -> None:
    rig = make("trap '' TERM; printf 'ready\\nlast words'; exec sleep 1000")
    rig.start()
    rig.await_text("ready")
    rig.supervisor.close()
    assert rig.supervisor.running() == 0
    assert rig.texts()[-1] == "last words"


def test_what_mules_left_behind_is_reaped_by_a_subreaper(make: Make, subreaper: None) -> None:
    rig = make("for each in 1 2 3; do (setsid sleep 0 & echo $!) ; done; exec sleep 1000", FOR_EVER)
    _, other = rig.start()
    rig.pump(lambda: len(rig.texts(1)) == 3)
    orphans = [int(text) for text in rig.texts(1)]
    for orphan in orphans:
        os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOWAIT)
    os.kill(other.pid, signal.SIGKILL)
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    rig.events += rig.supervisor.reap(rig.now)
    assert [(exited.number, exited.status) for exited in rig.exits()] == [(2, -signal.SIGKILL)]
    assert rig.supervisor.running() == 1
    for orphan in orphans:
        with pytest.raises(ChildProcessError):
            os.waitpid(orphan, os.WNOHANG)


def test_an_ignored_sigchld_does_not_lose_the_status(make: Make) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        rig = make("exit 3")
        rig.start()
        assert rig.await_exits(1)[0].status == 3
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize(
    ("status", "text"),
    [(0, "exit code 0"), (3, "exit code 3"), (-9, "killed by SIGKILL"), (-40, "killed by signal 40")],
)
def test_an_ending_in_words(status: int, text: str) -> None:
    assert ending(status) == text
