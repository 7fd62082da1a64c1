"""Between uWSGI's types and zmule's: arguments on the way in, errors on the way out."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator
from typing import Any

from zmule.core.frames import Body
from zmule.core.queues import check_signal
from zmule.errors import (
    Deadlock,
    LockLimit,
    MessageTooLarge,
    NotHolder,
    NotProgrammed,
    SignalConflict,
    UnknownFarm,
    UnknownLock,
    UnknownMule,
    UnknownTarget,
    WrongValue,
)

_VALUE = (
    MessageTooLarge,
    NotProgrammed,
    SignalConflict,
    UnknownFarm,
    UnknownLock,
    UnknownMule,
    UnknownTarget,
    WrongValue,
)
_RUNTIME = (Deadlock, LockLimit, NotHolder)
_WORDS = {UnknownFarm: "unknown farm", UnknownLock: "Invalid lock number", UnknownMule: "invalid mule number"}
"""What uWSGI says where programs may look at it."""


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Raise errors of the types that uWSGI raises."""
    try:
        yield
    except _VALUE as error:
        raise ValueError(_WORDS.get(type(error)) or str(error)) from None
    except _RUNTIME as error:
        raise RuntimeError(str(error)) from None


def signal_number(number: Any) -> int:
    """Return a signal's number, or raise uWSGI's type of error."""
    with errors():
        return check_signal(operator.index(number))


def seconds_of(value: object) -> float:
    """Return a number of seconds as a float, or raise `TypeError`."""
    if not isinstance(value, (int, float)):
        raise TypeError(f"a time is a number, not {type(value).__name__}")
    return float(value)


def check_message(message: object) -> None:
    """Raise `TypeError` unless it can be a message."""
    if not isinstance(message, (str, bytes)):
        raise TypeError(f"a message is str or bytes, not {type(message).__name__}")


def farm_name(farm: object) -> str:
    """Return a farm's name as text, or raise `TypeError`."""
    if isinstance(farm, bytes):
        return farm.decode(errors="replace")
    if isinstance(farm, str):
        return farm
    raise TypeError(f"a farm's name is str or bytes, not {type(farm).__name__}")


def as_bytes(body: Body) -> bytes:
    """Return a message as uWSGI gives it to programs."""
    return body.encode() if isinstance(body, str) else bytes(body)
