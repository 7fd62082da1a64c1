"""uWSGI's cron rules: five integers, matched against local time exactly as uWSGI matches them.

A field is a value; or −1, any value; or −n, every value that n divides. This last holds for day and month
too: day −2 is the even days, where cron's `*/2` is the odd ones, and hour −5 is 0, 5, 10, 15, 20. A weekday
is 0 (Sunday) to 6, and 7 is Sunday as well, but −n counts by 0 to 6: −2 is Sunday, Tuesday, Thursday and
Saturday. All fields must match, but for one case: if day *and* weekday are both values (not −n), either will
do. uWSGI takes any integer and never fires those out of range; zmule refuses them.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import NamedTuple

RANGES = {
    "minute": range(60),
    "hour": range(24),
    "day": range(1, 32),
    "month": range(1, 13),
    "weekday": range(8),
}
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
YEARS_AHEAD = 40
"""The longest wait there is: a 29th of February on a given weekday, across a year like 2100."""


class IntegerCron(NamedTuple):
    """One rule; make it with `integer_cron`, which checks it. Times are local and naive."""

    minute: int
    hour: int
    day: int
    month: int
    weekday: int

    def __str__(self) -> str:
        return " ".join(map(str, self))

    @property
    def fixed(self) -> bool:
        """Whether it means certain times of day, rather than an interval: neither minute nor hour is −n."""
        return self.minute >= 0 and self.hour >= 0

    def matches(self, local: datetime) -> bool:
        """Say whether the rule matches the minute of `local`."""
        return _fits(self.minute, local.minute) and _fits(self.hour, local.hour) and self._on(local)

    def next_after(self, local: datetime) -> datetime | None:
        """Return the first matching minute that begins after `local`; None: it never matches again."""
        start = local.replace(second=0, microsecond=0) + MINUTE
        if self._on(start) and (found := self._time_from(start.time())) is not None:
            return datetime.combine(start, found)
        day, earliest = self._day_after(start.date()), self._time_from(time())
        return None if day is None or earliest is None else datetime.combine(day, earliest)

    def _on(self, day: date) -> bool:
        on_day = _fits(self.day, day.day)
        on_weekday = _fits(self.weekday % 7 if self.weekday > 0 else self.weekday, day.isoweekday() % 7)
        either = self.day >= 0 and self.weekday >= 0
        on_date = on_day or on_weekday if either else on_day and on_weekday
        return on_date and _fits(self.month, day.month)

    def _time_from(self, earliest: time) -> time | None:
        """Return the first matching time of a day, from `earliest` on."""
        minutes = [minute for minute in RANGES["minute"] if _fits(self.minute, minute)]
        for hour in RANGES["hour"]:
            if hour >= earliest.hour and _fits(self.hour, hour):
                for minute in minutes:
                    if hour > earliest.hour or minute >= earliest.minute:
                        return time(hour, minute)
        return None

    def _day_after(self, day: date) -> date | None:
        """Return the first matching day after `day`, passing over months that do not match."""
        last_year = day.year + YEARS_AHEAD
        day += DAY
        while day.year <= last_year:
            if not _fits(self.month, day.month):
                day = (day.replace(day=28) + 4 * DAY).replace(day=1)
            elif self._on(day):
                return day
            else:
                day += DAY
        return None


def integer_cron(minute: int, hour: int, day: int, month: int, weekday: int) -> IntegerCron:
    """Return the rule of the five integers (`uwsgi.add_cron`).

    Raises:
        ValueError: one is not an integer in its range; names the field and the range.
    """
    rule = IntegerCron(minute, hour, day, month, weekday)
    for (field, values), value in zip(RANGES.items(), rule, strict=True):
        steps = len(values) if field != "weekday" else 7
        if type(value) is not int or not (value in values or -steps <= value <= -1):
            allowed = f"{values[0]} to {values[-1]}, or -1 (any) to -{steps} (every n)"
            raise ValueError(f"cron {field} must be {allowed}, not {value!r}")
    return rule


def _fits(rule: int, value: int) -> bool:
    return value == rule if rule >= 0 else value % -rule == 0
