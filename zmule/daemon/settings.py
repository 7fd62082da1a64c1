"""Every setting of `zmuled`, declared once.

A `Setting` is the flag, the environment variable, the key of the file, the check of the value, the line of
`--help` and the entry of docs/configuration.rst. Values that come as text (flags, environment) and values
that come typed (TOML) go through the same `Kind`, so that there is one rule and one complaint for both.
Mules and farms are lists of records rather than single values: they are declared here for their flags
and their documentation, and read by `zmule.daemon.config`. What raises signals has no flags, and is read by
`zmule.daemon.raisers`; only the kinds of its values are here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from keyword import iskeyword
from textwrap import fill
from typing import Any, Generic, TypeVar

from zmule.core.queues import LAST_SIGNAL
from zmule.core.services import MAX_PATH
from zmule.core.timers import LONGEST_SECONDS, SHORTEST_SECONDS
from zmule.errors import ConfigError

T = TypeVar("T")

STORES = {"memory:": r"memory:", "sqlite:///path": r"sqlite:(///|(?!//)).+"}
"""The stores there are: how each is written, and the pattern of its spelling."""

SWITCHES = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}

BEGIN, END = ".. settings begin (generated)\n", ".. settings end\n"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value: which ones `fit`, how they are called, and how to `convert` one from text."""

    metavar: str
    words: str
    fits: Callable[[Any], bool]
    convert: Callable[[str], object] = str

    def accept(self, value: object, where: str) -> Any:
        """Return the value if it fits, else raise a `ConfigError` that begins with `where`."""
        if not self.fits(value):
            raise ConfigError(f"{where}: {shown(value)} is not {self.words}")
        return value

    def read(self, text: str, where: str) -> Any:
        """Return the value that the text stands for, or raise as `accept` does."""
        try:
            value = self.convert(text)
        except ValueError:
            value = None
        if not self.fits(value):
            raise ConfigError(f"{where}: {shown(text)} is not {self.words}")
        return value


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """One setting.

    Attributes:
        name: gives the flag (`--log-level`) and the environment variable (`ZMULE_LOG_LEVEL`).
        key: where it stands in the file, as `table.key`; empty if it cannot.
        kind: what its values are.
        default: its value when nobody gives one.
        help: what it does, in a sentence.
        panel: the group in which help and documentation list it.
        default_words: how to name the default, if not by its value.
        many: it may be given several times, as a list in the file.
        variable: the environment variable; empty if there is none.
    """

    name: str
    key: str
    kind: Kind
    default: T
    help: str
    panel: str
    default_words: str = ""
    many: bool = False
    has_variable: bool = True

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return f"ZMULE_{self.name.upper()}" if self.has_variable else ""

    @property
    def default_in_words(self) -> str:
        """The default as help and documentation name it; empty if there is nothing to say."""
        return self.default_words or str(self.default or "")


def shown(value: object) -> str:
    """Return a value as an error line can carry it: on one line, escaped and not endless."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out thousands of digits
        return "a number that long"
    return text if len(text) <= 80 else f"{text[:80]}…"


def is_dotted(name: str) -> bool:
    """Return whether the name is spelled like that of a module."""
    return all(part.isidentifier() and not iskeyword(part) for part in name.split("."))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and bool(value.strip())


def _text(metavar: str, words: str, fits: Callable[[str], bool] = bool) -> Kind:
    return Kind(metavar, words, lambda value: _is_text(value) and fits(value))


def _choice(*words: str) -> Kind:
    return Kind("|".join(words), " or ".join(words), lambda value: value in words)


def _whole(metavar: str, most: int, least: int = 1) -> Kind:
    return Kind(
        metavar,
        f"a whole number from {least} to {most}",
        lambda value: type(value) is int and least <= value <= most,
        int,
    )


MOST_SECONDS = 1_000_000
"""A poll counts milliseconds in 31 bits."""


def _seconds(least: float, most: float = MOST_SECONDS) -> Kind:
    return Kind(
        "SECONDS",
        f"a number of seconds from {least:g} to {most:.0f}",
        lambda value: type(value) in (int, float) and least <= value <= most,
        float,
    )


def _is_store(text: str) -> bool:
    return any(re.fullmatch(pattern, text) for pattern in STORES.values())


def _is_path(text: str) -> bool:
    return text.startswith("/") and len(text) <= MAX_PATH


TEXT = _text("TEXT", "a text without control characters")
ACK = _choice("each", "early")
STOP_SIGNAL = _choice("TERM", "INT", "HUP", "QUIT", "USR1", "USR2")
ACK_FLAG = _text("WHO:HOW", "each or early, or such a word for one mule or farm: 2:early, busy:early")
URL = _text("URL", "an endpoint: ipc:///path or tcp://host:port")
SOCKET_PERMISSIONS = _text(
    "MODE",
    'octal digits as a text, such as "660", with 6 or 7 for the owner',
    lambda text: bool(re.fullmatch("(0o?)?[67][0-7]{2}", text, re.ASCII)),
)
ACCOUNT = Kind(
    "NAME",
    "a name, or a number as a text",
    lambda value: value == "" or (_is_text(value) and re.fullmatch(r"[^\s:]+", value) is not None),
)
MODULE = _text(
    "MODULE",
    "the name of a module, such as myproject.tasks, or a path ending in .py",
    lambda text: text.endswith(".py") or is_dotted(text),
)
STORE_URL = _text("URL", f"a store: {' or '.join(STORES)}", _is_store)
SIGNAL = _whole("NUM", LAST_SIGNAL, 0)
TTL = _seconds(0)
PERIOD = _seconds(SHORTEST_SECONDS, LONGEST_SECONDS)
PERIOD_MS = Kind(
    "MS",
    "a whole number of milliseconds from 1 up",
    lambda value: type(value) is int and 1 <= value <= LONGEST_SECONDS * 1000,
)
ITERATIONS = _whole("COUNT", 10**15)
PATH = _text("PATH", f"an absolute path of at most {MAX_PATH} characters", _is_path)
SWITCH = Kind("", "true or false", lambda value: type(value) is bool, lambda text: SWITCHES.get(text.lower()))

CONFIG = Setting(
    "config",
    "",
    _text("FILE", "the path of a file"),
    "",
    "Read settings from this TOML file.",
    "",
)
MULES_PANEL, BROKER_PANEL, LIMITS_PANEL, LOG_PANEL = "Mules and farms", "Broker", "Limits", "Log"

MULE = Setting(
    "mule",
    "mule.program",
    _text("[=PROGRAM]", "a path ending in .py, or package.module:callable"),
    "",
    "Start one more mule: with =PROGRAM (a path ending in .py, or package.module:callable) a programmed "
    "mule, alone a signal-only one. Mules given as flags replace the mules and farms of the file.",
    MULES_PANEL,
    many=True,
    has_variable=False,
)
MULES = Setting(
    "mules",
    "",
    Kind("N", "a whole number", bool),
    "",
    "Start N more signal-only mules: the same as --mule, N times.",
    MULES_PANEL,
    has_variable=False,
)
FARM = Setting(
    "farm",
    "farms.NAME",
    _text("NAME:1,2", "a name and numbers: NAME:1,2"),
    "",
    "Make a farm of the mules with these numbers. Farms given as flags replace the farms of the file.",
    MULES_PANEL,
    many=True,
    has_variable=False,
)
SET = Setting(
    "set",
    "",
    _text("KEY=VALUE", "a key and a value: KEY=VALUE"),
    "",
    "Have uwsgi.opt in mules give this value for this key. May be repeated.",
    MULES_PANEL,
    many=True,
    has_variable=False,
)
APP = Setting(
    "app",
    "app.module",
    MODULE,
    "",
    "The application: a module that signal-only mules load, by its name or by a path ending in .py. May be "
    "repeated: they are loaded in this order.",
    MULES_PANEL,
    many=True,
)
ACK_OF = Setting(
    "ack",
    "",
    ACK_FLAG,
    "",
    "When a message counts as done: each, when its thread asks for the next, or early, as soon as it is "
    "handed over. For all mules and farms; 2:early is for mule 2, busy:early for a farm. May be repeated; "
    "replaces what the file says.",
    MULES_PANEL,
    "each",
    many=True,
    has_variable=False,
)
MERCY = Setting(
    "mule_reload_mercy",
    "broker.mule_reload_mercy",
    _seconds(0),
    60.0,
    "How long a stopping mule may finish its work before it is killed.",
    MULES_PANEL,
    "60",
)
MULEFUNC_SERIALIZER = Setting(
    "mulefunc_serializer",
    "mulefunc.serializer",
    _choice("msgpack", "pickle"),
    "msgpack",
    "How the arguments of @mulefunc travel. With pickle, whoever can reach the broker can run any code in "
    "its mules.",
    MULES_PANEL,
)
ENDPOINT = Setting(
    "endpoint",
    "broker.endpoint",
    URL,
    "",
    "Where clients and mules connect: ipc:///path or tcp://host:port. May be repeated.",
    BROKER_PANEL,
    "ipc:///run/zmule/zmule.sock for root, the same in the user's runtime folder for others",
    many=True,
)
PUBLISH = Setting(
    "publish",
    "broker.publish",
    URL,
    "",
    "Where broadcasts leave, for each endpoint in the same order.",
    BROKER_PANEL,
    "the endpoint's path with .pub for .sock, or the next tcp port",
    many=True,
)
STORE = Setting(
    "store",
    "broker.store",
    STORE_URL,
    "memory:",
    "Where accepted messages are kept: memory: as long as zmuled runs, sqlite: in a file,"
    " through every crash.",
    BROKER_PANEL,
    "memory:, or under systemd zmule.db in the unit's StateDirectory",
)
INSECURE = Setting(
    "insecure",
    "broker.insecure",
    SWITCH,
    False,
    "Allow tcp endpoints beyond loopback: whoever can reach one may use this broker.",
    BROKER_PANEL,
    "no",
)
TRUST_FOLDERS = Setting(
    "trust_folders",
    "broker.trust_folders",
    SWITCH,
    False,
    "Accept folders above socket and store to which other users may write: for a container's volume, where "
    "all who can are trusted. Clients read the variable, too.",
    BROKER_PANEL,
    "no",
)
SOCKET_MODE = Setting(
    "socket_mode",
    "broker.socket_mode",
    SOCKET_PERMISSIONS,
    "600",
    "The mode of the sockets of ipc endpoints, whatever the umask: who may write may connect. uWSGI's "
    "--chmod-socket[=MODE] is the same, and 666 without a mode.",
    BROKER_PANEL,
    "600, or 660 if there is a socket_group",
)
SOCKET_GROUP = Setting(
    "socket_group",
    "broker.socket_group",
    ACCOUNT,
    "",
    "The group of these sockets, such as a web server's. uWSGI's "
    "--chown-socket=USER:GROUP gives owner and group.",
    BROKER_PANEL,
    "zmuled's own",
)
SOCKET_OWNER = Setting(
    "socket_owner",
    "broker.socket_owner",
    ACCOUNT,
    "",
    "The owner of these sockets, if zmuled runs as root.",
    BROKER_PANEL,
    "zmuled's user",
)
HEARTBEAT = Setting(
    "heartbeat",
    "broker.heartbeat",
    _seconds(0.001),
    6.0,
    "How often the broker and its peers tell each other that they live.",
    BROKER_PANEL,
    "6",
)
HEARTBEAT_TIMEOUT = Setting(
    "heartbeat_timeout",
    "broker.heartbeat_timeout",
    _seconds(0.001),
    20.0,
    "After how long a silence a peer is taken for dead, and a mule of zmuled's own killed; longer than the "
    "heartbeat.",
    BROKER_PANEL,
    "20",
)
LOCKS = Setting(
    "locks",
    "broker.locks",
    _whole("N", 10_000, 0),
    0,
    "Have locks 0 to N. Locks with names there are as many as anybody wants.",
    BROKER_PANEL,
    "0, which is one lock",
)
MAX_MESSAGE = Setting(
    "max_message",
    "limits.max_message",
    _whole("BYTES", 1 << 30),
    1 << 20,
    "Longest message, in bytes.",
    LIMITS_PANEL,
    "1048576 (1 MiB)",
)
QUEUE_MESSAGES = Setting(
    "queue_messages",
    "limits.queue_messages",
    _whole("COUNT", 10**15),
    2_000_000,
    "How many messages one queue may hold.",
    LIMITS_PANEL,
)
QUEUE_BYTES = Setting(
    "queue_bytes",
    "limits.queue_bytes",
    _whole("BYTES", 10**15),
    1 << 30,
    "How many bytes of messages one queue may hold.",
    LIMITS_PANEL,
    "1073741824 (1 GiB)",
)
TOTAL_MESSAGES = Setting(
    "total_messages",
    "limits.total_messages",
    _whole("COUNT", 10**15),
    5_000_000,
    "How many messages the broker may hold, dead letters included.",
    LIMITS_PANEL,
)
TOTAL_BYTES = Setting(
    "total_bytes",
    "limits.total_bytes",
    _whole("BYTES", 10**15),
    2 << 30,
    "How many bytes of messages the broker may hold, dead letters included.",
    LIMITS_PANEL,
    "2147483648 (2 GiB)",
)
QUEUE_TTL = Setting(
    "queue_ttl",
    "limits.queue_ttl",
    _seconds(0),
    0.0,
    "How long a message may wait in a queue before it is dead-lettered; 0 for ever. A mule or farm of the "
    "file can have its own (ttl).",
    LIMITS_PANEL,
    "0",
)
REDELIVERY_PAUSE = Setting(
    "redelivery_pause",
    "limits.redelivery_pause",
    _seconds(0),
    1.0,
    "How long a message waits before its third delivery. The second follows at once; every later one waits "
    "twice as long as the one before, up to a minute.",
    LIMITS_PANEL,
    "1",
)
MAX_DEAD = Setting(
    "max_dead",
    "limits.max_dead",
    _whole("COUNT", 10**15),
    100_000,
    "How many dead letters one queue may have. At more it takes no new messages until some are requeued or "
    "dropped.",
    LIMITS_PANEL,
)
MAX_DELIVERIES = Setting(
    "max_deliveries",
    "limits.max_deliveries",
    _whole("COUNT", (1 << 31) - 1),
    5,
    "How often a message is delivered before it is dead-lettered; a crash of its mule counts.",
    LIMITS_PANEL,
)
MAX_CONNECTIONS = Setting(
    "max_connections",
    "limits.max_connections",
    _whole("COUNT", 10**9, 0),
    0,
    "How many connections there may be; a client has one, a mule two. Others wait until there is room.",
    LIMITS_PANEL,
    "0, which is what the limit on open files leaves",
)
MAX_MEMORY = Setting(
    "max_memory",
    "limits.max_memory",
    _whole("BYTES", 10**15, 0),
    0,
    "How much memory zmuled may have, in bytes. Above it new messages are refused, and peers that cost most "
    "are cut off.",
    LIMITS_PANEL,
    "0, which is three quarters of the memory of the machine or control group",
)
LOG_LEVEL = Setting(
    "log_level",
    "log.level",
    _choice("debug", "info", "warning", "error"),
    "info",
    "The least important lines to log.",
    LOG_PANEL,
)
LOG_FORMAT = Setting(
    "log_format",
    "log.format",
    _choice("text", "json"),
    "text",
    "How a line of the log is written.",
    LOG_PANEL,
)

SETTINGS: tuple[Setting[Any], ...] = (
    CONFIG,
    MULE,
    MULES,
    FARM,
    ACK_OF,
    APP,
    SET,
    MERCY,
    MULEFUNC_SERIALIZER,
    ENDPOINT,
    PUBLISH,
    STORE,
    INSECURE,
    TRUST_FOLDERS,
    SOCKET_MODE,
    SOCKET_GROUP,
    SOCKET_OWNER,
    HEARTBEAT,
    HEARTBEAT_TIMEOUT,
    LOCKS,
    MAX_MESSAGE,
    QUEUE_MESSAGES,
    QUEUE_BYTES,
    TOTAL_MESSAGES,
    TOTAL_BYTES,
    QUEUE_TTL,
    MAX_DELIVERIES,
    REDELIVERY_PAUSE,
    MAX_DEAD,
    MAX_CONNECTIONS,
    MAX_MEMORY,
    LOG_LEVEL,
    LOG_FORMAT,
)


def refresh(page: str) -> str:
    """Return docs/configuration.rst with its list of settings as they are declared now."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + "\n" + "\n".join(_entries()) + "\n" + END + rest.partition(END)[2]


def _entries() -> Iterator[str]:
    panel = ""
    for setting in SETTINGS:
        if setting.panel != panel:
            panel = setting.panel
            yield f"{panel}\n{'~' * len(panel)}\n"
        yield _entry(setting)


def _entry(setting: Setting[Any]) -> str:
    gap = "" if setting.kind.metavar.startswith("[") else " "
    flag = f"{setting.flag}{gap}{setting.kind.metavar}".rstrip()
    names = " · ".join(f"``{name}``" for name in (flag, setting.variable, setting.key) if name)
    default = f" Default: {setting.default_in_words}." if setting.default_in_words else ""
    text = f"{setting.help} Value: {setting.kind.words}.{default}"
    return f"{names}\n{fill(text, 100, initial_indent='    ', subsequent_indent='    ')}\n"
