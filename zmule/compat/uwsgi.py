"""The `uwsgi` module as a mule's program knows it: messages.

Types of arguments, results and exceptions are those of uWSGI 2.0.31 wherever it works; docs/migrating.rst
lists where zmule differs on purpose.
"""

from __future__ import annotations

from typing import Any

from zmule import current
from zmule.core.frames import DIRECT, FARM, Body
from zmule.errors import MessageTooLarge, NotProgrammed, QueueFull, UnknownFarm, UnknownMule
from zmule.mules.engine import Interrupted


def mule_id(*_: Any) -> int:
    """Return the number of this mule, 0 in any other process."""
    mule = current.current_mule()
    return mule.mule_id if mule else 0


def mule_msg(message: Body, mule: int | str | bytes = 0, /) -> bool:
    """Send a message.

    Args:
        message: text or bytes; received as bytes.
        mule: a mule's number, 0 for the first available one, or the name of a farm.

    Returns:
        True when it is accepted, False when its queue is full.

    Raises:
        ValueError: the mule or farm does not exist or reads no messages, or the message is too large.
        TypeError: the message is neither text nor bytes.
        BrokerUnavailable: the broker does not answer.
    """
    _check(message)
    if isinstance(mule, (str, bytes)):
        return farm_msg(mule, message)
    if not isinstance(mule, int):
        raise ValueError("invalid mule")
    if mule < 0:
        raise ValueError("invalid mule number")
    return _send(lambda: current.client().mule_msg(message, int(mule)))


def farm_msg(farm: str | bytes, message: Body, /) -> bool:
    """Send a message to the first available mule of a farm. Otherwise as `mule_msg`."""
    _check(message)
    name = _name(farm)
    return _send(lambda: current.client().farm_msg(name, message))


def mule_get_msg(
    signals: object = True, farms: object = True, buffer_size: int = 65536, timeout: float = -1
) -> bytes:
    """Wait for a message to this mule; acknowledge the one that this thread got before.

    Args:
        signals: whether waiting signals are to be handled meanwhile.
        farms: False or None: messages to the mule's farms will not do.
        buffer_size: taken for compatibility; a message is never cut.
        timeout: seconds to wait; 0 looks only, a negative number waits for ever.

    Returns:
        The message; b"" when the time is over or a handler of an operating system signal has run.

    Raises:
        ValueError: this process is no mule.
    """
    mule = current.current_mule()
    if mule is None:
        raise ValueError("you can receive mule messages only in a mule !!!")
    if not isinstance(timeout, (int, float)) or not isinstance(buffer_size, int):
        raise TypeError("timeout and buffer_size are numbers")
    sources = DIRECT | (0 if farms is False or farms is None else FARM)
    return _receive(mule, sources, timeout) or b""


def farm_get_msg(*_: Any) -> bytes | None:
    """Wait for a message to one of this mule's farms.

    Returns:
        The message; None when a handler of an operating system signal has run.

    Raises:
        ValueError: this process is no mule.
    """
    mule = current.current_mule()
    if mule is None:
        raise ValueError("you can receive farm messages only in a mule !!!")
    return _receive(mule, FARM, -1)


def in_farm(farm: str | bytes | None = None, /) -> bool | None:
    """Return True if this mule is in the farm (without a name: in any), else None."""
    mule = current.current_mule()
    if mule is None or not mule.farms:
        return None
    return True if farm is None or mule.in_farm(_name(farm)) else None


def mule_msg_recv_size() -> int:
    """Return how long a message may be, in bytes."""
    return current.client().max_message()


def _receive(mule: Any, sources: int, timeout: float) -> bytes | None:
    try:
        delivery = mule.receive(sources, None if timeout < 0 else timeout, interruptible=True)
    except Interrupted:
        return None
    if delivery is None:
        return None
    body = delivery.body
    return body.encode() if isinstance(body, str) else bytes(body)


def _send(send: Any) -> bool:
    try:
        return bool(send())
    except QueueFull:
        return False
    except UnknownMule:
        raise ValueError("invalid mule number") from None
    except UnknownFarm:
        raise ValueError("unknown farm") from None
    except (MessageTooLarge, NotProgrammed) as error:
        raise ValueError(str(error)) from None


def _check(message: object) -> None:
    if not isinstance(message, (str, bytes)):
        raise TypeError(f"a message is str or bytes, not {type(message).__name__}")


def _name(farm: object) -> str:
    if isinstance(farm, bytes):
        return farm.decode(errors="replace")
    if isinstance(farm, str):
        return farm
    raise TypeError(f"a farm's name is str or bytes, not {type(farm).__name__}")
