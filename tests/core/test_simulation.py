"""The simulation breaks no promise, and finds those that are broken on purpose."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.core.planted import BUGS, Plant, bury_too_early, count_no_attempts
from zmule.testing.simulation import Failure, parse, play, shrink, tell

SCRIPT = Path(__file__).parents[2] / "scripts" / "simulate.py"
SEEDS = 10_000
BOUND = 1000
"""Seeds within which each planted bug must be found."""


def found(seeds: Iterable[int]) -> Failure | None:
    """Return the first failure among the seeds."""
    return next((failure for seed in seeds if (failure := play(seed))), None)


@pytest.mark.timeout(600)
def test_no_seed_breaks_a_promise() -> None:
    done = subprocess.run([sys.executable, SCRIPT, f"--seeds={SEEDS}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{SEEDS} seeds" in done.stdout


def test_a_failure_is_made_short_told_and_played_again(monkeypatch: pytest.MonkeyPatch) -> None:
    count_no_attempts(monkeypatch)
    failure = found(range(BOUND))
    assert failure is not None
    short = shrink(failure)
    assert len(short.steps) < 20 < len(failure.steps)
    story = tell(short)
    assert story.endswith(f"# Violation: {short.error}")
    seed, steps = parse(f"something before it\n{story}\nand after it\n")
    assert (seed, steps) == (short.seed, short.steps)
    again = play(seed, steps)
    assert again is not None
    assert str(again.error) == str(short.error)


def test_a_seed_is_always_the_same_story(monkeypatch: pytest.MonkeyPatch) -> None:
    bury_too_early(monkeypatch)
    first, second = found(range(BOUND)), found(range(BOUND))
    assert first is not None
    assert second is not None
    assert tell(first) == tell(second)


@pytest.mark.timeout(300)  # some are found late, and processors may be busy
@pytest.mark.parametrize("plant", BUGS, ids=lambda plant: plant.__name__.replace("_", " "))
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    failure = found(range(BOUND))
    assert failure is not None
    assert isinstance(failure.error, AssertionError), failure
    print(failure.seed, failure.error)
    monkeypatch.undo()
    assert play(failure.seed) is None
