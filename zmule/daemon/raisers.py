"""What raises signals by configuration: the `[[timer]]`, `[[cron]]` and `[[filemon]]` tables of the file.

Whether a path can be watched is not checked here, since it may come to be later; when a broker finds that
it cannot, it says so in its log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from zmule.core.services import Wish
from zmule.core.timers import ENTRIES_PER_ASKER
from zmule.daemon.cronstring import string_schedule
from zmule.daemon.settings import ITERATIONS, PATH, PERIOD, PERIOD_MS, SIGNAL, TEXT, Kind
from zmule.daemon.sources import Sources, check_names
from zmule.errors import ConfigError

MOST = ENTRIES_PER_ASKER // 2
"""Most tables of a kind."""


class TimerSpec(NamedTuple):
    """A timer; `iterations` 0: for ever."""

    signal: int
    seconds: float
    iterations: int


class CronSpec(NamedTuple):
    """A cron string, and its time zone; "": the system's."""

    signal: int
    when: str
    zone: str


class FilemonSpec(NamedTuple):
    """A file monitor."""

    signal: int
    path: str


def timers(sources: Sources) -> tuple[TimerSpec, ...]:
    """Return the timers of the file."""
    return tuple(_timer(place, record) for place, record in _records(sources, "timer"))


def _timer(place: str, record: dict[str, Any]) -> TimerSpec:
    check_names(record, ("signal", "seconds", "ms", "iterations"), place)
    if ("seconds" in record) == ("ms" in record):
        raise ConfigError(f"{place}: give seconds, or ms, and not both")
    if "ms" in record:
        seconds = _need(record, "ms", PERIOD_MS, place) / 1000
    else:
        seconds = float(_need(record, "seconds", PERIOD, place))
    iterations = _need(record, "iterations", ITERATIONS, place) if "iterations" in record else 0
    return TimerSpec(_need(record, "signal", SIGNAL, place), seconds, iterations)


def crons(sources: Sources) -> tuple[CronSpec, ...]:
    """Return the cron entries of the file."""
    return tuple(_cron(place, record) for place, record in _records(sources, "cron"))


def _cron(place: str, record: dict[str, Any]) -> CronSpec:
    check_names(record, ("signal", "when", "zone"), place)
    zone = _need(record, "zone", TEXT, place) if "zone" in record else ""
    when = _need(record, "when", TEXT, place)
    try:
        string_schedule(when, zone or None)
    except ValueError as error:
        raise ConfigError(f"{place}: {error}") from None
    return CronSpec(_need(record, "signal", SIGNAL, place), when, zone)


def filemons(sources: Sources) -> tuple[FilemonSpec, ...]:
    """Return the file monitors of the file."""
    return tuple(_filemon(place, record) for place, record in _records(sources, "filemon"))


def _filemon(place: str, record: dict[str, Any]) -> FilemonSpec:
    check_names(record, ("signal", "path"), place)
    return FilemonSpec(_need(record, "signal", SIGNAL, place), _need(record, "path", PATH, place))


def _records(sources: Sources, name: str) -> list[tuple[str, dict[str, Any]]]:
    records = list(sources.records(name))
    if len(records) > MOST:
        raise ConfigError(f"{sources.path}: [[{name}]]: {len(records)} are too many: at most {MOST}")
    return records


def _need(record: Mapping[str, Any], key: str, kind: Kind, place: str) -> Any:
    if key not in record:
        raise ConfigError(f"{place}: {key} is missing: {kind.words}")
    return kind.accept(record[key], f"{place}: {key}")


def wishes(
    timers: Iterable[TimerSpec], crons: Iterable[CronSpec], filemons: Iterable[FilemonSpec]
) -> Iterator[Wish]:
    """Yield what the broker is to be asked for, in the words in which mules ask."""
    for timer in timers:
        if timer.iterations:
            yield "add_rb_timer", tuple(timer)
        else:
            yield "add_timer", (timer.signal, timer.seconds)
    for cron in crons:
        yield "add_cron_text", tuple(cron)
    for filemon in filemons:
        yield "add_file_monitor", tuple(filemon)
