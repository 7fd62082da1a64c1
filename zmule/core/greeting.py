"""What a HELLO says of its peer, checked: the details map is open for additions, so unknown names pass."""

from __future__ import annotations

from typing import Any, NamedTuple

from zmule.core.queues import ANY
from zmule.core.wire import detail
from zmule.errors import ProtocolError

MAX_FARMS = 64
MAX_NUMBER = 1_000_000
MAX_FARM_NAME = 100
"""In characters; with it a queue of calls to the farm keeps within the limit on names."""


class MuleWish(NamedTuple):
    """What a process that wants to be a mule asks for. `number` 0: a free one."""

    number: int
    farms: tuple[str, ...]
    program: str | None
    pid: int
    token: bytes


class ClientWord(NamedTuple):
    """What a client tells of itself.

    Attributes:
        floor: it has an answer for all messages up to that one.
        crowded: the last message that was refused for want of room.
        pid: its process.
    """

    floor: int
    crowded: int
    pid: int


def client(details: dict[str, Any]) -> ClientWord:
    """Return what a client tells of itself."""
    optional = {"crowded": 0, "pid": 0, **details}
    return ClientWord(
        _number(details, "floor", 2**63 - 1),
        _number(optional, "crowded", 2**63 - 1),
        _number(optional, "pid", 2**31),
    )


def mule(details: dict[str, Any]) -> MuleWish:
    """Return what a mule asks for."""
    farms = detail(details, "farms", tuple)
    if len(farms) > MAX_FARMS or not all(type(farm) is str and is_farm_name(farm) for farm in farms):
        raise ProtocolError(f"Hello: farms is not a list of at most {MAX_FARMS} farm names")
    return MuleWish(
        _number(details, "number", MAX_NUMBER),
        tuple(dict.fromkeys(farms)),
        detail(details, "program", str)[:200] or None,
        _number(details, "pid", 2**31),
        detail(details, "token", bytes),
    )


def is_farm_name(name: str) -> bool:
    """Return whether a farm may have that name: it must not read as a mule's number, `any` or a list."""
    plain = 0 < len(name) <= MAX_FARM_NAME and name.isprintable() and not any(char in name for char in " :,")
    return plain and name != ANY and not name.isdecimal()


def _number(details: dict[str, Any], name: str, most: int) -> int:
    value = detail(details, name, int)
    if not 0 <= value <= most:
        raise ProtocolError(f"Hello: {name} is not from 0 to {most}")
    return value
