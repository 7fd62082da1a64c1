"""Two brokers, strange files and doors left open: what binding must survive and what it must not touch."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest
import zmq

from zmule.daemon.holding import Holding, hold
from zmule.errors import ConfigError, EndpointInUse, NotPermitted, ZmuleError

HOLDER = """
import subprocess, sys, zmq
from zmule.daemon.holding import hold
with zmq.Context() as context, hold(sys.argv[1:]) as holding, context.socket(zmq.ROUTER) as router:
    holding.bind(router, sys.argv[1])
    child = subprocess.Popen(["sleep", "1000"], close_fds=False, stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
    sys.stdin.read()
    child.kill()
    child.wait()
"""


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    before = descriptors()
    yield
    assert not descriptors() - before


def descriptors() -> set[tuple[str, str]]:
    """What this process has open: numbers, and of what."""
    gc.collect()
    opened = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the listing itself
            opened.add((path.name, str(path.readlink())))
    return opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "z.sock"


@pytest.fixture
def endpoint(path: Path) -> str:
    return f"ipc://{path}"


@pytest.fixture
def router() -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        yield router


@contextmanager
def other_holder(endpoint: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that holds the endpoint and has a child; yields it and the child's pid."""
    argv = [sys.executable, "-c", HOLDER, endpoint]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        yield holder, int(holder.stdout.readline())


def test_bound_and_gone_without_a_trace(path: Path, endpoint: str, router: zmq.Socket[bytes]) -> None:
    umask = os.umask(0o022)
    try:
        with hold([endpoint]) as holding:
            assert holding.bind(router, endpoint) == endpoint
            assert stat.S_IMODE(path.lstat().st_mode) == 0o600
            assert sorted(child.name for child in path.parent.iterdir()) == ["z.sock", "z.sock.lock"]
            router.close()
    finally:
        assert os.umask(umask) == 0o022
    assert list(path.parent.iterdir()) == []


def test_a_second_holder_in_another_process_is_refused(endpoint: str, path: Path) -> None:
    with other_holder(endpoint) as (holder, _):
        with pytest.raises(EndpointInUse) as refused, hold([endpoint]):
            pass
        assert refused.value.exit_code == 73
        assert endpoint in str(refused.value)
        assert f"pid {holder.pid}" in str(refused.value)
        assert "\n" not in str(refused.value)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        assert holder.poll() is None
    assert holder.returncode == 0
    with hold([endpoint]):
        pass


def test_a_killed_holder_leaves_nothing_in_the_way(
    path: Path, endpoint: str, router: zmq.Socket[bytes]
) -> None:
    with other_holder(endpoint) as (holder, child):
        holder.kill()
        holder.wait()
        try:
            assert path.is_socket()
            with hold([endpoint]) as holding:
                assert not path.exists()
                holding.bind(router, endpoint)
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_lock_on_a_file_that_was_removed_is_no_lock(
    path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder removes the lock file and lets go, just after we opened it and before we lock it."""
    flock, lock = fcntl.flock, path.with_name("z.sock.lock")
    calls: list[int] = []

    def late(descriptor: int, operation: int) -> None:
        if not calls:
            lock.unlink()
        calls.append(operation)
        flock(descriptor, operation)

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", late)
        with hold([endpoint]):
            assert len(calls) == 2
            with pytest.raises(EndpointInUse), hold([endpoint]):
                pass


def test_the_lock_file_has_our_pid_and_nothing_else(path: Path, endpoint: str) -> None:
    lock = path.with_name("z.sock.lock")
    lock.write_text("4194304 from an earlier one\n")
    with hold([endpoint]):
        assert lock.read_text() == f"{os.getpid()}\n"


def test_an_endpoint_given_twice_is_refused(endpoint: str) -> None:
    with pytest.raises(EndpointInUse), hold([endpoint, endpoint]):
        pass


def test_a_failure_lets_go_of_all(path: Path, endpoint: str) -> None:
    regular = path.with_name("regular")
    regular.write_text("precious")
    with pytest.raises(ConfigError), hold([endpoint, f"ipc://{regular}"]):
        pass
    assert [child.name for child in path.parent.iterdir()] == ["regular"]
    with hold([endpoint]):
        pass


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling", "fifo"])
def test_what_is_no_socket_is_left_alone(kind: str, path: Path, endpoint: str, tmp_path: Path) -> None:
    aside = tmp_path / "aside"
    aside.write_text("precious")
    match kind:
        case "file":
            path.write_text("precious")
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(aside)
        case "dangling":
            path.symlink_to(tmp_path / "nothing")
        case "fifo":
            os.mkfifo(path)
    before = path.lstat()
    with pytest.raises(ConfigError, match="is not a socket") as refused, hold([endpoint]):
        pass
    assert refused.value.exit_code == 78
    assert os.path.samestat(path.lstat(), before)
    if kind in ("file", "link"):
        assert path.read_text() == "precious"


def test_a_listener_without_a_lock_is_left_alone(path: Path, endpoint: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        for _ in range(3):  # more than its backlog takes: full is not stale
            with pytest.raises(EndpointInUse, match="another program"), hold([endpoint]):
                pass
        assert path.is_socket()


def test_a_socket_that_took_the_place_of_ours_is_not_removed(
    path: Path, endpoint: str, router: zmq.Socket[bytes]
) -> None:
    with socket.socket(socket.AF_UNIX) as thief, hold([endpoint]) as holding:
        holding.bind(router, endpoint)
        thief.bind(str(path.with_name("thief")))
        path.with_name("thief").rename(path)
    assert path.is_socket()


def test_a_missing_folder_is_made_for_us_alone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with hold([f"ipc://{folder}/z.sock"]):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(folder.iterdir()) == []


def test_missing_parents_are_made_for_us_alone_too(tmp_path: Path) -> None:
    with hold([f"ipc://{tmp_path}/run/user/z.sock"]):
        assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "run" / "user").stat().st_mode) == 0o700


@pytest.mark.parametrize(("mode", "safe"), [(0o777, False), (0o770, False), (0o1777, True), (0o755, True)])
def test_a_folder_open_to_others_is_refused(tmp_path: Path, mode: int, safe: bool) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(mode)
    if safe:
        with hold([f"ipc://{folder}/z.sock"]):
            pass
    else:
        with pytest.raises(ConfigError, match="others may replace"), hold([f"ipc://{folder}/z.sock"]):
            pass


def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, -1)
    with (
        pytest.raises(ConfigError, match=f"{folder} belongs to user 12345"),
        hold([f"ipc://{folder}/z.sock"]),
    ):
        pass


def test_a_folder_above_counts_as_well(tmp_path: Path) -> None:
    (tmp_path / "open" / "run").mkdir(parents=True)
    (tmp_path / "open").chmod(0o777)
    endpoint = f"ipc://{tmp_path}/open/run/z.sock"
    with pytest.raises(ConfigError, match=f"others may replace files in {tmp_path}/open:"), hold([endpoint]):
        pass
    with hold([endpoint], trust_folders=True):
        pass


@pytest.mark.parametrize("umask", [0o777, 0o000])
def test_the_umask_decides_nothing(tmp_path: Path, router: zmq.Socket[bytes], umask: int) -> None:
    endpoint = f"ipc://{tmp_path}/run/z.sock"
    before = os.umask(umask)
    try:
        with hold([endpoint]) as holding:
            holding.bind(router, endpoint)
            modes = [stat.S_IMODE(each.lstat().st_mode) for each in (tmp_path / "run").iterdir()]
            assert modes == [0o600, 0o600]
            assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
            router.close()
    finally:
        os.umask(before)


def test_a_lock_of_another_user_is_refused(path: Path, endpoint: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    lock = path.with_name("z.sock.lock")
    lock.touch()
    os.chown(lock, 12345, -1)
    with pytest.raises(ConfigError, match=r"z\.sock\.lock is not ours but user 12345's"), hold([endpoint]):
        pass
    assert lock.exists()


def test_a_lock_with_another_name_is_refused(path: Path, endpoint: str) -> None:
    precious = path.with_name("precious")
    precious.write_text("precious")
    path.with_name("z.sock.lock").hardlink_to(precious)
    with pytest.raises(ConfigError, match="is not ours"), hold([endpoint]):
        pass
    assert precious.read_text() == "precious"


def test_what_vanished_is_put_back(path: Path, endpoint: str, router: zmq.Socket[bytes]) -> None:
    with hold([endpoint]) as holding:
        holding.bind(router, endpoint)
        assert list(holding.mend()) == []
        path.unlink()
        path.with_name("z.sock.lock").unlink()
        ((level, text),) = holding.mend()
        assert (level, text.startswith(f"{path} had vanished and is there again")) == ("warning", True)
        with pytest.raises(EndpointInUse), hold([endpoint]):
            pass
        assert list(holding.mend()) == []
        router.close()
    assert list(path.parent.iterdir()) == []


def test_a_place_that_another_has_taken_is_not_taken_back(
    path: Path, endpoint: str, router: zmq.Socket[bytes]
) -> None:
    with hold([endpoint]) as holding:
        holding.bind(router, endpoint)
        path.unlink()
        path.with_name("z.sock.lock").unlink()
        with other_holder(endpoint) as (holder, _):
            ((level, text),) = holding.mend()
            assert level == "error"
            assert f"another zmuled holds the endpoint, pid {holder.pid}" in text
            assert list(holding.mend()) == []
            assert path.is_socket()
        router.close()


def test_a_folder_that_another_user_has_put_there_gets_no_socket(
    tmp_path: Path, router: zmq.Socket[bytes]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    folder = tmp_path / "run"
    endpoint = f"ipc://{folder}/z.sock"
    with hold([endpoint]) as holding:
        holding.bind(router, endpoint)
        folder.rename(tmp_path / "gone")
        folder.mkdir()
        os.chown(folder, 12345, -1)
        ((level, text),) = holding.mend()
        assert (level, "belongs to user 12345" in text) == ("error", True)
        assert list(folder.iterdir()) == []
        router.close()


def test_a_lock_that_is_a_link_is_not_followed(path: Path, endpoint: str, tmp_path: Path) -> None:
    aside = tmp_path / "aside"
    aside.write_text("precious")
    path.with_name("z.sock.lock").symlink_to(aside)
    with pytest.raises(ConfigError, match=r"z\.sock\.lock"), hold([endpoint]):
        pass
    assert aside.read_text() == "precious"


def test_a_folder_that_lets_nobody_write_is_not_permitted() -> None:
    if not Path("/sys/kernel").is_dir():
        pytest.skip("no /sys here, where not even root can make a file")
    with (
        pytest.raises(NotPermitted, match=r"/sys/kernel/z\.sock\.lock") as refused,
        hold(["ipc:///sys/kernel/z.sock"]),
    ):
        pass
    assert refused.value.exit_code == 77


@pytest.mark.parametrize("bad", ["ipc://", "ipc://relative", "ipc:///" + "x" * 107, "tcp://127.0.0.1:99999"])
def test_a_misspelled_endpoint_is_refused_before_anything_is_made(bad: str) -> None:
    with pytest.raises(ConfigError), hold([bad]):
        pass


def test_only_what_is_held_is_bound(endpoint: str, router: zmq.Socket[bytes]) -> None:
    with hold([]) as holding, pytest.raises(KeyError):
        holding.bind(router, endpoint)


def test_tcp_gets_a_port_and_a_port_in_use_is_refused(router: zmq.Socket[bytes]) -> None:
    with hold(["tcp://127.0.0.1:*"]) as holding:
        bound = holding.bind(router, "tcp://127.0.0.1:*")
        assert bound.startswith("tcp://127.0.0.1:")
    with zmq.Context() as context, context.socket(zmq.ROUTER) as second, hold([bound]) as holding:
        with pytest.raises(EndpointInUse, match=bound) as refused:
            holding.bind(second, bound)
        assert refused.value.exit_code == 73


def test_an_address_of_another_machine_is_a_wrong_configuration(router: zmq.Socket[bytes]) -> None:
    elsewhere = "tcp://192.0.2.1:5555"
    with hold([elsewhere]) as holding, pytest.raises(ConfigError, match="no such address"):
        holding.bind(router, elsewhere)


class Refusing:
    """A socket that the system will not bind, whoever asks; root is refused no port."""

    def __init__(self, code: int) -> None:
        self.code = code

    def setsockopt(self, option: int, value: int) -> None:
        pass

    def bind(self, endpoint: str) -> None:
        raise zmq.ZMQError(self.code, endpoint)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.EACCES, NotPermitted), (errno.EPERM, NotPermitted), (errno.ENODEV, ConfigError)],
)
def test_a_refusal_of_the_system_is_told_in_one_line(code: int, kind: type[ZmuleError]) -> None:
    holding = Holding({"tcp://127.0.0.1:80": None})
    with pytest.raises(kind, match=r"^tcp://127.0.0.1:80: .+$"):
        holding.bind(cast(Any, Refusing(code)), "tcp://127.0.0.1:80")
