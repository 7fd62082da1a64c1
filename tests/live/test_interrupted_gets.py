"""Handlers of operating system signals in the middle of gets: what they raise, and what they do."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pytest

from tests.conftest import PATIENCE, Zmuled, wait_until
from tests.injector import Struck, at_every_line
from zmule import current
from zmule.clients.sync import Client
from zmule.compat import uwsgi
from zmule.mules.mule import Mule


class Reader:
    """A mule's program, and what it has seen."""

    def __init__(self, zmuled: Zmuled) -> None:
        self.client: Client = zmuled.start("--max-deliveries=1000", "--redelivery-pause=0").client()
        self.mule = Mule(7, farms=["f"], endpoint=zmuled.endpoint)
        self.seen: set[str | bytes | None] = set()
        self.sent = 0

    def send(self) -> None:
        self.sent += 1
        self.client.farm_msg("f", str(self.sent))

    def see(self, body: str | bytes | None) -> None:
        self.seen.add(body.decode() if isinstance(body, bytes) else body)

    def catch_up(self) -> None:
        """See all that was sent: what nobody has seen comes again."""
        while len(self.seen - {None, ""}) < self.sent:
            body = self.mule.get_msg(timeout=PATIENCE)
            assert body is not None, f"of {self.sent} only {len(self.seen)} have come"
            self.see(body)


def accounted(zmuled: Zmuled) -> int:
    """How many are done, or in the queue for somebody else."""
    status = zmuled.status()
    waiting = sum(queue["ready"] + queue["delayed"] for queue in status["queues"].values())
    return int(status["totals"]["acked"] + waiting)


CALLS: dict[str, Callable[[Reader], object]] = {
    "get_msg": lambda reader: reader.see(reader.mule.get_msg(timeout=PATIENCE)),
    "farm_get_msg": lambda reader: reader.see(reader.mule.farm_get_msg(timeout=PATIENCE)),
    "mule_get_msg": lambda reader: reader.see(uwsgi.mule_get_msg()),
}


@pytest.fixture
def reader(zmuled: Zmuled, monkeypatch: pytest.MonkeyPatch) -> Reader:
    reader = Reader(zmuled)
    monkeypatch.setattr(current, "_mule", reader.mule)
    return reader


@pytest.mark.parametrize("call", CALLS)
def test_what_is_raised_in_a_get_loses_nothing(zmuled: Zmuled, reader: Reader, call: str) -> None:
    reader.send()
    for place in at_every_line(lambda: CALLS[call](reader)):
        assert place
        reader.catch_up()
        reader.send()
    reader.catch_up()
    reader.mule.ack()
    zmuled.wait_for_acks(reader.sent)
    reader.mule.close()
    assert zmuled.status()["totals"]["dead"] == 0


def test_what_is_raised_in_a_get_of_what_is_at_hand_loses_nothing(zmuled: Zmuled, reader: Reader) -> None:
    for _ in range(500):
        reader.sent += 1
        reader.client.farm_msg("f", str(reader.sent), wait=False)
    reader.client.flush()
    for _ in at_every_line(lambda: CALLS["get_msg"](reader)):
        pass
    reader.catch_up()
    reader.mule.close()
    wait_until(lambda: zmuled.status()["totals"]["acked"] == reader.sent, "their acks")


def test_what_is_raised_in_a_block_loses_nothing(zmuled: Zmuled, reader: Reader) -> None:
    def block() -> None:
        with reader.mule.message(timeout=PATIENCE) as message:
            assert message is not None
            reader.see(message.body)

    reader.send()
    for _ in at_every_line(block):
        reader.catch_up()
        reader.send()
    reader.catch_up()
    reader.mule.close()
    wait_until(lambda: zmuled.status()["totals"]["acked"] == reader.sent, "their acks")


@pytest.mark.parametrize("how", ["ack", "nack"])
def test_what_is_raised_in_an_ack_leaves_the_mule_usable(zmuled: Zmuled, reader: Reader, how: str) -> None:
    reader.send()
    CALLS["get_msg"](reader)
    for _ in at_every_line(getattr(reader.mule, how)):
        reader.send()
        reader.catch_up()
    reader.mule.close()
    wait_until(lambda: accounted(zmuled) == reader.sent, "every message to be done or to come again")


def test_a_handler_may_use_the_mule_at_any_line_of_a_get(zmuled: Zmuled, reader: Reader) -> None:
    def handler() -> None:
        reader.mule.ack()
        reader.see(reader.mule.get_msg(timeout=0))
        assert reader.mule.signal_registered(99) is False
        reader.send()
        reader.mule.nack()

    reader.send()
    for _ in at_every_line(lambda: CALLS["get_msg"](reader), handler):
        reader.send()
    reader.seen.discard(None)
    reader.catch_up()
    reader.mule.close()
    wait_until(lambda: zmuled.status()["totals"]["acked"] >= reader.sent - 1, "their acks")


def test_a_close_that_is_interrupted_can_be_done_again(zmuled: Zmuled) -> None:
    zmuled.start()
    mules: list[Mule] = []

    def close() -> None:
        mules[-1].close()

    mules.append(Mule(7, endpoint=zmuled.endpoint))
    for _ in at_every_line(close):
        mules[-1].close()
        mules.append(Mule(7, endpoint=zmuled.endpoint))
    wait_until(lambda: not zmuled.status()["mules"], "the farewell of the last")
    assert not any(thread.name == "zmule-receiver" for thread in threading.enumerate())


def test_a_soft_time_limit_in_a_get_that_waits(zmuled: Zmuled, reader: Reader) -> None:
    def ring(_number: int, _frame: object) -> None:
        raise Struck

    before = signal.signal(signal.SIGALRM, ring)
    try:
        for _ in range(20):
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            with pytest.raises(Struck):
                reader.mule.get_msg()
            reader.send()
            reader.catch_up()
    finally:
        signal.signal(signal.SIGALRM, before)
    reader.mule.close()
    wait_until(lambda: zmuled.status()["totals"]["acked"] == reader.sent, "their acks")
