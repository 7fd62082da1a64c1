"""Signals as the loop finds them."""

from __future__ import annotations

import select
import signal
from collections.abc import Iterator

import pytest

from zmule.daemon.alarm import STOP_SIGNALS, Alarm


@pytest.fixture(autouse=True)
def dispositions() -> Iterator[None]:
    """Leave this process as it was."""
    before = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGCHLD)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def test_what_came_is_told_once_in_order() -> None:
    with Alarm() as alarm:
        assert alarm.take() == []
        for number in (signal.SIGINT, signal.SIGCHLD, signal.SIGTERM, signal.SIGCHLD, signal.SIGTERM):
            signal.raise_signal(number)
        assert select.select([alarm], [], [], 30.0)[0]
        assert alarm.take() == [signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGTERM]
        assert alarm.take() == []
        assert not select.select([alarm], [], [], 0.0)[0]


def test_no_crowd_of_dead_children_hides_a_stop() -> None:
    with Alarm() as alarm:
        for _ in range(5000):
            signal.raise_signal(signal.SIGCHLD)
        signal.raise_signal(signal.SIGTERM)
        assert alarm.take() == [signal.SIGCHLD, signal.SIGTERM]


def test_what_nohup_has_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Alarm() as alarm:
        signal.raise_signal(signal.SIGHUP)
        assert alarm.take() == []


def test_signals_that_were_blocked_are_let_through() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
    signal.raise_signal(signal.SIGTERM)
    with Alarm() as alarm:
        assert alarm.take() == [signal.SIGTERM]
        assert signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_after_a_clean_end_they_are_ignored_and_after_another_they_kill() -> None:
    with Alarm():
        pass
    assert {signal.getsignal(number) for number in STOP_SIGNALS} == {signal.SIG_IGN}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with pytest.raises(ZeroDivisionError), Alarm():
        raise ZeroDivisionError
    assert {signal.getsignal(number) for number in STOP_SIGNALS} == {signal.SIG_DFL}
