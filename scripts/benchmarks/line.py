"""A line: one piece of work that contestants do in turns, and what came of it.

The order changes from round to round, so that nobody always goes first. A contestant that cannot be had, or
that fails, is left out with its reason, and the others go on.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

ZMULE = "zmule"
Figures = dict[str, float]
Measure = Callable[[], Figures]


class Skipped(Exception):
    """A contestant cannot be measured, and why."""


class Line(NamedTuple):
    """What is measured.

    Attributes:
        section: the part of the report that it belongs to.
        name: what is done, in words.
        measures: for each contestant what measures it once; zmule first, if it is one.
        rounds: how often each takes its turn.
    """

    section: str
    name: str
    measures: Mapping[str, Measure]
    rounds: int


class Row(NamedTuple):
    """One figure of a line.

    Attributes:
        section, name: those of the line.
        figure: what was measured, with its unit.
        values: for each contestant its figure of every round.
        skipped: for each contestant that was left out, why.
    """

    section: str
    name: str
    figure: str
    values: dict[str, list[float]]
    skipped: dict[str, str]


class Ratio(NamedTuple):
    """How zmule's figure is to a peer's: the median of all rounds, the least and the most."""

    median: float
    least: float
    most: float


def run(lines: Iterable[Line], seconds: float) -> list[Row]:
    """Measure line by line, with one round each when the seconds are over."""
    end = time.monotonic() + seconds
    return [
        row for line in lines for row in measured(line if time.monotonic() < end else line._replace(rounds=1))
    ]


def measured(line: Line) -> list[Row]:
    """Let all contestants take their turns; say on standard error what was done."""
    begun = time.monotonic()
    found: dict[str, list[Figures]] = {}
    skipped: dict[str, str] = {}
    for turn in range(line.rounds):
        names = [name for name in line.measures if name not in skipped]
        for name in names[turn % len(names) :] + names[: turn % len(names)] if names else []:
            try:
                found.setdefault(name, []).append(line.measures[name]())
            except Skipped as reason:
                skipped[name] = str(reason)
                found.pop(name, None)
    say(f"{line.section}: {line.name} ({time.monotonic() - begun:.0f} s)")
    figures = list(dict.fromkeys(figure for turns in found.values() for figure in turns[0]))
    return [
        Row(line.section, line.name, figure, values_of(figure, found), skipped) for figure in figures
    ] or [Row(line.section, line.name, "", {}, skipped)]


def values_of(figure: str, found: dict[str, list[Figures]]) -> dict[str, list[float]]:
    return {name: [turn[figure] for turn in turns] for name, turns in found.items() if figure in turns[0]}


def ratio(row: Row, peer: str) -> Ratio | None:
    """Return how zmule's figure is to a peer's, over the rounds; None if one is missing."""
    found = ratios(row, peer)
    return Ratio(statistics.median(found), min(found), max(found)) if found else None


def ratios(row: Row, peer: str) -> list[float]:
    """Return how zmule's figure is to a peer's in each round; nothing if one is missing."""
    ours, theirs = row.values.get(ZMULE), row.values.get(peer)
    if not ours or not theirs or not all(theirs):
        return []
    return [our / their for our, their in zip(ours, theirs, strict=True)]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
