"""The one loop of the daemon: wait, take in what happened, let the broker decide, do what it says.

Everything that can happen is a descriptor or a deadline: the ROUTER, its monitor, the store, the mules'
processes and output, and operating system signals through a wake-up socket. Peers' frames are handled
before the deaths of processes: what a mule said last counts.
"""

from __future__ import annotations

import logging
import select
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from math import ceil
from signal import SIGCHLD
from typing import cast

from zmule.core.broker import Broker
from zmule.core.effects import (
    Backup,
    Bury,
    Changes,
    Effect,
    Forget,
    KillMule,
    Note,
    Publish,
    Reload,
    Save,
    Send,
    Stop,
    Unwatch,
    Watch,
)
from zmule.core.events import (
    BackupEnded,
    BatchLost,
    BatchSaved,
    Event,
    PathChanged,
    PathRefused,
    PathWatched,
    Peer,
    Stalled,
    StopRequested,
    StoreFailed,
    StoreRecovered,
    Undelivered,
)
from zmule.core.frames import Deliver
from zmule.core.instant import Instant
from zmule.daemon.alarm import Alarm
from zmule.daemon.damper import Damper
from zmule.daemon.filemon import FileMonitors
from zmule.daemon.gateway import Gateway
from zmule.daemon.guard import Guard
from zmule.daemon.holding import Holding
from zmule.daemon.notify import Notifier
from zmule.daemon.supervisor import Supervisor
from zmule.stores import Saved, Store

log = logging.getLogger("zmule")

MEND_SECONDS = 1.0
"""How often to look whether the files of the sockets are still there."""


STALL_SECONDS = 1.0
"""From how long a turn of the loop on silence is no fault of those who were not heard."""


def _write(level: str, text: str) -> None:
    log.log(logging.getLevelNamesMapping()[level.upper()], text)


def instant() -> Instant:
    """Return the present moment."""
    return Instant(time.monotonic(), time.time())


class Loop:
    """Runs a broker until it is told to stop.

    Args:
        broker: the state machine.
        gateway: its sockets, bound.
        store: where it keeps messages.
        supervisor: the processes of its configured mules, not started yet.
        notifier: tells the service manager.
        monitors: watches paths for signals.
        alarm: knows which operating system signals have come.
        holding: the files of its sockets.
        guard: watches the memory.
    """

    def __init__(
        self,
        broker: Broker,
        gateway: Gateway,
        store: Store,
        supervisor: Supervisor,
        notifier: Notifier,
        monitors: FileMonitors,
        alarm: Alarm,
        holding: Holding,
        guard: Guard,
    ) -> None:
        self._broker = broker
        self._gateway = gateway
        self._store = store
        self._supervisor = supervisor
        self._notifier = notifier
        self._alarm = alarm
        self._guard = guard
        self._listened = time.monotonic()
        self._monitors = monitors
        self._holding = holding
        self._mend_at = time.monotonic() + MEND_SECONDS
        self._outcomes: deque[Event] = deque()
        self._store_error: str | None = None
        self._damper = Damper(_write)
        self._stopping = False
        self._ready = False
        self._told = -1
        self._troubles: list[str] = []
        self._poller = select.poll()
        own = (supervisor.fileno(), monitors.descriptor(), alarm.fileno(), store.descriptor())
        for descriptor in (*gateway.descriptors(), *own):
            if descriptor is not None:
                self._poller.register(descriptor, select.POLLIN)

    def run(self) -> None:
        """Start the mules; serve until a stop has been asked for and the last of them has ended."""
        self._perform(self._broker.tick(instant()))
        self._heed_signals()  # told to stop already, there is nothing to start
        self._happened(self._supervisor.start(time.monotonic()))
        self._happened(self._supervisor.reap(time.monotonic()))  # of children that it had before this program
        while not (self._stopping and not self._supervisor.running()):
            self._tell()
            due = self._next_deadline()
            wait = 0.0 if self._gateway.pending() else max(0.0, due - time.monotonic())
            ready = {descriptor for descriptor, _ in self._poller.poll(ceil(wait * 1000))}
            self._note_stall(wait)
            self._turn(ready, due)
        self._damper.close()

    def _turn(self, ready: set[int], due: float) -> None:
        self._happened(self._gateway.receive(ready))
        if self._supervisor.fileno() in ready:
            self._happened(self._supervisor.readable(time.monotonic()))
        if self._monitors.descriptor() in ready:
            self._happened(self._paths())
        if self._alarm.fileno() in ready:
            self._heed_signals()
        self._gateway.retry()
        self._happened(self._guard.look(time.monotonic()))
        self._perform(self._gateway.notes())
        self._look_at_store()
        if time.monotonic() >= due:
            self._tick()

    def _paths(self) -> Iterator[Event]:
        """Take what the file monitors tell."""
        for path, refusal in self._monitors.answers():
            yield PathWatched(path) if refusal is None else PathRefused(path, refusal)
        for path in self._monitors.changed():
            yield PathChanged(path)

    def _note_stall(self, wait: float) -> None:
        """Tell the broker if nobody could be heard for longer than there was nothing to do."""
        before, self._listened = self._listened, time.monotonic()
        since = self._listened - before
        if since > wait + STALL_SECONDS:
            self._happened([Stalled(since)])

    def _tick(self) -> None:
        """Do what is due."""
        self._happened(self._supervisor.tick(time.monotonic()))
        self._damper.tick(time.monotonic())
        self._notifier.tick(time.monotonic())
        self._perform(self._broker.tick(instant()))
        self._settle()
        if time.monotonic() >= self._mend_at:
            self._mend_at = time.monotonic() + MEND_SECONDS
            for level, text in self._holding.mend():
                _write(level, text)

    def _look_at_store(self) -> None:
        """Tell the broker when the store cannot write any longer, and when it can again."""
        error = self._store.healthy()
        if error is None and self._store_error is not None:
            self._happened([StoreRecovered()])
        elif error is not None and self._store_error is None:
            self._happened([StoreFailed(error)])
        self._store_error = error
        for ticket, path, complaint in self._store.backups():
            peer, request = cast(tuple[Peer, int], ticket)
            self._happened([BackupEnded(peer, request, path, complaint)])

    def _next_deadline(self) -> float:
        """Return until when there is nothing to do if nothing happens."""
        frames = self._gateway.next_deadline(time.monotonic())
        dues = (self._supervisor.next_deadline(), self._damper.next_deadline(), frames, self._mend_at)
        others = (due for due in dues if due is not None)
        own = (self._guard.next_deadline(), self._notifier.next_deadline())
        return min(self._broker.next_deadline(), *own, *others)

    def _happened(self, events: Iterable[Event]) -> None:
        for event in events:
            self._perform(self._broker.handle(event, instant()))
        self._settle()

    def _settle(self) -> None:
        """Tell the broker what store and monitors have done, for as long as they have done something."""
        while self._outcomes or (answers := self._store.completed()):
            now = instant()
            if self._outcomes:
                self._perform(self._broker.handle(self._outcomes.popleft(), now))
                continue
            for answer in answers:
                saved = isinstance(answer, Saved)
                event = BatchSaved(answer.batch) if saved else BatchLost(answer.batch, answer.reason)  # type: ignore[union-attr]
                self._perform(self._broker.handle(event, now))

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            _PERFORM[type(effect)](self, effect)

    def _send(self, effect: Send) -> None:
        if not self._gateway.send(effect.peer, effect.frame) and isinstance(effect.frame, Deliver):
            self._outcomes.append(Undelivered(effect.peer, effect.frame))

    def _publish(self, effect: Publish) -> None:
        self._gateway.publish(effect.frame)

    def _change(self, effect: Changes) -> None:
        self._store.save(effect)

    def _keep(self, effect: Save | Forget | Bury) -> None:
        self._store.save(effect.changes())

    def _watch(self, effect: Watch) -> None:
        try:
            self._monitors.add(effect.path)
        except ValueError as error:
            self._outcomes.append(PathRefused(effect.path, str(error)))

    def _unwatch(self, effect: Unwatch) -> None:
        self._monitors.remove(effect.path)

    def _back_up(self, effect: Backup) -> None:
        self._store.backup((effect.peer, effect.request))

    def _reload(self, _: Reload) -> None:
        log.info("a mule or worker has asked for it: starting all mules anew")
        self._supervisor.reload(time.monotonic())

    def _kill(self, effect: KillMule) -> None:
        self._supervisor.slay(effect.number)

    def _note(self, effect: Note) -> None:
        if effect.damped:
            self._damper.note(effect.level, effect.text, time.monotonic())
        else:
            _write(effect.level, effect.text)

    def _heed_signals(self) -> None:
        for number in self._alarm.take():
            if number == SIGCHLD:
                self._happened(self._supervisor.reap(time.monotonic()))
            elif self._stopping:
                log.warning("%s again: killing what is left", number.name)
                self._supervisor.kill(time.monotonic())
            else:
                self._wind_up(number.name)

    def _stop(self, _: Stop) -> None:
        if not self._stopping:
            self._wind_up("a mule or worker has asked for it")

    def _wind_up(self, why: str) -> None:
        log.info("%s: stopping", why)
        self._stopping = True
        self._notifier.stopping()
        self._happened([StopRequested()])
        self._supervisor.stop(time.monotonic())

    def _tell(self) -> None:
        """Tell the service manager how things stand, and once that the broker is ready."""
        changes = self._broker.turns.changes
        if self._told == changes or self._stopping:
            return
        self._told, summary = changes, self._broker.summary()
        if self._ready or not self._broker.manned():
            self._notifier.status(summary)
            self._complain()
            return
        self._ready = True
        self._notifier.ready(summary)
        log.info("ready: %s", summary)

    def _complain(self) -> None:
        """Log what keeps the broker from being ready, when that is something new."""
        troubles = self._broker.troubles()
        if troubles and troubles != self._troubles and not self._ready:
            log.warning("not ready: %s", self._broker.summary())
        self._troubles = troubles or self._troubles


_PERFORM: dict[type[Effect], Callable[..., None]] = {
    Send: Loop._send,
    Publish: Loop._publish,
    Changes: Loop._change,
    Save: Loop._keep,
    Forget: Loop._keep,
    Bury: Loop._keep,
    Watch: Loop._watch,
    Unwatch: Loop._unwatch,
    Stop: Loop._stop,
    Reload: Loop._reload,
    Backup: Loop._back_up,
    KillMule: Loop._kill,
    Note: Loop._note,
}
