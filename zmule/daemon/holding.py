"""What makes binding an endpoint safe.

libzmq binds an ipc path over whatever stands there: it takes a live socket away from another broker without
a word, and deletes a regular file. So zmuled first holds the endpoint: it has the lock `PATH.lock` (flock,
which the kernel frees however zmuled ends, and which no mule inherits), and it has made sure that at PATH
there is nothing, or a socket to which nobody listens. Only then is it bound, with mode 0600.

The folder decides who can put another socket in that place, and so who is the broker. It is made with mode
0700 if it is missing; one that is there must belong to us or to root and be writable to no others, unless it
is sticky, as /tmp is, where others cannot remove what is ours.

The lock file is removed at release, so that a zmuled run once by root under /tmp does not keep a later one
of another user out. That opens a known race: somebody opens the file, we remove it, and his lock is on a
file that nobody else will find. Hence who has the lock looks whether the path still leads to it, and if not
begins again.

A tcp endpoint needs no holding: the kernel refuses a second bind by itself.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import zmq

from zmule.endpoints import check_endpoint
from zmule.errors import ConfigError, EndpointInUse, NotPermitted, ZmuleError

_HINTS = {
    errno.ENODEV: "no such host or interface",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EPROTONOSUPPORT: "use ipc:// or tcp://",
}


class Holding:
    """Endpoints that are ours to bind."""

    def __init__(self, paths: dict[str, Path | None]) -> None:
        self._paths = paths
        self._made: list[tuple[Path, os.stat_result]] = []

    def bind(self, sock: zmq.Socket[bytes], endpoint: str) -> str:
        """Bind a socket to one of the endpoints held.

        Returns: the endpoint as bound, with the port that the system chose if it was left open.

        Raises:
            EndpointInUse: somebody listens there.
            NotPermitted: the system does not let us.
            ConfigError: there is no such host, address or transport.
            KeyError: the endpoint is not held.
        """
        path = self._paths[endpoint]
        umask = os.umask(0o177)
        try:
            sock.bind(endpoint)
        except zmq.ZMQError as error:
            reason = _HINTS.get(error.errno or 0) or error.strerror
            raise _refusal(endpoint, error.errno, reason) from error
        finally:
            os.umask(umask)
        if path is not None:
            self._made.append((path, path.lstat()))
        return sock.get_string(zmq.LAST_ENDPOINT)

    def remove_sockets(self) -> None:
        """Remove the sockets that `bind` made and nobody has replaced."""
        for path, made in self._made:
            with suppress(OSError):
                if os.path.samestat(path.lstat(), made):
                    path.unlink()


@contextmanager
def hold(endpoints: Iterable[str]) -> Iterator[Holding]:
    """Hold endpoints for as long as the context lasts: close the sockets bound to them before it ends.

    Raises:
        EndpointInUse: another zmuled, or another program, has one.
        NotPermitted: the system does not let us make a lock or a folder there.
        ConfigError: something that is no socket stands there, the folder is not safe, the path too long.
    """
    with ExitStack() as stack:
        paths: dict[str, Path | None] = {}
        for endpoint in endpoints:
            check_endpoint(endpoint)
            paths[endpoint] = path = _socket_path(endpoint)
            if path is None:
                continue
            try:
                stack.enter_context(_held(endpoint, path))
            except OSError as error:
                reason = f"{error.filename or path}: {error.strerror}"
                raise _refusal(endpoint, error.errno, reason) from error
        holding = Holding(paths)
        stack.callback(holding.remove_sockets)
        yield holding


def _socket_path(endpoint: str) -> Path | None:
    return Path(endpoint.removeprefix("ipc://")) if endpoint.startswith("ipc://") else None


@contextmanager
def _held(endpoint: str, path: Path) -> Iterator[None]:
    """Keep the lock of a path at which there is nothing."""
    _make_folder(endpoint, path.parent)
    lock = Path(f"{path}.lock")
    descriptor = _take(endpoint, lock)
    try:
        _clear(endpoint, path)
        yield
    finally:
        with suppress(OSError):
            lock.unlink()
        os.close(descriptor)


def _make_folder(endpoint: str, folder: Path) -> None:
    """Make the folder if it is missing; refuse one in which others could replace our socket."""
    for missing in reversed([one for one in (folder, *folder.parents) if not one.exists()]):
        with suppress(FileExistsError):
            missing.mkdir(mode=0o700)
    found = folder.stat()
    open_to_others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
    if open_to_others or found.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"{endpoint}: others may replace files in {folder}:"
            " let it belong to this user (or root) and be writable to no others"
        )


def _take(endpoint: str, lock: Path) -> int:
    """Return a descriptor that has the lock, on the file to which the path leads."""
    while True:
        with ExitStack() as on_failure:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            on_failure.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                who = _holder(descriptor)
                raise EndpointInUse(f"{endpoint}: {who} holds it: stop that one or choose another") from None
            if _leads_to(lock, descriptor):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
                on_failure.pop_all()
                return descriptor


def _holder(descriptor: int) -> str:
    """Say who has the lock, as its file says; it may be just being written."""
    pid = os.pread(descriptor, 20, 0).strip()
    return f"process {int(pid)}" if pid.isdigit() else "another process"


def _leads_to(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _clear(endpoint: str, path: Path) -> None:
    """Make sure that nothing is at the path; remove nothing but a socket to which nobody listens."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError(f"{endpoint}: {path} is not a socket: move it away or choose another path")
    if not _is_stale(path):
        raise EndpointInUse(f"{endpoint}: another program listens there: stop it or choose another path")
    path.unlink()


def _is_stale(path: Path) -> bool:
    """Tell whether it is sure that nobody listens: a full backlog or no access may well be somebody."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(os.fspath(path)) == errno.ECONNREFUSED


def _refusal(endpoint: str, code: int | None, reason: str) -> ZmuleError:
    """Return the error for what the system answered."""
    if code == errno.EADDRINUSE:
        return EndpointInUse(f"{endpoint}: another program listens there: stop it or choose another")
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return NotPermitted(f"{endpoint}: {reason}: run as another user or choose another endpoint")
    return ConfigError(f"{endpoint}: {reason}")
