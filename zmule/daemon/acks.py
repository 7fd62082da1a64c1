"""Mules and farms as they are configured, and what `--ack` makes of them."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import NamedTuple

from zmule.daemon.settings import ACK, ACK_OF, shown
from zmule.errors import ConfigError
from zmule.near import hint


class MuleSpec(NamedTuple):
    """A configured mule. `program` is None for a signal-only one; `ack` is `each` or `early`.

    `ttl` is for how many seconds its own messages may wait, None if it is as for every queue.
    `stop_signal` is the number of the operating system signal that stops it.
    """

    number: int
    program: str | None
    ack: str
    ttl: float | None = None
    stop_signal: int = signal.SIGTERM


class FarmSpec(NamedTuple):
    """A configured farm: the numbers of its mules, each once, and how its messages are acknowledged.

    `ttl` is as for a mule.
    """

    name: str
    mules: tuple[int, ...]
    ack: str
    ttl: float | None = None


def apply(
    texts: Sequence[str], mules: tuple[MuleSpec, ...], farms: tuple[FarmSpec, ...]
) -> tuple[tuple[MuleSpec, ...], tuple[FarmSpec, ...]]:
    """Return the mules and farms with their acks as `--ack` has them.

    Raises:
        ConfigError: one cannot be meant, or is given twice, or contradicts another.
    """
    given = _read(texts)
    known = [*(str(mule.number) for mule in mules), *(farm.name for farm in farms)]
    for who in given:
        if who and who not in known:
            raise ConfigError(
                f"{_place(given, who)}: there is no mule or farm {shown(who)}{hint(who, known)}"
            )
    rest = given.get("")
    mules = tuple(mule._replace(ack=given.get(str(mule.number)) or rest or mule.ack) for mule in mules)
    farms = tuple(farm._replace(ack=given.get(farm.name) or rest or farm.ack) for farm in farms)
    early = {mule.number for mule in mules if mule.ack == "early"}
    for farm in farms:
        for number in farm.mules:
            if given.get(farm.name) == "each" and number in early:
                raise ConfigError(
                    f"{_place(given, farm.name)}: its mule {number} is early, which goes for all that it gets"
                )
    return mules, farms


def _read(texts: Sequence[str]) -> dict[str, str]:
    """Return the word for each mule and farm; for all of them it is under ""."""
    given: dict[str, str] = {}
    for text in texts:
        who, colon, how = text.rpartition(":")
        if (colon and not who) or not ACK.fits(how):
            raise ConfigError(f"{ACK_OF.flag}: {shown(text)} is not {ACK_OF.kind.words}")
        if who in given:
            raise ConfigError(f"{ACK_OF.flag}={text}: {shown(who) if who else 'this'} is given twice")
        given[who] = how
    return given


def _place(given: dict[str, str], who: str) -> str:
    return f"{ACK_OF.flag}={who}:{given[who]}"
