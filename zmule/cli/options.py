"""The options that more than one command has, and the checks of their values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import typer

from zmule.clients.sync import DEFAULT_TIMEOUT
from zmule.endpoints import check_endpoint
from zmule.errors import ConfigError
from zmule.version import VERSION

MOST_SECONDS = 1_000_000.0
"""A poll counts milliseconds in 31 bits."""


def seconds(text: str) -> float:
    """Return a number of seconds that can be waited for."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= MOST_SECONDS:
        raise typer.BadParameter(f"{text!r} is not a number of seconds, above 0 and up to {MOST_SECONDS:.0f}")
    return value


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
    float,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        parser=seconds,
        show_default=False,
        help=f"How long to wait for the broker to answer (default: {DEFAULT_TIMEOUT:g}).",
    ),
]
