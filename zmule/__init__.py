"""Mules, farms, messages, signals and locks for any Python program.

Everything that is documented is here, and nothing else is public. The functions at module level use
the process's own client and mule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zmule.version import VERSION as __version__

if TYPE_CHECKING:
    from zmule.api import (
        add_cron,
        add_cron_text,
        add_file_monitor,
        add_rb_timer,
        add_timer,
        farm_get_msg,
        farm_msg,
        get_msg,
        in_farm,
        is_locked,
        lock,
        mule_id,
        mule_msg,
        register_signal,
        remove_source,
        signal,
        signal_received,
        signal_registered,
        signal_wait,
        unregister_signal,
        worker_id,
    )
    from zmule.clients.lock import Lock
    from zmule.clients.sync import Client
    from zmule.current import current_mule
    from zmule.errors import (
        BrokerUnavailable,
        ConfigError,
        Deadlock,
        EndpointInUse,
        LockBusy,
        LockLimit,
        LockTimeout,
        MessageTooLarge,
        MuleStopped,
        NotHolder,
        NotPermitted,
        NotProgrammed,
        NumberInUse,
        ProtocolError,
        QueueFull,
        SignalConflict,
        StoreUnavailable,
        UnknownFarm,
        UnknownLetter,
        UnknownLock,
        UnknownMule,
        UnknownTarget,
        WrongValue,
        ZmuleError,
    )
    from zmule.mules.mule import Message, Mule, Worker

_HOMES: dict[str, tuple[str, ...]] = {
    "zmule.api": (
        "add_cron",
        "add_cron_text",
        "add_file_monitor",
        "add_rb_timer",
        "add_timer",
        "farm_get_msg",
        "farm_msg",
        "get_msg",
        "in_farm",
        "is_locked",
        "lock",
        "mule_id",
        "mule_msg",
        "register_signal",
        "remove_source",
        "signal",
        "signal_received",
        "signal_registered",
        "signal_wait",
        "unregister_signal",
        "worker_id",
    ),
    "zmule.clients.lock": ("Lock",),
    "zmule.clients.sync": ("Client",),
    "zmule.current": ("current_mule",),
    "zmule.errors": (
        "BrokerUnavailable",
        "ConfigError",
        "Deadlock",
        "EndpointInUse",
        "LockBusy",
        "LockLimit",
        "LockTimeout",
        "MessageTooLarge",
        "MuleStopped",
        "NotHolder",
        "NotPermitted",
        "NotProgrammed",
        "NumberInUse",
        "ProtocolError",
        "QueueFull",
        "SignalConflict",
        "StoreUnavailable",
        "UnknownFarm",
        "UnknownLetter",
        "UnknownLock",
        "UnknownMule",
        "UnknownTarget",
        "WrongValue",
        "ZmuleError",
    ),
    "zmule.mules.mule": ("Message", "Mule", "Worker"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BrokerUnavailable",
    "Client",
    "ConfigError",
    "Deadlock",
    "EndpointInUse",
    "Lock",
    "LockBusy",
    "LockLimit",
    "LockTimeout",
    "Message",
    "MessageTooLarge",
    "Mule",
    "MuleStopped",
    "NotHolder",
    "NotPermitted",
    "NotProgrammed",
    "NumberInUse",
    "ProtocolError",
    "QueueFull",
    "SignalConflict",
    "StoreUnavailable",
    "UnknownFarm",
    "UnknownLetter",
    "UnknownLock",
    "UnknownMule",
    "UnknownTarget",
    "Worker",
    "WrongValue",
    "ZmuleError",
    "__version__",
    "add_cron",
    "add_cron_text",
    "add_file_monitor",
    "add_rb_timer",
    "add_timer",
    "current_mule",
    "farm_get_msg",
    "farm_msg",
    "get_msg",
    "in_farm",
    "is_locked",
    "lock",
    "mule_id",
    "mule_msg",
    "register_signal",
    "remove_source",
    "signal",
    "signal_received",
    "signal_registered",
    "signal_wait",
    "unregister_signal",
    "worker_id",
]


def __getattr__(name: str) -> Any:
    """Import on first use: a program that only sends need not load what only mules need."""
    if name not in _HOME:
        raise AttributeError(f"module 'zmule' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value
