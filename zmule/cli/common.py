"""How a command ends, whichever it is: done, with one line about what went wrong, or by Ctrl-C.

`zmule-send` must start fast, so nothing here may import typer; what the commands' options share is in
`zmule.cli.options`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

from zmule.errors import ZmuleError


class UsageError(ZmuleError):
    """The command line cannot be understood."""

    code = "usage"
    exit_code = 2


def run(name: str, command: Callable[[], object]) -> None:
    """Run a command; end the process if it does not simply return.

    An error of zmule's becomes one line on standard error and the error's exit code. Ctrl-C kills the
    process as it would kill one that does not handle it, so that a script around it stops, too.
    """
    try:
        command()
    except ZmuleError as error:
        tell(f"{name}: {' '.join(str(error).splitlines())}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)


def tell(text: str) -> None:
    """Write to standard error, if anybody is there to read it."""
    try:
        print(text, end="", file=sys.stderr, flush=True)
    except OSError:  # Python would try again at the end, and exit with a status of its own
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
