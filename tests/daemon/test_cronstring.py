"""zmule.daemon.cronstring: where clocks are put forward and back, against cronsim and minute by minute."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from zmule.core.cron import IntegerCron
from zmule.daemon.cronstring import Schedule, integer_schedule, string_schedule

ROME = ZoneInfo("Europe/Rome")
SPRING = datetime(2028, 3, 26, tzinfo=ROME)
AUTUMN = datetime(2028, 10, 29, tzinfo=ROME)
DAY = 24 * 3600
CHANGES = ["Europe/Rome", "Australia/Lord_Howe", "America/Havana", "Africa/Cairo", "Pacific/Apia", "UTC"]

EXPRESSIONS = [
    "30 2 * * *",
    "0,30 1-4 * * *",
    "* * * * *",
    "*/15 * * * *",
    "30 * * * *",
    "*/20 2 * * *",
    "0 */2 * * *",
    "15 3 * * SUN",
    "0 0 L * *",
    "59 23 29 * 1",
]


@pytest.fixture(params=["named", "system"])
def rome(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str | None]:
    """Rome as a named zone, and as the zone of the system."""
    if request.param == "named":
        yield "Europe/Rome"
        return
    monkeypatch.setenv("TZ", "Europe/Rome")
    time.tzset()
    yield None
    monkeypatch.undo()
    time.tzset()


def fires(schedule: Schedule, start: datetime, days: float = 1) -> list[str]:
    """When it fires from `start` on: local times, and the offset to UTC."""
    wall, end = start.timestamp() - 1, start.timestamp() + days * DAY
    found = []
    while (at := schedule.next_after(wall)) is not None and at < end:
        assert at > wall
        found.append(f"{datetime.fromtimestamp(at, ROME):%H:%M %z}")
        wall = at
    return found


def test_these_are_the_days_on_which_rome_changes_its_clocks() -> None:
    for day, hours in ((SPRING, 23), (AUTUMN, 25)):
        assert (day + timedelta(days=1)).timestamp() - day.timestamp() == hours * 3600


@pytest.mark.parametrize("fixed", [integer_schedule, string_schedule])
def test_a_fixed_time_fires_once_on_either_day(fixed: object, rome: str | None) -> None:
    if fixed is integer_schedule:
        schedule = integer_schedule(30, 2, -1, -1, -1, rome)
    else:
        schedule = string_schedule("30 2 * * *", rome)
    assert fires(schedule, SPRING) == ["03:00 +0200"]
    assert fires(integer_schedule(10, 2, -1, -1, -1, rome), SPRING) == ["03:00 +0200"]
    assert fires(schedule, SPRING + timedelta(days=1)) == ["02:30 +0200"]
    assert fires(schedule, AUTUMN) == ["02:30 +0200"]
    assert fires(schedule, AUTUMN + timedelta(days=1)) == ["02:30 +0100"]


def test_a_gap_that_swallows_several_times_fires_once(rome: str | None) -> None:
    assert fires(string_schedule("0,15,45 2-3 * * *", rome), SPRING)[:3] == [
        "03:00 +0200",
        "03:15 +0200",
        "03:45 +0200",
    ]


def test_an_interval_goes_by_the_real_minutes(rome: str | None) -> None:
    for schedule in (integer_schedule(30, -1, -1, -1, -1, rome), string_schedule("30 * * * *", rome)):
        assert fires(schedule, SPRING)[:3] == ["00:30 +0100", "01:30 +0100", "03:30 +0200"]
        assert fires(schedule, AUTUMN)[1:4] == ["01:30 +0200", "02:30 +0200", "02:30 +0100"]
        assert (len(fires(schedule, SPRING, 23 / 24)), len(fires(schedule, AUTUMN, 25 / 24))) == (23, 25)


def test_an_interval_within_the_skipped_hour_has_no_minutes_to_fire_in(rome: str | None) -> None:
    schedule = integer_schedule(-20, 2, -1, -1, -1, rome)
    assert fires(schedule, SPRING) == []
    both = [f"02:{minute} {offset}" for offset in ("+0200", "+0100") for minute in ("00", "20", "40")]
    assert fires(schedule, AUTUMN) == both


def test_begun_within_the_doubled_hour_what_was_due_in_its_first_pass_is_over(rome: str | None) -> None:
    second_pass = AUTUMN.replace(hour=2, minute=10, fold=1)
    assert fires(string_schedule("30 2 * * *", rome), second_pass, 0.5) == []
    assert fires(string_schedule("*/30 * * * *", rome), second_pass, 1 / 24) == ["02:30 +0100", "03:00 +0100"]


@pytest.mark.parametrize("text", EXPRESSIONS)
@pytest.mark.parametrize("start", [SPRING, AUTUMN], ids=["spring", "autumn"])
def test_a_cron_string_fires_as_cronsim_says(text: str, start: datetime) -> None:
    simulated: list[str] = []
    for found in CronSim(text, start - timedelta(seconds=1)):
        if found.timestamp() >= start.timestamp() + 3 * DAY:
            break
        if (shown := f"{found:%d %H:%M %z}") not in simulated:
            simulated.append(shown)
    wall = start.timestamp() - 1
    for shown in simulated:
        at = string_schedule(text, "Europe/Rome").next_after(wall)
        assert at is not None
        assert f"{datetime.fromtimestamp(at, ROME):%d %H:%M %z}" == shown
        wall = at


intervals = st.builds(
    integer_schedule,
    st.sampled_from([-1, -7, -30]),
    st.sampled_from([-1, -5, 0, 2, 3, 23]),
    st.sampled_from([-1, -2, 26, 29]),
    st.sampled_from([-1, 3, 10]),
    st.sampled_from([-1, 0, -3]),
    st.sampled_from(CHANGES),
)


@given(intervals, st.integers(int(datetime(2028, 1, 1).timestamp()), int(datetime(2029, 1, 1).timestamp())))
def test_an_interval_fires_in_the_first_real_minute_that_reads_so(schedule: Schedule, wall: int) -> None:
    rule, zone, first = schedule.rule, schedule.zone, wall // 60 + 1
    assert isinstance(rule, IntegerCron)
    found = schedule.next_after(wall)
    last = int(found // 60) if found is not None else first + 4000
    assert found is None or found == 60 * last
    assert found is None or rule.matches(datetime.fromtimestamp(found, zone))
    checked = {*range(first, min(first + 500, last)), *range(max(first, last - 1000), last)}
    assert not any(rule.matches(datetime.fromtimestamp(60 * minute, zone)) for minute in checked)


@given(st.sampled_from(CHANGES), st.sampled_from([0, 15, 59]), st.integers(0, 23))
def test_a_fixed_time_fires_once_on_every_day_of_the_year(zone: str, minute: int, hour: int) -> None:
    schedule = integer_schedule(minute, hour, -1, -1, -1, zone)
    days: list[date] = []
    wall = datetime(2028, 1, 1, tzinfo=ZoneInfo(zone)).timestamp() - 1
    while (at := schedule.next_after(wall)) is not None and len(days) < 366:
        days.append(datetime.fromtimestamp(at, ZoneInfo(zone)).date())
        wall = at
    assert days == [datetime(2028, 1, 1).date() + timedelta(days=n) for n in range(366)]


def test_a_whole_day_that_is_skipped_fires_at_its_end() -> None:
    """Samoa had no 30th of December 2011."""
    wall = datetime(2011, 12, 29, 12, tzinfo=ZoneInfo("Pacific/Apia")).timestamp()
    at = integer_schedule(0, 12, 30, 12, -1, "Pacific/Apia").next_after(wall)
    assert at == datetime(2011, 12, 31, tzinfo=ZoneInfo("Pacific/Apia")).timestamp()


def test_what_never_comes() -> None:
    assert integer_schedule(0, 0, 30, 2, -1, "Europe/Rome").next_after(0.0) is None
    assert integer_schedule(-1, 0, 30, 2, -1, "Europe/Rome").next_after(0.0) is None


def test_schedules_are_the_same_if_their_text_is() -> None:
    assert integer_schedule(0, 5, -1, -1, 7).spec == "0 5 -1 -1 7"
    assert integer_schedule(0, 5, -1, -1, 7, "UTC").spec == "0 5 -1 -1 7 UTC"
    assert string_schedule(" 0  5 * * mon ", "UTC") == string_schedule("0 5 * * MON", "UTC")
    assert string_schedule("0 5 * * mon", "UTC").spec == "0 5 * * MON UTC"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("61 * * * *", "cron string '61 * * * *': bad minute"),
        ("* 24 * * *", "bad hour"),
        ("* * 0 * *", "bad day-of-month"),
        ("0 0 31 2 *", "bad day-of-month"),
        ("* * * 13 *", "bad month"),
        ("* * * * FRIDAY", "bad day-of-week"),
        ("*/0 * * * *", "bad minute"),
        ("", "write minute hour day month weekday"),
        ("* * * *", "write minute hour day month weekday"),
        ("0 * * * * *", "write minute hour day month weekday"),
        ("@daily", "write minute hour day month weekday"),
        ("0," * 100 + "0 * * * *", "write minute hour day month weekday"),
    ],
)
def test_a_bad_string_is_one_clear_line(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=r"^cron string ") as caught:
        string_schedule(text)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@given(
    st.text(max_size=30)
    | st.lists(st.text("*/-,#LW0123456789MON²", min_size=1), min_size=5, max_size=5).map(" ".join)
)
def test_a_string_makes_a_schedule_or_a_value_error(text: str) -> None:
    try:
        schedule = string_schedule(text, "Europe/Rome")
    except ValueError:
        return
    at = schedule.next_after(1.8e9)
    assert at is None or at > 1.8e9


@pytest.mark.parametrize(
    "zone", ["Europe/Atlantis", "", "Europe", "../etc/passwd", "/etc/localtime", "a\0b", "x" * 5000]
)
def test_a_zone_that_is_none(zone: str) -> None:
    with pytest.raises(ValueError, match=r"^no time zone .*IANA name"):
        string_schedule("* * * * *", zone)
