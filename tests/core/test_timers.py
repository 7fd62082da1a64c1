"""zmule.core.timers: by example, and against a model."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from zmule.core.timers import ENTRIES_PER_ASKER, Source, Timers

TEN = 28_000_000 * 60.0
"""Some minute of the wall clock."""


class Every(NamedTuple):
    """A schedule that matches the minutes of the epoch that `minutes` divides."""

    minutes: int

    @property
    def spec(self) -> str:
        return f"every {self.minutes} min"

    def next_after(self, wall: float) -> float | None:
        return 60.0 * self.minutes * (wall // (60 * self.minutes) + 1)


class Never(NamedTuple):
    spec: str = "never"

    def next_after(self, wall: float) -> float | None:
        return None


def run(timers: Timers, start: float, seconds: int, step: int = 1) -> list[tuple[int, int]]:
    """Let wall clock and monotonic clock go on together; return (second, signal) of what was raised."""
    times = range(0, seconds, step)
    return [(second, signal) for second in times for signal in timers.due(float(second), start + second)]


# Timers.


def test_a_timer_fires_one_period_after_it_began_and_then_at_each() -> None:
    timers = Timers()
    timers.add_timer(3, 2.5, "config", 100.0)
    assert timers.next_deadline(100.0, 0.0) == 102.5
    assert timers.due(102.4, 0.0) == []
    assert timers.due(102.6, 0.0) == [3]
    assert timers.next_deadline(102.6, 0.0) == 105.0


def test_an_hour_of_a_tenth_of_a_second_without_drift() -> None:
    timers, start = Timers(), 12_345.678
    timers.add_timer(1, 0.1, "config", start)
    for fire in range(1, 36_001):
        at = timers.next_deadline(0.0, 0.0) or 0.0
        assert abs(at - (start + fire / 10)) < 1e-6
        assert timers.due(at + (fire % 7) / 100, 0.0) == [1]


def test_after_a_stall_it_fires_once_and_stays_on_its_grid() -> None:
    timers = Timers()
    timers.add_timer(1, 10.0, "config", 0.0)
    assert timers.due(1234.0, 0.0) == [1]
    assert timers.due(1234.0, 0.0) == []
    assert timers.next_deadline(1234.0, 0.0) == 1240.0


def test_a_stall_of_years_takes_no_time() -> None:
    timers = Timers()
    timers.add_timer(1, 0.001, "config", 0.0)
    assert timers.due(1e9, 0.0) == [1]
    assert timers.next_deadline(1e9, 0.0) == pytest.approx(1e9 + 0.001)


def test_iterations_are_counted_and_the_timer_is_gone_after_the_last() -> None:
    timers = Timers()
    timers.add_rb_timer(5, 1.0, 3, "a", 0.0)
    assert run(timers, TEN, 10) == [(1, 5), (2, 5), (3, 5)]
    assert timers.status(10.0, TEN) == []
    assert timers.next_deadline(10.0, TEN) is None
    timers.validate()


def test_a_timer_that_has_run_out_stays_so_unless_it_is_wanted_anew() -> None:
    timers = Timers()
    source = timers.add_rb_timer(5, 1.0, 1, "a", 0.0)
    assert run(timers, TEN, 3) == [(1, 5)]
    for asker in ("a", "b"):
        assert timers.add_rb_timer(5, 1.0, 1, asker, 10.0) == source
    assert timers.status(10.0, TEN) == []
    timers.add_rb_timer(5, 1.0, 1, "b", 10.0, anew=True)
    assert timers.due(11.0, TEN) == [5]
    assert timers.add_rb_timer(5, 1.0, 2, "b", 10.0) != source, "another one is another one"
    assert timers.remove(source) is False
    timers.add_rb_timer(5, 1.0, 1, "c", 20.0)
    assert len(timers.status(20.0, TEN)) == 2, "what was removed can be added afresh"
    timers.validate()


def test_removing_all_of_a_signal_lets_those_that_have_run_out_begin_afresh() -> None:
    timers = Timers()
    timers.add_rb_timer(5, 1.0, 1, "a", 0.0)
    assert timers.due(1.0, TEN) == [5]
    assert timers.remove_all("rb_timer", 5) == 0
    timers.add_rb_timer(5, 1.0, 1, "a", 1.0)
    assert timers.due(2.0, TEN) == [5]


def test_only_so_many_that_have_run_out_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmule.core.timers.RECENT_ENTRIES", 2)
    timers = Timers()
    for signal in (1, 2, 3):
        timers.add_rb_timer(signal, 1.0, 1, "a", 0.0)
    assert timers.due(1.0, TEN) == [1, 2, 3]
    for signal in (1, 2, 3):
        timers.add_rb_timer(signal, 1.0, 1, "a", 1.0)
    assert timers.due(2.0, TEN) == [1]


def test_no_seconds_are_at_once_and_then_every_second() -> None:
    timers = Timers()
    timers.add_rb_timer(5, 0, 3, "a", 10.0)
    assert timers.next_deadline(10.0, TEN) == 10.0
    assert timers.due(10.0, TEN) == [5]
    assert [timers.due(10.5, TEN), timers.due(11.0, TEN), timers.due(12.0, TEN)] == [[], [5], [5]]
    assert timers.next_deadline(12.0, TEN) is None
    timers.validate()


def test_an_iteration_that_has_raised_nothing_does_not_count() -> None:
    timers = Timers()
    timers.add_rb_timer(5, 1.0, 2, "a", 0.0)
    raises = iter([True, False, False, True])
    for second in range(1, 5):
        assert timers.due(float(second), TEN, lambda signal: next(raises)) == [5]
        timers.validate()
    assert timers.status(10.0, TEN) == []


def test_no_iterations_are_endless() -> None:
    timers = Timers()
    timers.add_rb_timer(5, 1.0, 0, "a", 0.0)
    assert len(run(timers, TEN, 100)) == 99


@pytest.mark.parametrize("seconds", [0, -1, 0.0009, float("nan"), float("inf"), 1e10])
def test_a_period_out_of_range_is_refused(seconds: float) -> None:
    timers = Timers()
    with pytest.raises(
        ValueError, match=rf"^the period of a timer is 0\.001 to 1000000000 s, not {seconds}$"
    ):
        timers.add_timer(1, seconds, "a", 0.0)
    if seconds:
        with pytest.raises(ValueError, match="period"):
            timers.add_rb_timer(1, seconds, 0, "a", 0.0)
    with pytest.raises(ValueError, match=r"iterations .* not -1$"):
        timers.add_rb_timer(1, 1.0, -1, "a", 0.0)
    timers.validate()


# Entries and who asks for them.


def test_the_same_again_is_the_same() -> None:
    timers = Timers()
    for asker in ("a", "b"):
        for mono in (0.0, 1.0):
            assert timers.add_timer(1, 3, asker, mono) == Source("timer", 1, "every 3.0 s")
            assert timers.add_rb_timer(1, 3.0, 2, asker, mono) == Source(
                "rb_timer", 1, "every 3.0 s, 2 times"
            )
            assert timers.add_cron(1, Every(5), asker, TEN) == Source("cron", 1, "every 5 min")
    assert timers.due(3.0, TEN) == [1, 1]
    assert [(row["kind"], row["askers"]) for row in timers.status(3.0, TEN)] == [
        ("timer", 2),
        ("rb_timer", 2),
        ("cron", 2),
    ]


def test_other_parameters_are_other_entries() -> None:
    timers = Timers()
    timers.add_timer(1, 3.0, "a", 0.0)
    timers.add_timer(1, 3.0000001, "a", 0.0)
    timers.add_timer(2, 3.0, "a", 0.0)
    timers.add_rb_timer(1, 3.0, 0, "a", 0.0)
    timers.add_rb_timer(1, 3.0, 1, "a", 0.0)
    assert len(timers.status(0.0, TEN)) == 5


def test_an_entry_goes_with_the_last_that_asks_for_it() -> None:
    timers = Timers()
    timers.add_timer(1, 1.0, "a", 0.0)
    timers.add_timer(1, 1.0, "b", 0.0)
    timers.add_cron(2, Every(1), "a", TEN)
    timers.drop("a")
    timers.drop("a")
    assert [row["signal"] for row in timers.status(0.0, TEN)] == [1]
    timers.drop("b")
    assert timers.status(0.0, TEN) == []
    assert timers.next_deadline(0.0, TEN) is None
    assert timers.due(100.0, TEN + 600) == []


def test_remove_asks_nobody() -> None:
    timers = Timers()
    source = timers.add_timer(1, 1.0, "a", 0.0)
    timers.add_timer(1, 1.0, "config", 0.0)
    assert timers.remove(source)
    assert not timers.remove(source)
    assert timers.due(100.0, TEN) == []
    timers.validate()


def test_one_that_asks_without_end_harms_only_itself() -> None:
    timers = Timers()
    for number in range(ENTRIES_PER_ASKER):
        timers.add_timer(1, 1.0 + number, "a", 0.0)
    with pytest.raises(ValueError, match="one process can ask for 10000"):
        timers.add_timer(1, 0.5, "a", 0.0)
    with pytest.raises(ValueError, match="one process can ask for 10000"):
        timers.add_cron(1, Every(1), "a", TEN)
    timers.add_timer(1, 1.0, "a", 0.0)
    timers.add_timer(1, 0.5, "b", 0.0)
    timers.validate()


def test_signals_come_in_the_order_in_which_they_were_due_whatever_the_clock() -> None:
    timers = Timers()
    timers.add_timer(3, 65.0, "a", 0.0)
    timers.add_timer(1, 50.0, "a", 0.0)
    timers.add_cron(2, Every(1), "a", TEN)
    timers.add_timer(4, 65.0, "b", 0.0)
    assert timers.due(70.0, TEN + 70) == [1, 2, 3, 4]


def test_status() -> None:
    timers = Timers()
    timers.add_rb_timer(7, 2.0, 4, "a", 10.0)
    timers.add_cron(8, Every(5), "a", TEN + 60)
    timers.add_cron(9, Never(), "a", TEN)
    timers.due(12.5, TEN + 62)
    common = {"askers": 1, "fired": 0}
    assert timers.status(13.0, TEN + 63) == [
        {
            "kind": "rb_timer",
            "signal": 7,
            "spec": "every 2.0 s, 4 times",
            "askers": 1,
            "fired": 1,
            "next_in_s": 1.0,
        },
        {
            "kind": "cron",
            "signal": 8,
            "spec": "every 5 min",
            **common,
            "next_in_s": 237.0,
        },
        {"kind": "cron", "signal": 9, "spec": "never", **common, "next_in_s": None},
    ]


def test_thousands_of_entries_cost_no_scan() -> None:
    class Counted(NamedTuple):
        minutes: int
        calls: list[int]

        @property
        def spec(self) -> str:
            return str(self.minutes)

        def next_after(self, wall: float) -> float | None:
            self.calls.append(self.minutes)
            return Every(self.minutes).next_after(wall)

    timers, calls = Timers(), []  # type: ignore[var-annotated]
    for minutes in range(2, 3000):
        timers.add_cron(1, Counted(minutes, calls), "a", 60.0)
    calls.clear()
    assert timers.due(0.0, 119.0) == []
    assert calls == []
    assert timers.due(0.0, 120.0) == [1]
    assert calls == [2]


# Cron entries and the wall clock.


def test_a_cron_entry_fires_once_as_each_matching_minute_begins() -> None:
    timers = Timers()
    timers.add_cron(1, Every(5), "a", TEN - 3)
    assert run(timers, TEN - 3, 903) == [(3, 1), (303, 1), (603, 1)]


def test_a_new_entry_does_not_fire_in_the_minute_under_way() -> None:
    timers = Timers()
    timers.add_cron(1, Every(5), "a", TEN)
    assert timers.due(0.0, TEN) == []
    assert run(timers, TEN, 301) == [(300, 1)]


def test_with_a_cron_entry_the_clock_is_looked_at_every_minute() -> None:
    timers = Timers()
    timers.add_cron(1, Every(60), "a", TEN + 60)
    assert timers.next_deadline(500.0, TEN + 60) == 560.0
    hour = Every(60).next_after(TEN + 60) or 0.0
    assert timers.next_deadline(500.0, hour - 5) == 505.0
    assert timers.next_deadline(500.0, hour + 5) == 500.0
    timers.add_timer(1, 0.5, "a", 500.0)
    assert timers.next_deadline(500.0, TEN + 60) == 500.5


def test_a_clock_set_back_repeats_nothing() -> None:
    timers = Timers()
    timers.add_cron(1, Every(1), "a", TEN - 1)
    assert len(run(timers, TEN, 3600)) == 60
    assert run(timers, TEN + 1800, 1800, 7) == []
    assert run(timers, TEN + 3600, 120) == [(0, 1), (60, 1)]


def test_a_clock_set_forward_makes_up_for_what_it_passed_over_once() -> None:
    timers = Timers()
    timers.add_cron(1, Every(10), "a", TEN + 1)
    assert timers.due(0.0, TEN + 7200) == [1]
    assert timers.due(1.0, TEN + 7201) == []


def test_what_was_missed_by_more_than_three_hours_is_let_go() -> None:
    first = Every(600).next_after(TEN)
    assert first is not None
    for late, raised in ((180 * 60.0, [1]), (181 * 60.0, [])):
        timers = Timers()
        timers.add_cron(1, Every(600), "a", first - 1)
        assert timers.due(0.0, first + late) == raised
        assert timers.due(1.0, first + 600 * 60) == [1]


def test_of_several_that_were_missed_the_last_may_be_recent_enough() -> None:
    first = Every(200).next_after(TEN) or 0.0
    for late, raised in ((180, [1]), (181, [])):
        timers = Timers()
        timers.add_cron(1, Every(200), "a", first - 1)
        assert timers.due(0.0, first + 60 * (200 + late)) == raised


def test_a_clock_that_was_wrong_by_years_starts_anew() -> None:
    timers, ahead = Timers(), TEN + 12 * 365 * 86_400
    timers.add_cron(1, Every(1), "a", ahead)
    assert timers.due(60.0, ahead + 60) == [1]
    assert timers.due(61.0, TEN) == []
    assert timers.due(121.0, TEN + 60) == [1]


def test_what_was_dropped_while_the_clock_was_wrong_starts_anew_too() -> None:
    timers = Timers()
    timers.add_cron(1, Every(1), "a", TEN + 86_400)
    timers.drop("a")
    timers.due(0.0, TEN)
    timers.add_cron(1, Every(1), "a", TEN)
    assert timers.due(60.0, TEN + 60) == [1]


def test_a_restart_within_the_minute_does_not_fire_twice() -> None:
    before, after = Timers(), Timers()
    before.add_cron(1, Every(1), "config", TEN - 10)
    assert before.due(0.0, TEN) == [1]
    assert before.settled() == {Source("cron", 1, "every 1 min"): TEN // 60}
    after.restore(before.settled(), TEN + 2)
    after.add_cron(1, Every(1), "config", TEN + 2)
    assert after.due(0.0, TEN + 2) == []
    assert after.due(58.0, TEN + 60) == [1]


def test_a_restart_over_the_boundary_makes_up_for_the_minute_under_way_only() -> None:
    before = Timers()
    before.add_cron(1, Every(5), "config", TEN - 100)
    for seconds, raised in ((2.0, [1]), (59.0, [1]), (60.0, [])):
        after = Timers()
        after.restore(before.settled(), TEN + seconds)
        after.add_cron(1, Every(5), "config", TEN + seconds)
        assert after.due(0.0, TEN + seconds) == raised


def test_who_asked_before_a_restart_may_come_back_after_the_broker() -> None:
    timers = Timers()
    timers.restore({Source("cron", 1, "every 5 min"): int(TEN // 60) - 1000}, TEN - 1)
    assert timers.due(0.0, TEN + 1) == []
    timers.add_cron(1, Every(5), "mule", TEN + 2)
    assert timers.due(0.0, TEN + 2) == [1]


def test_a_restart_with_the_clock_set_back_repeats_nothing_unless_it_was_wrong() -> None:
    source = Source("cron", 1, "every 1 min")
    for minutes, raised in ((100, []), (181, [1])):
        timers = Timers()
        timers.restore({source: int(TEN // 60) + minutes}, TEN)
        timers.add_cron(1, Every(1), "config", TEN)
        assert timers.due(0.0, TEN + 60) == raised


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(("second_step", "raised"), [(30, []), (31, [1])])
def test_a_clock_set_back_in_two_steps_is_as_in_one_also_with_a_restart_between(
    restart: bool, second_step: int, raised: list[int]
) -> None:
    timers = Timers()
    timers.add_cron(1, Every(1), "config", TEN)
    back = TEN - 150 * 60
    assert timers.due(0.0, back) == []
    if restart:
        settled, timers = timers.settled(), Timers()
        timers.restore(settled, back)
        timers.add_cron(1, Every(1), "config", back)
    back -= second_step * 60
    assert timers.due(1.0, back) == []
    assert timers.due(61.0, back + 60) == raised


def test_only_what_is_settled_too_far_ahead_of_the_clock_starts_anew() -> None:
    timers = Timers()
    timers.add_cron(1, Every(1), "a", TEN - 100 * 60)
    timers.add_cron(2, Every(1), "a", TEN)
    assert timers.due(0.0, TEN - 200 * 60) == []
    assert timers.due(60.0, TEN - 199 * 60) == [2]


def test_the_only_process_that_asks_may_restart_while_the_clock_is_set_back() -> None:
    timers = Timers()
    timers.add_cron(1, Every(1), "mule", TEN)
    back = TEN - 150 * 60
    timers.due(0.0, back)
    timers.drop("mule")
    timers.due(1.0, back + 600)
    timers.add_cron(1, Every(1), "mule again", back + 600)
    assert timers.due(2.0, TEN) == []
    assert timers.due(3.0, TEN + 60) == [1]


def test_the_only_process_that_asks_may_restart_over_the_boundary() -> None:
    timers = Timers()
    timers.add_cron(1, Every(5), "mule", TEN - 10)
    timers.drop("mule")
    assert timers.due(0.0, TEN + 1) == []
    timers.add_cron(1, Every(5), "mule again", TEN + 2)
    assert timers.due(0.0, TEN + 2) == [1]
    timers.drop("mule again")
    timers.add_cron(1, Every(5), "and again", TEN + 4)
    assert timers.due(0.0, TEN + 4) == []


def test_so_may_one_whose_entry_has_not_fired_for_long() -> None:
    timers = Timers()
    timers.add_cron(1, Every(1000), "mule", TEN - 600 * 60)
    timers.due(0.0, TEN - 60)
    timers.drop("mule")
    timers.due(0.0, TEN + 1)
    timers.add_cron(1, Every(1000), "mule", TEN + 2)
    assert timers.due(0.0, TEN + 2) == [1]


def test_an_entry_that_was_gone_for_long_is_new() -> None:
    timers = Timers()
    timers.add_cron(1, Every(5), "mule", TEN - 10)
    timers.drop("mule")
    timers.due(0.0, TEN + 240)
    assert timers.settled() == {}
    timers.add_cron(1, Every(5), "mule", TEN + 302)
    assert timers.due(0.0, TEN + 303) == []


def test_who_adds_and_drops_for_ever_costs_no_memory() -> None:
    timers = Timers()
    for minutes in range(1, 12_000):
        timers.add_cron(1, Every(minutes), "a", TEN)
        timers.drop("a")
    assert len(timers.settled()) == 10_000
    timers.validate()


class Machine(RuleBasedStateMachine):
    """The model: for each entry its askers, and either its start or the minute up to which it is settled.

    What nobody asks for any more is `recent` for a while. Periods are binary fractions, so that
    counting ticks is exact.
    """

    def __init__(self) -> None:
        super().__init__()
        self.timers = Timers()
        self.mono, self.wall = 64.0, TEN
        self.seen = 64.0
        self.askers: dict[Source, set[Hashable]] = {}
        self.starts: dict[Source, tuple[float, float]] = {}
        self.left: dict[Source, int] = {}
        self.spent: set[Source] = set()
        self.crons: dict[Source, tuple[int, int]] = {}
        self.recent: dict[Source, int] = {}

    @initialize()
    def begin(self) -> None:
        self.look()

    @property
    def minute(self) -> int:
        return int(self.wall // 60)

    def look(self) -> None:
        """Raise what is due, and compare it with what the model says."""
        expected: list[int] = []
        for source, (start, seconds) in list(self.starts.items()):
            if (self.mono - start) // seconds > (max(self.seen, start) - start) // seconds:
                expected.append(source.signal)
                if source in self.left:
                    self.left[source] -= 1
                    if not self.left[source]:
                        self.gone(source)
                        self.spent.add(source)
        now = self.minute
        self.recent = {s: until for s, until in self.recent.items() if now - 2 <= until <= now + 180}
        for source, (every, until) in self.crons.items():
            match = now - now % every
            if match > until and match >= now - 180:
                expected.append(source.signal)
            if match > until or until > now + 180:
                self.crons[source] = every, now
        raised = self.timers.due(self.mono, self.wall)
        assert sorted(raised) == sorted(expected)
        self.seen = self.mono

    def gone(self, source: Source) -> None:
        for table in (self.askers, self.starts, self.left, self.crons):
            table.pop(source, None)

    @rule(asker=st.sampled_from("ab"), signal=st.integers(0, 1), seconds=st.sampled_from([0.25, 1.0, 7.5]))
    def add_timer(self, asker: str, signal: int, seconds: float) -> None:
        source = self.timers.add_timer(signal, seconds, asker, self.mono)
        self.askers.setdefault(source, set()).add(asker)
        self.starts.setdefault(source, (self.mono, seconds))

    @rule(asker=st.sampled_from("ab"), iterations=st.integers(0, 3), anew=st.booleans())
    def add_rb_timer(self, asker: str, iterations: int, anew: bool) -> None:
        source = self.timers.add_rb_timer(2, 2.0, iterations, asker, self.mono, anew=anew)
        if anew:
            self.spent.discard(source)
        if source in self.spent:
            return
        self.askers.setdefault(source, set()).add(asker)
        self.starts.setdefault(source, (self.mono, 2.0))
        if iterations:
            self.left.setdefault(source, iterations)

    @rule(asker=st.sampled_from("ab"), every=st.sampled_from([1, 3, 500]))
    def add_cron(self, asker: str, every: int) -> None:
        source = self.timers.add_cron(3, Every(every), asker, self.wall)
        self.askers.setdefault(source, set()).add(asker)
        if source not in self.crons:
            until = self.recent.pop(source, self.minute)
            self.crons[source] = every, max(until, self.minute - 1)
        self.look()

    @rule(asker=st.sampled_from("ab"))
    def drop(self, asker: str) -> None:
        self.timers.drop(asker)
        for source, askers in list(self.askers.items()):
            askers.discard(asker)
            if not askers:
                if source in self.crons:
                    self.recent[source] = max(self.crons[source][1], self.minute - 1)
                self.gone(source)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        source = data.draw(st.sampled_from([*self.askers, Source("cron", 9, "unknown")]))
        assert self.timers.remove(source) == (source in self.askers)
        self.gone(source)

    @rule(seconds=st.sampled_from([0.0, 0.5, 3.25, 59.0, 61.0]))
    def advance(self, seconds: float) -> None:
        self.mono += seconds
        self.wall += seconds
        self.look()

    @rule(hours=st.sampled_from([0.5, 3.5]))
    def stall(self, hours: float) -> None:
        self.advance(3600 * hours)

    @rule(minutes=st.sampled_from([-400, -150, -90, -1, 1, 90, 170, 400, 600_000]))
    def set_clock(self, minutes: int) -> None:
        self.wall += 60 * minutes
        self.look()

    @rule(minutes=st.sampled_from([-400, -150, 0, 1, 5, 400]))
    def restart_the_broker(self, minutes: int) -> None:
        """It is back when the clock is so much later; all who asked ask again at once; timers begin anew."""
        settled = self.timers.settled()
        self.timers = Timers()
        self.wall += 60 * minutes
        self.timers.restore(settled, self.wall)
        self.starts.clear()
        self.left.clear()
        self.spent.clear()
        for source in list(self.askers):
            if source.kind != "cron":
                del self.askers[source]
        until_now = {**self.recent, **{source: until for source, (_, until) in self.crons.items()}}
        latest = self.minute + 180
        self.recent = {s: max(until, self.minute - 1) for s, until in until_now.items() if until <= latest}
        for source, (every, _) in list(self.crons.items()):
            self.crons[source] = every, self.recent.pop(source, self.minute)
            for asker in self.askers[source]:
                assert self.timers.add_cron(3, Every(every), asker, self.wall) == source
        self.look()

    @invariant()
    def agrees(self) -> None:
        self.timers.validate()
        rows = self.timers.status(self.mono, self.wall)
        assert {(row["kind"], row["signal"], row["spec"]): row["askers"] for row in rows} == {
            source: len(askers) for source, askers in self.askers.items()
        }
        at = self.timers.next_deadline(self.mono, self.wall)
        assert (at is None) == (not self.askers)
        assert at is None or at > self.mono
        assert at is None or not self.crons or at <= self.mono + 60


TestTimers = Machine.TestCase
TestTimers.settings = settings(max_examples=25, stateful_step_count=50)
