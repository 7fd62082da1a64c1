"""How the process of a mule ends though its program does not let it.

A program that catches whatever a get raises, and gets again, would go on for ever. So its main thread never
comes back from there, and the process ends as it would have at the end of the program.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import sys
from typing import NoReturn


def leave(status: int) -> NoReturn:
    """End the process as the interpreter does at the end of the program. Only in the main thread."""
    ctypes.pythonapi.Py_Exit(ctypes.c_int(status))
    raise AssertionError("Py_Exit has returned")


def cut_off(status: int) -> NoReturn:
    """End the process though threads are left that the interpreter would wait for. In the main thread."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status)
