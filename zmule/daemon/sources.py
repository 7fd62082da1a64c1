"""Where settings come from: flags over environment over file over defaults.

A name that is no setting is refused wherever it stands, for a misspelled setting that is silently ignored
is worse than one that is missing. So is a wrong value, though a stronger place may have a right one: it would
show on the day on which that one goes. Every complaint begins with the place: the flag, the variable, or the
file and key.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from zmule.daemon.settings import SETTINGS, Setting, shown
from zmule.errors import ConfigError
from zmule.near import hint, near

T = TypeVar("T")

MAX_FILE = 1 << 20
"""Longest configuration file, in bytes."""

SUPERVISED = frozenset({"ZMULE_NUMBER", "ZMULE_OPT", "ZMULE_SUPERVISOR", "ZMULE_TOKEN"})
"""What `zmuled` sets for its mules besides ZMULE_ENDPOINT. No settings, but a mule may start a `zmuled`."""

CLIENTS = frozenset({"ZMULE_BROKER_USER"})
"""What clients read, and a `zmuled` may have in its environment because they do."""

_ADDRESS = r"(tcp|udp|sctp)://\S+:\d+"
CLUSTER = tuple(
    (re.compile(rf"ZMULE_([A-Z0-9_]+_)?{name}", re.ASCII), re.compile(value, re.ASCII))
    for name, value in (
        ("SERVICE_HOST", r"[\da-f.:]+"),
        ("SERVICE_PORT(_[A-Z0-9_]+)?", r"\d+"),
        ("PORT", _ADDRESS),
        (r"PORT_\d+_(TCP|UDP|SCTP)", _ADDRESS),
        (r"PORT_\d+_(TCP|UDP|SCTP)_PROTO", "tcp|udp|sctp"),
        (r"PORT_\d+_(TCP|UDP|SCTP)_PORT", r"\d+"),
        (r"PORT_\d+_(TCP|UDP|SCTP)_ADDR", r"[\da-f.:]+"),
    )
)
"""Names and values of what Kubernetes gives to every pod for a service called `zmule` or `zmule-…`."""

VARIABLES = frozenset(setting.variable for setting in SETTINGS if setting.variable)
KEYS = frozenset(setting.key for setting in SETTINGS if setting.key)
HEADERS = {
    "broker": "[broker]",
    "app": "[app]",
    "limits": "[limits]",
    "log": "[log]",
    "mule": "[[mule]]",
    "farms": "[farms]",
    "mulefunc": "[mulefunc]",
    "timer": "[[timer]]",
    "cron": "[[cron]]",
    "filemon": "[[filemon]]",
}
"""How each table of the file is opened."""

DEFAULT, FILE, ENVIRONMENT, FLAG = range(4)


class WrongFlag(ConfigError):
    """The mistake is on the command line."""

    exit_code = 2


class Found(NamedTuple, Generic[T]):
    """The values of a setting, the place that gave them, and how strong it is."""

    values: tuple[T, ...]
    where: str
    rank: int

    @property
    def value(self) -> T:
        return self.values[-1]


@dataclass(frozen=True, slots=True)
class Sources:
    """The three places that a setting may come from; an empty environment variable counts as none."""

    flags: Mapping[str, Sequence[str]]
    environ: Mapping[str, str]
    path: str = ""
    tables: Mapping[str, Any] | None = None

    def find(self, setting: Setting[T]) -> Found[T] | None:
        """Return the setting from the strongest place that gives it, or None.

        Raises:
            ConfigError: what one of the places gives does not fit.
        """
        return next(iter(self.all(setting)), None)

    def all(self, setting: Setting[T]) -> list[Found[T]]:
        """Return the setting from each place that gives it, the strongest first.

        Raises:
            ConfigError: what one of the places gives does not fit.
        """
        found = []
        if texts := self.flags.get(setting.name):
            values = tuple(setting.kind.read(text, setting.flag) for text in texts)
            found.append(Found(values, setting.flag, FLAG))
        if text := self.environ.get(setting.variable):
            values = (setting.kind.read(text, setting.variable),)
            found.append(Found(values, setting.variable, ENVIRONMENT))
        table, _, key = setting.key.partition(".")
        given = self.table(table).get(key)
        if given is not None:
            found.append(self._from_file(setting, given))
        return found

    def pick(self, setting: Setting[T]) -> Found[T]:
        """Return the setting from the strongest place that gives it, or its default."""
        return self.find(setting) or Found((setting.default,), "default", DEFAULT)

    def table(self, name: str) -> Any:
        """Return a table of the file, empty if it is not there."""
        return (self.tables or {}).get(name, {})

    def records(self, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the tables that stand under `[[name]]`, each with the place that it has in complaints."""
        where = f"{self.path}: {HEADERS[name]}"
        records = self.table(name) or []
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise ConfigError(
                f"{where}: write {HEADERS[name]} on a line of its own before the keys of each {name}"
            )
        for number, record in enumerate(records, 1):
            yield f"{where} ({name} {number})", record

    def _from_file(self, setting: Setting[T], given: object) -> Found[T]:
        where = f"{self.path}: {setting.key}"
        values = given if setting.many and isinstance(given, list) else [given]
        if not values:
            raise ConfigError(f"{where}: the list is empty")
        return Found(tuple(setting.kind.accept(value, where) for value in values), where, FILE)


def check_names(names: Iterable[str], known: Iterable[str], where: str) -> None:
    """Refuse the first name that is not known, with a guess at the one that was meant."""
    for name in names:
        if name not in known:
            raise ConfigError(f"{where}: {shown(name)} is no setting{hint(name, known)}")


def check_environment(environ: Mapping[str, str]) -> None:
    """Refuse a variable that looks like a setting and is none."""
    ours = {
        name for name, value in environ.items() if name.startswith("ZMULE_") and not _is_clusters(name, value)
    }
    check_names(sorted(ours - SUPERVISED - CLIENTS), VARIABLES, "environment")


def _is_clusters(name: str, value: str) -> bool:
    """Tell whether a cluster has set the variable, and no operator."""
    return any(names.fullmatch(name) and values.fullmatch(value) for names, values in CLUSTER)


def read_file(path: str, named_by: str = "") -> dict[str, Any]:
    """Return the tables of a TOML file whose keys are all known.

    Args:
        path: where it is.
        named_by: the place that gives its path.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or has a key that is no setting.
    """
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(MAX_FILE + 1)
    except OSError as error:
        place = f"{named_by}: " if named_by else ""
        raise ConfigError(f"{place}{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE:
        raise ConfigError(f"{path}: is longer than {MAX_FILE} bytes")
    try:
        tables = tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}: is not UTF-8 (at line {line})") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None
    _check_keys(path, tables)
    return tables


def _check_keys(path: str, tables: Mapping[str, Any]) -> None:
    for table, content in tables.items():
        if table not in HEADERS:
            raise ConfigError(f"{path}: {shown(table)} is no setting{_guess(table, _places() | HEADERS)}")
        if HEADERS[table].startswith("[["):
            continue
        if not isinstance(content, dict):
            raise ConfigError(
                f"{path}: {table} is not a table: write {HEADERS[table]} on a line above its keys"
            )
        if table != "farms":
            _check_table(path, table, content)


def _check_table(path: str, table: str, content: Mapping[str, Any]) -> None:
    own = {key.partition(".")[2]: key for key in KEYS if key.startswith(f"{table}.")}
    for key in content:
        if key not in own:
            guess = _guess(key, own) or _guess(key, _places())
            raise ConfigError(f"{path}: {shown(f'{table}.{key}')} is no setting{guess}")


def _places() -> dict[str, str]:
    """Return where in the file a value belongs, by the last word of its key and by its flag's name."""
    in_file = [setting for setting in SETTINGS if setting.key and setting.variable]
    return {setting.key.partition(".")[2]: setting.key for setting in in_file} | {
        setting.name: setting.key for setting in in_file
    }


def _guess(word: str, meanings: Mapping[str, str]) -> str:
    name = near(word, meanings)
    return f": did you mean {meanings[name]}?" if name else ""


_HEADER = re.compile(r"\s*\[+\s*([\w.-]+)\s*\]+\s*(#.*)?")
_KEY = re.compile(r"""\s*["']?([\w.-]+)["']?\s*=""")


class Lines:
    """Where in a file each table and key stands: by a look at its lines, as the parser does not tell.

    What is written in another way than usual (a table in one line, a key in parts) is not found.

    Args:
        path: the file, which can be read; empty if there is none.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lines: dict[tuple[str, int], int] = {}
        counts = dict.fromkeys(HEADERS, 0)
        table = ""
        for number, line in enumerate(Path(path).read_text().splitlines() if path else (), 1):
            if header := _HEADER.fullmatch(line):
                table = header[1]
                counts[table] = counts.get(table, 0) + 1
                self._lines[table, counts[table]] = number
            elif key := _KEY.match(line):
                self._lines.setdefault((f"{table}.{key[1]}", 1), number)

    def place(self, name: str, count: int = 1) -> str:
        """Return the place of a key (`table.key`) or of the table of that name and count, as `file:line`."""
        line = self._lines.get((name, count)) or self._lines.get((name.partition(".")[0], 1))
        return f"{self._path}:{line}" if line else self._path
