"""Where `zmuled` begins, with as few imports as can be.

What it imports takes a tenth of a second. Ctrl-C in it would be a traceback, and SIGTERM nothing at all for
the first process of a container, which the kernel spares what it has no handler for. So the signals that stop
it are held back until the daemon can heed them (see `zmule.daemon.alarm`), or something else is to be said.
"""

from __future__ import annotations

import signal

from zmule.daemon.alarm import STOP_SIGNALS


def zmuled() -> None:
    """Run `zmuled` and exit; an error is one line on standard error."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    from zmule.cli.zmuled import main

    main()
