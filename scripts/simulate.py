"""Plays many seeds of `zmule.testing`, on all cores; the first that breaks a promise is made short and told.

What it tells, it plays again: `scripts/simulate --story FILE`, `-` for standard input.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path

from zmule.testing.simulation import STEPS, Failure, parse, play, shrink, tell

CHUNK = 50
"""Seeds that a process plays in one go."""

Task = tuple[range, int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Play what the arguments ask for; return 1 if a promise was broken."""
    options = parser().parse_args(arguments)
    if options.story is not None:
        text = sys.stdin.read() if options.story == "-" else Path(options.story).read_text()
        seed, steps = parse(text)
        return report(play(seed, steps), shorter=False)
    if options.seed is not None and options.seeds is None:
        return report(play(options.seed, count=options.steps), shorter=True)
    return play_all(range(first := options.seed or 0, first + (options.seeds or 10_000)), options)


def parser() -> argparse.ArgumentParser:
    """Return what reads the arguments."""
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    add = parser.add_argument
    add("--seeds", type=int, metavar="N", help="how many seeds to play, default 10000")
    add("--seed", type=int, metavar="K", help="the first; without --seeds, the only one")
    add("--steps", type=int, default=STEPS, metavar="N", help="steps of each, default %(default)s")
    add("--jobs", type=int, default=os.cpu_count(), metavar="N", help="processes, default one for each core")
    add("--story", metavar="FILE", help="play what a failure was told as")
    return parser


def play_all(seeds: range, options: argparse.Namespace) -> int:
    """Play the seeds; show how far it is if somebody looks."""
    begun, done = time.monotonic(), 0
    failure = None
    for played, failure in results(seeds, options.steps, options.jobs):
        done += played
        show(done, len(seeds), begun)
        if failure is not None:
            break
    seconds = time.monotonic() - begun
    print(f"{done} seeds of {options.steps} steps in {seconds:.1f} s: ", end="")
    if failure is None:
        print("every promise held")
        return 0
    print(f"seed {failure.seed} breaks a promise\n")
    return report(failure, shorter=True)


def results(seeds: range, steps: int, jobs: int) -> Iterator[tuple[int, Failure | None]]:
    """Yield, a chunk at a time and in order, how many seeds were played and the first failure among them."""
    tasks = [(seeds[place : place + CHUNK], steps) for place in range(0, len(seeds), CHUNK)]
    with get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(play_chunk, tasks)


def play_chunk(task: Task) -> tuple[int, Failure | None]:
    """Play some seeds up to the first failure."""
    seeds, steps = task
    gc.disable()
    for seed in seeds:
        if (failure := play(seed, count=steps)) is not None:
            return len(seeds), failure
    gc.collect()
    return len(seeds), None


def show(done: int, count: int, begun: float) -> None:
    """Show how far it is, on a terminal."""
    if sys.stderr.isatty():
        rate = done / (time.monotonic() - begun)
        end = "\r" if done < count else "\n"
        print(f"{done} of {count} seeds, {rate:.0f} a second ", end=end, file=sys.stderr, flush=True)


def report(failure: Failure | None, *, shorter: bool) -> int:
    """Tell of a failure; return the exit status."""
    if failure is None:
        print("every promise held")
        return 0
    if shorter:
        print("making it shorter ...", file=sys.stderr)
        failure = shrink(failure)
    print(tell(failure))
    return 1


if __name__ == "__main__":
    sys.exit(main())
