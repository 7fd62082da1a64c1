"""Results as JSON and as a table for the terminal."""

from __future__ import annotations

import os
import platform
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bars import verdicts
from benchmarks.line import ZMULE, Ratio, Row, ratio
from benchmarks.processes import PEERS, SCRIPTS

PEERS_LIST = SCRIPTS / "peers.txt"
SERVERS = ("redis-server", "nats-server", "beanstalkd", "rabbitmq-server")

Document = dict[str, Any]


def document(rows: Sequence[Row], *, quick: bool) -> Document:
    """Return all results, ready for JSON."""
    return {
        "machine": {"run": "quick" if quick else "whole"} | machine(),
        "bars": [
            {
                "what": bar.what,
                "bar": bar.words,
                "reached": reached and reached._asdict(),
                "met": verdict.met,
                "why_not": verdict.why_not,
            }
            for verdict in verdicts(rows)
            for bar, reached in [(verdict.bar, verdict.reached)]
        ],
        "rows": [row_document(row) for row in rows],
    }


def row_document(row: Row) -> Document:
    ratios = {peer: ratio(row, peer) for peer in row.values if peer != ZMULE}
    return {
        "section": row.section,
        "name": row.name,
        "figure": row.figure,
        "medians": {name: statistics.median(values) for name, values in row.values.items()},
        "values": row.values,
        "ratios": {peer: found._asdict() for peer, found in ratios.items() if found},
        "skipped": row.skipped,
    }


def machine() -> dict[str, str]:
    """Return on what the figures were taken, and when."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=SCRIPTS, capture_output=True, text=True, check=False
    )
    return {
        "taken": time.strftime("%Y-%m-%d %H:%M %Z"),
        "commit": described.stdout.strip(),
        "processor": processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": ", ".join(packages()),
        "servers": ", ".join(servers()),
        "load": f"{os.getloadavg()[0]:.2f} at its end",
    }


def packages() -> list[str]:
    """Return the peers' Python packages that scripts/peers has installed, with their versions."""
    wanted = {re.split(r"[^\w-]", name)[0].lower() for name in PEERS_LIST.read_text().split()}
    found = sorted(PEERS.parent.glob("lib/*/site-packages/*.dist-info"), key=lambda path: path.name.lower())
    pairs = [path.name.removesuffix(".dist-info").partition("-") for path in found]
    return [f"{name} {version}" for name, _, version in pairs if name.lower().replace("_", "-") in wanted]


def servers() -> list[str]:
    """Return the peers' servers with the versions of their Debian packages, if that is what they are."""
    if (asked := shutil.which("dpkg-query")) is None:
        return []
    command = [asked, "-W", "-f", "${Package} ${Version}\n", *SERVERS]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return told.stdout.splitlines()


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def text(results: Document) -> Iterator[str]:
    """Yield the lines of a report for the terminal."""
    section = ""
    for row in results["rows"]:
        if row["section"] != section:
            section = row["section"]
            yield f"\n{section}"
        yield f"  {row['name']}: {row['figure']}"
        for name, median in row["medians"].items():
            yield f"    {name:20} {number(median):>10}{beside(row['ratios'].get(name))}"
        yield from (f"    {name:20} skipped: {why}" for name, why in row["skipped"].items())
    yield from bars_text(results["bars"])


def bars_text(bars: Sequence[Document]) -> Iterator[str]:
    """Yield the table of bars."""
    if bars:
        yield "\nbars"
    for bar in bars:
        met = "met" if bar["met"] else "NOT MET"
        yield f"  {bar['what']:42} {bar['bar']:30} {reached_text(bar):24} {met}"


def reached_text(bar: Document) -> str:
    """Return what was reached, with its spread."""
    return spread(Ratio(**bar["reached"])) if bar["reached"] else f"not measured: {bar['why_not']}"


def beside(found: dict[str, float] | None) -> str:
    return f"   zmule is {spread(Ratio(**found))} of it" if found else ""


def spread(found: Ratio) -> str:
    return f"{number(found.median)} ({number(found.least)} to {number(found.most)})"


def number(value: float) -> str:
    """Return a number with three digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
