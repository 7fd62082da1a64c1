"""Where a program's code is from: what processes that load the same code must agree on.

While a module is being loaded, its code runs in a frame named `<module>`. A mule's script, and a callable
that is a mule's program, count as being loaded until a thread of the mule waits for something.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

LONGEST = 1000
_OURS = str(Path(__file__).parents[1]) + os.sep


def loading(has_waited: bool | None) -> str:
    """Return the name of what this thread is loading, "" if it is not loading anything.

    Args:
        has_waited: whether the mule that this process is has ever waited for something; None: it is none, so
            that only modules are being loaded.
    """
    if has_waited:
        return ""
    place = ""
    for frame in _frames():
        name = str(frame.f_globals.get("__name__", ""))
        if frame.f_code.co_name == "<module>" and (has_waited is False or name != "__main__"):
            return module_name(name)
        place = name
    return module_name(place) if place and has_waited is False else ""


def module_name(name: str) -> str:
    """Return the name of a module; a script's is its path, as all of them are called the same."""
    if name == "__main__":
        name = os.path.abspath(getattr(sys.modules[name], "__file__", None) or "")  # noqa: PTH100
    return name[:LONGEST]


def function_name(f: Any) -> str:
    """Return where a function is from: the same in all processes that load it, and in no others."""
    module = module_name(getattr(f, "__module__", "") or "")
    return f"{module}.{getattr(f, '__qualname__', type(f).__name__)}"[:LONGEST]


def _frames() -> Iterator[FrameType]:
    """Yield the frames of this thread that run code of the program's, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((_OURS, "<frozen importlib")):
            yield frame
        frame = frame.f_back
