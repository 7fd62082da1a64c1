"""The generated parts of docs/performance.rst, and its plots: `scripts/bench --docs`.

They are made from docs/performance.json, which is the output of a whole run; what is between them is written
by hand.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from itertools import groupby

from benchmarks.line import Ratio
from benchmarks.processes import PEERS_PYTHON, SCRIPTS, clean_environ, module
from benchmarks.report import Document, number, reached_text, spread
from docs import part, refreshed, table

DOCS = SCRIPTS.parent / "docs"
RESULTS, PAGE, PLOTS = DOCS / "performance.json", DOCS / "performance.rst", DOCS / "performance"


def write() -> None:
    """Write the parts and draw the plots."""
    results = json.loads(RESULTS.read_text())
    PAGE.write_text(page(results))
    module("matplotlib")
    PLOTS.mkdir(exist_ok=True)
    command = [str(PEERS_PYTHON), "-m", "benchmarks.plots", str(RESULTS), str(PLOTS)]
    subprocess.run(command, env=clean_environ(), check=True)


def page(results: Document) -> str:
    """Return the page as it should be."""
    parts = {
        "machine": lambda: machine(results["machine"]),
        "bars": lambda: bars(results["bars"]),
        "figures": lambda: figures(results["rows"]),
    }
    return refreshed(PAGE.read_text(), [part(name, lines) for name, lines in parts.items()])


def machine(facts: dict[str, str]) -> Iterator[str]:
    yield from (f"- {name}: {fact}" for name, fact in facts.items())


def bars(found: Iterable[Document]) -> Iterator[str]:
    rows = [(bar["what"], bar["bar"], reached_text(bar), "yes" if bar["met"] else "**no**") for bar in found]
    yield from table(("What", "Bar", "Reached (spread)", "Met"), rows)


def figures(rows: Iterable[Document]) -> Iterator[str]:
    """Yield a table for each section."""
    for section, own in groupby(rows, lambda row: str(row["section"])):
        yield f"{section.capitalize()}\n{'~' * len(section)}\n"
        for name, figures in groupby(own, lambda row: str(row["name"])):
            yield f"**{name}**\n"
            yield from line(list(figures))
            yield ""


def line(rows: list[Document]) -> Iterator[str]:
    """Yield a line's table, and who was left out."""
    contestants = dict.fromkeys(name for row in rows for name in row["medians"])
    if contestants:
        head = ("", *(text for row in rows for text in columns(row, row["figure"], "zmule is")))
        cells = [(name, *(text for row in rows for text in cell(row, name))) for name in contestants]
        yield from table(head, cells)
    yield from (f"\n{name} was left out: {why}" for name, why in rows[0]["skipped"].items())


def cell(row: Document, name: str) -> tuple[str, ...]:
    """Return a contestant's figure, and how zmule's is to it."""
    found, median = row["ratios"].get(name), row["medians"].get(name)
    beside = f"{spread(Ratio(**found))} ×" if found else ""
    return columns(row, "" if median is None else number(median), beside)


def columns(row: Document, figure: str, beside: str) -> tuple[str, ...]:
    """Return the columns of a figure: the second only where there is somebody beside zmule."""
    return (figure, beside) if row["ratios"] else (figure,)
