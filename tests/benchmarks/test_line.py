"""Contestants take turns, and one that cannot be had is left out."""

from __future__ import annotations

import pytest
from benchmarks.bars import AT_LEAST, AT_MOST, Bar, Verdict, verdicts
from benchmarks.line import Figures, Line, Ratio, Row, Skipped, measured, ratio, ratios
from benchmarks.report import document, text
from benchmarks.sections import startup


def test_the_order_changes_from_round_to_round() -> None:
    turns: list[str] = []

    def measure(name: str) -> Figures:
        turns.append(name)
        return {"figure": 1.0}

    measures = {name: lambda name=name: measure(name) for name in ("zmule", "one", "two")}
    [row] = measured(Line("section", "line", measures, 3))
    assert turns == ["zmule", "one", "two", "one", "two", "zmule", "two", "zmule", "one"]
    assert {name: len(values) for name, values in row.values.items()} == {"zmule": 3, "one": 3, "two": 3}


def test_who_cannot_be_had_is_left_out_with_the_reason_and_asked_once() -> None:
    asked: list[str] = []

    def absent() -> Figures:
        asked.append("absent")
        raise Skipped("it is not installed")

    [row] = measured(Line("section", "line", {"zmule": lambda: {"figure": 2.0}, "absent": absent}, 3))
    assert row.skipped == {"absent": "it is not installed"}
    assert row.values == {"zmule": [2.0, 2.0, 2.0]}
    assert asked == ["absent"]


def test_a_contestant_that_fails_later_has_no_figures_at_all() -> None:
    turns = iter([True, False])

    def fails() -> Figures:
        if next(turns):
            return {"figure": 1.0}
        raise Skipped("it ended")

    [row] = measured(Line("section", "line", {"zmule": lambda: {"figure": 2.0}, "peer": fails}, 3))
    assert list(row.values) == ["zmule"]
    assert ratio(row, "peer") is None


def test_with_nobody_left_the_line_says_why() -> None:
    def absent() -> Figures:
        raise Skipped("it is not installed")

    rows = measured(Line("section", "line", {"peer": absent}, 2))
    assert "peer                 skipped: it is not installed" in "\n".join(text(document(rows, quick=True)))


def test_a_ratio_is_taken_within_a_round() -> None:
    row = Row("section", "line", "figure", {"zmule": [1.0, 20.0, 9.0], "peer": [1.0, 10.0, 3.0]}, {})
    assert ratios(row, "peer") == [1.0, 2.0, 3.0]
    assert ratio(row, "peer") == Ratio(2.0, 1.0, 3.0)


@pytest.mark.parametrize(
    ("sign", "limit", "met"),
    [(AT_LEAST, 2.0, True), (AT_LEAST, 2.1, False), (AT_MOST, 2.0, True), (AT_MOST, 1.9, False)],
)
def test_a_bar_is_met_by_the_median(sign: str, limit: float, met: bool) -> None:
    assert Verdict(Bar("it", sign, limit, "line", "figure"), Ratio(2.0, 0.0, 9.0), "").met is met


def test_a_bar_that_was_not_measured_is_not_met_and_says_why() -> None:
    [verdict] = verdicts([Row("startup", startup.SEND, "", {}, {"zmule": "no"})])
    assert not verdict.met
    assert verdict.why_not == "no"
