"""Exceptions and calls at a chosen line: what a handler of an operating system signal may do anywhere.

Python runs such a handler between any two instructions of the main thread, and it may raise; so may
`PyThreadState_SetAsyncExc` in any thread. `strike` does the same at one line of zmule's own code, and
`at_every_line` at one after the other, so that a test sees them all and needs no luck.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import zmule

FOLDER = str(Path(zmule.__file__).parent)


class Struck(Exception):
    """What is raised, as by a handler that keeps a time limit."""


def strike(call: Callable[[], object], line: int, action: Callable[[], object] | None = None) -> str:
    """Run `call` in this thread and raise `Struck` at its line of that number; return where that was.

    Only lines of zmule's own files count, from 1, in the order in which they are run. Other exceptions of
    `call` pass.

    Args:
        call: what to run.
        line: which line to strike at.
        action: what to do there instead: a call of the program's from a handler, say. If it raises, so does
            the line.

    Returns:
        The place, as `file:line function`; empty if `call` is over before it comes to that line.
    """
    place, passed = "", 0

    def enter(frame: FrameType, _event: str, _argument: object) -> Any:
        return follow if frame.f_code.co_filename.startswith(FOLDER) else None

    def follow(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal place, passed
        if event == "line" and not place:
            passed += 1
            if passed == line:
                code = frame.f_code
                place = f"{code.co_filename[len(FOLDER) + 1 :]}:{frame.f_lineno} {code.co_name}"
                (action or _raise)()
        return follow

    former = sys.gettrace()
    with _swallowed():
        sys.settrace(enter)
        try:
            call()
        except Struck:
            if not place:
                raise
        finally:
            sys.settrace(former)
    return place


def at_every_line(call: Callable[[], object], action: Callable[[], object] | None = None) -> Iterator[str]:
    """Run `call` again and again, struck at its first line, at its second, and so on; yield each place.

    What is asserted after each strike is for the body of the loop. It ends with a run that no strike has
    come to.
    """
    line = 1
    while place := strike(call, line, action):
        yield place
        line += 1


def _raise() -> None:
    raise Struck


@contextmanager
def _swallowed() -> Iterator[None]:
    """Let pass in silence what Python cannot raise: a strike within `__del__` is only printed."""
    former = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if not isinstance(unraisable.exc_value, Struck):
            former(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = former
