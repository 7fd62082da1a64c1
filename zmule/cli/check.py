"""What `zmuled --check` shows: the configuration, and where each part of it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from zmule.daemon import settings as declared
from zmule.daemon.config import Config, gather
from zmule.daemon.settings import FARM, MULE, SETTINGS, Setting
from zmule.daemon.sources import FILE, Lines

FIELDS = {"endpoint": "endpoints", "mule_reload_mercy": "mercy"}
"""Settings that a `Config` has under another name."""

UNLISTED = (MULE, declared.MULES, FARM, declared.ACK_OF, declared.SET)
"""Settings with tables of their own."""


class Origins:
    """Where the parts of a configuration come from.

    Args: those of `load`, which has found them good.
    """

    def __init__(self, flags: Mapping[str, Sequence[str]], environ: Mapping[str, str]) -> None:
        self._sources = gather(flags, environ)
        self._lines = Lines(self._sources.path)

    def of(self, setting: Setting[Any]) -> str:
        """Return the flag, the variable, the file and line, or the word `default`."""
        found = self._sources.pick(setting)
        if setting is declared.PUBLISH and found.rank < self._sources.pick(declared.ENDPOINT).rank:
            return "default"
        return self._lines.place(setting.key) if found.rank == FILE else found.where

    def of_table(self, name: str, count: int) -> str:
        """Return the place of a table of the file, by its name and its number among those of that name."""
        return self._lines.place(name, count)

    def of_mule(self, number: int) -> str:
        """Return the place of a mule."""
        return MULE.flag if MULE.name in self._sources.flags else self._lines.place("mule", number)

    def of_farm(self, name: str) -> str:
        """Return the place of a farm."""
        return FARM.flag if FARM.name in self._sources.flags else self._lines.place(f"farms.{name}")


def summary(config: Config, origins: Origins) -> str:
    """Return the configuration: a table of each kind of thing."""
    mules = [
        (
            str(mule.number),
            mule.program or "(signal-only)",
            _farms_of(config, mule.number),
            mule.ack,
            origins.of_mule(mule.number),
        )
        for mule in config.mules
    ]
    farms = [
        (farm.name, " ".join(map(str, farm.mules)) or "-", farm.ack, origins.of_farm(farm.name))
        for farm in config.farms
    ]
    tables = [
        _table(("SETTING", "VALUE", "FROM"), _values(config, origins)),
        _table(("MULE", "PROGRAM", "FARMS", "ACK", "FROM"), mules) if mules else "no mules",
        _table(("FARM", "MULES", "ACK", "FROM"), farms) if farms else "no farms",
    ]
    if raisers := list(_raisers(config, origins)):
        tables.append(_table(("SIGNAL", "SOURCE", "WHEN", "FROM"), raisers))
    return "\n\n".join(tables)


def _raisers(config: Config, origins: Origins) -> Iterator[tuple[str, ...]]:
    for number, timer in enumerate(config.timers, 1):
        times = f", {timer.iterations} times" if timer.iterations else ""
        when = f"every {timer.seconds:g} s{times}"
        yield str(timer.signal), "timer", when, origins.of_table("timer", number)
    for number, cron in enumerate(config.crons, 1):
        yield str(cron.signal), "cron", f"{cron.when} {cron.zone}".rstrip(), origins.of_table("cron", number)
    for number, filemon in enumerate(config.filemons, 1):
        yield str(filemon.signal), "filemon", filemon.path, origins.of_table("filemon", number)


def _values(config: Config, origins: Origins) -> Iterator[tuple[str, str, str]]:
    """Yield a row for each setting, by its key; several values have a row each."""
    for setting in SETTINGS:
        if setting in UNLISTED or not setting.key:
            continue
        value = getattr(config, FIELDS.get(setting.name, setting.name))
        for each in (value or (None,)) if isinstance(value, tuple) else (value,):
            yield setting.key, _word(each), origins.of(setting)


def _word(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _farms_of(config: Config, number: int) -> str:
    return " ".join(farm.name for farm in config.farms if number in farm.mules) or "-"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
