"""The functions of the package: what a program does with the process's own client and mule."""

from __future__ import annotations

from zmule.core.frames import Body, Headers
from zmule.current import client, current_mule, mule


def mule_msg(
    message: Body,
    mule: int = 0,
    *,
    wait: bool = True,
    headers: Headers | None = None,
    timeout: float | None = None,
) -> bool:
    """Send a message by the process's own client; see `Client.mule_msg`."""
    return client().mule_msg(message, mule, wait=wait, headers=headers, timeout=timeout)


def farm_msg(
    farm: str,
    message: Body,
    *,
    wait: bool = True,
    headers: Headers | None = None,
    timeout: float | None = None,
) -> bool:
    """Send a message by the process's own client; see `Client.farm_msg`."""
    return client().farm_msg(farm, message, wait=wait, headers=headers, timeout=timeout)


def get_msg(timeout: float | None = None, *, farms: bool = True) -> Body | None:
    """Wait for a message to the mule that this process is; see `Mule.get_msg`."""
    return mule().get_msg(timeout, farms=farms)


def farm_get_msg(timeout: float | None = None) -> Body | None:
    """Wait for a message to a farm of the mule that this process is; see `Mule.farm_get_msg`."""
    return mule().farm_get_msg(timeout)


def mule_id() -> int:
    """Return the number of the mule that this process is, 0 if it is none."""
    own = current_mule()
    return own.mule_id if own else 0
