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
from typing import TYPE_CHECKING

from zmule.errors import BrokerUnavailable, NotPermitted, ZmuleError

if TYPE_CHECKING:
    from zmule.clients.sync import Client

FIRST_LOOK = 0.2
"""For how long a command waits for an answer before it looks whether anybody is there, in seconds."""


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


def connect(endpoint: str | None, timeout: float | None) -> Client:
    """Return a client of the broker.

    Args:
        endpoint: where it is, None: at the usual place.
        timeout: seconds to wait for it and for its answers; None: as long as is usual for an answer, and not
            at all for a broker that is not there.

    Raises:
        BrokerUnavailable: nobody is there.
        NotPermitted: this user may not go there.
    """
    from zmule.clients.sync import DEFAULT_TIMEOUT, Client

    client = Client(endpoint, timeout=DEFAULT_TIMEOUT if timeout is None else timeout)
    if timeout is None:
        check_reach(client)
    return client


def check_reach(client: Client) -> None:
    """Raise at once if nobody can be there, instead of when the time is over."""
    try:
        client.max_message(FIRST_LOOK)
    except (BrokerUnavailable, NotPermitted):
        from zmule.reach import trouble

        error = trouble(client.endpoint)
        if error is not None:
            client.close(timeout=0)
            raise error from None


def tell(text: str) -> None:
    """Write to standard error, if anybody is there to read it."""
    try:
        print(text, end="", file=sys.stderr, flush=True)
    except OSError:  # Python would try again at the end, and exit with a status of its own
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
