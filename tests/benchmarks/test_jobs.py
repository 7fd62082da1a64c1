"""The ideal schedule, and the gaps in a real one."""

from __future__ import annotations

from benchmarks.jobs import LONG, LONG_ONES, Job, ideal, longest_gap, shuffled


def test_the_order_of_jobs_is_always_the_same() -> None:
    lengths = shuffled(100)
    assert lengths == shuffled(100)
    assert lengths.count(LONG) == LONG_ONES
    assert lengths != sorted(lengths)


def test_the_ideal_schedule_gives_each_job_to_the_mule_that_is_free_first() -> None:
    assert ideal([3, 1, 1, 1, 4], 2) == 7
    assert ideal([5], 4) == 5


def test_a_mule_that_waits_while_a_job_does_has_a_gap() -> None:
    jobs = [Job(1, 10, 20), Job(2, 10, 100), Job(1, 70, 90)]
    assert longest_gap(jobs, 0) == 50


def test_a_mule_that_has_nothing_left_to_begin_has_none() -> None:
    jobs = [Job(1, 10, 20), Job(2, 10, 100), Job(1, 20, 30)]
    assert longest_gap(jobs, 0) == 0


def test_a_mule_that_ends_before_the_last_job_begins_has_one() -> None:
    jobs = [Job(1, 0, 10), Job(2, 0, 40), Job(2, 40, 50)]
    assert longest_gap(jobs, 0) == 30
