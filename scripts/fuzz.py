"""Throws damaged frames at the wire module, at a broker's core and at those of its peers, on all cores.

Frames are half-way sensible, so that they get far, with something wrong in their values, their bytes, or
both. A failure is anything but `ProtocolError` out of `decode` or a peer's session, any exception out of the
broker, a broken invariant, or something said that the wire or the store could not take. It is told with the
bytes of the last frame; `--seed` and `--frames` as printed play the whole way to it again.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from fuzz_broker import FuzzedBroker
from fuzz_daemon import ordeal
from fuzz_peers import FuzzedPeers

CHUNK = 50_000
"""Frames that one broker gets, or one broker's peers."""

WARM = 100_000
"""Frames after which a process has all the memory that it should need."""


class Task(NamedTuple):
    """One share: its seed, odd for peers and even for a broker, and how many frames there are."""

    seed: int
    frames: int


class Outcome(NamedTuple):
    """What came of a task: `failure` is its story, `growth` in KiB since the process was warm."""

    frames: int
    decoded: int
    growth: int
    failure: str | None


_warm: int | None = None
_played = 0


def play(task: Task) -> Outcome:
    """Attack, up to the first failure."""
    global _warm, _played
    target = FuzzedPeers(task.seed) if task.seed % 2 else FuzzedBroker(task.seed)
    for number in range(1, task.frames + 1):
        try:
            target.turn(number)
        except Exception as error:
            return Outcome(number, target.decoded, 0, story(task.seed, number, target.last, error))
        _played += 1
        if _played == WARM:
            _warm = peak()
    growth = 0 if _warm is None else peak() - _warm
    return Outcome(task.frames, target.decoded, growth, None)


def peak() -> int:
    """Return the most memory that this process has had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def story(seed: int, number: int, data: bytes, error: Exception) -> str:
    """Tell of a failure."""
    trace = "".join(traceback.format_exception(error))
    again = f"scripts/fuzz --seed {seed} --frames {number} --jobs 1"
    return f"frame {number} of seed {seed}; again by: {again}\nlast frame: {data.hex()}\n{trace}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Play what the arguments ask for; return 1 if anything failed."""
    options = parser().parse_args(arguments)
    if options.zmtp:
        return ordeal(options.zmtp, options.seed)
    if options.atheris:
        return coverage_guided(options.atheris)
    begun, frames, decoded, growth = time.monotonic(), 0, 0, 0
    shares = range(0, options.frames, CHUNK)
    tasks = [Task(options.seed + at, min(CHUNK, options.frames - place)) for at, place in enumerate(shares)]
    failure = None
    with get_context("spawn").Pool(options.jobs) as pool:
        for outcome in pool.imap_unordered(play, tasks):
            frames, decoded = frames + outcome.frames, decoded + outcome.decoded
            growth, failure = max(growth, outcome.growth), outcome.failure
            if failure is not None:
                break
    seconds = time.monotonic() - begun
    print(
        f"{frames} frames, {decoded} of them well-formed, in {seconds:.1f} s: {frames / seconds:.0f} a second"
    )
    print(f"peak memory of a process: {growth} KiB more than after {WARM} frames")
    print(failure or "nothing but ProtocolError, and every invariant held")
    return 1 if failure else 0


def parser() -> argparse.ArgumentParser:
    """Return what reads the arguments."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--frames", type=int, default=1_000_000, metavar="N", help="how many frames, default %(default)s")
    add("--seed", type=int, default=0, metavar="K", help="the first share's seed, default %(default)s")
    add("--jobs", type=int, default=os.cpu_count(), metavar="N", help="processes, default one for each core")
    add("--zmtp", type=int, metavar="N", help="attack a real zmuled N times with raw ZMTP on each endpoint")
    add("--atheris", type=int, metavar="SECONDS", help="fuzz decode by coverage, if atheris is installed")
    return parser


def coverage_guided(seconds: int) -> int:
    """Have atheris look for bytes that break `decode`, for so many seconds."""
    if find_spec("atheris") is None:
        print("scripts/fuzz: atheris is not installed; try without --atheris", file=sys.stderr)
        return 1
    script = Path(__file__).with_name("fuzz_wire.py")
    return subprocess.run([sys.executable, script, f"-max_total_time={seconds}", "-max_len=4096"]).returncode


if __name__ == "__main__":
    sys.exit(main())
