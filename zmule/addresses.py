"""From the host of a tcp endpoint to addresses that libzmq can use.

libzmq speaks IPv6 only if it is told to, and then no plain IPv4. Hence the family is chosen here for each
endpoint: a number in brackets is IPv6, and a name is what it resolves to. A broker binds a name at all
addresses of both families that it has here; a client takes the first family in which somebody listens.
"""

from __future__ import annotations

from typing import NamedTuple

from zmule.endpoints import split_tcp

PROBE_SECONDS = 0.5
"""How long a client tries whether somebody listens at one of several addresses."""


class Address(NamedTuple):
    """An endpoint for libzmq, and whether it needs IPv6."""

    endpoint: str
    ipv6: bool


def to_bind(endpoint: str) -> list[Address]:
    """Return the addresses of an endpoint at which to bind: one, or several if it names a host."""
    host, port = split_tcp(endpoint)
    if not _is_name(host):
        return [Address(endpoint, host.startswith("["))]
    return _resolved(host, port) or [Address(endpoint, ipv6=False)]


def to_connect(endpoint: str) -> Address:
    """Return the one address of an endpoint to connect to."""
    host, port = split_tcp(endpoint)
    if not _is_name(host):
        return Address(endpoint, host.startswith("["))
    found = _resolved(host, port)
    if len({address.ipv6 for address in found}) < 2:
        return Address(endpoint, ipv6=bool(found) and found[0].ipv6)
    return next(filter(_listens, found), found[0])


def _is_name(host: str) -> bool:
    return host not in ("", "*") and not host.startswith("[") and not host.replace(".", "").isdigit()


def _resolved(host: str, port: str) -> list[Address]:
    """Return the addresses that a name has, those of IPv4 first; none if it has none or is an interface."""
    import socket

    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    ipv4 = [
        Address(f"tcp://{at[0]}:{port}", ipv6=False) for family, *_, at in found if family == socket.AF_INET
    ]
    ipv6 = [
        Address(f"tcp://[{at[0]}]:{port}", ipv6=True) for family, *_, at in found if family == socket.AF_INET6
    ]
    return list(dict.fromkeys(ipv4 + ipv6))


def _listens(address: Address) -> bool:
    import socket

    host, port = split_tcp(address.endpoint)
    try:
        socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True
