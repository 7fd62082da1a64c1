"""Numbers for signals that are known by name: the lowest that is free, the same for whoever names it.

A store keeps them: raises that wait for number 0 must find the same handler there after a restart of the
broker, whichever program comes back first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from zmule.core.queues import LAST_SIGNAL
from zmule.errors import WrongValue

MAX_NAME = 1000


class Names:
    """The signals that bear names.

    Args:
        registered: whether anybody handles a signal, or is about to.
    """

    def __init__(self, registered: Callable[[int], bool]) -> None:
        self._registered = registered
        self._numbers: dict[str, int] = {}

    def restore(self, numbers: Mapping[str, int]) -> None:
        """Take up the names that a store has kept."""
        self._numbers = dict(numbers)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """Yield the names and their numbers."""
        return iter(self._numbers.items())

    def has(self, number: int) -> bool:
        """Return whether the signal bears a name."""
        return number in self._numbers.values()

    def number(self, name: str, wished: int) -> int:
        """Return the number of the signal of that name.

        Args:
            name: as the processes that handle it call it.
            wished: the number that a new name shall have if it is free, as it had it at an earlier broker.

        Raises:
            WrongValue: the name is too long, or all signals are registered.
        """
        if len(name) > MAX_NAME:
            raise WrongValue(f"the name of a signal has at most {MAX_NAME} characters")
        if name not in self._numbers:
            self._numbers[name] = self._free(wished)
        return self._numbers[name]

    def _free(self, wished: int) -> int:
        everything = range(LAST_SIGNAL + 1)
        candidates = [wished, *everything] if wished in everything else everything
        number = self._first(candidates)
        if number is None:
            self._forget_unused()
            number = self._first(candidates)
        if number is None:
            raise WrongValue(f"all signals from 0 to {LAST_SIGNAL} are registered")
        return number

    def _first(self, candidates: Iterable[int]) -> int | None:
        named = set(self._numbers.values())
        free = (number for number in candidates if number not in named and not self._registered(number))
        return next(free, None)

    def _forget_unused(self) -> None:
        self._numbers = {name: at for name, at in self._numbers.items() if self._registered(at)}
