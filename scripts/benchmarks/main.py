"""The command line: `scripts/bench [guard | SECTION ...] [--quick] [--json] [--output FILE]`, or `--docs`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from types import FrameType

from benchmarks import page, report, sections
from benchmarks.effort import FULL, QUICK
from benchmarks.guard import guard
from benchmarks.line import Skipped, run

GUARD = "guard"
WORDS = ", ".join(sections.NAMES)


def main() -> int:
    """Run the sections that were asked for; print what came out."""
    signal.signal(signal.SIGTERM, stop)
    options = parse()
    if options.sections == [GUARD]:
        return guard()
    if options.docs:
        return make_page()
    effort = QUICK if options.quick else FULL
    chosen = options.sections or sections.NAMES
    lines = (line for section in chosen for line in sections.lines(section, effort))
    rows = run(lines, effort.seconds)
    results = report.document(rows, quick=options.quick)
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results) if options.json else "\n".join(report.text(results)))
    return 0


def make_page() -> int:
    try:
        page.write()
    except Skipped as reason:
        print(f"scripts/bench: no plots: {reason}", file=sys.stderr)
        return 1
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measures zmule beside its peers, in turns, as ratios."
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{GUARD}, or some of {WORDS}")
    parser.add_argument("--quick", action="store_true", help="two minutes: what the bars need")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--docs", action="store_true", help=f"make the page from {page.RESULTS.name}")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write JSON to a file, too")
    options = parser.parse_args()
    if options.sections != [GUARD] and (unknown := set(options.sections) - set(sections.NAMES)):
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {WORDS}")
    return options


def stop(number: int, frame: FrameType | None) -> None:
    """End as one does who was asked to: with nothing left running."""
    sys.exit(128 + number)
