"""The tables of signals, of what raises them, and of locks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from zmule.cli.status import Status, cell, count, grid, span


def signals(status: Status) -> Table:
    """Return a row for each signal that has a handler."""
    table = grid(">SIGNAL", "~TARGET", "~MULES", "~WORKERS", ">RAISED", ">PENDING")
    for signal in status["signals"]:
        table.add_row(
            Text(str(signal["number"])),
            cell(signal["target"] or "''"),
            cell(ranges(signal["mules"])),
            cell(ranges(signal["workers"])),
            count(signal["raised"]),
            count(signal["pending"], "yellow"),
        )
    return table


def timers(status: Status) -> Table:
    """Return a row for each source of signals."""
    table = grid(">SIGNAL", "SOURCE", "~WHEN", ">ASKERS", ">FIRED", ">NEXT IN")
    for source in status["timers"]:
        due = source["next_in_s"]
        table.add_row(
            Text(str(source["signal"])),
            Text(source["kind"]),
            cell(source["spec"]),
            count(source["askers"]),
            count(source["fired"]),
            Text("-" if due is None else f"{due:.1f} s" if due < 60 else span(due)),
        )
    return table


def locks(status: Status) -> Table:
    """Return a row for each lock."""
    mules = {mule["pid"]: mule["id"] for mule in status["mules"] if mule["state"] != "gone"}
    table = grid("~LOCK", "~HOLDER", ">TOKEN", ">WAITING", "~NEXT")
    for lock in status["locks"]:
        holder, waiting = lock["holder"], lock["waiting"]
        table.add_row(
            cell(str(lock["name"])),
            cell(process(holder, mules) if holder else "-"),
            Text(str(lock["token"] or "-")),
            count(len(waiting), "yellow"),
            cell(process(waiting[0], mules) if waiting else "-"),
        )
    return table


TABLES = {"signals": signals, "timers": timers, "locks": locks}


def process(owner: dict[str, Any], mules: dict[int, int]) -> str:
    """Return what names a thread of a process; its main thread goes without saying."""
    pid, thread = owner["pid"], owner["thread"]
    name = f"mule {mules[pid]} (pid {pid})" if pid in mules else f"pid {pid or '?'}"
    return name if thread == pid else f"{name} thread {thread}"


def ranges(numbers: Sequence[int]) -> str:
    """Return sorted numbers in short: `1-3 7`."""
    present = set(numbers)
    starts = [number for number in numbers if number - 1 not in present]
    ends = [number for number in numbers if number + 1 not in present]
    pairs = zip(starts, ends, strict=True)
    return " ".join(str(start) if start == end else f"{start}-{end}" for start, end in pairs) or "-"
