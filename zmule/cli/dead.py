"""The commands about dead letters: look at them, bring them back, drop them."""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from typing import Annotated, Any

import typer

from zmule.cli import options
from zmule.cli.common import tell
from zmule.clients.sync import DEFAULT_TIMEOUT, Client

PAGE = 1000
"""Dead letters that are asked for at a time."""

Ids = Annotated[
    list[int] | None,
    typer.Argument(metavar="[ID]...", show_default=False, help="The numbers that `zmule dead list` shows."),
]
Queue = Annotated[
    str,
    typer.Option(metavar="NAME", show_default=False, help="All of this queue: any, mule:N or farm:NAME."),
]
Every = Annotated[bool, typer.Option("--all", help="All that there are.")]
Json = Annotated[bool, typer.Option("--json", help="Print it as JSON, for programs.")]

commands = typer.Typer(no_args_is_help=True, help="Look at dead letters, requeue them, drop them.")


@commands.command("list")
def list_(
    queue: Queue = "",
    after: Annotated[int, typer.Option(metavar="ID", min=0, help="Only those with a higher number.")] = 0,
    limit: Annotated[int, typer.Option(metavar="COUNT", min=1, help="How many at most.")] = 100,
    endpoint: options.Endpoint = None,
    timeout: options.Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """List dead letters, the oldest first."""
    with Client(endpoint, timeout=timeout) as client:
        count, letters = pages(client, queue, after, limit)
    if as_json:
        print(json.dumps({"count": count, "letters": letters}, indent=2))
        return
    from zmule.cli.letters import table
    from zmule.cli.status import make_console

    make_console().print(table(letters) if letters else "no dead letters")
    if len(letters) == limit < count:
        tell(f"{limit} of {count} shown: go on with --after {letters[-1]['id']}\n")


@commands.command()
def show(
    id: Annotated[int, typer.Argument(metavar="ID", help="The number that `zmule dead list` shows.")],
    endpoint: options.Endpoint = None,
    timeout: options.Timeout = DEFAULT_TIMEOUT,
    as_json: Json = False,
) -> None:
    """Show one dead letter, with the whole message."""
    with Client(endpoint, timeout=timeout) as client:
        letter = client.dead_show(id)
    if as_json:
        print(json.dumps(letter, indent=2, default=in_json))
        return
    from zmule.cli.letters import picture
    from zmule.cli.status import make_console

    make_console().print(picture(letter))


@commands.command()
def requeue(
    ids: Ids = None,
    queue: Queue = "",
    every: Every = False,
    endpoint: options.Endpoint = None,
    timeout: options.Timeout = DEFAULT_TIMEOUT,
) -> None:
    """Bring dead letters back into their queues, as if they had never been delivered."""
    chosen = check_choice(ids, queue, every)
    with Client(endpoint, timeout=timeout) as client:
        done = client.dead_requeue(chosen, queue=queue, every=every)
    print(f"{done} dead letters requeued")


@commands.command()
def drop(
    ids: Ids = None,
    queue: Queue = "",
    every: Every = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask on a terminal.")] = False,
    endpoint: options.Endpoint = None,
    timeout: options.Timeout = DEFAULT_TIMEOUT,
) -> None:
    """Drop dead letters for good."""
    chosen = check_choice(ids, queue, every)
    if not yes and sys.stdin is not None and sys.stdin.isatty():
        what = "all dead letters" if every else f"those of {queue}" if queue else f"{len(chosen)} of them"
        typer.confirm(f"Dead letters that are dropped are gone for good. Drop {what}?", abort=True, err=True)
    with Client(endpoint, timeout=timeout) as client:
        done = client.dead_drop(chosen, queue=queue, every=every)
    print(f"{done} dead letters dropped")


def in_json(data: bytes) -> dict[str, str]:
    """Return what stands for bytes, which JSON does not have."""
    return {"base64": b64encode(data).decode()}


def check_choice(ids: list[int] | None, queue: str, every: bool) -> list[int]:
    """Return the ids; refuse a command line that says nothing of what is meant, or several things."""
    if bool(ids) + bool(queue) + every != 1:
        raise typer.BadParameter("name dead letters by ID, or by --queue, or all of them by --all")
    return ids or []


def pages(client: Client, queue: str, after: int, limit: int) -> tuple[int, list[dict[str, Any]]]:
    """Return how many dead letters there are, and as many as are wanted."""
    letters: list[dict[str, Any]] = []
    while True:
        most = min(limit - len(letters), PAGE)
        found = client.dead_list(queue, after=letters[-1]["id"] if letters else after, limit=most)
        letters += found["letters"]
        if len(found["letters"]) < most or len(letters) == limit:
            return found["count"], letters
