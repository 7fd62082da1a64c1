"""Mules, farms, messages, signals and locks for any Python program.

Everything that is documented is here, and nothing else is public. The functions at module level use
the process's own client and mule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zmule.version import VERSION as __version__

if TYPE_CHECKING:
    from zmule.api import farm_get_msg, farm_msg, get_msg, mule_id, mule_msg
    from zmule.clients.sync import Client
    from zmule.current import current_mule
    from zmule.errors import (
        BrokerUnavailable,
        ConfigError,
        EndpointInUse,
        MessageTooLarge,
        MuleStopped,
        NotPermitted,
        NotProgrammed,
        NumberInUse,
        ProtocolError,
        QueueFull,
        StoreUnavailable,
        UnknownFarm,
        UnknownMule,
        ZmuleError,
    )
    from zmule.mules.mule import Message, Mule

_HOMES = {
    "zmule.api": ("farm_get_msg", "farm_msg", "get_msg", "mule_id", "mule_msg"),
    "zmule.clients.sync": ("Client",),
    "zmule.current": ("current_mule",),
    "zmule.errors": (
        "BrokerUnavailable",
        "ConfigError",
        "EndpointInUse",
        "MessageTooLarge",
        "MuleStopped",
        "NotPermitted",
        "NotProgrammed",
        "NumberInUse",
        "ProtocolError",
        "QueueFull",
        "StoreUnavailable",
        "UnknownFarm",
        "UnknownMule",
        "ZmuleError",
    ),
    "zmule.mules.mule": ("Message", "Mule"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BrokerUnavailable",
    "Client",
    "ConfigError",
    "EndpointInUse",
    "Message",
    "MessageTooLarge",
    "Mule",
    "MuleStopped",
    "NotPermitted",
    "NotProgrammed",
    "NumberInUse",
    "ProtocolError",
    "QueueFull",
    "StoreUnavailable",
    "UnknownFarm",
    "UnknownMule",
    "ZmuleError",
    "__version__",
    "current_mule",
    "farm_get_msg",
    "farm_msg",
    "get_msg",
    "mule_id",
    "mule_msg",
]


def __getattr__(name: str) -> Any:
    """Import on first use: a program that only sends need not load what only mules need."""
    if name not in _HOME:
        raise AttributeError(f"module 'zmule' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value
