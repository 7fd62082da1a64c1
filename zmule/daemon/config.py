"""The configuration of one `zmuled`, checked in one go.

`load` either returns a `Config` that the rest of the daemon takes at its word, or raises a `ConfigError`
of one line. Nothing is bound, started or written here, so that `--check` does all of it too. Two groups of
settings stand or fall together: publish endpoints belong to the endpoints beside them, so weaker ones are
dropped; and mules given as flags replace those of the file with its farms, for a farm is a list of numbers.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zmule import placeholders
from zmule.core.greeting import MAX_FARM_NAME, is_farm_name
from zmule.daemon import acks
from zmule.daemon import settings as declared
from zmule.daemon.access import Access, access, closed, group_number, user_number
from zmule.daemon.acks import FarmSpec as FarmSpec
from zmule.daemon.acks import MuleSpec as MuleSpec
from zmule.daemon.claims import check_claims
from zmule.daemon.raisers import CronSpec, FilemonSpec, TimerSpec, crons, filemons, timers
from zmule.daemon.settings import ACK, ACK_OF, FARM, MULE, STOP_SIGNAL, TTL, Setting, is_dotted, shown
from zmule.daemon.sources import (
    DEFAULT,
    Found,
    Sources,
    WrongFlag,
    check_environment,
    check_names,
    read_file,
)
from zmule.endpoints import check_endpoint, default_endpoint, default_publish, is_local
from zmule.errors import ConfigError

MAX_MULES = 10_000


@dataclass(frozen=True, slots=True)
class Config:
    """What the operator decides; docs/configuration.rst says what each setting is for.

    `endpoints` and `publish` run in parallel. `mercy`, `heartbeat`, `heartbeat_timeout`, `queue_ttl` and
    `redelivery_pause` are in seconds, `max_message`, `queue_bytes`, `total_bytes` and
    `max_memory` in bytes; 0 for `max_connections` and `max_memory` means what the machine allows.
    """

    endpoints: tuple[str, ...]
    publish: tuple[str, ...]
    store: str
    insecure: bool
    trust_folders: bool
    socket_mode: str
    socket_group: str
    socket_owner: str
    app: tuple[str, ...]
    placeholders: str
    mules: tuple[MuleSpec, ...]
    farms: tuple[FarmSpec, ...]
    timers: tuple[TimerSpec, ...]
    crons: tuple[CronSpec, ...]
    filemons: tuple[FilemonSpec, ...]
    mercy: float
    mulefunc_serializer: str
    heartbeat: float
    heartbeat_timeout: float
    locks: int
    max_message: int
    queue_messages: int
    queue_bytes: int
    total_messages: int
    total_bytes: int
    queue_ttl: float
    max_deliveries: int
    redelivery_pause: float
    max_dead: int
    max_connections: int
    max_memory: int
    log_level: str
    log_format: str

    @property
    def access(self) -> Access:
        """Who may connect to the sockets."""
        return access(self.socket_mode, self.socket_owner, self.socket_group)

    def remarks(self) -> list[str]:
        """Return what is to be said of the sockets' folders as they are now."""
        endpoints = (*self.endpoints, *self.publish)
        remarks = [closed(endpoint, self.access) for endpoint in endpoints]
        return list(dict.fromkeys(filter(None, remarks)))


def load(flags: Mapping[str, Sequence[str]], environ: Mapping[str, str]) -> Config:
    """Return the configuration that flags, environment and file make together.

    Args:
        flags: what each flag was given, in order, by the name of its setting. A signal-only mule is an
            empty text under `mule`; a flag that takes no value is given as `true`.
        environ: the environment of the process.

    Raises:
        ConfigError: something is wrong; the text is one line that says what and where.
        WrongFlag: so is a flag.
    """
    try:
        return _load(gather(flags, environ))
    except ConfigError as error:
        if str(error).startswith("--"):
            raise WrongFlag(str(error)) from None
        raise


def gather(flags: Mapping[str, Sequence[str]], environ: Mapping[str, str]) -> Sources:
    """Return where settings may come from, the file read."""
    check_environment(environ)
    sources = Sources(flags, environ)
    file = sources.find(declared.CONFIG)
    if file is None:
        return sources
    return Sources(flags, environ, file.value, read_file(file.value, file.where))


def _load(sources: Sources) -> Config:
    endpoints, publish = _endpoints(sources)
    heartbeat, heartbeat_timeout = _heartbeats(sources)
    mules = _mules(sources)
    mules, farms = acks.apply(sources.flags.get(ACK_OF.name, ()), mules, _farms(sources, len(mules)))
    app = _app(sources)
    store = _store(sources)
    scripts = {path for path in (*(mule.program for mule in mules), *app) if path and path.endswith(".py")}
    files = [("the configuration", sources.path)] if sources.path else []
    check_claims(endpoints + publish, store, [*files, *((f"mule {path}", path) for path in sorted(scripts))])
    return Config(
        endpoints=endpoints,
        publish=publish,
        store=store,
        insecure=sources.pick(declared.INSECURE).value,
        trust_folders=sources.pick(declared.TRUST_FOLDERS).value,
        socket_mode=_socket_mode(sources),
        socket_group=_account(sources, declared.SOCKET_GROUP, group_number),
        socket_owner=_account(sources, declared.SOCKET_OWNER, user_number),
        app=app,
        placeholders=placeholders.pack(sources.flags.get(declared.SET.name, ())),
        mules=mules,
        farms=farms,
        timers=timers(sources),
        crons=crons(sources),
        filemons=filemons(sources),
        mercy=sources.pick(declared.MERCY).value,
        mulefunc_serializer=_serializer(sources, endpoints + publish),
        heartbeat=heartbeat,
        heartbeat_timeout=heartbeat_timeout,
        locks=sources.pick(declared.LOCKS).value,
        max_message=sources.pick(declared.MAX_MESSAGE).value,
        queue_messages=sources.pick(declared.QUEUE_MESSAGES).value,
        queue_bytes=sources.pick(declared.QUEUE_BYTES).value,
        total_messages=sources.pick(declared.TOTAL_MESSAGES).value,
        total_bytes=sources.pick(declared.TOTAL_BYTES).value,
        queue_ttl=sources.pick(declared.QUEUE_TTL).value,
        max_deliveries=sources.pick(declared.MAX_DELIVERIES).value,
        redelivery_pause=sources.pick(declared.REDELIVERY_PAUSE).value,
        max_dead=sources.pick(declared.MAX_DEAD).value,
        max_connections=sources.pick(declared.MAX_CONNECTIONS).value,
        max_memory=sources.pick(declared.MAX_MEMORY).value,
        log_level=sources.pick(declared.LOG_LEVEL).value,
        log_format=sources.pick(declared.LOG_FORMAT).value,
    )


def _app(sources: Sources) -> tuple[str, ...]:
    found = sources.find(declared.APP)
    if found is None:
        return ()
    for index, module in enumerate(found.values):
        if module in found.values[:index]:
            raise ConfigError(f"{found.where}: {shown(module)} is named twice")
        if module.endswith(".py"):
            _check_script(module, found.where)
    return found.values


def _store(sources: Sources) -> str:
    """Return the store. Without a word on it a service of systemd keeps its messages in its own folder."""
    found = sources.find(declared.STORE)
    folder = sources.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if found is None and folder.startswith("/"):
        return f"sqlite://{folder}/zmule.db"
    return found.value if found else declared.STORE.default


def _heartbeats(sources: Sources) -> tuple[float, float]:
    every, silence = sources.pick(declared.HEARTBEAT), sources.pick(declared.HEARTBEAT_TIMEOUT)
    if silence.value <= every.value:
        wrong, other = sorted((silence, every), key=lambda found: -found.rank)
        raise ConfigError(
            f"{wrong.where}: heartbeat_timeout is {silence.value:g} s and must be longer than the heartbeat "
            f"of {every.value:g} s ({other.where})"
        )
    return every.value, silence.value


def _socket_mode(sources: Sources) -> str:
    """Return the mode of the sockets. A group that is named, and no mode, is one that is let in."""
    found = sources.find(declared.SOCKET_MODE)
    usual = "660" if sources.pick(declared.SOCKET_GROUP).value else declared.SOCKET_MODE.default
    return found.value if found else usual


def _account(sources: Sources, setting: Setting[str], number: Callable[[str], int]) -> str:
    """Return the user or group that is named, once it is known that a socket can be given to it."""
    for found in sources.all(setting):
        try:
            number(found.value)
        except ConfigError as error:
            raise ConfigError(f"{found.where}: {error}") from None
    return sources.pick(setting).value


def _serializer(sources: Sources, endpoints: Sequence[str]) -> str:
    found = sources.pick(declared.MULEFUNC_SERIALIZER)
    for endpoint in endpoints:
        if found.value == "pickle" and not is_local(endpoint):
            raise ConfigError(
                f"{found.where}: pickle is for this host only, since it runs any code that is sent: "
                f"{endpoint} is open to others"
            )
    return found.value


def _endpoints(sources: Sources) -> tuple[tuple[str, ...], tuple[str, ...]]:
    insecure = sources.pick(declared.INSECURE).value
    for weaker in (*sources.all(declared.ENDPOINT)[1:], *sources.all(declared.PUBLISH)[1:]):
        _check_endpoints(weaker, insecure=True)
    endpoints = sources.find(declared.ENDPOINT)
    if endpoints is None:
        endpoints = Found((_default_endpoint(sources.environ),), "default endpoint", DEFAULT)
    _check_endpoints(endpoints, insecure)
    publish = sources.find(declared.PUBLISH)
    if publish is None or publish.rank < endpoints.rank:
        publish = endpoints._replace(values=tuple(default_publish(each) for each in endpoints.values))
    if len(publish.values) != len(endpoints.values):
        raise ConfigError(
            f"{publish.where}: {len(publish.values)} for {len(endpoints.values)} endpoints: give one for each"
        )
    _check_endpoints(publish, insecure)
    _check_distinct(publish.where, endpoints.values + publish.values)
    return endpoints.values, publish.values


def _default_endpoint(environ: Mapping[str, str]) -> str:
    """Return where a broker listens that is told nothing: under systemd, in its unit's RuntimeDirectory."""
    folder = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return f"ipc://{folder}/zmule.sock" if folder else default_endpoint(environ)


def _check_endpoints(found: Found[str], insecure: bool) -> None:
    for endpoint in found.values:
        try:
            check_endpoint(endpoint)
        except ConfigError as error:
            raise ConfigError(f"{found.where}: {error}") from None
        if not insecure and not is_local(endpoint):
            raise ConfigError(
                f"{found.where}: {endpoint} is open to other hosts: insecure = true (--insecure) allows that"
            )


def _check_distinct(where: str, endpoints: Sequence[str]) -> None:
    for index, endpoint in enumerate(endpoints):
        if not endpoint.endswith(":*") and endpoint in endpoints[:index]:
            raise ConfigError(f"{where}: {endpoint} is used twice, as endpoint or publish endpoint")


def _mules(sources: Sources) -> tuple[MuleSpec, ...]:
    in_file = _checked(tuple(_file_mules(sources)), f"{sources.path}: [[mule]]")
    if MULE.name not in sources.flags:
        where, mules = f"{sources.path}: [[mule]]", in_file
    else:
        where, mules = MULE.flag, _checked(tuple(_flag_mules(sources)), MULE.flag)
        tuple(_file_farms(sources, len(in_file)))  # is overridden, and right all the same
    for mule in mules:
        if mule.program is not None and mule.program.endswith(".py"):
            _check_script(mule.program, f"{where} (mule {mule.number})")
    return mules


def _checked(mules: tuple[MuleSpec, ...], where: str) -> tuple[MuleSpec, ...]:
    """Return the mules if there are not too many, and their programs are spelled like some."""
    if len(mules) > MAX_MULES:
        raise ConfigError(f"{where}: {len(mules)} mules: at most {MAX_MULES} can be configured")
    for mule in mules:
        if mule.program is not None:
            _check_program(mule.program, f"{where} (mule {mule.number})")
    return mules


def _flag_mules(sources: Sources) -> Iterator[MuleSpec]:
    for number, program in enumerate(sources.flags[MULE.name], 1):
        place = f"{MULE.flag} (mule {number})"
        yield MuleSpec(number, MULE.kind.read(program, place) if program else None, "each")


def _file_mules(sources: Sources) -> Iterator[MuleSpec]:
    for number, (place, record) in enumerate(sources.records("mule"), 1):
        check_names(record, ("program", "ack", "ttl", "stop_signal"), place)
        program = MULE.kind.accept(record["program"], place) if "program" in record else None
        ack = ACK.accept(record.get("ack", "each"), place)
        yield MuleSpec(number, program, ack, _ttl(record, place), _stop_signal(record, place))


def _stop_signal(record: Mapping[str, object], place: str) -> int:
    name = STOP_SIGNAL.accept(record.get("stop_signal", "TERM"), place)
    return signal.Signals[f"SIG{name}"]


def _check_program(program: str, where: str) -> None:
    if program.endswith(".py"):
        return
    module, colon, function = program.partition(":")
    if not (colon and is_dotted(module) and is_dotted(function) and "." not in function):
        raise ConfigError(f"{where}: {shown(program)} is not {MULE.kind.words}")


def _check_script(program: str, where: str) -> None:
    try:
        if not Path(program).is_file():
            raise ConfigError(f"{where}: no such file: {shown(program)} (in {Path.cwd()})")
        Path(program).open("rb").close()
    except OSError as error:
        raise ConfigError(f"{where}: {shown(program)} cannot be read: {error.strerror}") from None


def _farms(sources: Sources, mules: int) -> tuple[FarmSpec, ...]:
    in_file = () if MULE.name in sources.flags else tuple(_file_farms(sources, mules))
    if FARM.name in sources.flags:
        return tuple(_flag_farms(sources.flags[FARM.name], mules))
    return in_file


def _flag_farms(texts: Sequence[str], mules: int) -> Iterator[FarmSpec]:
    seen = set[str]()
    for text in texts:
        name, colon, numbers = text.partition(":")
        if not colon:
            raise ConfigError(f"{FARM.flag}: {shown(text)} is not {FARM.kind.words}")
        if name in seen:
            raise ConfigError(f"{FARM.flag}: farm {shown(name)} is given twice")
        seen.add(name)
        members = [int(part) if re.fullmatch("[0-9]{1,9}", part) else part for part in numbers.split(",")]
        yield _farm(name, members if numbers else [], "each", mules, f"{FARM.flag}={shown(name)}")


def _file_farms(sources: Sources, mules: int) -> Iterator[FarmSpec]:
    for name, value in sources.table("farms").items():
        where = f"{sources.path}: farm {shown(name)}"
        record = value if isinstance(value, dict) else {"mules": value}
        check_names(record, ("mules", "ack", "ttl"), where)
        members = record.get("mules", [])
        if not isinstance(members, list):
            raise ConfigError(f"{where}: {shown(members)} is not a list of mule numbers")
        farm = _farm(name, members, ACK.accept(record.get("ack", "each"), where), mules, where)
        yield farm._replace(ttl=_ttl(record, where))


def _ttl(record: Mapping[str, object], where: str) -> float | None:
    return TTL.accept(record["ttl"], where) if "ttl" in record else None


def _farm(name: str, members: Sequence[object], ack: str, mules: int, where: str) -> FarmSpec:
    _check_farm_name(name, where)
    numbers: list[int] = []
    for member in members:
        if type(member) is not int or not 1 <= member <= mules:
            known = f"numbered 1 to {mules}" if mules else "not configured at all"
            raise ConfigError(f"{where}: there is no mule {shown(member)}: mules are {known}")
        if member in numbers:
            raise ConfigError(f"{where}: mule {member} is named twice")
        numbers.append(member)
    return FarmSpec(name, tuple(numbers), ack)


def _check_farm_name(name: str, where: str) -> None:
    if not name:
        raise ConfigError(f"{where}: a farm needs a name")
    if not name.isprintable() or " " in name or ":" in name or "," in name:
        raise ConfigError(f"{where}: a farm's name has no white space, control character, ':' or ','")
    if name.isdigit() or name == "any":
        raise ConfigError(f"{where}: a farm's name is neither a number nor 'any', for these mean mules")
    if not is_farm_name(name):
        raise ConfigError(f"{where}: a farm's name has at most {MAX_FARM_NAME} characters")
