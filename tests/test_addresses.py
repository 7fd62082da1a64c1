"""Names and numbers of hosts in both families."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from zmule.addresses import Address, to_bind, to_connect

FOUR, SIX = Address("tcp://127.0.0.1:7", ipv6=False), Address("tcp://[::1]:7", ipv6=True)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[str]]]:
    """What names resolve to."""
    known: dict[str, list[str]] = {}

    def resolve(host: str, port: int | None, *_: Any, **__: Any) -> list[Any]:
        if host not in known:
            raise socket.gaierror(-2, "Name or service not known")
        family = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(family[":" in at], socket.SOCK_STREAM, 6, "", (at, port or 0)) for at in known[host]]

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", resolve)
        yield known


@pytest.mark.parametrize(
    ("endpoint", "ipv6"),
    [
        ("tcp://[::1]:7", True),
        ("tcp://[fe80::1%eth0]:7", True),
        ("tcp://[::]:*", True),
        ("tcp://127.0.0.1:7", False),
        ("tcp://*:7", False),
        ("ipc:///run/a.sock", False),
    ],
)
def test_numbers_stay_as_they_are(endpoint: str, ipv6: bool, names: dict[str, list[str]]) -> None:
    assert to_bind(endpoint) == [Address(endpoint, ipv6)]
    assert to_connect(endpoint) == Address(endpoint, ipv6)


def test_a_name_is_bound_in_both_families(names: dict[str, list[str]]) -> None:
    names["both"] = ["::1", "127.0.0.1", "::1"]
    assert to_bind("tcp://both:7") == [FOUR, SIX]


def test_an_interface_is_left_to_libzmq(names: dict[str, list[str]]) -> None:
    assert to_bind("tcp://eth0:7") == [Address("tcp://eth0:7", ipv6=False)]
    assert to_connect("tcp://nowhere:7") == Address("tcp://nowhere:7", ipv6=False)


@pytest.mark.parametrize(("at", "address"), [("127.0.0.1", FOUR), ("::1", SIX)])
def test_one_family_needs_no_trying(at: str, address: Address, names: dict[str, list[str]]) -> None:
    names["one"] = [at]
    assert to_connect("tcp://one:7") == Address("tcp://one:7", address.ipv6)


@pytest.mark.parametrize("family", ["127.0.0.1", "::1"])
def test_of_two_families_the_one_that_listens(family: str, names: dict[str, list[str]]) -> None:
    kind = socket.AF_INET6 if ":" in family else socket.AF_INET
    try:
        server = socket.create_server((family, 0), family=kind)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with server:
        port = server.getsockname()[1]
        names |= {"both": ["127.0.0.1", "::1"], "127.0.0.1": ["127.0.0.1"], "::1": ["::1"]}
        host = "[::1]" if ":" in family else family
        assert to_connect(f"tcp://both:{port}") == Address(f"tcp://{host}:{port}", ":" in family)


def test_nobody_listens(names: dict[str, list[str]]) -> None:
    names["both"] = ["127.0.0.1", "::1"]
    assert to_connect("tcp://both:7").ipv6 is False
