"""The options that more than one command has, and the checks of their values."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated

import typer

from zmule.clients.sync import DEFAULT_TIMEOUT
from zmule.core.greeting import is_farm_name
from zmule.endpoints import check_endpoint
from zmule.errors import ConfigError
from zmule.near import hint
from zmule.version import VERSION

MOST_SECONDS = 1_000_000.0
"""A poll counts milliseconds in 31 bits."""


def shown(text: str) -> str:
    """Return what was written on the command line as a complaint can carry it."""
    return ascii(text if len(text) <= 80 else f"{text[:80]}...")


def seconds(text: str) -> float:
    """Return a number of seconds that can be waited for."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= MOST_SECONDS:
        raise typer.BadParameter(
            f"{shown(text)} is not a number of seconds, above 0 and up to {MOST_SECONDS:.0f}"
        )
    return value


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return what reads a whole number within bounds."""

    def read(text: str) -> int:
        number = int(text) if re.fullmatch("-?[0-9]{1,18}", text) else None
        if number is None or not least <= number <= most:
            raise typer.BadParameter(f"{shown(text)} is not a whole number from {least} to {most}")
        return number

    return read


def queue(text: str) -> str:
    """Return a queue that is spelled like one."""
    kind, colon, name = text.partition(":")
    spelled = {
        "any": not colon,
        "mule": bool(re.fullmatch("[1-9][0-9]{0,6}", name)),
        "farm": is_farm_name(name),
        "signal": bool(name),
        "call": bool(name),
    }
    if not spelled.get(kind):
        question = "" if kind in spelled else hint(kind, spelled)
        raise typer.BadParameter(f"{shown(text)} is no queue: write any, mule:N or farm:NAME{question}")
    return text


def farm(text: str) -> str:
    """Return a name that a farm can have."""
    if not is_farm_name(text):
        raise typer.BadParameter(f"{shown(text)} cannot be the name of a farm")
    return text


def endpoint(text: str) -> str:
    """Return an endpoint that is spelled like one."""
    try:
        check_endpoint(text)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None
    return text


def show_version(name: str) -> Callable[[bool], None]:
    """Return what the `--version` of that command does."""

    def show(wanted: bool) -> None:
        if wanted:
            typer.echo(f"{name} {VERSION}")
            raise typer.Exit

    return show


Endpoint = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        metavar="URL",
        parser=endpoint,
        show_default=False,
        help="Where the broker is: ipc:///path or tcp://host:port (default: ZMULE_ENDPOINT, else where a "
        "zmuled without configuration is).",
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        parser=seconds,
        show_default=False,
        help="How long to wait for the broker, also for one that is not there yet (default: "
        f"{DEFAULT_TIMEOUT:g} for an answer, not at all for one that is not there).",
    ),
]
