"""Dead letters: what was given up, kept aside with the reason until somebody decides.

None is ever dropped by itself. They count in the broker's limits on messages and bytes, and a queue with
`max_dead` of them takes no new messages: so they cannot pile up without end, and whoever sends to that queue
is told why.

A dead letter that is requeued takes the place that its number gives it, as if it had come just now.
Until the store has taken note it stays where it is: a crash must find it either here or there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from heapq import nsmallest
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from zmule.core.asking import LATER, Asked
from zmule.core.effects import Bury, Changes
from zmule.core.frames import Answer, Body
from zmule.core.queues import Dead, Message, byte_size, content_size
from zmule.core.wire import MAX_REASON
from zmule.errors import StoreUnavailable, UnknownLetter, WrongValue, ZmuleError

if TYPE_CHECKING:
    from zmule.core.broker import Broker

EXPIRED = "expired"
MOST_LISTED = 1000
PREVIEW = 100
"""How much of a message a list shows, in characters or bytes."""


class Rising(NamedTuple):
    """Dead letters on their way back: who asked, the messages, and why others have to stay."""

    asked: Asked
    messages: list[Message]
    errors: list[ZmuleError]


class DeadLetters:
    """The dead letters of a broker.

    Attributes:
        counts: how many each queue has.
        bytes: of how many bytes all of them are.
        dropped: how many were dropped since the broker started.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._letters = broker.dead
        self.counts: Counter[str] = Counter()
        self.bytes = 0
        self.dropped = 0
        self._rising: dict[int, Rising] = {}
        self._busy: set[int] = set()

    def questions(self) -> dict[str, Callable[[Asked], Any]]:
        """Return the questions by name."""
        return {
            "list_dead": self._list,
            "show_dead": self._show,
            "requeue_dead": self._requeue,
            "drop_dead": self._drop,
        }

    def restore(self, letters: list[Dead]) -> None:
        """Take up what the store has kept."""
        for dead in letters:
            self._add(dead)

    # How they come.

    def bury(self, message: Message, reason: str, mule: int) -> None:
        """Make a dead letter of a message that is in no queue. `mule` had it last; 0: none."""
        self._inter(message, reason, mule)
        self._broker.note("error", f"message {message[0]} of queue {message[1]} is a dead letter: {reason}")

    def bury_expired(self, messages: list[Message]) -> None:
        """Make dead letters of messages that have expired."""
        for name, group in groupby(sorted(messages, key=itemgetter(1)), key=itemgetter(1)):
            expired = list(group)
            for message in expired:
                self._inter(message, EXPIRED, 0)
            self._broker.note(
                "warning", f"{len(expired)} messages of queue {name} have expired: dead letters"
            )

    def _inter(self, message: Message, reason: str, mule: int) -> None:
        dead = Dead(message, reason, mule, self._broker.now.wall)
        self._add(dead)
        self._broker.dispatch.account_for([message])
        self._broker.do(Bury(dead))

    def _add(self, dead: Dead) -> None:
        self._letters[dead.message[0]] = dead
        self.counts[dead.message[1]] += 1
        self.bytes += content_size([dead.message])

    def _remove(self, id: int) -> None:
        message = self._letters.pop(id).message
        self.bytes -= content_size([message])
        self.counts[message[1]] -= 1
        if not self.counts[message[1]]:
            del self.counts[message[1]]

    # What is asked.

    def _list(self, asked: Asked) -> dict[str, Any]:
        queue, after, limit = _arguments(asked, str, int, int)
        if not 0 < limit <= MOST_LISTED:
            raise WrongValue(f"a list has 1 to {MOST_LISTED} dead letters")
        ids = nsmallest(limit, (id for id in self._select((), queue) if id > after))
        count = self.counts[queue] if queue else len(self._letters)
        return {"count": count, "letters": [_entry(self._letters[id]) for id in ids]}

    def _show(self, asked: Asked) -> dict[str, Any]:
        (id,) = _arguments(asked, int)
        (id,) = self._select((id,), "")
        message = self._letters[id].message
        return {**_entry(self._letters[id]), "body": message[2], "headers": message[5]}

    def _drop(self, asked: Asked) -> int:
        ids = [id for id in self._select(*_arguments(asked, tuple, str)) if id not in self._busy]
        for id in ids:
            self._remove(id)
        if ids:
            self.dropped += len(ids)
            self._broker.do(Changes(undead=ids))
            self._broker.note("info", f"{len(ids)} dead letters were dropped")
        return len(ids)

    def _requeue(self, asked: Asked) -> Any:
        ids = [id for id in self._select(*_arguments(asked, tuple, str)) if id not in self._busy]
        messages, errors = [], []
        for id in sorted(ids):
            id, queue, body, _, _, headers, _ = self._letters[id].message
            message: Message = id, queue, body, 1, self._broker.steady(), headers, None
            error = self._broker.intake.closed(queue) or self._broker.room.for_letter(queue, message)
            if error is None:
                self._broker.dispatch.account([message])
                messages.append(message)
            else:
                errors.append(error)
        if not messages:
            return _outcome(0, errors)
        batch = self._broker.intake.next_batch()
        self._rising[batch] = Rising(asked, messages, errors)
        self._busy.update(message[0] for message in messages)
        undead = [message[0] for message in messages]
        self._broker.do(Changes(batch, messages=messages, undead=undead))
        return LATER

    def _select(self, ids: tuple[Any, ...], queue: str) -> Iterator[int]:
        """Yield the ids that are meant: these, or all of a queue, or all.

        Raises:
            UnknownLetter: one is not there.
            WrongValue: one is no id.
        """
        for id in ids:
            if type(id) is not int:
                raise WrongValue("the id of a dead letter is a whole number")
            if id not in self._letters:
                raise UnknownLetter(f"there is no dead letter {id}")
        if ids:
            yield from dict.fromkeys(ids)
        else:
            yield from (id for id, dead in self._letters.items() if queue in ("", dead.message[1]))

    # What the store has done.

    def saved(self, batch: int) -> bool:
        """Bring dead letters back, if it was that which the store has noted."""
        rising = self._rising.pop(batch, None)
        if rising is None:
            return False
        for message in rising.messages:
            self._busy.discard(message[0])
            self._remove(message[0])
        self._broker.dispatch.put_back(rising.messages)
        self._broker.note("info", f"{len(rising.messages)} dead letters were requeued")
        self._answer(rising.asked, "", _outcome(len(rising.messages), rising.errors))
        return True

    def lost(self, batch: int, reason: str) -> bool:
        """Leave dead letters what they are, if it was that which the store could not note."""
        rising = self._rising.pop(batch, None)
        if rising is None:
            return False
        self._busy.difference_update(message[0] for message in rising.messages)
        self._broker.dispatch.account(rising.messages, -1)
        self._answer(rising.asked, StoreUnavailable.code, f"the store cannot write: {reason}"[:MAX_REASON])
        return True

    def _answer(self, asked: Asked, code: str, value: Any) -> None:
        self._broker.send(asked.peer, Answer(asked.request, code, value))

    def rising(self) -> int:
        """Return how many are on the books already, and dead letters still."""
        return len(self._busy)

    def validate(self) -> None:
        """Raise AssertionError if an invariant is broken."""
        if not self._letters:
            assert not any((self.counts, self.bytes, self._busy, self._rising))
            return
        assert self.counts == Counter(dead.message[1] for dead in self._letters.values())
        assert self.bytes == content_size([dead.message for dead in self._letters.values()])
        assert self._busy <= self._letters.keys()
        assert len(self._busy) == sum(len(rising.messages) for rising in self._rising.values())


def _entry(dead: Dead) -> dict[str, Any]:
    id, queue, body, attempt, born, _, _ = dead.message
    return {
        "id": id,
        "queue": queue,
        "reason": dead.reason,
        "mule": dead.mule,
        "at": dead.at,
        "accepted": born,
        "deliveries": attempt if dead.mule else attempt - 1,
        "bytes": byte_size([body]),
        "preview": _preview(body),
    }


def _preview(body: Body) -> str:
    return body[:PREVIEW] if isinstance(body, str) else body[:PREVIEW].decode("utf-8", "replace")


def _outcome(requeued: int, errors: list[ZmuleError]) -> dict[str, Any]:
    """Return the answer: how many were requeued, how many had to stay, and why the first of them."""
    first = errors[0] if errors else None
    code, reason = (first.code, str(first)) if first else ("", "")
    return {"requeued": requeued, "left": len(errors), "code": code, "reason": reason}


def _arguments(asked: Asked, *kinds: type) -> tuple[Any, ...]:
    """Return the arguments if they are of these types."""
    if tuple(map(type, asked.arguments)) != kinds:
        raise WrongValue("the question's arguments are not what they should be")
    return asked.arguments
