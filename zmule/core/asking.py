"""Questions of peers as those who answer them see them, and the check of their arguments.

The wire has seen to it that arguments are plain values; of what kind, and how many, is for each question.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from zmule.core.events import Peer
from zmule.errors import WrongValue


class Asked(NamedTuple):
    """A question: who asked it, the number that the answer must bear, and its arguments."""

    peer: Peer
    request: int
    arguments: tuple[Any, ...]


class Later:
    """What is returned when the answer will be sent by itself."""


LATER = Later()


def arguments(asked: Asked, *kinds: type | tuple[type, ...]) -> tuple[Any, ...]:
    """Return the arguments if they are of these types; a whole number will do for seconds.

    Raises:
        WrongValue: they are not, or there are more or fewer.
    """
    given = tuple(
        float(value) if kind is float and type(value) is int else value
        for value, kind in zip(asked.arguments, kinds, strict=False)
    )
    if len(asked.arguments) != len(kinds) or not all(map(_fits, given, kinds)):
        raise WrongValue("the question's arguments are not what they should be")
    return given


def checked(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what the call returns; a `ValueError` of its becomes a `WrongValue`."""
    try:
        return call(*arguments)
    except ValueError as error:
        raise WrongValue(str(error)) from None


def _fits(value: Any, kind: type | tuple[type, ...]) -> bool:
    return type(value) in (kind if isinstance(kind, tuple) else (kind,))
