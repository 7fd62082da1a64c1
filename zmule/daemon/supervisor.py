"""The processes of the configured mules: start, watch, start again, stop.

The supervisor is a part of the daemon's one poll loop: no threads, no signal handlers, nothing that blocks.
It watches everything by one epoll descriptor of its own, which is what the loop polls: a loop with fifty
mules then has one descriptor more, not a hundred. The mules' output is in an epoll of its own within that
one; it is taken out while whoever reads the output cannot keep up, so that who prints has to wait.

Each mule is the leader of a process group of its own. So Ctrl-C in zmuled's terminal reaches zmuled only,
which then stops the mules gracefully, and what a mule started dies with it. Deaths are seen by pidfd. A pid
is a name that the kernel gives away again once its process is reaped; so signals to one process go through
its pidfd, and a group is signalled only while its leader, dead or alive, is not reaped yet.

A mule and its group also die with zmuled, however that ends. Each has the reading end of a pipe, its
lifeline, whose other end only zmuled has; see `mules/runner.py`.

Not every child is a mule. The first process of a container, and a subreaper, is given what mules have left
behind, and has to reap it (`reap`). What has left its mule's group was meant to outlive it, and may.

What happens comes back as events for the core. A process that cannot even be started has died like any
other, save that there was none to report. How soon a mule runs again is decided in `respawn.py`, how its
output becomes lines in `output.py`.
"""

from __future__ import annotations

import logging
import os
import secrets
import select
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

from zmule.core.events import Event, MuleExited, MuleGivenUp, MuleSpawned
from zmule.daemon.output import Output
from zmule.daemon.respawn import CRASHES, STEADY, Respawn

log = logging.getLogger("zmule")

DEATH_SECONDS = 10.0
"""How long a process may take to die once it is killed."""


class Numbered(Protocol):
    """What the supervisor needs to know of a configured mule."""

    @property
    def number(self) -> int: ...


class Outlet(Protocol):
    """Where the output of mules goes."""

    def write(self, number: int, pid: int, lines: Iterable[str]) -> None:
        """Take lines of a mule."""

    def full(self) -> bool:
        """Return whether nothing more should come for now; if so, `fileno` will be readable."""

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is room again."""

    def heard(self) -> None:
        """Note that it was."""


Spec = TypeVar("Spec", bound=Numbered)


def ending(status: int) -> str:
    """Say how a process ended: `status` is its exit code, or minus the signal that killed it."""
    if status >= 0:
        return f"exit code {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def again_in_words(pause: float | None) -> str:
    """Say when a mule is started again: in so many seconds, or not at all."""
    return "" if pause is None else f"; starts again in {pause:.1f} s"


class _Child:
    """One run of a mule's process, from its start to its burial."""

    __slots__ = ("_lifeline", "_process", "output", "pid", "pidfd")

    def __init__(self, argv: list[str], environment: dict[str, str], files: int) -> None:
        theirs, self._lifeline = os.pipe()
        try:
            self._process = subprocess.Popen(
                argv,
                bufsize=0,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment | {"ZMULE_SUPERVISOR": f"{os.getpid()} {theirs} {files}"},
                process_group=0,
                pass_fds=(theirs,),
            )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(theirs)
        assert self._process.stdout is not None
        self.pid = self._process.pid
        self.output = Output(self._process.stdout)
        try:
            self.pidfd = os.pidfd_open(self.pid)
        except OSError:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
            os.close(self._lifeline)
            self.output.finish()
            raise

    def terminate(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self.pidfd, number)

    def slay(self) -> None:
        """Kill the process, wherever it may have gone, and all that is in its process group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self) -> int:
        """Take the exit status of the process, which is dead or dying, and let go of it."""
        status = self._process.wait()
        self.let_go()
        return status

    def let_go(self) -> None:
        """Close what leads to the process."""
        os.close(self.pidfd)
        os.close(self._lifeline)

    def dies(self, seconds: float) -> bool:
        """Return whether the process is dead; wait for it so long."""
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        return bool(poller.poll(seconds * 1000))


class _Mule:
    """A configured mule: its process if it has one, else when it gets one, if ever."""

    __slots__ = ("argv", "child", "due", "mercy_ends", "number", "respawn", "stop_signal")

    def __init__(self, number: int, argv: list[str], stop_signal: int) -> None:
        self.number = number
        self.argv = argv
        self.stop_signal = stop_signal
        self.child: _Child | None = None
        self.due: float | None = None
        self.mercy_ends: float | None = None
        self.respawn = Respawn()


class Supervisor:
    """Starts the configured mules, respawns those that die and stops them all.

    Poll it for reading (it has a `fileno`) and call `readable` when it is; call `tick` at `next_deadline`.
    No failure of a mule, or of starting one, is ever an exception here.

    Args:
        mules: what is configured, each with its `number`.
        command: gives the argument vector that runs a mule.
        environment: what every mule gets; ZMULE_NUMBER, ZMULE_TOKEN, ZMULE_STOP_SIGNAL and
            ZMULE_SUPERVISOR are added.
        stop_signal: gives the number of the signal that stops a mule.
        mercy: seconds that a mule has after this signal before it is killed (uWSGI's `mule-reload-mercy`).
        output: takes what mules print.
        files: how many files a mule may have open.
    """

    def __init__(
        self,
        mules: Sequence[Spec],
        *,
        command: Callable[[Spec], list[str]],
        environment: Mapping[str, str],
        stop_signal: Callable[[Spec], int] = lambda _: signal.SIGTERM,
        mercy: float,
        output: Outlet,
        files: int,
    ) -> None:
        self._mules = [_Mule(spec.number, command(spec), stop_signal(spec)) for spec in mules]
        self._environment = dict(environment, PYTHONUNBUFFERED="1")
        self._mercy = mercy
        self._mercy_ends: float | None = None
        self._death_due: float | None = None
        self._left_behind: list[_Child] = []
        self._outlet = output
        self._files = files
        self._stopping = False
        self._epoll, self._outputs = select.epoll(), select.epoll()
        for descriptor in (self._outputs.fileno(), output.fileno()):
            self._epoll.register(descriptor, select.EPOLLIN)
        self._watched: dict[int, tuple[_Mule, _Child]] = {}

    def fileno(self) -> int:
        """Return the one descriptor to poll for reading."""
        return self._epoll.fileno()

    def start(self, now: float) -> list[Event]:
        """Start every mule, unless `stop` came first."""
        if self._stopping:
            return []
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
            # Inherited from whoever started us; with it the kernel reaps our children before we can.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return [event for mule in self._mules for event in self._spawn(mule, now)]

    def readable(self, now: float) -> list[Event]:
        """Pass on what mules printed, and bury those that died."""
        events: list[Event] = []
        for descriptor, _ in self._epoll.poll(0):
            if descriptor == self._outputs.fileno():
                self._read_outputs()
            elif descriptor == self._outlet.fileno():
                self._outlet.heard()
                self._epoll.modify(self._outputs.fileno(), select.EPOLLIN)
            elif descriptor in self._watched:  # else its mule was buried a moment ago, in this very round
                events += self._ended(*self._watched[descriptor], now)
        return events

    def reap(self, now: float) -> list[Event]:
        """Bury every child that has died: mules, and what a first process or subreaper has been given."""
        events: list[Event] = []
        while (pid := _dead_child()) is not None:
            mule = next((mule for mule in self._mules if mule.child and mule.child.pid == pid), None)
            if mule is not None and mule.child is not None:
                events += self._ended(mule, mule.child, now)
            else:
                os.waitpid(pid, 0)
        return events

    def tick(self, now: float) -> list[Event]:
        """Start the mules whose time has come, and kill those whose mercy has run out."""
        if self._mercy_ends is not None and now >= self._mercy_ends:
            self.kill(now)
        if self._death_due is not None and now >= self._death_due:
            self._abandon()
        for mule in self._mules:
            if mule.mercy_ends is not None and now >= mule.mercy_ends and mule.child is not None:
                mule.mercy_ends = None
                mule.child.slay()
        due = [mule for mule in self._mules if mule.due is not None and mule.due <= now]
        return [event for mule in due for event in self._spawn(mule, now)]

    def next_deadline(self) -> float | None:
        """Return when `tick` has something to do, if ever."""
        deadlines = [mule.due for mule in self._mules if mule.due is not None]
        deadlines += [mule.mercy_ends for mule in self._mules if mule.mercy_ends is not None]
        deadlines += [due for due in (self._mercy_ends, self._death_due) if due is not None]
        return min(deadlines, default=None)

    def stop(self, now: float) -> None:
        """Send all mules their stop signals and respawn none; kill after `mercy` seconds who is left."""
        if self._stopping:
            return
        self._respawn_no_more()
        self._mercy_ends = now + self._mercy
        for mule in self._mules:
            if mule.child is not None:
                mule.child.terminate(mule.stop_signal)

    def reload(self, now: float) -> None:
        """Send all mules their stop signal; they are respawned; kill after `mercy` seconds who is left.

        Those that wait for their next start, as failed ones do, get it at once.
        """
        if self._stopping:
            return
        for mule in self._mules:
            mule.respawn.forgive()
            if mule.child is None:
                mule.due = now
            elif mule.mercy_ends is None:
                mule.mercy_ends = now + self._mercy
                mule.child.terminate(mule.stop_signal)

    def slay(self, number: int) -> None:
        """Kill one mule and its process group at once. Its end comes as an event, and it is respawned."""
        for mule in self._mules:
            if mule.number == number and mule.child is not None:
                mule.child.slay()

    def kill(self, now: float) -> None:
        """Kill all mules and their process groups at once, and respawn none. Their ends come as events.

        One that the kernel does not let die, since it waits for a disk that does not answer, is left behind
        after a while.
        """
        self._respawn_no_more()
        self._mercy_ends = None
        self._death_due = now + DEATH_SECONDS if self._children() else None
        for child in self._children():
            child.slay()

    def running(self) -> int:
        """Return how many mules have a process."""
        return len(self._children())

    def close(self) -> None:
        """Kill and reap what is left, pass on its last lines, and close every descriptor."""
        for child in self._children():
            child.slay()
        for mule in self._mules:
            if mule.child is not None and mule.child.dies(DEATH_SECONDS):
                self._bury(mule, mule.child)
        self._abandon()
        self._outputs.close()
        self._epoll.close()

    def _children(self) -> list[_Child]:
        return [mule.child for mule in self._mules if mule.child is not None]

    def _respawn_no_more(self) -> None:
        self._stopping = True
        for mule in self._mules:
            mule.due = None

    def _spawn(self, mule: _Mule, now: float) -> list[Event]:
        mule.due = None
        mule.respawn.started(now)
        token = secrets.token_bytes(16)
        try:
            child = _Child(mule.argv, self._environment | _identity(mule, token), self._files)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            reason = f"cannot be started: {error}"
            again = self._plan(mule, now, clean=False)
            log.error("mule %d %s%s", mule.number, reason, again_in_words(again))
            return self._given_up(mule, reason)
        mule.child = child
        self._epoll.register(child.pidfd, select.EPOLLIN)
        self._outputs.register(child.output.fileno(), select.EPOLLIN)
        for descriptor in (child.pidfd, child.output.fileno()):
            self._watched[descriptor] = mule, child
        return [MuleSpawned(mule.number, child.pid, token)]

    def _ended(self, mule: _Mule, child: _Child, now: float) -> list[Event]:
        status = self._bury(mule, child)
        how, lived = ending(status), mule.respawn.lived(now)
        again = self._plan(mule, now, clean=status == 0)
        story = f"{how} after {lived:.1f} s"
        exited = MuleExited(mule.number, child.pid, status, story, again_in_words(again))
        return [exited, *self._given_up(mule, how)]

    def _bury(self, mule: _Mule, child: _Child) -> int:
        self._unwatch(self._epoll, child.pidfd)
        child.slay()
        status = child.reap()
        self._finish_output(mule, child)
        mule.child = mule.mercy_ends = None
        return status

    def _abandon(self) -> None:
        """Go on without those that cannot be killed."""
        self._death_due = None
        for mule in self._mules:
            if mule.child is not None:
                log.error("mule %d: pid %d cannot be killed, and is left behind", mule.number, mule.child.pid)
                self._unwatch(self._epoll, mule.child.pidfd)
                self._finish_output(mule, mule.child)
                mule.child.let_go()
                self._left_behind.append(mule.child)
                mule.child = None

    def _plan(self, mule: _Mule, now: float, *, clean: bool) -> float | None:
        """Decide when a mule that has no process any more gets one; return in how many seconds."""
        if self._stopping:
            return None
        mule.due = mule.respawn.ended(now, clean=clean)
        return mule.due - now

    def _given_up(self, mule: _Mule, how: str) -> list[Event]:
        if self._stopping or not mule.respawn.failed:
            return []
        row = f"{CRASHES} crashes or more in a row, each within {STEADY:g} s of its start"
        return [MuleGivenUp(mule.number, f"{row}; last: {how}")]

    def _read_outputs(self) -> None:
        for descriptor, _ in self._outputs.poll(0):
            if self._outlet.full():
                self._epoll.modify(self._outputs.fileno(), 0)
                return
            if descriptor in self._watched:
                self._read(*self._watched[descriptor])

    def _read(self, mule: _Mule, child: _Child) -> None:
        lines = child.output.read()
        if lines is None:
            self._finish_output(mule, child)
        else:
            self._outlet.write(mule.number, child.pid, lines)

    def _finish_output(self, mule: _Mule, child: _Child) -> None:
        if not child.output.closed:
            self._unwatch(self._outputs, child.output.fileno())
            self._outlet.write(mule.number, child.pid, child.output.finish())

    def _unwatch(self, epoll: select.epoll, descriptor: int) -> None:
        epoll.unregister(descriptor)
        del self._watched[descriptor]


def _identity(mule: _Mule, token: bytes) -> dict[str, str]:
    return {
        "ZMULE_NUMBER": str(mule.number),
        "ZMULE_TOKEN": token.hex(),
        "ZMULE_STOP_SIGNAL": str(int(mule.stop_signal)),
    }


def _dead_child() -> int | None:
    """Return the pid of a child that is dead and not reaped, if there is any; it stays so."""
    try:
        dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return dead and dead.si_pid
