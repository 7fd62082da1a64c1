"""What was set out to be reached, and whether it was: ratios within one run."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from benchmarks.course import RATE
from benchmarks.line import ZMULE, Ratio, Row, ratio

AT_LEAST, AT_MOST = "≥", "≤"
ONE_TO_ONE = "1 sender, 1 mule, 100 B"


class Bar(NamedTuple):
    """One bar.

    Attributes:
        what: what it is about, in words.
        sign: whether the figure is to be at least or at most the limit.
        limit: the ratio, or the figure itself if there is no peer.
        line: the name of the line.
        figure: which figure of it.
        peer: the contestant that zmule's figure is compared with; empty for the figure itself.
        unit: of the limit, where there is no peer.
    """

    what: str
    sign: str
    limit: float
    line: str
    figure: str
    peer: str = ""
    unit: str = ""

    @property
    def words(self) -> str:
        return f"{self.sign} {self.limit:g} " + (f"× {self.peer}" if self.peer else self.unit)


class Verdict(NamedTuple):
    """A bar, what was reached (None: not measured, and why), and whether that is enough."""

    bar: Bar
    reached: Ratio | None
    why_not: str

    @property
    def met(self) -> bool:
        reached = self.reached
        if reached is None:
            return False
        at_least = self.bar.sign == AT_LEAST
        return reached.median >= self.bar.limit if at_least else reached.median <= self.bar.limit


BARS = (
    Bar("pipelined confirmed send to ack, memory", AT_LEAST, 1.2, f"{ONE_TO_ONE}, memory", RATE, "uwsgi"),
    Bar("the same, sqlite, synced", AT_LEAST, 4, f"{ONE_TO_ONE}, durable", RATE, "jetstream"),
    Bar("the same, sqlite, synced", AT_LEAST, 10, f"{ONE_TO_ONE}, durable", RATE, "beanstalkd"),
    Bar(
        "one synchronous confirmed send, p50",
        AT_MOST,
        1.3,
        "a confirmed send, then the next, 100 B",
        "p50 µs",
        "round trip",
    ),
    Bar("one way, idle, p50", AT_MOST, 1.3, "one way, idle", "p50 µs", "relay"),
    Bar("one way, idle, p99", AT_MOST, 1.5, "one way, idle", "p99 µs", "relay"),
    Bar("64 KB bodies", AT_LEAST, 0.5, "1 sender, 1 mule, 64 KB, memory", RATE, "relay"),
)


def verdicts(rows: Iterable[Row]) -> Iterator[Verdict]:
    """Yield what became of each bar whose line was run."""
    known = {(row.name, row.figure): row for row in rows}
    for bar in BARS:
        row = known.get((bar.line, bar.figure))
        if row is not None:
            reached = ratio(row, bar.peer) if bar.peer else itself(row)
            yield Verdict(bar, reached, "; ".join(row.skipped.values()))


def itself(row: Row) -> Ratio | None:
    """Return the spread of zmule's own figure."""
    values = row.values.get(ZMULE)
    return Ratio(statistics.median(values), min(values), max(values)) if values else None
