"""How the arguments of a `@mulefunc` call travel.

As msgpack: what it knows by itself, and types of Python's as extensions, each told by its number below.
Whatever is neither is refused where the call is made. Bytes that come in make values of these types and of
no others: nothing is imported, and no code is chosen by them but that of the table.

As pickle only if the operator says so: `[mulefunc] serializer = "pickle"`, which is ZMULE_MULEFUNC_SERIALIZER
here, and only at an endpoint that no other host can reach. Whoever may send to such a broker may run any code
in its mules. Both begin differently, so that who may read pickle reads both.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import msgpack

from zmule.endpoints import is_local
from zmule.errors import ConfigError

Arguments = tuple[tuple[Any, ...], dict[str, Any]]

MOST_NESTED = 32
"""How deep tuples and sets may be in each other."""

VARIABLE = "ZMULE_MULEFUNC_SERIALIZER"
PICKLE = b"\x80"

PLAIN = frozenset({type(None), bool, float, str, bytes})
INTEGERS = range(-(1 << 63), 1 << 64)


class Extension(NamedTuple):
    """A type, its number on the wire, and how its values become plain ones and come back."""

    kind: type
    number: int
    plain: Callable[[Any], Any]
    back: Callable[[Any], Any]


EXTENSIONS = (
    Extension(tuple, 1, list, tuple),
    Extension(set, 2, list, set),
    Extension(frozenset, 3, list, frozenset),
    Extension(datetime, 4, datetime.isoformat, datetime.fromisoformat),
    Extension(date, 5, date.isoformat, date.fromisoformat),
    Extension(time, 6, time.isoformat, time.fromisoformat),
    Extension(
        timedelta,
        7,
        lambda span: [span.days, span.seconds, span.microseconds],
        lambda parts: timedelta(*parts),
    ),
    Extension(Decimal, 8, str, Decimal),
    Extension(UUID, 9, lambda value: value.bytes, lambda value: UUID(bytes=value)),
    Extension(int, 10, hex, lambda digits: int(digits, 16)),
)
_BY_KIND = {extension.kind: extension for extension in EXTENSIONS}
_BY_NUMBER = {extension.number: extension for extension in EXTENSIONS}


def dump(args: tuple[Any, ...], kwargs: dict[str, Any], endpoint: str) -> bytes:
    """Return a call's arguments as bytes.

    Raises:
        TypeError: an argument, or something in it, is of a type that cannot travel.
        ValueError: an argument is nested too deeply.
        ConfigError: pickle is wanted where it is not allowed.
    """
    if unsafe(endpoint):
        return pickle.dumps((args, kwargs))
    try:
        packed = msgpack.packb([_plain(list(args), 0), _plain(kwargs, 0)])
    except RecursionError:
        raise ValueError("an argument is nested too deeply") from None
    return bytes(packed)


def load(data: bytes, endpoint: str) -> Arguments:
    """Return a call's arguments from bytes.

    Raises:
        ValueError: they are none; whatever is wrong with them.
        ConfigError: they are pickle, which is not allowed here.
    """
    if data.startswith(PICKLE):
        if not unsafe(endpoint):
            raise ConfigError('a call came as pickle, and [mulefunc] serializer is not "pickle" here')
        return _checked(pickle.loads(data))
    try:
        return _checked(_unpack(data, 0))
    except Exception as error:  # msgpack's own errors have no common base, and a value's type has its own
        raise ValueError(f"not the arguments of a call: {error}") from None


def unsafe(endpoint: str) -> bool:
    """Return whether pickle may travel.

    Raises:
        ConfigError: it is wanted, and must not; or nobody knows what is wanted.
    """
    wanted = os.environ.get(VARIABLE) or "msgpack"
    if wanted not in ("msgpack", "pickle"):
        raise ConfigError(f'{VARIABLE} is "msgpack" or "pickle", not {wanted[:50]!r}')
    if wanted == "pickle" and not is_local(endpoint):
        raise ConfigError(f"{VARIABLE} is pickle, which is not allowed at {endpoint}: others can reach it")
    return wanted == "pickle"


def _plain(value: Any, depth: int) -> Any:
    """Return a value as msgpack takes it."""
    kind = type(value)
    if kind in PLAIN or (kind is int and value in INTEGERS):
        return value
    if kind is list:
        return [_plain(item, depth) for item in value]
    if kind is dict:
        return {_plain(key, depth): _plain(item, depth) for key, item in value.items()}
    extension = _BY_KIND.get(kind)
    if extension is None:
        raise TypeError(f"{kind.__name__} cannot be an argument of a mule function, nor in one")
    if depth == MOST_NESTED:
        raise RecursionError
    return msgpack.ExtType(extension.number, msgpack.packb(_plain(extension.plain(value), depth + 1)))


def _unpack(data: bytes, depth: int) -> Any:
    def extended(number: int, packed: bytes) -> Any:
        if depth == MOST_NESTED or number not in _BY_NUMBER:
            raise ValueError("nested too deeply, or of an unknown type")
        return _BY_NUMBER[number].back(_unpack(packed, depth + 1))

    return msgpack.unpackb(data, ext_hook=extended, strict_map_key=False)


def _checked(value: Any) -> Arguments:
    args, kwargs = value
    if not isinstance(args, (list, tuple)) or type(kwargs) is not dict or set(map(type, kwargs)) - {str}:
        raise ValueError("no list of arguments and map of named ones")
    return tuple(args), kwargs
