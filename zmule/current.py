"""The process's own client and mule, for the functions of the package and of the drop-in modules.

The client is made when it is first needed. The mule is set by whatever runs the program as one. A process
that is no mule is a worker as soon as it does what only mules and workers do: see `mules/serving.py`.
"""

from __future__ import annotations

import atexit
import sys
import threading
from typing import TYPE_CHECKING

from zmule.errors import ZmuleError

if TYPE_CHECKING:
    from zmule.clients.sync import Client
    from zmule.mules.mule import Mule, SignalRunner

_client: Client | None = None
_mule: Mule | None = None
_making = threading.Lock()


def client() -> Client:
    """Return the process's default client."""
    global _client
    if _client is None:
        from zmule.clients.sync import Client

        with _making:
            if _client is None:
                _client = Client()
    return _client


def current_mule() -> Mule | None:
    """Return the mule that this process is, or None."""
    return _mule


def set_mule(mule: Mule | None) -> None:
    """Make the mule the one that this process is."""
    global _mule
    _mule = mule


@atexit.register
def _close_mule() -> None:
    """Acknowledge what the program had last. Registered before all else, and so done after all else."""
    if _mule is not None:
        _mule.close()


def mule() -> Mule:
    """Return the mule that this process is.

    Raises:
        ZmuleError: it is none.
    """
    if _mule is None:
        raise ZmuleError("this process is no mule: run it by zmuled or `zmule run`, or make a zmule.Mule")
    return _mule


def signal_runner() -> SignalRunner:
    """Return the mule or worker that this process is; it becomes a worker if it is neither.

    Raises:
        BrokerUnavailable: no broker has answered within some seconds.
    """
    if _mule is not None:
        return _mule
    from zmule.mules.serving import here

    return here.worker()


def worker_id() -> int:
    """Return the number of the worker that this process is.

    0 in a mule, and in a process that has forked workers. Errors are those of `signal_runner`.
    """
    if _mule is not None:
        return 0
    from zmule.mules.serving import here

    return 0 if here.master else here.worker().worker_id


def close_client() -> None:
    """Close the client; what the program still does at its end gets another."""
    global _client
    if _client is not None:
        former, _client = _client, None
        try:
            former.close_at_exit()
        except ZmuleError as error:
            print(f"zmule: at exit: {error}", file=sys.stderr)
