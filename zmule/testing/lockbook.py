"""Locks: who has which, as far as the broker's own words go, and clients whose threads take them."""

from __future__ import annotations

from typing import NamedTuple

from zmule.core.frames import Answer, Ask
from zmule.testing.letters import claim
from zmule.testing.world import SimClient

NAMES = 2
"""Locks that the simulation has, from 0."""


class Wish(NamedTuple):
    """What a thread at the other end of a connection has asked for: to have a lock, or to let go of it."""

    what: str
    name: int
    thread: int


class Holder(NamedTuple):
    """Who has a lock: what was asked, by whom, under which number."""

    peer: bytes
    request: int
    wish: Wish


class LockBook:
    """Who has which lock. It is told of every question before the broker hears it, and of every answer."""

    def __init__(self) -> None:
        self.holders: dict[int, Holder] = {}
        self._wishes: dict[tuple[bytes, int], Wish] = {}
        self._token = 0

    def asked(self, peer: bytes, ask: Ask) -> None:
        """A peer asks something."""
        if ask.what in ("lock", "unlock"):
            name, thread, *_ = ask.arguments
            self._wishes[peer, ask.request] = Wish(ask.what, name, thread)
        elif ask.what == "give_up_lock":
            _, request = ask.arguments
            self._end(peer, request)

    def _end(self, peer: bytes, request: int | None) -> None:
        """Forget what a peer has asked for and has, under that number or any."""
        for key in [key for key in self._wishes if key[0] == peer and request in (None, key[1])]:
            del self._wishes[key]
        for name, holder in list(self.holders.items()):
            if holder.peer == peer and request in (None, holder.request):
                del self.holders[name]

    def gone(self, peer: bytes) -> None:
        """The broker knows that a connection is gone, or has given it up."""
        self._end(peer, None)

    def answered(self, peer: bytes, answer: Answer) -> None:
        """The broker answers a peer."""
        wish = self._wishes.get((peer, answer.request))
        if wish is None:
            return
        if not answer.code and wish.what == "lock":
            self._grant(Holder(peer, answer.request, wish), answer.value)
        elif not answer.code:
            holder = self.holders.pop(wish.name, None)
            owner = holder and (holder.peer, holder.wish.thread)
            claim(owner == (peer, wish.thread), "let go by one who does not have it", wish, holder)
        del self._wishes[peer, answer.request]

    def _grant(self, holder: Holder, token: int) -> None:
        name = holder.wish.name
        claim(name not in self.holders, "a lock is given twice", holder, self.holders.get(name))
        claim(token > self._token, "a fencing token does not ascend", holder, token, self._token)
        first = next(key for key, wish in self._wishes.items() if wish.what == "lock" and wish.name == name)
        claim(first == (holder.peer, holder.request), "a lock is given out of turn", holder, first)
        self.holders[name], self._token = holder, token

    def crashed(self, token: int) -> None:
        """The broker has died, and its locks with it.

        Args:
            token: which fencing token the next broker begins with, by its clock and what is on its disk.
        """
        self.holders.clear()
        self._wishes.clear()
        self._token = min(self._token, token - 1)


class LockUser:
    """The threads of a client, which take locks and let go of them as those of `zmule.Client` do.

    Attributes:
        waiting: what each thread has asked for, by the number of the question.
        holding: which lock each thread takes itself to have.
    """

    def __init__(self, client: SimClient) -> None:
        self.client = client
        self.waiting: dict[int, tuple[str, int, int]] = {}
        self.holding: dict[int, int] = {}

    def idle(self, thread: int) -> bool:
        """Return whether a thread can ask for a lock."""
        return thread not in self.holding and all(thread != one for _, _, one in self.waiting.values())

    def lock(self, name: int, thread: int, timeout: float) -> None:
        """Ask for a lock."""
        request = self.client.outbox.questions.ask("lock", (name, thread, timeout, True))
        self.waiting[request] = "lock", name, thread

    def unlock(self, thread: int) -> None:
        """Let go of what a thread has."""
        name = self.holding.pop(thread)
        request = self.client.outbox.questions.ask("unlock", (name, thread))
        self.waiting[request] = "unlock", name, thread

    def wanting(self) -> list[int]:
        """Return the numbers of the questions of threads that wait for a lock."""
        return [request for request, (what, *_) in self.waiting.items() if what == "lock"]

    def give_up(self, request: int) -> None:
        """Wait for a lock no longer."""
        _, _, thread = self.waiting.pop(request)
        self.client.outbox.questions.withdraw(request)
        self.client.outbox.questions.remind("give_up_lock", (thread, request))

    def hear(self) -> None:
        """Take in the answers that have come."""
        for request in [
            request for request in self.waiting if self.client.outbox.questions.answered(request)
        ]:
            (what, name, thread), answer = (
                self.waiting.pop(request),
                self.client.outbox.questions.answer(request),
            )
            if answer is not None and not answer.code:
                if what == "lock":
                    self.holding[thread] = name
                self.client.outbox.holds = max(0, self.client.outbox.holds + (1 if what == "lock" else -1))
