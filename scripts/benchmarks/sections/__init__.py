"""The sections of the benchmark, one module each: `lines(effort)` gives what each measures."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from benchmarks.effort import Effort
from benchmarks.line import Line

NAMES: tuple[str, ...] = (
    "throughput",
    "sync",
    "latency",
    "signals",
    "locks",
    "fairness",
    "busy",
    "backlog",
    "scale",
    "startup",
    "idle",
    "tasks",
)


def lines(name: str, effort: Effort) -> Iterator[Line]:
    """Yield the lines of a section."""
    made: Iterator[Line] = importlib.import_module(f"benchmarks.sections.{name}").lines(effort)
    return made
