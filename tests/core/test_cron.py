"""zmule.core.cron against the rules said in another way: for each field, the set of values it stands for."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmule.core.cron import IntegerCron, integer_cron

MINUTE = timedelta(minutes=1)
A_SUNDAY = datetime(2023, 12, 31)
LEAP_YEAR = [datetime(2028, 1, 1) + n * timedelta(days=1) for n in range(366)]
ONE_DAY = [datetime(2028, 2, 29) + n * MINUTE for n in range(24 * 60)]

MINUTES, HOURS = [*range(60), *range(-60, 0)], [*range(24), *range(-24, 0)]
DAYS, MONTHS = [*range(1, 32), *range(-31, 0)], [*range(1, 13), *range(-12, 0)]
WEEKDAYS = [*range(8), *range(-7, 0)]

rules = st.builds(
    integer_cron,
    *(st.just(-1) | st.sampled_from(values) for values in (MINUTES, HOURS, DAYS, MONTHS, WEEKDAYS)),
)
moments = st.datetimes(datetime(2024, 1, 1), datetime(2032, 12, 31))


@cache
def stands_for(field: int) -> frozenset[int]:
    """What a field matches: itself, or the multiples of n, of which 0 is one."""
    return frozenset({field} if field >= 0 else range(0, 60, -field))


def expected_on(rule: IntegerCron, day: datetime) -> bool:
    weekday = ((day - A_SUNDAY) // timedelta(days=1)) % 7
    weekdays = stands_for(rule.weekday) | ({0} if rule.weekday == 7 else set())
    hits = [day.day in stands_for(rule.day), weekday in weekdays]
    one_will_do = rule.day > 0 and rule.weekday >= 0
    return day.month in stands_for(rule.month) and (any(hits) if one_will_do else all(hits))


def expected(rule: IntegerCron, local: datetime) -> bool:
    at_this_time = local.minute in stands_for(rule.minute) and local.hour in stands_for(rule.hour)
    return at_this_time and expected_on(rule, local)


def all_expected(rule: IntegerCron) -> list[datetime]:
    times = [(hour, minute) for hour in range(24) for minute in range(60)]
    times = [(h, m) for h, m in times if h in stands_for(rule.hour) and m in stands_for(rule.minute)]
    days = [day for day in LEAP_YEAR if expected_on(rule, day)]
    return [day.replace(hour=hour, minute=minute) for day in days for hour, minute in times]


def rule(minute: int = -1, hour: int = -1, day: int = -1, month: int = -1, weekday: int = -1) -> IntegerCron:
    return integer_cron(minute, hour, day, month, weekday)


def days_of_month(found: IntegerCron, month: int) -> list[int]:
    return [day.day for day in LEAP_YEAR if day.month == month and found.matches(day)]


def test_every_day_with_every_weekday_over_a_leap_year() -> None:
    for day in DAYS:
        for weekday in WEEKDAYS:
            tried = rule(day=day, weekday=weekday)
            assert [tried.matches(date) for date in LEAP_YEAR] == [
                expected(tried, date) for date in LEAP_YEAR
            ]


def test_every_month_over_a_leap_year() -> None:
    for month in MONTHS:
        for tried in (rule(month=month), rule(month=month, day=13, weekday=5)):
            assert [tried.matches(date) for date in LEAP_YEAR] == [
                expected(tried, date) for date in LEAP_YEAR
            ]


def test_every_minute_and_every_hour_over_a_day() -> None:
    for tried in [rule(minute=minute) for minute in MINUTES] + [rule(hour=hour) for hour in HOURS]:
        assert [tried.matches(local) for local in ONE_DAY] == [expected(tried, local) for local in ONE_DAY]


@pytest.mark.parametrize(
    "tried",
    [rule(-7, -5, -2, -3, -2), rule(59, 23, 31, 12, 0), rule(0, 12, 13, -1, 5), rule(-20, 3, 29, 2, -1)],
    ids=str,
)
def test_the_chain_of_next_minutes_is_every_match_of_a_leap_year(tried: IntegerCron) -> None:
    chain, local = [], tried.next_after(datetime(2027, 12, 31, 23, 59, 59))
    while local is not None and local.year == 2028:
        chain.append(local)
        local = tried.next_after(local)
    assert chain == all_expected(tried)


def test_uwsgi_counts_minus_n_by_division_not_from_the_first() -> None:
    assert days_of_month(rule(day=-2), 2) == list(range(2, 29, 2))
    assert [month for month in range(1, 13) if days_of_month(rule(month=-5), month)] == [5, 10]
    assert {f"{day:%a}" for day in LEAP_YEAR if rule(weekday=-2).matches(day)} == {"Sun", "Tue", "Thu", "Sat"}
    assert {f"{day:%a}" for day in LEAP_YEAR if rule(weekday=-7).matches(day)} == {"Sun"}
    assert {local.hour for local in ONE_DAY if rule(hour=-5).matches(local)} == {0, 5, 10, 15, 20}
    assert {local.minute for local in ONE_DAY if rule(minute=-60).matches(local)} == {0}


def test_day_and_weekday_are_either_or_only_as_two_values() -> None:
    assert days_of_month(rule(day=13, weekday=5), 10) == [6, 13, 20, 27]
    assert days_of_month(rule(day=14, weekday=5), 10) == [6, 13, 14, 20, 27]
    assert days_of_month(rule(day=14, weekday=0), 10) == [1, 8, 14, 15, 22, 29]
    assert days_of_month(rule(day=14, weekday=7), 10) == [1, 8, 14, 15, 22, 29]
    assert days_of_month(rule(day=14, weekday=-1), 10) == [14]
    assert days_of_month(rule(day=14, weekday=-2), 10) == [14]
    assert days_of_month(rule(day=13, weekday=-2), 10) == []
    assert days_of_month(rule(day=-2, weekday=5), 10) == [6, 20]


def test_the_next_minute_begins_after_the_moment() -> None:
    assert rule().next_after(datetime(2028, 2, 28, 23, 59)) == datetime(2028, 2, 29)
    assert rule().next_after(datetime(2028, 2, 28, 23, 58, 59, 999_999)) == datetime(2028, 2, 28, 23, 59)
    assert rule(30, 4).next_after(datetime(2028, 1, 1, 4, 30)) == datetime(2028, 1, 2, 4, 30)
    assert rule(30, 4).next_after(datetime(2028, 1, 1, 4, 29, 59)) == datetime(2028, 1, 1, 4, 30)
    assert rule(0, 0, 1, 1).next_after(datetime(2028, 12, 31, 23, 59, 30)) == datetime(2029, 1, 1)


def test_the_longest_wait_is_found_and_what_never_comes_is_not() -> None:
    a_leap_day_on_sunday = rule(0, 0, 29, 2, -7)
    assert a_leap_day_on_sunday.next_after(datetime(2088, 2, 29)) == datetime(2128, 2, 29)
    assert rule(0, 0, 30, 2).next_after(datetime(2028, 1, 1)) is None
    assert rule(0, 0, -31, -11).next_after(datetime(2028, 1, 1)) is None


@given(rules, moments)
def test_next_matches_and_nothing_before_it_does(tried: IntegerCron, local: datetime) -> None:
    found = tried.next_after(local)
    end = found or local + timedelta(days=3)
    if found is not None:
        assert found > local
        assert (found.second, found.microsecond) == (0, 0)
        assert expected(tried, found)
    first = local.replace(second=0, microsecond=0) + MINUTE
    between = [first + n * MINUTE for n in range(min((end - first) // MINUTE, 400))]
    between += [end - n * MINUTE for n in range(1, 400) if end - n * MINUTE >= first]
    assert not any(expected(tried, minute) for minute in between)


@given(rules, moments)
def test_matches_is_the_rule(tried: IntegerCron, local: datetime) -> None:
    assert tried.matches(local) == expected(tried, local)


@pytest.mark.parametrize(
    ("field", "values", "bad"),
    [
        ("minute", MINUTES, [60, -61]),
        ("hour", HOURS, [24, -25]),
        ("day", DAYS, [0, 32, -32]),
        ("month", MONTHS, [0, 13, -13]),
        ("weekday", WEEKDAYS, [8, -8]),
    ],
)
def test_a_field_out_of_range_is_refused_by_name(field: str, values: list[int], bad: list[int]) -> None:
    for value in values:
        rule(**{field: value})
    for value in [*bad, 10**30]:
        with pytest.raises(ValueError, match=rf"^cron {field} must be \d to \d+, or -1 .*, not {value}$"):
            rule(**{field: value})


@pytest.mark.parametrize("value", [True, 1.0, "1", None])
def test_a_field_that_is_no_integer_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="cron hour must be 0 to 23"):
        rule(hour=value)  # type: ignore[arg-type]
