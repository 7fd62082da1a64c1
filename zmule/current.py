"""The process's own client and mule, for the functions of the package and of the drop-in modules.

The client is made when it is first needed. The mule is set by whatever runs the program as one.
"""

from __future__ import annotations

import atexit
import sys
import threading
from typing import TYPE_CHECKING

from zmule.errors import ZmuleError

if TYPE_CHECKING:
    from zmule.clients.sync import Client
    from zmule.mules.mule import Mule

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
                atexit.register(_close)
    return _client


def current_mule() -> Mule | None:
    """Return the mule that this process is, or None."""
    return _mule


def set_mule(mule: Mule | None) -> None:
    """Make the mule the one that this process is."""
    global _mule
    _mule = mule


def mule() -> Mule:
    """Return the mule that this process is.

    Raises:
        ZmuleError: it is none.
    """
    if _mule is None:
        raise ZmuleError("this process is no mule: run it by zmuled or `zmule run`, or make a zmule.Mule")
    return _mule


def _close() -> None:
    if _client is not None:
        try:
            _client.close()
        except ZmuleError as error:
            print(f"zmule: at exit: {error}", file=sys.stderr)
