"""Draws the plots of docs/performance.rst: `python -m benchmarks.plots RESULTS FOLDER`.

It runs in the peers' Python, which has matplotlib, and not zmule.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks.course import QUANTILES, RATE
from benchmarks.line import ZMULE
from benchmarks.sections.latency import IDLE
from benchmarks.sections.throughput import ONE, SIZES, name_of

mpl.use("svg")
mpl.rcParams |= {
    "svg.fonttype": "none",
    "svg.hashsalt": "zmule",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "figure.constrained_layout.use": True,
}
OURS, OTHERS = "#c8553d", "#8fa3ad"
COLOURS = (OURS, "#2f4858", "#33658a", "#86bbd8", "#758e4f", "#f6ae2d", "#9c89b8")

Medians = dict[tuple[str, str], dict[str, float]]
Axes = Any


def main(results: Path, folder: Path) -> None:
    rows = json.loads(results.read_text())["rows"]
    medians: Medians = {(row["name"], row["figure"]): row["medians"] for row in rows}
    draw(folder / "throughput.svg", 2, (8, 2.8), lambda axes: throughput(axes, medians))
    draw(folder / "sizes.svg", 1, (5.5, 3), lambda axes: sizes(axes[0], medians))
    draw(folder / "latency.svg", 1, (5.5, 2.6), lambda axes: latency(axes[0], medians))
    draw(folder / "tasks.svg", 1, (5.5, 2.6), lambda axes: tasks(axes[0], rows))


def draw(path: Path, columns: int, size: tuple[float, float], fill: Callable[[list[Axes]], None]) -> None:
    """Write one file."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, columns, figsize=size, squeeze=False)
    fill(list(axes[0]))
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def throughput(axes: list[Axes], medians: Medians) -> None:
    for place, store in zip(axes, ("memory", "durable"), strict=True):
        ranking(place, medians.get((name_of(ONE, 100, store), RATE), {}))
        place.set_title(f"1 sender, 1 mule, 100 B, {store}")
        place.set_xlabel(RATE)


def ranking(axes: Axes, values: dict[str, float]) -> None:
    """Draw a bar for each contestant, the longest on top."""
    ordered = sorted(values.items(), key=lambda item: item[1])
    names, lengths = [name for name, _ in ordered], [value for _, value in ordered]
    shown = axes.barh(names, lengths, color=[OURS if name == ZMULE else OTHERS for name in names])
    axes.bar_label(shown, [f"{length:,.0f}" for length in lengths], padding=3)
    axes.set_xscale("log")
    axes.margins(x=0.25)


def sizes(axes: Axes, medians: Medians) -> None:
    """Draw bytes a second by the size of messages."""
    found = {size: medians.get((name_of(ONE, size, "memory"), RATE), {}) for size in SIZES}
    contestants = dict.fromkeys(name for values in found.values() for name in values)
    for name, colour in zip(contestants, COLOURS, strict=False):
        points = [(size, values[name]) for size, values in found.items() if name in values]
        if len(points) > 1:
            axes.plot(*zip(*points, strict=True), "o-", markersize=4, color=colour, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(list(SIZES), list(SIZES.values()))
    axes.set_title("1 sender, 1 mule, memory")
    axes.set_ylabel(RATE)
    axes.legend(frameon=False)


def latency(axes: Axes, medians: Medians) -> None:
    """Draw the quantiles of each contestant on a line of its own."""
    found = [medians.get((IDLE, figure), {}) for figure in QUANTILES]
    names = list(reversed(found[0]))
    for place, name in enumerate(names):
        points = [values[name] for values in found]
        colour = OURS if name == ZMULE else OTHERS
        axes.plot(points, [place] * len(points), "-", color=colour)
        for mark, point in zip("o|x", points, strict=True):
            axes.plot(point, place, mark, color=colour, markersize=7)
    axes.set_yticks(range(len(names)), names)
    axes.set_xscale("log")
    axes.set_xlabel("µs: p50 ●  p99 |  p99.9 ×")
    axes.set_title(IDLE)


def tasks(axes: Axes, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if row["section"] == "tasks":
            ranking(axes, row["medians"])
            axes.set_title(row["name"])
            axes.set_xlabel(row["figure"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
