"""Pictures of dead letters."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from zmule.cli.status import cell, clock, grid, printable

Letter = dict[str, Any]


def table(letters: list[Letter]) -> Table:
    """Return a row for each dead letter."""
    rows = grid(">ID", "~QUEUE", "DIED AT", ">BYTES", "~REASON", "~MESSAGE")
    for letter in letters:
        rows.add_row(
            Text(str(letter["id"])),
            cell(letter["queue"]),
            Text(clock(letter["at"])),
            Text(str(letter["bytes"])),
            cell(letter["reason"]),
            cell(letter["preview"]),
        )
    return rows


def picture(letter: Letter) -> RenderableType:
    """Return all about one dead letter, the message below it."""
    facts = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    for name, value in (
        ("id", letter["id"]),
        ("queue", letter["queue"]),
        ("accepted", clock(letter["accepted"])),
        ("died at", clock(letter["at"])),
        ("reason", letter["reason"]),
        ("last mule", letter["mule"] or "-"),
        ("deliveries", letter["deliveries"]),
        ("headers", letter["headers"] or "-"),
        ("bytes", letter["bytes"]),
    ):
        facts.add_row(Text(name, "bold"), Text(printable(str(value))))
    return Group(facts, "", Text("\n".join(map(printable, text(letter["body"]).split("\n")))))


def text(body: str | bytes) -> str:
    """Return a message as a text that shows what it is."""
    return body if isinstance(body, str) else repr(body)
