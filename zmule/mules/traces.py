"""Tracebacks of users' programs: they begin with the program, not with what has started it."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from types import TracebackType

from zmule.errors import ZmuleError

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep  # noqa: PTH100, PTH120


def show(error: BaseException) -> None:
    """Print what ended a program, or a handler of it, on standard error.

    An error of zmule's that no line of the program has part in is one line.
    """
    trace = of_program(error.__traceback__)
    if trace is None and isinstance(error, ZmuleError):
        print(f"zmule: {error}", file=sys.stderr)
    else:
        traceback.print_exception(type(error), error, trace)


def of_program(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the first frame on that is the program's."""
    while trace is not None and _starts_programs(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return trace


def _starts_programs(file: str) -> bool:
    return file.startswith((PACKAGE, "<frozen importlib")) or file == importlib.__file__
