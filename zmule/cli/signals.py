"""The commands about signals and locks: raise a signal, and look at what there is."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from zmule.cli import common, options
from zmule.core.queues import LAST_SIGNAL

Json = Annotated[bool, typer.Option("--json", help="Print it as JSON, for programs.")]


def signal(
    number: Annotated[
        int, typer.Argument(metavar="NUM", parser=options.whole(0, LAST_SIGNAL), help="The signal, 0 to 255.")
    ],
    endpoint: options.Endpoint = None,
    timeout: options.Timeout = None,
) -> None:
    """Raise a signal: whoever it is for runs its handler once."""
    with common.connect(endpoint, timeout) as client:
        client.signal(number)


def signals(
    endpoint: options.Endpoint = None, timeout: options.Timeout = None, as_json: Json = False
) -> None:
    """Show which signals have handlers, where, and how many raises wait."""
    show("signals", endpoint, timeout, as_json)


def timers(endpoint: options.Endpoint = None, timeout: options.Timeout = None, as_json: Json = False) -> None:
    """Show what raises signals: timers, cron entries and file monitors."""
    show("timers", endpoint, timeout, as_json)


def locks(endpoint: options.Endpoint = None, timeout: options.Timeout = None, as_json: Json = False) -> None:
    """Show the locks, who holds them, and who waits."""
    show("locks", endpoint, timeout, as_json)


COMMANDS = (signal, signals, timers, locks)


def show(part: str, endpoint: str | None, timeout: float | None, as_json: bool) -> None:
    """Print a part of the status, as JSON or as a table."""
    with common.connect(endpoint, timeout) as client:
        status = client.status()
    if as_json:
        print(json.dumps(status[part], indent=2))
        return
    from zmule.cli import tables
    from zmule.cli.status import make_console

    make_console().print(tables.TABLES[part](status) if status[part] else f"no {part}")
