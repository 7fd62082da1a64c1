"""The page says what the results say."""

from __future__ import annotations

import json

from benchmarks.line import Row
from benchmarks.page import PAGE, PLOTS, RESULTS, figures, page
from benchmarks.report import document


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(json.loads(RESULTS.read_text())), "run scripts/bench --docs"


def test_each_plot_is_on_the_page() -> None:
    named = {line.partition("::")[2].strip() for line in PAGE.read_text().splitlines() if "image::" in line}
    assert named == {f"{PLOTS.name}/{path.name}" for path in PLOTS.glob("*.svg")}


def test_a_section_is_a_table_with_ratios_and_who_was_left_out() -> None:
    rows = [Row("sync", "a line", "p50 µs", {"zmule": [2.0, 4.0], "peer": [1.0, 1.0]}, {"other": "it ended"})]
    text = "\n".join(figures(document(rows, quick=False)["rows"]))
    assert "Sync\n~~~~" in text
    assert "peer   1       3 (2 to 4) ×" in text
    assert "other was left out: it ended" in text
