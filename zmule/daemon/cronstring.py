"""When a cron entry is due, in epoch seconds: a rule for local times, and the time zone that it is read in.

There are two kinds of rule, uWSGI's five integers (`zmule.core.cron`) and the five fields of a crontab line
(cronsim). Both only know the clock on the wall, naive local times; what happens when that clock is put
forward or back is decided here, for both alike, as Debian's cron does:

- A rule with fixed times of day (`30 2 * * *`, `0,30 1-4 * * *`: neither minute nor hour begins with a star,
  or is negative) means those times. One that is skipped fires at the end of the gap, at 3:00 for 2:30 in
  Rome, and once however many of them the gap swallowed. One that comes twice fires the first time only.
- Any other (`*/15 * * * *`, `0 * * * *`, −n or −1 in minute or hour) means distances, and goes by the real
  minutes: it fires in both of the doubled hours, which are an hour apart, and a skipped hour has no minutes
  to fire in. No minute fires twice.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from zmule.core.cron import integer_cron

MINUTE = timedelta(minutes=1)
DAY_MINUTES = 24 * 60
TEXT_LENGTH = 200


class Rule(Protocol):
    """What local times a cron entry means."""

    @property
    def fixed(self) -> bool:
        """Whether it means times of day rather than intervals."""

    def next_after(self, local: datetime) -> datetime | None:
        """Return the first matching minute that begins after the naive `local`."""


class CronString(NamedTuple):
    """The five fields of a crontab line as cronsim reads them; make it with `string_schedule`."""

    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def fixed(self) -> bool:
        minute, hour, *_ = self.text.split()
        return not minute.startswith("*") and not hour.startswith("*")

    def next_after(self, local: datetime) -> datetime | None:
        return next(CronSim(self.text, local), None)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A rule in a time zone; `zone` None is the system's. Equal ones have the same `spec`."""

    rule: Rule
    zone: ZoneInfo | None = None

    @property
    def spec(self) -> str:
        """The rule and the zone as text."""
        return f"{self.rule} {self.zone.key}" if self.zone else str(self.rule)

    def next_after(self, wall: float) -> float | None:
        """Return when it fires next after `wall`, both in epoch seconds; None: never again."""
        return self._next_time(wall) if self.rule.fixed else self._next_minute(wall)

    def _next_time(self, wall: float) -> float | None:
        """Follow the local times; pass over those that a clock put back shows for the second time."""
        local: datetime | None = self._local(wall)
        while local is not None and (local := self.rule.next_after(local)) is not None:
            real = local
            while self._local(found := real.replace(tzinfo=self.zone).timestamp()) != real:
                real += MINUTE
            if found > wall:
                return found
        return None

    def _next_minute(self, wall: float) -> float | None:
        """Follow the real minutes, over one stretch of constant offset to UTC after another."""
        minute: int | None = int(wall // 60) + 1
        while minute is not None:
            local = self._local(60 * minute)
            match = self.rule.next_after(local - MINUTE)
            if match is None:
                return None
            found = minute + (match - local) // MINUTE
            minute = self._shift(minute, found)
        return 60.0 * found

    def _shift(self, minute: int, last: int) -> int | None:
        """Return the first minute after `minute`, up to `last`, at which the offset to UTC is another."""
        offset = self._offset(minute)

        def shifted(other: int) -> bool:
            return self._offset(other) != offset

        for start in range(minute, last, DAY_MINUTES):
            end = min(start + DAY_MINUTES, last)
            if shifted(end):
                return start + bisect_left(range(start, end), True, key=shifted)
        return None

    def _offset(self, minute: int) -> timedelta | None:
        return datetime.fromtimestamp(60 * minute, UTC).astimezone(self.zone).utcoffset()

    def _local(self, wall: float) -> datetime:
        return datetime.fromtimestamp(wall, UTC).astimezone(self.zone).replace(tzinfo=None, fold=0)


def integer_schedule(
    minute: int, hour: int, day: int, month: int, weekday: int, zone: str | None = None
) -> Schedule:
    """Return the schedule of uWSGI's five integers (`uwsgi.add_cron`).

    Parameters:
        zone: an IANA name, such as `Europe/Rome`; None: the system's time zone.

    Raises:
        ValueError: a field is out of its range, or there is no such zone.
    """
    return Schedule(integer_cron(minute, hour, day, month, weekday), _zone(zone))


def string_schedule(text: str, zone: str | None = None) -> Schedule:
    """Return the schedule of a cron string: minute, hour, day, month and weekday.

    A field takes `*`, numbers, names (`MON`, `JAN`), lists, ranges and steps; a day also `L` (the last of the
    month) and `LW` (its last working day), a weekday `5L` (the last Friday) and `5#2` (the second).

    Parameters:
        zone: an IANA name, such as `Europe/Rome`; None: the system's time zone.

    Raises:
        ValueError: the string cannot be read, or there is no such zone.
    """
    rule = CronString(" ".join(text.upper().split()))
    if len(text) > TEXT_LENGTH or len(rule.text.split()) != 5:
        shape = "write minute hour day month weekday, as in '30 4 * * 1-5'"
        raise ValueError(f"cron string {text[:TEXT_LENGTH]!r}: {shape}")
    try:
        CronSim(rule.text, datetime(2028, 1, 1))
    except CronSimError as error:
        raise ValueError(f"cron string {text!r}: {str(error).lower()}") from None
    return Schedule(rule, _zone(zone))


def _zone(name: str | None) -> ZoneInfo | None:
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(
            f"no time zone {name[:TEXT_LENGTH]!r}: write an IANA name, such as 'Europe/Rome'"
        ) from None
