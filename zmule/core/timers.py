"""What raises signals at times: timers, timers with a number of iterations, and cron entries.

Timers go by the monotonic clock and stay on their grid: the n-th fire is due at start + n × period, however
late the one before was. A stall (a suspended machine) makes up for one fire, not for all that were missed,
since what a timer raises is pending at most once anyway.

Cron entries go by the wall clock, which jumps. Each remembers the minute up to which it is settled: whatever
matched until then has fired, or was before its time, and does not fire again. So:

- When the clock was set back, an entry is silent until the clock has caught up with that minute.
- If that minute is more than three hours ahead, the clock was wrong then: the entry starts anew from now.
- A match that was missed, by a stall or a clock put forward, fires once if it is no older than three hours.
- After a restart, of the broker or of the only process that asks, an entry makes up for the minute that is
  under way and for no other. For the broker's own, `settled()` is what a store keeps and `restore` gets back.

An entry is known by what it is, its `Source`: to add it again only adds one more that asks for it. It is gone
when nobody asks for it any more; so is a timer with iterations after the last. Who asks for that one later,
in loading the same code, gets none; who wants it anew says so. An iteration counts when it has raised its
signal: one that finds it raised already is made up for.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from operator import itemgetter
from typing import NamedTuple, Protocol

from zmule.core.deadlines import Deadlines

SHORTEST_SECONDS = 0.001
LONGEST_SECONDS = 1e9
ENTRIES_PER_ASKER = 10_000
ENTRIES_OF_ALL = 200_000
AT_ONCE_SECONDS = 1.0
"""What the period of 0 stands for, after a first time at once: uWSGI looks once a second."""

CLOCK_CHECK_SECONDS = 60.0
TOLERANCE_MINUTES = 180
RECENT_MINUTES = 2
RECENT_ENTRIES = 10_000


class Schedule(Protocol):
    """When a cron entry is due, in epoch seconds, always where a minute begins."""

    @property
    def spec(self) -> str:
        """What it is, as text: schedules with the same text are the same."""

    def next_after(self, wall: float) -> float | None:
        """Return the first time after `wall`; None: never."""


class Source(NamedTuple):
    """What an entry is known by: `timer`, `rb_timer` or `cron`, the signal that it raises, and when."""

    kind: str
    signal: int
    spec: str


class _Entry:
    """A source, who asks for it, and how often it has fired."""

    __slots__ = ("askers", "fired", "source")

    def __init__(self, source: Source) -> None:
        self.source = source
        self.askers: set[Hashable] = set()
        self.fired = 0


class _Timer(_Entry):
    """`ticks` is where on its grid it is, `left` how often it fires yet (None: for ever)."""

    __slots__ = ("left", "seconds", "start", "ticks")

    def __init__(self, source: Source, seconds: float, iterations: int, start: float) -> None:
        super().__init__(source)
        self.seconds = seconds
        self.left = iterations or None
        self.start = start
        self.ticks = 0

    def step(self, mono: float) -> float:
        """Go to the first tick after `mono`; return when that is."""
        self.ticks = max(self.ticks, int((mono - self.start) / self.seconds))
        while (at := self.start + self.ticks * self.seconds) <= mono:
            self.ticks += 1
        return at


class _Cron(_Entry):
    """`settled` is a minute of the epoch."""

    __slots__ = ("schedule", "settled")

    def __init__(self, source: Source, schedule: Schedule, settled: int) -> None:
        super().__init__(source)
        self.schedule = schedule
        self.settled = settled

    def step(self) -> float | None:
        """Return when the first match is that is not settled."""
        return self.schedule.next_after(60.0 * self.settled)

    def settle(self, at: float, minute: int) -> bool:
        """Settle up to `minute`, `at` being the first match; return whether one is recent enough to fire."""
        recent: float | None = at
        if at < 60.0 * (minute - TOLERANCE_MINUTES):
            self.settled = minute - TOLERANCE_MINUTES - 1
            recent = self.step()
        self.settled = minute
        return recent is not None and recent <= 60.0 * minute


class Timers:
    """All that raises signals at times. `mono` and `wall` are now, in seconds, on the two clocks."""

    def __init__(self) -> None:
        self._entries: dict[Source, _Timer | _Cron] = {}
        self._asked: dict[Hashable, set[Source]] = {}
        self._links = 0
        self._timers: Deadlines[_Timer] = Deadlines()
        self._crons: Deadlines[_Cron] = Deadlines()
        self._minute = 0
        self._recent: dict[Source, int] = {}
        self._spent: dict[Source, None] = {}

    def add_timer(self, signal: int, seconds: float, asker: Hashable, mono: float) -> Source:
        """Raise `signal` every so many seconds, from now on (`uwsgi.add_timer`).

        Parameters:
            asker: who asks for it, until `drop`.

        Returns:
            what the entry is known by.

        Raises:
            ValueError: the period is out of range, or the asker has too many entries.
        """
        _check_period(seconds)
        source = Source("timer", signal, f"every {float(seconds)} s")
        return self._add_timer(source, seconds, 0, asker, mono)

    def add_rb_timer(
        self,
        signal: int,
        seconds: float,
        iterations: int,
        asker: Hashable,
        mono: float,
        *,
        anew: bool = False,
    ) -> Source:
        """Raise `signal` every so many seconds, `iterations` times; 0: for ever (`uwsgi.add_rb_timer`).

        0 seconds: at once, and then every second. `anew`: also if it has run out before. For the rest see
        `add_timer`; fewer than 0 iterations are a `ValueError` too.
        """
        if seconds != 0:
            _check_period(seconds)
        if iterations < 0:
            raise ValueError(f"the iterations of a timer are 0 (endless) or more, not {iterations}")
        times = f", {iterations} times" if iterations else ""
        source = Source("rb_timer", signal, f"every {float(seconds)} s{times}")
        if anew:
            self._spent.pop(source, None)
        return self._add_timer(source, seconds, iterations, asker, mono)

    def add_cron(self, signal: int, schedule: Schedule, asker: Hashable, wall: float) -> Source:
        """Raise `signal` when the schedule says so, from the next minute on (`uwsgi.add_cron`).

        For the rest see `add_timer`.
        """
        source = Source("cron", signal, schedule.spec)
        self._check_room(source, asker)
        minute = self._look_at_clock(wall)
        if source not in self._entries:
            settled = self._recent.pop(source, None)
            cron = _Cron(source, schedule, minute if settled is None else max(settled, minute - 1))
            self._entries[source] = cron
            self._plan(cron)
        return self._link(source, asker)

    def remove(self, source: Source) -> bool:
        """Remove an entry, whoever asks for it; return whether there was one.

        One that has run out can be added afresh from here on.
        """
        self._spent.pop(source, None)
        if (entry := self._entries.get(source)) is None:
            return False
        self._forget(entry)
        return True

    def remove_all(self, kind: str, signal: int) -> int:
        """Remove a signal's entries of one kind, whoever asks for them; return how many there were."""
        known = [*self._entries, *self._spent]
        found = [source for source in known if (source.kind, source.signal) == (kind, signal)]
        return sum(map(self.remove, found))

    def drop(self, asker: Hashable) -> None:
        """Forget an asker, and the entries that nobody else asks for."""
        for source in list(self._asked.get(asker, ())):
            entry = self._entries[source]
            if len(entry.askers) == 1:
                self._forget(entry)
                if isinstance(entry, _Cron):
                    self._remember(entry)
            else:
                self._unlink(entry, asker)

    def is_cron_due(self, wall: float) -> bool:
        """Return whether `due` would change what `settled` returns."""
        at = self._crons.next()
        return at is not None and at <= wall

    def due(self, mono: float, wall: float, raises: Callable[[int], bool] = lambda signal: True) -> list[int]:
        """Return the signals that were due, in that order.

        Parameters:
            raises: called with each; returns whether that has raised it, as opposed to finding it raised.
        """
        minute = self._look_at_clock(wall)
        raised: list[tuple[float, _Entry]] = []
        for at, timer in self._timers.pop_due(mono):
            raised.append((at, timer))
            self._timers.set(timer, timer.step(mono))
        for at, cron in self._crons.pop_due(wall):
            if cron.settle(at, minute):
                raised.append((at - wall + mono, cron))
            self._plan(cron)
        raised.sort(key=itemgetter(0))
        for _, entry in raised:
            entry.fired += 1
            if raises(entry.source.signal) and isinstance(entry, _Timer):
                self._spend(entry)
        return [entry.source.signal for _, entry in raised]

    def next_deadline(self, mono: float, wall: float) -> float | None:
        """Return when to call `due`, on the monotonic clock; None: nothing is planned.

        If there is a cron entry it is never far ahead, so that a jump of the wall clock is noticed.
        """
        deadlines = []
        if (at := self._timers.next()) is not None:
            deadlines.append(at)
        if (at := self._crons.next()) is not None:
            deadlines.append(mono + min(max(at - wall, 0.0), CLOCK_CHECK_SECONDS))
        return min(deadlines, default=None)

    def settled(self) -> dict[Source, int]:
        """Return up to which minute of the epoch each cron entry is settled: what `restore` needs.

        To be stored in one go with the signals that `due` returned.
        """
        crons = (entry for entry in self._entries.values() if isinstance(entry, _Cron))
        return {**self._recent, **{cron.source: cron.settled for cron in crons}}

    def restore(self, settled: Mapping[Source, int], wall: float) -> None:
        """Take what `settled` returned before a restart. To be called before entries are added."""
        minute = self._look_at_clock(wall)
        latest = minute + TOLERANCE_MINUTES
        self._recent = {s: max(until, minute - 1) for s, until in settled.items() if until <= latest}

    def status(self, mono: float, wall: float) -> list[dict[str, object]]:
        """Return for each entry what it is, how many ask for it, how often it fired, and when it will."""
        return [
            {
                "kind": source.kind,
                "signal": source.signal,
                "spec": source.spec,
                "askers": len(entry.askers),
                "fired": entry.fired,
                "next_in_s": self._next_in(entry, mono, wall),
            }
            for source, entry in self._entries.items()
        ]

    def _next_in(self, entry: _Timer | _Cron, mono: float, wall: float) -> float | None:
        if isinstance(entry, _Timer):
            at, now = self._timers.get(entry), mono
        else:
            at, now = self._crons.get(entry), wall
        return None if at is None else max(at - now, 0.0)

    def _add_timer(
        self, source: Source, seconds: float, iterations: int, asker: Hashable, mono: float
    ) -> Source:
        self._check_room(source, asker)
        if source in self._spent:
            return source
        if source not in self._entries:
            timer = _Timer(source, seconds or AT_ONCE_SECONDS, iterations, mono)
            self._entries[source] = timer
            self._timers.set(timer, timer.step(mono) if seconds else mono)
        return self._link(source, asker)

    def _spend(self, timer: _Timer) -> None:
        """Count an iteration of a timer, which has run out with the last."""
        if timer.left == 1:
            self._forget(timer)
            if len(self._spent) >= RECENT_ENTRIES:
                del self._spent[next(iter(self._spent))]
            self._spent[timer.source] = None
        elif timer.left is not None:
            timer.left -= 1

    def _plan(self, cron: _Cron) -> None:
        if (at := cron.step()) is not None:
            self._crons.set(cron, at)

    def _look_at_clock(self, wall: float) -> int:
        """Return the minute of the epoch; start anew what was settled too far ahead of it."""
        minute, before = int(wall // 60), self._minute
        self._minute = minute
        earliest, latest = minute - RECENT_MINUTES, minute + TOLERANCE_MINUTES
        if minute != before:
            self._recent = {s: until for s, until in self._recent.items() if earliest <= until <= latest}
        if minute < before:
            for entry in self._entries.values():
                if isinstance(entry, _Cron) and entry.settled > latest:
                    entry.settled = minute
                    self._plan(entry)
        return minute

    def _remember(self, cron: _Cron) -> None:
        """Keep for some minutes what a cron entry had settled, in case whoever asked comes back."""
        if len(self._recent) >= RECENT_ENTRIES:
            del self._recent[next(iter(self._recent))]
        self._recent[cron.source] = max(cron.settled, self._minute - 1)

    def _check_room(self, source: Source, asker: Hashable) -> None:
        asked = self._asked.get(asker, ())
        if len(asked) >= ENTRIES_PER_ASKER and source not in asked:
            raise ValueError(
                f"one process can ask for {ENTRIES_PER_ASKER} timers and cron entries, not for more"
            )

        if self._links >= ENTRIES_OF_ALL and source not in asked:
            raise ValueError(f"all processes together can ask for {ENTRIES_OF_ALL} timers and cron entries")

    def _link(self, source: Source, asker: Hashable) -> Source:
        self._entries[source].askers.add(asker)
        asked = self._asked.setdefault(asker, set())
        self._links += source not in asked
        asked.add(source)
        return source

    def _unlink(self, entry: _Timer | _Cron, asker: Hashable) -> None:
        entry.askers.remove(asker)
        self._asked[asker].remove(entry.source)
        self._links -= 1
        if not self._asked[asker]:
            del self._asked[asker]

    def _forget(self, entry: _Timer | _Cron) -> None:
        for asker in list(entry.askers):
            self._unlink(entry, asker)
        del self._entries[entry.source]
        if isinstance(entry, _Timer):
            self._timers.discard(entry)
        else:
            self._crons.discard(entry)

    def validate(self) -> None:
        """Check that every entry is asked for, booked with each asker, and planned unless it never fires.

        And that none is settled too far ahead of the clock.
        """
        if not (self._entries or self._recent or self._spent):
            assert not any((self._asked, len(self._timers), len(self._crons)))
            return
        self._timers.validate()
        self._crons.validate()
        timers = [entry for entry in self._entries.values() if isinstance(entry, _Timer)]
        crons = [entry for entry in self._entries.values() if isinstance(entry, _Cron)]
        assert all(timer in self._timers for timer in timers)
        assert len(timers) == len(self._timers)
        assert all(timer.left is None or timer.left > 0 for timer in timers)
        assert all(self._crons.get(cron) == cron.step() for cron in crons)
        assert len(self._crons) <= len(crons)
        links = {(source, asker) for asker, sources in self._asked.items() for source in sources}
        assert links == {(source, asker) for source, entry in self._entries.items() for asker in entry.askers}
        assert all(self._asked.values())
        assert self._links == len(links), "the entries are miscounted"
        assert all(entry.askers and entry.source == source for source, entry in self._entries.items())
        assert not (self._recent.keys() | self._spent.keys()) & self._entries.keys()
        assert all(until <= self._minute + TOLERANCE_MINUTES for until in self.settled().values())


def _check_period(seconds: float) -> None:
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        raise ValueError(
            f"the period of a timer is {SHORTEST_SECONDS} to {LONGEST_SECONDS:.0f} s, not {seconds}"
        )
