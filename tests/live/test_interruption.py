"""A handler that raises, or calls the client again, at every line of a call of the client's."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable

import pytest

from tests.conftest import PATIENCE, Zmuled, wait_until
from tests.injector import at_every_line
from zmule.clients.sync import Client
from zmule.errors import ZmuleError
from zmule.mules.mule import Mule

numbers = itertools.count(1)


class Books:
    """What was sent, and how that ended; what came."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.safe: list[str] = []
        self.unknown: list[str] = []

    def send(self, *, wait: bool) -> None:
        """Send the next message; that it is unknown holds until it is known."""
        text = str(next(numbers))
        self.unknown.append(text)
        self.client.mule_msg(text, 2, wait=wait)
        self.unknown.remove(text)
        self.safe.append(text)

    def check(self, mule: Mule) -> None:
        """Fail unless every message has come once, and of those that were interrupted each once at most."""
        self.client.flush()
        came: Counter[str] = Counter()
        while sum(came[text] for text in self.safe) < len(self.safe):
            message = mule.get_msg(timeout=PATIENCE)
            assert message is not None, set(self.safe) - set(came)
            came[str(message)] += 1
        while (message := mule.get_msg(timeout=0)) is not None:
            came[str(message)] += 1
        assert not [text for text, count in came.items() if count > 1]
        assert set(came) <= {*self.safe, *self.unknown}


def is_usable_by_others(client: Client) -> None:
    """Fail if another thread cannot use the client."""
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            client.is_locked("free")
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert not failures


def calls(client: Client, books: Books) -> dict[str, Callable[[], None]]:
    def post_and_flush() -> None:
        books.send(wait=False)
        client.flush()

    def post_many() -> None:
        for _ in range(3):
            books.send(wait=False)

    def lock() -> None:
        with client.lock("struck", timeout=PATIENCE):
            pass

    def ask() -> None:
        client.status()

    return {
        "send": lambda: books.send(wait=True),
        "post": post_many,
        "flush": post_and_flush,
        "lock": lock,
        "ask": ask,
    }


NAMES = ["send", "post", "flush", "lock", "ask"]


@pytest.mark.parametrize("what", NAMES)
def test_a_strike_at_any_line_does_no_harm(zmuled: Zmuled, what: str) -> None:
    client = zmuled.start().client()
    other = zmuled.client()
    with Mule(2, endpoint=zmuled.endpoint) as mule:
        books = Books(client)
        call = calls(client, books)[what]
        call()
        for place in at_every_line(call):
            is_usable_by_others(client)
            books.send(wait=True)
            if what == "lock":
                with other.lock("struck", timeout=PATIENCE):
                    pass
            assert len(client._drivers) == 1, place
        books.check(mule)


def test_a_strike_at_any_line_leaves_the_locks_of_others_alone(zmuled: Zmuled) -> None:
    client = zmuled.start().client()
    books = Books(client)
    with Mule(2, endpoint=zmuled.endpoint) as mule, client.lock("held") as lock:
        token = lock.token
        for _ in at_every_line(lambda: books.send(wait=True)):
            assert client.is_locked("held")
        assert zmuled.status()["locks"][1]["token"] == token
        books.check(mule)


def test_a_strike_at_any_line_of_the_first_call(zmuled: Zmuled) -> None:
    zmuled.start()
    with Mule(2, endpoint=zmuled.endpoint) as mule:
        client = zmuled.client()
        for _ in at_every_line(lambda: client.mule_msg("x", 2, wait=False)):  # noqa: B023
            client.mule_msg("y", 2)
            client.close()
            client = zmuled.client()
        client.close()
        assert mule.get_msg(timeout=0) in ("x", "y")
        for _ in at_every_line(lambda: Client(zmuled.endpoint)):
            pass


def test_a_strike_at_any_line_of_a_close(zmuled: Zmuled) -> None:
    zmuled.start()
    client = zmuled.client()
    client.mule_msg("x", wait=False)
    for _ in at_every_line(lambda: client.close()):  # noqa: B023
        client.close()
        with pytest.raises(ZmuleError, match="closed"):
            client.ping()
        client = zmuled.client()
        client.mule_msg("x", wait=False)
    wait_until(lambda: not [each for each in threading.enumerate() if each.name == "zmule-pump"])


@pytest.mark.parametrize("what", NAMES)
def test_a_call_at_any_line_of_another(zmuled: Zmuled, what: str) -> None:
    client = zmuled.start().client(timeout=PATIENCE)
    with Mule(2, endpoint=zmuled.endpoint) as mule:
        books = Books(client)
        for name in NAMES:
            nested = calls(client, books)[name]
            if name == "lock":

                def nested() -> None:
                    with client.lock("nested", timeout=PATIENCE):
                        pass

            call = calls(client, books)[what]
            for _ in at_every_line(call, nested):
                pass
        assert not books.unknown
        books.check(mule)
        assert not client.is_locked("struck")
        assert not client.is_locked("nested")
