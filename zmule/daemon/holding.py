"""What makes binding an endpoint safe.

libzmq binds an ipc path over whatever stands there: it takes a live socket away from another broker without
a word, and deletes a regular file. So zmuled first holds the endpoint: it has the lock `PATH.lock` (flock,
which the kernel frees however zmuled ends, and which no mule inherits), and it has made sure that at PATH
there is nothing, or a socket to which nobody listens. Then it makes the socket itself, with its mode, owner
and group before it listens, whatever the umask, and libzmq is given the descriptor: so libzmq removes nothing
either.

Who may write to a folder on the way to PATH decides who is the broker: see `zmule.trust`. A folder that is
missing is made with mode 0700, and lets those through whom the socket is for (`zmule.daemon.access`).

The lock file is removed at release, so that a zmuled run once by root under /tmp does not keep a later one
of another user out. That opens a known race: somebody opens the file, we remove it, and his lock is on a
file that nobody else will find. Hence who has the lock looks whether the path still leads to it, and if not
begins again.

While zmuled runs, a cleaner of temporary folders may remove socket and lock. `mend` puts both back: the
socket is bound a second time, for to unbind the lost one would cut those who came by it.

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

from zmule import addresses
from zmule.daemon.access import Access
from zmule.endpoints import check_endpoint
from zmule.errors import ConfigError, EndpointInUse, NotPermitted, ZmuleError
from zmule.trust import Untrusted, check_way, user_name

PRIVATE = Access()
BACKLOG = 100
"""Connections that may wait to be accepted."""

_HINTS = {
    errno.ENODEV: "no such host or interface",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EPROTONOSUPPORT: "use ipc:// or tcp://",
}


class _Place:
    """A path that is ours to bind, and what we have there.

    Args:
        endpoint: as the operator has written it.
        path: of its socket.
        access: who may connect.
        trust_folders: leave out who else may write to the folders above.
    """

    def __init__(self, endpoint: str, path: Path, access: Access, trust_folders: bool) -> None:
        self.endpoint = endpoint
        self._access = access
        self.path = path
        self._trust_folders = trust_folders
        self._lock_path = Path(f"{path}.lock")
        self._lock = self._take()
        self._socket: zmq.Socket[bytes] | None = None
        self._made: os.stat_result | None = None

    def bind(self, sock: zmq.Socket[bytes]) -> None:
        """Make the socket and have libzmq listen to it."""
        listener = _listener(self.path, self._access)
        self._socket, self._made = sock, self.path.lstat()
        descriptor = listener.detach()
        try:
            sock.setsockopt(zmq.USE_FD, descriptor)
            sock.bind(self.endpoint)
        except BaseException:
            os.close(descriptor)
            self.remove_socket()
            raise
        finally:
            sock.setsockopt(zmq.USE_FD, -1)

    def mend(self) -> bool:
        """Put back what has vanished; return whether the socket had.

        Raises:
            ZmuleError, OSError: something else is there now.
        """
        if not _leads_to(self._lock_path, self._lock):
            lock = self._take()
            os.close(self._lock)
            self._lock = lock
        if self._socket is None or self._is_there():
            return False
        self.clear()
        self.bind(self._socket)
        return True

    def clear(self) -> None:
        """Make sure that nothing is at the path; remove nothing but a socket to which nobody listens."""
        _clear(self.endpoint, self.path)

    def _take(self) -> int:
        """Return the descriptor of the lock, in a folder that is safe."""
        if not self._trust_folders:
            _check_folders(self.endpoint, self.path)
        make_folder(self.path.parent, self._access)
        return _take(self.endpoint, self._lock_path)

    def _is_there(self) -> bool:
        try:
            return self._made is not None and os.path.samestat(self.path.lstat(), self._made)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def remove_socket(self) -> None:
        """Remove the socket that `bind` made, unless somebody has replaced it."""
        with suppress(OSError):
            if self._is_there():
                self.path.unlink()

    def release(self) -> None:
        """Let others have the path."""
        with suppress(OSError):
            if _leads_to(self._lock_path, self._lock):
                self._lock_path.unlink()
        os.close(self._lock)


class Holding:
    """Endpoints that are ours to bind.

    Args:
        places: each endpoint with its path, None for one of tcp.
    """

    def __init__(self, places: dict[str, _Place | None]) -> None:
        self._places = places
        self._complaints: dict[str, str] = {}

    def bind(self, sock: zmq.Socket[bytes], endpoint: str) -> str:
        """Bind a socket to one of the endpoints held.

        Returns: the endpoint as bound, with the port that the system chose if it was left open.

        Raises:
            EndpointInUse: somebody listens there.
            NotPermitted: the system does not let us.
            ConfigError: there is no such host, address or transport.
            KeyError: the endpoint is not held.
        """
        place = self._places[endpoint]
        try:
            if place is None:
                return _bind_tcp(sock, endpoint)
            place.bind(sock)
        except (OSError, zmq.ZMQError) as error:
            reason = _HINTS.get(error.errno or 0) or error.strerror or str(error)
            raise _refusal(endpoint, error.errno, reason) from error
        return endpoint

    def mend(self) -> Iterator[tuple[str, str]]:
        """Put back sockets that have vanished; yield the level and the text of what is to be said about it.

        What cannot be put back is told once, and tried again at every call.
        """
        for place in filter(None, self._places.values()):
            try:
                if place.mend():
                    yield (
                        "warning",
                        f"{place.path} had vanished and is there again: keep cleaners away from it",
                    )
                self._complaints.pop(place.endpoint, None)
            except (ZmuleError, OSError) as error:
                complaint = f"clients cannot reach {place.endpoint}: its socket has vanished: {error}"
                if self._complaints.get(place.endpoint) != complaint:
                    self._complaints[place.endpoint] = complaint
                    yield "error", complaint


def _listener(path: Path, access: Access) -> socket.socket:
    """Return a socket that listens at the path, which nobody could connect to before it had its mode."""
    with ExitStack() as on_failure:
        listener = on_failure.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(os.fspath(path))
        on_failure.callback(path.unlink, missing_ok=True)
        _open_to(path, access)
        listener.setblocking(False)
        listener.listen(BACKLOG)
        on_failure.pop_all()
        return listener


def _open_to(path: Path, access: Access) -> None:
    """Let those connect to the socket at a path who may. No link is followed: root may change anything."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise FileExistsError(errno.EEXIST, "somebody has replaced the socket", os.fspath(path))
        access.open_socket(Path(f"/proc/self/fd/{descriptor}"))
    finally:
        os.close(descriptor)


def _bind_tcp(sock: zmq.Socket[bytes], endpoint: str) -> str:
    """Bind a socket to all addresses of a tcp endpoint that this machine has, at one port."""
    bound = ""
    wanted = addresses.to_bind(endpoint)
    for number, (address, ipv6) in enumerate(wanted, 1):
        if bound and address.endswith(":*"):
            address = f"{address[:-1]}{bound.rpartition(':')[2]}"
        sock.setsockopt(zmq.IPV6, int(ipv6))
        try:
            sock.bind(address)
        except zmq.ZMQError as error:
            absent = error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV, errno.EAFNOSUPPORT)
            if not absent or not (bound or number < len(wanted)):
                raise
        else:
            bound = bound or sock.get_string(zmq.LAST_ENDPOINT)
    return bound


@contextmanager
def hold(
    endpoints: Iterable[str], *, access: Access = PRIVATE, trust_folders: bool = False
) -> Iterator[Holding]:
    """Hold endpoints for as long as the context lasts: close the sockets bound to them before it ends.

    Args:
        endpoints: what to hold.
        access: who may connect to their sockets.
        trust_folders: leave out who else may write to the folders above.

    Raises:
        EndpointInUse: another zmuled, or another program, has one.
        NotPermitted: the system does not let us make a lock or a folder there.
        ConfigError: something that is no socket stands there, the folder is not safe, the path too long.
    """
    with ExitStack() as stack:
        places: dict[str, _Place | None] = {}
        for endpoint in endpoints:
            check_endpoint(endpoint)
            path = _socket_path(endpoint)
            if path is None:
                places[endpoint] = None
                continue
            try:
                places[endpoint] = stack.enter_context(_held(endpoint, path, access, trust_folders))
            except OSError as error:
                reason = f"{error.filename or path}: {error.strerror}"
                raise _refusal(endpoint, error.errno, reason) from error
        yield Holding(places)


def _socket_path(endpoint: str) -> Path | None:
    return Path(endpoint.removeprefix("ipc://")) if endpoint.startswith("ipc://") else None


@contextmanager
def _held(endpoint: str, path: Path, access: Access, trust_folders: bool) -> Iterator[_Place]:
    """Keep the lock of a path at which there is nothing."""
    place = _Place(endpoint, path, access, trust_folders)
    try:
        place.clear()
        yield place
    finally:
        place.remove_socket()
        place.release()


def _check_folders(endpoint: str, path: Path) -> None:
    """Refuse a path where others could replace our socket."""
    try:
        check_way(path, {os.geteuid()})
    except Untrusted as error:
        raise ConfigError(
            f"{endpoint}: {error}: let the folders above it belong to this user or root and be writable to no"
            " others, or see trust_folders"
        ) from None


def make_folder(folder: Path, access: Access = PRIVATE) -> None:
    """Make a folder and those above it, as far as they are missing, with their mode whatever the umask."""
    for missing in reversed([one for one in (folder, *folder.parents) if not one.exists()]):
        with suppress(FileExistsError):
            missing.mkdir(mode=0o700)
            access.open_folder(missing)


def _take(endpoint: str, lock: Path) -> int:
    """Return a descriptor that has the lock, on the file to which the path leads."""
    while True:
        with ExitStack() as on_failure:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            on_failure.callback(os.close, descriptor)
            _check_lock(endpoint, lock, os.fstat(descriptor))
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                who = _holder(descriptor)
                text = f"{endpoint}: another zmuled holds the endpoint, {who}: stop it or choose another"
                raise EndpointInUse(text) from None
            if _leads_to(lock, descriptor):
                with suppress(PermissionError):
                    os.fchmod(descriptor, 0o600)
                with suppress(OSError):  # a full disk: who holds it is then not told, and that is all
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
                on_failure.pop_all()
                return descriptor


def _check_lock(endpoint: str, lock: Path, found: os.stat_result) -> None:
    """Refuse a lock that another user holds out to us: who owns it can let it go, or keep us out."""
    if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()) or found.st_nlink > 1:
        whose = user_name(found.st_uid)
        raise ConfigError(f"{endpoint}: {lock} is not ours but {whose}'s: remove it or choose another path")


def _holder(descriptor: int) -> str:
    """Say who has the lock, as its file says; it may be just being written."""
    pid = os.pread(descriptor, 20, 0).strip()
    return f"pid {int(pid)}" if pid.isdigit() else "pid unknown"


def _leads_to(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except (FileNotFoundError, NotADirectoryError):
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
