"""Where a broker is: how endpoints are spelled, and which one is meant when nobody names any.

Clients, mules and the broker must agree on the default without talking, so there is one function for all
of them. It runs whenever a client starts: platformdirs is imported only by whom it is needed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from zmule.errors import ConfigError

MAX_IPC_PATH = 107
"""Longest path of a Unix socket, in bytes: what Linux leaves of `sun_path` for it."""

TCP = r"tcp://(\*|[\w.-]+|\[[\w.:%]+\]):(\*|\d{1,5})"


def default_endpoint(environ: Mapping[str, str]) -> str:
    """Return the endpoint to use when none is named: `ZMULE_ENDPOINT`, else a socket in a runtime folder.

    Args:
        environ: the process's environment.

    Returns:
        `ipc:///run/zmule/zmule.sock` for root, and the like in the user's own runtime folder for others.

    Raises:
        ConfigError: the user has no runtime folder that is safe to use.
    """
    if named := environ.get("ZMULE_ENDPOINT"):
        return named
    folder = "/run/zmule" if os.geteuid() == 0 else _user_folder()
    return f"ipc://{folder}/zmule.sock"


def default_publish(endpoint: str) -> str:
    """Return where the broadcasts of the broker at `endpoint` leave, unless the operator says otherwise.

    A path ends in `.pub` in place of `.sock` (or after another ending, so that two sockets in one folder
    never share it); a tcp port is the next one, and a port left open (`*`) stays open.

    Raises:
        ConfigError: the endpoint is misspelled, or its port is the last one.
    """
    check_endpoint(endpoint)
    if endpoint.startswith("ipc://"):
        return endpoint.removesuffix(".sock") + ".pub"
    address, _, port = endpoint.rpartition(":")
    if port == "*":
        return endpoint
    if port == "65535":
        raise ConfigError(f"{endpoint} has no next port for broadcasts: name one with --publish")
    return f"{address}:{int(port) + 1}"


def check_endpoint(endpoint: str) -> None:
    """Refuse what is not spelled `ipc:///path` or `tcp://host:port`.

    Raises:
        ConfigError: says what is wrong with the endpoint.
    """
    if endpoint.startswith("ipc://"):
        _check_path(endpoint.removeprefix("ipc://"))
    elif not (tcp := re.fullmatch(TCP, endpoint, re.ASCII)):
        raise ConfigError(f"{endpoint!r} is not an endpoint: write ipc:///path or tcp://host:port")
    elif tcp[2] != "*" and not 1 <= int(tcp[2]) <= 65535:
        raise ConfigError(f"{endpoint!r} has no port from 1 to 65535")


def is_local(endpoint: str) -> bool:
    """Return whether only this host can reach the endpoint: every ipc path, and tcp on a loopback address."""
    if endpoint.startswith("ipc://"):
        return True
    from ipaddress import ip_address

    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def split_tcp(endpoint: str) -> tuple[str, str]:
    """Return host and port of a tcp endpoint, an IPv6 address in its brackets; two empty texts of another."""
    if not endpoint.startswith("tcp://"):
        return "", ""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return host, port


def _check_path(path: str) -> None:
    if not path.isprintable():
        raise ConfigError(f"{path!r} is not a path that can be printed")
    if not path.startswith("/"):
        raise ConfigError(f"ipc://{path} is not an absolute path: write ipc:///folder/name.sock")
    if path.endswith("/"):
        raise ConfigError(f"ipc://{path} is a folder: write ipc:///folder/name.sock")
    if (length := len(os.fsencode(path))) > MAX_IPC_PATH:
        raise ConfigError(f"ipc://{path} has a path of {length} bytes: at most {MAX_IPC_PATH} fit a socket")


def _user_folder() -> str:
    import warnings

    import platformdirs

    try:
        with warnings.catch_warnings(action="ignore"):  # it warns when XDG_RUNTIME_DIR is merely unset
            return platformdirs.user_runtime_dir("zmule")
    except PermissionError as error:
        raise ConfigError(f"no safe runtime folder ({error}): set ZMULE_ENDPOINT") from None
