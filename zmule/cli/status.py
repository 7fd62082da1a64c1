"""The picture that `zmule status` draws of a broker's status, and how it is kept up to date.

Every row is cut to fit on one line: a program loses its beginning, since its end tells more. Programs and
farms are named by whoever connects, so nothing of a name reaches the terminal but what can be printed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, cast

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from zmule.cli.common import tell
from zmule.clients.sync import Client
from zmule.errors import BrokerUnavailable

Status = dict[str, Any]
Show = Callable[[Status, BrokerUnavailable | None], None]

STATE_STYLES = {
    "starting": "cyan",
    "idle": "green",
    "busy": "yellow",
    "stopping": "magenta",
    "failed": "bold red",
    "gone": "red",
}
UNLIMITED = 10_000
"""Columns of what is not a terminal: there is nothing that the picture must fit into."""

WIDE = 140
"""Columns in which one table has room for all that there is to say of a mule."""

LEAST_PATIENCE = 1.0
"""How long a watcher waits at least for an answer, in seconds, however often it asks."""


def show_once(client: Client, as_json: bool) -> None:
    """Print the status, as a picture or as JSON."""
    status = client.status()
    if as_json:
        print(json.dumps(status, indent=2))
    else:
        make_console().print(picture(status))


def follow(client: Client, interval: float, as_json: bool) -> None:
    """Show the status every `interval` seconds until Ctrl-C, also while the broker is away.

    Raises:
        BrokerUnavailable: the broker is out of reach at the beginning.
    """
    status, error = client.status(), None
    patience = min(client.timeout, max(interval, LEAST_PATIENCE))
    with suppress(KeyboardInterrupt), showing(as_json) as show:
        while True:
            show(status, error)
            time.sleep(interval)
            try:
                status, error = client.status(patience), None
            except BrokerUnavailable as absence:
                error = absence


@contextmanager
def showing(as_json: bool) -> Iterator[Show]:
    """Give what shows one status after another: as lines of JSON, or as pictures, on a terminal in place."""
    if as_json:
        yield show_json
        return
    console = make_console()
    if not console.is_terminal:
        yield lambda status, error: console.print(picture(status, error), "")
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        yield lambda status, error: live.update(picture(status, error), refresh=True)


def show_json(status: Status, error: BrokerUnavailable | None) -> None:
    """Print the status as one line, or on standard error that there is none."""
    if error is None:
        print(json.dumps(status), flush=True)
    else:
        tell(f"zmule: {error}\n")


def make_console() -> Console:
    """Return a console on standard output that can write any text."""
    cast(Any, sys.stdout).reconfigure(errors="backslashreplace")
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = UNLIMITED
    return console


def picture(status: Status, error: BrokerUnavailable | None = None) -> RenderableType:
    """Return what to draw: the status, or the last one known if the broker is out of reach."""
    parts: list[RenderableType] = [Text(str(error), "bold red")] if error else []
    parts += [head(status), *services(status), totals(status)]
    parts += [table(status) for table in (mules, queues, farms) if status[table.__name__]]
    return Group(*(part for item in parts for part in (item, "")))


def head(status: Status) -> Text:
    """Return who the broker is."""
    broker = status["broker"]
    clients = broker["clients"]
    words = [
        f"zmuled {broker['version']}",
        f"pid {broker['pid']}",
        f"up {span(broker['uptime_s'])}",
        f"{clients} client{'' if clients == 1 else 's'}",
        broker["store"],
    ]
    text = Text("  ".join(words), "bold")
    if broker["stopping"]:
        text.append("  stopping", STATE_STYLES["stopping"])
    text.append("\n" + "  ".join(broker["endpoints"]), "not bold")
    if broker["store_error"]:
        text.append(f"\nthe store cannot write: {printable(broker['store_error'])}", "not bold red")
    return text


def services(status: Status) -> list[Text]:
    """Return how much there is besides messages, if anything."""
    held = sum(lock["holder"] is not None for lock in status["locks"])
    counts = {"signal": len(status["signals"]), "timer": len(status["timers"]), "held lock": held}
    words = [f"{number} {name}{'' if number == 1 else 's'}" for name, number in counts.items()]
    return [Text("  ".join(words))] if any(counts.values()) else []


def totals(status: Status) -> Table:
    """Return what has become of all messages so far."""
    names = {
        "accepted": "ACCEPTED",
        "delivered": "DELIVERED",
        "acked": "ACKED",
        "redelivered": "REDELIVERED",
        "refused": "REFUSED",
        "dead": "DEAD LETTERS",
    }
    table = grid(*(f">{head}" for head in names.values()))
    table.add_row(*(count(status["totals"][name], "red" if name == "dead" else "") for name in names))
    return table


class Mules:
    """A row for each mule: in one table where there is room for it, else in two."""

    def __init__(self, mules: list[Status]) -> None:
        self._mules = mules

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        now = time.time()
        if options.max_width >= WIDE:
            yield self._table({**MULE, **DOES, **PROCESS}, now)
        else:
            yield self._table({**MULE, **DOES}, now)
            yield ""
            yield self._table({**MULE, **PROCESS}, now)

    def _table(self, columns: Mapping[str, Column], now: float) -> Table:
        table = grid(*columns)
        for mule in self._mules:
            table.add_row(*(column(mule, now) for column in columns.values()))
        return table


def mules(status: Status) -> Mules:
    """Return a row for each mule."""
    return Mules(status["mules"])


def ago(moment: float | None, now: float) -> Text:
    """Return how long ago a moment was, `-` for none."""
    return Text("-" if moment is None else span(max(0.0, now - moment)))


def program(mule: Status) -> RenderableType:
    """Return what a mule runs."""
    return Tail(printable(mule["program"])) if mule["program"] else Text("-")


def work(mule: Status) -> Text:
    """Return what a mule works on: the oldest message's id, queue and age, and how many more there are."""
    if not mule["work"]:
        return Text("-")
    oldest, *more = mule["work"]
    others = f" and {len(more)} more" if more else ""
    return cell(f"#{oldest['id']} {oldest['queue']}, {span(oldest['age_s'])}{others}")


def last_exit(mule: Status, now: float) -> Text:
    """Return how a mule's last process ended, and how long ago."""
    end = mule["last_exit"]
    if end is None:
        return Text("-")
    how = f"code {end['code']}" if end["signal"] is None else signal_name(end["signal"])
    text = cell(f"{how}, {ago(end['at'], now)} ago")
    text.stylize("yellow" if end["code"] != 0 else "")
    return text


def signal_name(number: int) -> str:
    """Return the name of a signal of the operating system."""
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


Column = Callable[[Status, float], RenderableType]
MULE: dict[str, Column] = {">MULE": lambda mule, _: count(mule["id"])}
DOES: dict[str, Column] = {
    "STATE": lambda mule, _: Text(mule["state"], STATE_STYLES.get(mule["state"], "")),
    ">FOR": lambda mule, now: ago(mule["since"], now),
    "~PROGRAM": lambda mule, _: program(mule),
    "~FARMS": lambda mule, _: cell(" ".join(mule["farms"]) or "-"),
    "~WORKS ON": lambda mule, _: work(mule),
}
PROCESS: dict[str, Column] = {
    ">PID": lambda mule, _: Text(str(mule["pid"] or "-")),
    ">UP": lambda mule, now: ago(mule["started"] if mule["pid"] else None, now),
    ">WAITING": lambda mule, _: count(mule["waiting"]),
    ">IN FLIGHT": lambda mule, _: count(mule["in_flight"]),
    ">DONE": lambda mule, _: count(mule["messages"]),
    ">RESTARTS": lambda mule, _: count(mule["restarts"], "yellow"),
    "~LAST EXIT": lambda mule, now: last_exit(mule, now),
}
"""How the columns of mules are headed, and what is in them."""


def queues(status: Status) -> Table:
    """Return a row for each queue."""
    table = grid("~QUEUE", ">READY", ">IN FLIGHT", ">DELAYED", ">DEAD", ">OLDEST", "")
    for name, queue in status["queues"].items():
        oldest, unread = queue["oldest_age_s"], queue.get("no_reader_since")
        table.add_row(
            cell(name),
            count(queue["ready"]),
            count(queue["in_flight"]),
            count(queue["delayed"]),
            count(queue["dead"], "red"),
            Text("-" if oldest is None else span(oldest)),
            Text("" if unread is None else f"no reader since {clock(unread)}", "yellow"),
        )
    return table


def farms(status: Status) -> Table:
    """Return a row for each farm."""
    table = grid("~FARM", "~MULES")
    for name, numbers in status["farms"].items():
        table.add_row(cell(name), cell(" ".join(map(str, numbers)) or "-"))
    return table


def grid(*heads: str) -> Table:
    """Return an empty table. A head begins with `>` if its column is of numbers, `~` if it may be cut."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for head in heads:
        table.add_column(
            Text(head.lstrip(">~")),
            justify="right" if head.startswith(">") else "left",
            no_wrap=not head.startswith("~"),
            min_width=max(map(len, head.lstrip(">~").split("\n"))),
        )
    return table


class Tail:
    """A text that loses its beginning where there is no room for all of it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, cell_len(self._text)).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(tail(self._text, options.max_width), no_wrap=True)


def tail(text: str, width: int) -> str:
    """Return as much of the end of the text as fits the width, in columns."""
    if cell_len(text) <= width:
        return text
    ends = (f"…{text[start:]}" for start in range(1, len(text) + 1))
    return next((end for end in ends if cell_len(end) <= width), "")


def cell(text: str) -> Text:
    """Return a text that is cut at its end where there is no room for all of it."""
    return Text(printable(text), no_wrap=True, overflow="ellipsis")


def count(number: int, style: str = "") -> Text:
    """Return a number; one that says something has the style."""
    return Text(str(number), style if number else "dim")


def printable(text: str) -> str:
    """Return the text with what could not be seen, or would move the cursor, made visible."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def span(seconds: float) -> str:
    """Return a length of time with its two largest units."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    units = [(days, "d"), (hour, "h"), (minute, "m"), (second, "s")]
    while len(units) > 1 and not units[0][0]:
        del units[0]
    return " ".join(f"{number} {unit}" for number, unit in units[:2])


def clock(moment: float) -> str:
    """Return a moment of the wall clock, with its day unless it is within the last twelve hours."""
    recent = abs(time.time() - moment) < 12 * 3600
    return time.strftime("%H:%M:%S" if recent else "%Y-%m-%d %H:%M:%S", time.localtime(moment))
