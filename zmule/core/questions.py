"""A peer's questions under way: asked again on every new connection until they are answered.

An exception may strike between any two lines in here, and `mend` makes good what it left: what is open is
asked once more. So a question is open before it is anything else, and an answer is kept before its question
is closed.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgpack

from zmule.core.frames import Answer, Ask
from zmule.errors import ProtocolError, WrongValue

MAX_ARGUMENTS = 32 << 10
"""Longest arguments of a question, in bytes: a path of several thousand characters fits."""


Kind = TypeVar("Kind")


class Questions:
    """The questions of one session."""

    def __init__(self) -> None:
        self._last = 0
        self._open: dict[int, Ask] = {}
        self._unsent: list[int] = []
        self._quiet: set[int] = set()
        self._answers: dict[int, Answer] = {}
        self._told: dict[str, int] = {}

    def __bool__(self) -> bool:
        """Whether an answer is due."""
        return bool(self._open)

    def ask(self, what: str, arguments: tuple[Any, ...]) -> int:
        """Put a question; return the number that its answer bears.

        Raises:
            WrongValue: an argument is one that cannot travel.
        """
        check_question(what, arguments)
        self._last += 1
        request = self._last
        self._open[request] = Ask(request, what, arguments)
        self._unsent.append(request)
        return request

    def tell(self, what: str, arguments: tuple[Any, ...]) -> None:
        """Put a question whose answer nobody waits for, in place of the one that was put so before."""
        former = self._told.pop(what, 0)
        self._open.pop(former, None)
        self._told[what] = self.ask(what, arguments)

    @property
    def upcoming(self) -> int:
        """The number of the next question."""
        return self._last + 1

    def remind(self, what: str, arguments: tuple[Any, ...]) -> None:
        """Put a question, on the present connection only, whose answer is known and will be dropped."""
        self._last += 1
        self._quiet.add(self._last)
        self._open[self._last] = Ask(self._last, what, arguments)
        self._unsent.append(self._last)

    def answered(self, request: int) -> bool:
        """Return whether the answer is there, or will never be."""
        return request not in self._open

    def answer(self, request: int) -> Answer | None:
        """Return, once, the answer to a question."""
        return self._answers.pop(request, None)

    def withdraw(self, request: int) -> None:
        """Nobody waits for that answer any longer."""
        self._open.pop(request, None)
        self._answers.pop(request, None)

    def find(self, arguments: tuple[Any, ...]) -> int | None:
        """Return the number of the open question with these very arguments: who was interrupted has none."""
        return next((number for number, ask in self._open.items() if ask.arguments is arguments), None)

    def unsent(self) -> list[Ask]:
        """Return, once for each connection, the questions to send."""
        if not self._unsent:
            return []
        asks = [self._open[request] for request in self._unsent if request in self._open]
        self._unsent = []
        return asks

    def again(self) -> None:
        """The connection is a new one: all that is open has to be sent over it."""
        for request in self._quiet:
            self._open.pop(request, None)
        self._quiet = set()
        self._unsent = list(self._open)

    def mend(self) -> None:
        """Ask once more, on the same connection, whatever is open."""
        self._quiet &= self._open.keys()
        self._unsent = list(self._open)

    def take(self, answer: Answer) -> None:
        """Take in an answer; one that nobody waits for is dropped."""
        request = answer.request
        if request in self._open:
            if request not in self._quiet and request not in self._told.values():
                self._answers[request] = answer
            del self._open[request]
            self._quiet.discard(request)


def expect(kind: type[Kind], value: Any) -> Kind:
    """Return an answer's value.

    Raises:
        ProtocolError: it is of another type.
    """
    if type(value) is not kind:
        raise ProtocolError(f"the broker has answered with {type(value).__name__}, not {kind.__name__}")
    return value


def check_question(what: str, arguments: tuple[Any, ...]) -> None:
    """Refuse here what would fail in the thread that sends, and cost the session."""
    try:
        length = len(msgpack.packb(arguments))
    except (TypeError, ValueError, OverflowError) as error:
        raise WrongValue(f"an argument of {what} cannot travel: {error}") from None
    if length > MAX_ARGUMENTS:
        raise WrongValue(f"the arguments of {what} have {length} bytes, the limit is {MAX_ARGUMENTS}")
