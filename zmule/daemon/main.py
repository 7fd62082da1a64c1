"""Puts the daemon together, runs it, takes it apart."""

from __future__ import annotations

import gc
import logging
import os
import resource
import sys
from contextlib import ExitStack, closing
from pathlib import Path

from zmule import placeholders
from zmule.core.broker import Broker
from zmule.core.mules import FarmSetup, MuleSetup
from zmule.core.queues import farm_queue, mule_queue
from zmule.core.services import Schedules
from zmule.core.setup import Limits, Setup
from zmule.core.unpacking import longest_put
from zmule.daemon import memory
from zmule.daemon.alarm import Alarm
from zmule.daemon.config import Config, MuleSpec
from zmule.daemon.cronstring import integer_schedule, string_schedule
from zmule.daemon.filemon import FileMonitors
from zmule.daemon.gateway import Gateway
from zmule.daemon.guard import Guard
from zmule.daemon.holding import hold
from zmule.daemon.log import STDERR, Log, Output
from zmule.daemon.loop import Loop, instant
from zmule.daemon.notify import Notifier
from zmule.daemon.raisers import wishes
from zmule.daemon.supervisor import Supervisor
from zmule.errors import ConfigError
from zmule.stores import Store, open_store
from zmule.version import VERSION

log = logging.getLogger("zmule")

SWITCH_SECONDS = 0.0002
"""How long the loop may keep the interpreter from the thread that writes the store. That thread gives it up
for each statement, and with the usual 5 ms a busy loop would hold up every commit."""

RESERVE, RESERVE_A_MULE = 24, 4
"""Descriptors that are kept for what the daemon opens itself: store, watches, log, and its mules."""

COLLECT_AFTER = 200_000
"""Objects made and not freed after which to look for cycles among the young; usually 700."""

RETURNING_SECONDS = 3.0
"""For how long after its start messages may wait for mules and farms from outside to come back."""


def run(config: Config) -> int:
    """Run the daemon until it is told to stop; return its exit status.

    Raises:
        ZmuleError: it cannot start, and why.
    """
    occupy_standard_streams()
    notifier = Notifier.from_environ(os.environ)
    with ExitStack() as stack:
        alarm = stack.enter_context(Alarm())
        files = raise_file_limit()
        holding = stack.enter_context(
            hold(
                [*config.endpoints, *config.publish],
                access=config.access,
                trust_folders=config.trust_folders,
            )
        )
        if config.store != "memory:":
            sys.setswitchinterval(SWITCH_SECONDS)
        store = stack.enter_context(closing(open_store(config.store, trust_folders=config.trust_folders)))
        gateway = stack.enter_context(closing(Gateway(config.max_message)))
        pairs = gateway.bind(holding, zip(config.endpoints, config.publish, strict=True))
        output = stack.enter_context(Log(config.log_level, config.log_format)).output
        for remark in filter(None, [*config.remarks(), getattr(store, "remark", None)]):
            log.warning("%s", remark)
        gateway.door.set_most(seats(config.max_connections, len(config.mules)))
        guard = Guard(gateway, config.max_memory or memory.share(), longest_put(config.max_message))
        broker = Broker(setup(config, pairs, gateway, guard), instant())
        take_up(broker, store, config.store)
        broker.services.configure(wishes(config.timers, config.crons, config.filemons))
        supervisor = stack.enter_context(closing(supervise(config, pairs[0][0], output, files)))
        monitors = stack.enter_context(closing(FileMonitors()))
        for endpoint, publish in pairs:
            log.info("zmuled %s serves %s, broadcasts by %s", VERSION, endpoint, publish)
        spare_collections()
        Loop(broker, gateway, store, supervisor, notifier, monitors, alarm, holding, guard).run()
        left = broker.left()
        if left and config.store == "memory:":
            log.warning("%d messages are lost: the store is memory:", left)
        log.info("stopped")
    return 0


def take_up(broker: Broker, store: Store, url: str) -> None:
    """Give the broker what the store has kept.

    Raises:
        ConfigError: it makes no sense.
    """
    recovery = store.recover()
    try:
        broker.recover(recovery)
    except (ValueError, TypeError, OverflowError) as error:
        raise ConfigError(
            f"store {url.removeprefix('sqlite://')}: the file is damaged (table fact: {error}): keep a copy,"
            " and delete the row, or move the file away to begin empty"
        ) from error


def setup(config: Config, pairs: tuple[tuple[str, str], ...], gateway: Gateway, guard: Guard) -> Setup:
    """Return what the broker is to know of the configuration; `pairs` are the endpoints as bound."""
    return Setup(
        id=os.urandom(16),
        mules=tuple(MuleSetup(mule.number, mule.program, mule.ack == "early") for mule in config.mules),
        farms=tuple(FarmSetup(farm.name, farm.mules, farm.ack == "early") for farm in config.farms),
        limits=Limits(
            max_message=config.max_message,
            queue_messages=config.queue_messages,
            queue_bytes=config.queue_bytes,
            total_messages=config.total_messages,
            total_bytes=config.total_bytes,
            queue_ttl=float(config.queue_ttl),
            max_deliveries=config.max_deliveries,
            redelivery_pause=float(config.redelivery_pause),
            max_dead=config.max_dead,
            max_connections=gateway.door.most,
            max_memory=guard.most,
            heartbeat=float(config.heartbeat),
            heartbeat_timeout=float(config.heartbeat_timeout),
            returning=RETURNING_SECONDS,
        ),
        publish=pairs,
        about={
            "version": VERSION,
            "pid": os.getpid(),
            "endpoint": pairs[0][0],
            "endpoints": [endpoint for endpoint, _ in pairs],
            "store": config.store,
        },
        schedules=Schedules(integer_schedule, string_schedule),
        locks=config.locks,
        keeps=config.store != "memory:",
        vitals=lambda: {"connections": len(gateway.door.connections), "memory": guard.used},
        ttls={
            **{mule_queue(mule.number): mule.ttl for mule in config.mules if mule.ttl is not None},
            **{farm_queue(farm.name): farm.ttl for farm in config.farms if farm.ttl is not None},
        },
    )


def spare_collections() -> None:
    """Let the collector of cycles look seldom: messages form none, and a look at all that wait takes long."""
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 100)


def supervise(config: Config, endpoint: str, output: Output, files: int) -> Supervisor:
    """Return the supervisor of the configured mules, which reach the broker at `endpoint`.

    `files` is the limit of open files that zmuled was started with, and that its mules are to have.
    """

    def command(mule: MuleSpec) -> list[str]:
        program = [mule.program] if mule.program is not None else ["--app", *config.app]
        # -P: what lies in the working folder must not hide what zmule itself imports
        return [sys.executable, "-P", "-m", "zmule.mules.runner", *program]

    environment = dict(os.environ, **told_to_mules(config, endpoint))
    return Supervisor(
        config.mules,
        command=command,
        environment=environment,
        stop_signal=lambda mule: mule.stop_signal,
        mercy=config.mercy,
        output=output,
        files=files,
    )


def told_to_mules(config: Config, endpoint: str) -> dict[str, str]:
    """Return the environment variables by which mules know where they are."""
    return {
        "ZMULE_ENDPOINT": reachable(endpoint),
        placeholders.VARIABLE: config.placeholders,
        "ZMULE_MULEFUNC_SERIALIZER": config.mulefunc_serializer,
        "ZMULE_TRUST_FOLDERS": "true" if config.trust_folders else "",
        **({"ZMULE_BROKER_USER": config.socket_owner} if config.socket_owner else {}),
    }


def reachable(endpoint: str) -> str:
    """Return how a process on this host reaches a bound endpoint: a wildcard address is no destination."""
    return (
        endpoint.replace("//0.0.0.0:", "//127.0.0.1:")
        .replace("//[::]:", "//[::1]:")
        .replace("//*:", "//127.0.0.1:")
    )


def raise_file_limit() -> int:
    """Allow as many connections as the system lets this process have; return the limit that it had."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return before


def seats(wished: int, mules: int) -> int:
    """Return how many connections there may be: so many as are wished, if any, or as descriptors are left.

    Raises:
        ConfigError: the limit on open files does not allow for so many.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    own = sum(1 for _ in Path("/proc/self/fd").iterdir()) + RESERVE + RESERVE_A_MULE * mules
    least = max(1, wished)
    if limit - own < least:
        raise ConfigError(
            f"max_connections: {least} need {own + least} open files, and the limit is {limit}:"
            " raise it (ulimit -n, LimitNOFILE=)"
        )
    return wished or limit - own


def occupy_standard_streams() -> None:
    """Keep the numbers of standard streams that were closed from becoming those of a socket."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(descriptor)
