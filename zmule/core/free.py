"""Numbers of signals that look free to whoever loads the same code.

Several processes load one module, and each looks for a number that nobody has, by asking for one after the
other. All of them are to find the same one. So an answer depends on who asks, and in loading what: what
others have registered in loading that place does not count, for the asker is about to register the same.
What the asker has registered itself does count, and what has been registered from any other place.

Two that look at the same time, in loading different places, must not find the same number. So the last one
that a process was told to be free is reserved for it, until it registers a signal or is done with loading.
"""

from __future__ import annotations

from zmule.core.mules import Mule
from zmule.core.signals import Origin, Signals
from zmule.errors import SignalConflict, WrongValue

MAX_NAME = 1000
"""How long the name of a place or of a function may be, in characters."""


class FreeNumbers:
    """The numbers that look free, and for whom one is reserved."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._reserved: dict[int, tuple[int, str]] = {}

    def look(self, number: int, place: str, mule: Mule) -> bool:
        """Return whether the number is free for a mule that is loading that place, and reserve it then."""
        others = [origin for holder, origin in self._signals.origins(number) if holder != mule.number]
        free = (
            number not in mule.signals
            and all(origin.place == place for origin in others)
            and all(reserved != number or its == place for reserved, its in self._reserved.values())
        )
        if free:
            self._reserved[mule.number] = number, place
        return free

    def check(self, number: int, origin: Origin, mule: Mule) -> None:
        """Refuse a number that looked free if it means something else in a process that is there.

        Raises:
            SignalConflict: it does.
        """
        if self._reserved.get(mule.number, (-1, ""))[0] != number:
            return
        for holder, other in self._signals.origins(number, living=True):
            if holder != mule.number and other != origin:
                raise SignalConflict(
                    f"signal {number} looked free, but is {other.function or 'taken'} elsewhere, and here "
                    f"{origin.function}: register in the same order, or choose the number"
                )

    def release(self, mule: Mule) -> None:
        """The mule has registered a signal, or is done with loading."""
        self._reserved.pop(mule.number, None)

    def is_reserved(self, number: int) -> bool:
        """Return whether the number is reserved for anybody."""
        return any(reserved == number for reserved, _ in self._reserved.values())


def checked_origin(place: str, function: str = "") -> Origin:
    """Return where a handler is from.

    Raises:
        WrongValue: a name is too long.
    """
    if max(len(place), len(function)) > MAX_NAME:
        raise WrongValue(f"the name of a place or a function has at most {MAX_NAME} characters")
    return Origin(place, function)
