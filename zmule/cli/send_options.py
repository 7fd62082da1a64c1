"""The options of `zmule-send`, for calls that have any, and the help and complaints of typer."""

from __future__ import annotations

from typing import Annotated

import typer

from zmule.cli import options
from zmule.cli.app import Command
from zmule.cli.send import send
from zmule.clients.sync import DEFAULT_TIMEOUT

EPILOG = (
    "Exit codes: 0 accepted, 1 refused, 2 usage, 69 broker out of reach, 75 queue full: try again later, "
    "77 not permitted."
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(cls=Command, epilog=EPILOG)
def command(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="A mule's number, any (or 0) for the first available, or a farm's name.",
        ),
    ],
    message: Annotated[
        str,
        typer.Argument(
            metavar="MESSAGE",
            help="The message, or - to send each line of standard input as a message of its own.",
        ),
    ],
    endpoint: options.Endpoint = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            parser=options.seconds,
            show_default=False,
            help="How long to wait for the broker to answer, and for room if the queue is full (default: "
            f"{DEFAULT_TIMEOUT:g} for an answer, not at all for room).",
        ),
    ] = None,
    delay: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            parser=options.seconds,
            show_default=False,
            help="Have the message delivered after so long.",
        ),
    ] = None,
    ttl: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            parser=options.seconds,
            show_default=False,
            help="Make a dead letter of the message if nobody has got it by then.",
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Say on standard error how many messages were sent.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=options.show_version("zmule-send"),
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    """Send a message to a mule or farm, and return once the broker has accepted it.

    Write -- before a message that begins with a dash.
    """
    send(target, message, endpoint, timeout, verbose, delay, ttl)
