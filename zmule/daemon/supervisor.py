"""The processes of the configured mules: start, watch, start again, stop.

The supervisor is a part of the daemon's one poll loop: no threads, no signal handlers, nothing that blocks.
It watches everything by one epoll descriptor of its own, which is what the loop polls: a loop with fifty
mules then has one descriptor more, not a hundred.

Each mule is the leader of a process group of its own. So Ctrl-C in zmuled's terminal reaches zmuled only,
which then stops the mules gracefully, and what a mule started dies with it. Deaths are seen by pidfd. A pid
is a name that the kernel gives away again once its process is reaped; so signals to one process go through
its pidfd, and a group is signalled only while its leader, dead or alive, is not reaped yet.

What happens comes back as events for the core. A process that cannot even be started has died like any
other, save that there was no pid to report: the reason goes to `on_line` with pid 0. How soon a mule runs
again is decided in `respawn.py`, how its output becomes lines in `output.py`. That a mule ends when zmuled
is killed is seen to by the mule's side (PR_SET_PDEATHSIG), which is told zmuled's pid to check.
"""

from __future__ import annotations

import os
import secrets
import select
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

from zmule.core.events import Event, MuleExited, MuleGivenUp, MuleSpawned
from zmule.daemon.output import Output
from zmule.daemon.respawn import CRASHES, STEADY, Respawn


class Numbered(Protocol):
    """What the supervisor needs to know of a configured mule."""

    @property
    def number(self) -> int: ...


Spec = TypeVar("Spec", bound=Numbered)


def ending(status: int) -> str:
    """Say how a process ended: `status` is its exit code, or minus the signal that killed it."""
    if status >= 0:
        return f"exit code {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


class _Child:
    """One run of a mule's process, from its start to its burial."""

    __slots__ = ("_process", "output", "pid", "pidfd")

    def __init__(self, argv: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            argv,
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            process_group=0,
        )
        assert self._process.stdout is not None
        self.pid = self._process.pid
        self.output = Output(self._process.stdout)
        try:
            self.pidfd = os.pidfd_open(self.pid)
        except OSError:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
            self.output.finish()
            raise

    def terminate(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGTERM)

    def slay(self) -> None:
        """Kill the process, wherever it may have gone, and all that is in its process group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self) -> int:
        """Take the exit status of the process, which is dead or dying, and let go of it."""
        status = self._process.wait()
        os.close(self.pidfd)
        return status


class _Mule:
    """A configured mule: its process if it has one, else when it gets one, if ever."""

    __slots__ = ("argv", "child", "due", "mercy_ends", "number", "respawn")

    def __init__(self, number: int, argv: list[str]) -> None:
        self.number = number
        self.argv = argv
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
        environment: what every mule gets; ZMULE_NUMBER, ZMULE_TOKEN and ZMULE_SUPERVISOR are added.
        mercy: seconds that a mule has after SIGTERM before it is killed (uWSGI's `mule-reload-mercy`).
        on_line: called with (number, pid, line) for each line that a mule prints.
    """

    def __init__(
        self,
        mules: Sequence[Spec],
        *,
        command: Callable[[Spec], list[str]],
        environment: Mapping[str, str],
        mercy: float,
        on_line: Callable[[int, int, str], None],
    ) -> None:
        self._mules = [_Mule(spec.number, command(spec)) for spec in mules]
        self._environment = dict(environment, PYTHONUNBUFFERED="1", ZMULE_SUPERVISOR=str(os.getpid()))
        self._mercy = mercy
        self._mercy_ends: float | None = None
        self._on_line = on_line
        self._stopping = False
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[_Mule, _Child]] = {}

    def fileno(self) -> int:
        """Return the one descriptor to poll for reading."""
        return self._epoll.fileno()

    def start(self, now: float) -> list[Event]:
        """Start every mule."""
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
            # Inherited from whoever started us; with it the kernel reaps our children before we can.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return [event for mule in self._mules for event in self._spawn(mule, now)]

    def readable(self, now: float) -> list[Event]:
        """Pass on what mules printed, and bury those that died."""
        events: list[Event] = []
        for descriptor, _ in self._epoll.poll(0):
            if descriptor not in self._watched:
                continue  # its mule was buried a moment ago, in this very round
            mule, child = self._watched[descriptor]
            if descriptor == child.pidfd:
                events += self._ended(mule, child, now)
            else:
                self._read(mule, child)
        return events

    def tick(self, now: float) -> list[Event]:
        """Start the mules whose time has come, and kill those whose mercy has run out."""
        if self._mercy_ends is not None and now >= self._mercy_ends:
            self.kill()
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
        if self._mercy_ends is not None:
            deadlines.append(self._mercy_ends)
        return min(deadlines, default=None)

    def stop(self, now: float) -> None:
        """Send SIGTERM to all mules and respawn none from here on; kill after `mercy` seconds who is left."""
        if self._stopping:
            return
        self._respawn_no_more()
        self._mercy_ends = now + self._mercy
        for child in self._children():
            child.terminate()

    def reload(self, now: float) -> None:
        """Send SIGTERM to all mules, which are respawned; kill after `mercy` seconds who is left."""
        for mule in self._mules:
            if mule.child is not None and mule.mercy_ends is None and not self._stopping:
                mule.mercy_ends = now + self._mercy
                mule.child.terminate()

    def kill(self) -> None:
        """Kill all mules and their process groups at once, and respawn none. Their ends come as events."""
        self._respawn_no_more()
        self._mercy_ends = None
        for child in self._children():
            child.slay()

    def running(self) -> int:
        """Return how many mules have a process."""
        return len(self._children())

    def close(self) -> None:
        """Kill and reap what is left, pass on its last lines, and close every descriptor."""
        self.kill()
        for mule in self._mules:
            if mule.child is not None:
                self._bury(mule, mule.child)
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
            child = _Child(mule.argv, self._environment | _identity(mule.number, token))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            reason = f"cannot be started: {error}"
            self._on_line(mule.number, 0, reason)
            return self._plan(mule, now, clean=False, how=reason)
        mule.child = child
        for descriptor in (child.pidfd, child.output.fileno()):
            self._epoll.register(descriptor, select.EPOLLIN)
            self._watched[descriptor] = mule, child
        return [MuleSpawned(mule.number, child.pid, token)]

    def _ended(self, mule: _Mule, child: _Child, now: float) -> list[Event]:
        status = self._bury(mule, child)
        plan = self._plan(mule, now, clean=status == 0, how=ending(status))
        return [MuleExited(mule.number, child.pid, status), *plan]

    def _bury(self, mule: _Mule, child: _Child) -> int:
        self._unwatch(child.pidfd)
        child.slay()
        status = child.reap()
        self._finish_output(mule, child)
        mule.child = mule.mercy_ends = None
        return status

    def _plan(self, mule: _Mule, now: float, *, clean: bool, how: str) -> list[Event]:
        """Decide about a mule that has no process any more."""
        if self._stopping:
            return []
        mule.due = mule.respawn.ended(now, clean=clean)
        if mule.due is not None:
            return []
        row = f"{CRASHES} crashes in a row, each within {STEADY:g} s of its start"
        return [MuleGivenUp(mule.number, f"given up after {row}; last: {how}")]

    def _read(self, mule: _Mule, child: _Child) -> None:
        lines = child.output.read()
        if lines is None:
            self._finish_output(mule, child)
        else:
            self._pass_on(mule, child, lines)

    def _finish_output(self, mule: _Mule, child: _Child) -> None:
        if not child.output.closed:
            self._unwatch(child.output.fileno())
            self._pass_on(mule, child, child.output.finish())

    def _pass_on(self, mule: _Mule, child: _Child, lines: list[str]) -> None:
        for line in lines:
            self._on_line(mule.number, child.pid, line)

    def _unwatch(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)
        del self._watched[descriptor]


def _identity(number: int, token: bytes) -> dict[str, str]:
    return {"ZMULE_NUMBER": str(number), "ZMULE_TOKEN": token.hex()}
