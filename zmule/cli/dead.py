"""The commands about dead letters: look at them, bring them back, drop them."""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from typing import Annotated, Any

import typer

from zmule.cli import common, options
from zmule.cli.app import Command, Group
from zmule.cli.common import tell
from zmule.clients.sync import Client
from zmule.near import hint

PAGE = 1000
"""Dead letters that are asked for at a time."""

USUAL_LIMIT = 100

letter_id = options.whole(1, 10**15)
ID_HELP = "The numbers that `zmule dead list` shows."

Ids = Annotated[
    list[int] | None,
    typer.Argument(metavar="[ID...]", parser=letter_id, show_default=False, help=ID_HELP),
]
Id = Annotated[int, typer.Argument(metavar="ID", parser=letter_id, help=ID_HELP)]
Queue = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        parser=options.queue,
        show_default=False,
        help="All of this queue: any, mule:N or farm:NAME.",
    ),
]
After = Annotated[
    int | None,
    typer.Option(metavar="ID", parser=options.whole(0, 10**15), help="Only those with a higher number."),
]
Limit = Annotated[
    int | None,
    typer.Option(
        metavar="COUNT", parser=options.whole(1, 10**9), help=f"How many at most (default: {USUAL_LIMIT})."
    ),
]
Every = Annotated[bool, typer.Option("--all", help="All that there are.")]
Json = Annotated[bool, typer.Option("--json", help="Print it as JSON, for programs.")]

commands = typer.Typer(cls=Group, help="Look at dead letters, requeue them, drop them.")


@commands.command("list", cls=Command)
def list_(
    queue: Queue = None,
    after: After = None,
    limit: Limit = None,
    endpoint: options.Endpoint = None,
    timeout: options.Timeout = None,
    as_json: Json = False,
) -> None:
    """List dead letters, the oldest first."""
    most = limit or USUAL_LIMIT
    with common.connect(endpoint, timeout) as client:
        count, letters = pages(client, queue or "", after or 0, most)
        if queue and not count:
            tell_known(client, queue)
    if as_json:
        print(json.dumps({"count": count, "letters": letters}, indent=2))
        return
    from zmule.cli.letters import table
    from zmule.cli.status import make_console

    make_console().print(table(letters) if letters else "no dead letters")
    if len(letters) == most < count:
        tell(f"{most} of {count} shown: go on with --after {letters[-1]['id']}\n")


@commands.command(cls=Command)
def show(
    id: Id,
    endpoint: options.Endpoint = None,
    timeout: options.Timeout = None,
    as_json: Json = False,
) -> None:
    """Show one dead letter, with the whole message."""
    with common.connect(endpoint, timeout) as client:
        letter = client.dead_show(id)
    if as_json:
        print(json.dumps(letter, indent=2, default=in_json))
        return
    from zmule.cli.letters import picture
    from zmule.cli.status import make_console

    make_console().print(picture(letter))


@commands.command(cls=Command)
def requeue(
    ids: Ids = None,
    queue: Queue = None,
    every: Every = False,
    endpoint: options.Endpoint = None,
    timeout: options.Timeout = None,
) -> None:
    """Bring dead letters back into their queues, as if they had never been delivered."""
    chosen = check_choice(ids, queue, every)
    with common.connect(endpoint, timeout) as client:
        done = client.dead_requeue(chosen, queue=queue or "", every=every)
        if queue and not done:
            tell_known(client, queue)
    print(f"{done} dead letters requeued")


@commands.command(cls=Command)
def drop(
    ids: Ids = None,
    queue: Queue = None,
    every: Every = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask on a terminal.")] = False,
    endpoint: options.Endpoint = None,
    timeout: options.Timeout = None,
) -> None:
    """Drop dead letters for good."""
    chosen = check_choice(ids, queue, every)
    if not yes and sys.stdin is not None and sys.stdin.isatty():
        what = "all dead letters" if every else f"those of {queue}" if queue else f"{len(chosen)} of them"
        typer.confirm(f"Dead letters that are dropped are gone for good. Drop {what}?", abort=True, err=True)
    with common.connect(endpoint, timeout) as client:
        done = client.dead_drop(chosen, queue=queue or "", every=every)
        if queue and not done:
            tell_known(client, queue)
    print(f"{done} dead letters dropped")


def tell_known(client: Client, queue: str) -> None:
    """Say which queue may have been meant if there is none of that name."""
    status = client.status()
    mules = (f"mule:{mule['id']}" for mule in status["mules"])
    known = {"any", *status["queues"], *mules, *(f"farm:{name}" for name in status["farms"])}
    if queue.partition(":")[0] in ("mule", "farm") and queue not in known:
        tell(f"zmule: there is no queue {queue}{hint(queue, known)}\n")


def in_json(data: bytes) -> dict[str, str]:
    """Return what stands for bytes, which JSON does not have."""
    return {"base64": b64encode(data).decode()}


def check_choice(ids: list[int] | None, queue: str | None, every: bool) -> list[int]:
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
