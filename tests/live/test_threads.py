"""Threads and signal handlers that meet in one client, or in one mule."""

from __future__ import annotations

import signal
import threading

import pytest

from tests.conftest import PATIENCE, Alarm, Zmuled
from zmule.core.outbox import plain
from zmule.errors import ZmuleError
from zmule.mules import hands
from zmule.mules.mule import Mule


def test_what_another_thread_has_taken_up_does_not_hide_what_is_posted_next(zmuled: Zmuled) -> None:
    client = zmuled.start("--mule").client()
    client.ping()
    with Mule(2, endpoint=zmuled.endpoint) as mule:
        driver = client._drivers[0]
        driver.outbox.posted.append((plain("mule:2"), "one", 3, driver.outbox.confirmed))
        driver.guarded(driver.exchange)  # as if between the two lines of `_post`
        client.mule_msg("two", 2, wait=False)
        assert [mule.get_msg(timeout=10), mule.get_msg(timeout=10)] == ["one", "two"]


def test_what_is_posted_while_the_client_closes_is_an_error(
    zmuled: Zmuled, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = zmuled.start("--mule").client()
    client.mule_msg("in time", wait=False)
    end, told = client._end, []

    def late() -> None:
        for wait in ({"wait": False}, {"wait": False, "timeout": 1.0}):
            with pytest.raises(ZmuleError, match="being closed"):
                client.mule_msg("late", **wait)
            told.append(wait)
        end()

    monkeypatch.setattr(client, "_end", late)
    client.close()
    assert len(told) == 2


def test_a_client_that_was_closed_connects_no_more(zmuled: Zmuled) -> None:
    client = zmuled.start("--mule").client()
    client.mule_msg("one", wait=False)
    client._end()
    client._drivers[0].outbox.posted.append((plain("any"), "two", 3, 0))
    with pytest.raises(ZmuleError, match="closed"):
        client.flush()
    assert client._drivers[0]._connection.socket is None


def test_a_mule_that_is_closed_can_be_rung_by_a_late_signal(zmuled: Zmuled) -> None:
    zmuled.start("--mule")
    mule = Mule(endpoint=zmuled.endpoint)
    mule.close()
    mule.ack()
    mule._receiver.wake()


def test_a_lock_that_a_handler_made_give_up_goes_to_the_next(zmuled: Zmuled) -> None:
    def ring(_number: int, _frame: object) -> None:
        raise Alarm

    holder = zmuled.start("--mule").client()
    gives_up, following = zmuled.client(), zmuled.client()
    gives_up.ping()
    before = signal.signal(signal.SIGALRM, ring)
    try:
        with holder.lock("gate"):
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(Alarm):
                gives_up.lock("gate").acquire()
        with following.lock("gate", timeout=10):
            pass
    finally:
        signal.signal(signal.SIGALRM, before)


def test_the_end_of_a_thread_is_a_return_as_far_as_can_be_told(
    zmuled: Zmuled, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_and_end() -> None:
        thread = threading.Thread(target=mule.get_msg, kwargs={"timeout": PATIENCE})
        thread.start()
        thread.join()
        assert mule.working() == 0

    monkeypatch.setattr(threading, "excepthook", hands._note_failure)  # pytest may have put its own there
    client = zmuled.start().client()
    with Mule(endpoint=zmuled.endpoint) as mule:
        client.mule_msg("of a thread that returns")
        take_and_end()
        assert mule.get_msg(timeout=0) is None
        zmuled.wait_for_acks(1)
        monkeypatch.setattr(threading, "excepthook", lambda _: None)
        client.mule_msg("of one that may have failed")
        take_and_end()
        with mule.message(timeout=PATIENCE) as message:
            assert message is not None
            assert (message.body, message.attempt) == ("of one that may have failed", 2)
