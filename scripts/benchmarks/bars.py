"""What was set out to be reached, and whether it was: ratios within one run."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from benchmarks import course
from benchmarks.course import RATE
from benchmarks.line import ZMULE, Ratio, Row, ratio
from benchmarks.sections import backlog, busy, fairness, latency, scale, startup, sync, throughput

AT_LEAST, AT_MOST = "≥", "≤"


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
        return f"{self.sign} {self.limit:g} {f'× {self.peer}' if self.peer else self.unit}".rstrip()


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


MEMORY, DURABLE, LARGE = (
    throughput.name_of(throughput.ONE, size, store)
    for size, store in ((100, "memory"), (100, "durable"), (64 << 10, "memory"))
)
P50, P99, _ = course.QUANTILES

BARS = (
    Bar("pipelined confirmed send to ack, memory", AT_LEAST, 1.2, MEMORY, RATE, "uwsgi"),
    Bar("the same, sqlite, synced", AT_LEAST, 4, DURABLE, RATE, "jetstream"),
    Bar("the same, sqlite, synced", AT_LEAST, 10, DURABLE, RATE, "beanstalkd"),
    Bar("one synchronous confirmed send, p50", AT_MOST, 1.3, sync.NAME, P50, "round trip"),
    Bar("one way, idle, p50", AT_MOST, 1.3, latency.IDLE, P50, "relay"),
    Bar("one way, idle, p99", AT_MOST, 1.5, latency.IDLE, P99, "relay"),
    Bar("jobs of 1 ms and 1 s: time", AT_MOST, 1.05, fairness.NAME, fairness.RATIO, "", "× ideal"),
    Bar("the same: idle while a job waits", AT_MOST, 100, fairness.NAME, fairness.GAP, "", "ms"),
    Bar("a message in a backlog, beside its body", AT_MOST, 400, backlog.NAME, backlog.OVERHEAD, "", "B"),
    Bar("a backlog's drain", AT_LEAST, 0.9, backlog.NAME, RATE, "an empty queue"),
    Bar("50 at work amid 3 000", AT_LEAST, 0.8, scale.NAME, RATE, "the 50 alone"),
    Bar("3 000 idle: the broker", AT_MOST, 2, scale.IDLE, scale.CPU, "", "% of a core"),
    Bar("64 KB bodies", AT_LEAST, 0.5, LARGE, RATE, "relay"),
    Bar("zmule-send 1 hi, the whole process", AT_MOST, 1.6, startup.SEND, startup.FIGURE, startup.IMPORT),
    Bar("a mule that computes: recall", AT_MOST, 150, busy.NAME, busy.RECALL, "", "ms"),
    Bar("the same: lost or delivered again", AT_MOST, 0, busy.NAME, busy.LOST),
)


def verdicts(rows: Iterable[Row]) -> Iterator[Verdict]:
    """Yield what became of each bar whose line was run."""
    known = {(row.name, row.figure): row for row in rows}
    for bar in BARS:
        row = known.get((bar.line, bar.figure)) or known.get((bar.line, ""))
        if row is not None:
            reached = ratio(row, bar.peer) if bar.peer else itself(row)
            yield Verdict(bar, reached, "; ".join(row.skipped.values()))


def itself(row: Row) -> Ratio | None:
    """Return the spread of zmule's own figure."""
    values = row.values.get(ZMULE)
    return Ratio(statistics.median(values), min(values), max(values)) if values else None
