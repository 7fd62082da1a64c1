"""The guard fails by the best round, and if there is none."""

from __future__ import annotations

import pytest
from benchmarks.guard import Limit, check
from benchmarks.line import Figures, Line, Skipped


def line(ours: list[float]) -> Line:
    """Return a line in which the relay's figure is always 1."""
    turns = iter(ours)
    measures = {"zmule": lambda: {"figure": next(turns)}, "relay": lambda: {"figure": 1.0}}
    return Line("guard", "a line", measures, len(ours))


@pytest.mark.parametrize(
    ("limit", "kept"),
    [
        (Limit(line([0.1, 2.0, 0.2]), 2.0, at_least=True), True),
        (Limit(line([0.1, 1.9, 0.2]), 2.0, at_least=True), False),
        (Limit(line([9.0, 2.0, 8.0]), 2.0, at_least=False), True),
        (Limit(line([9.0, 2.1, 8.0]), 2.0, at_least=False), False),
    ],
)
def test_the_best_round_counts(limit: Limit, kept: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(limit) is kept
    assert capsys.readouterr().out.endswith(f": {'kept' if kept else 'NOT KEPT'}\n")


def test_what_cannot_be_measured_is_not_kept(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> Figures:
        raise Skipped("it ended")

    broken = Line("guard", "a line", {"zmule": fails, "relay": lambda: {"figure": 1.0}}, 1)
    assert not check(Limit(broken, 0.0, at_least=True))
    assert "it ended" in capsys.readouterr().out
