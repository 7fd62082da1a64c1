"""A broker and a web server that are users of their own, and a third who is neither."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import COMMANDS, PATIENCE, Zmuled, wait_until

DAEMON, WEB, STRANGER, GROUP = 45001, 45002, 45003, 45010

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can be several users"
)


def user(number: int, *groups: int) -> list[str | Path]:
    """What runs a command as another user."""
    words: list[str | Path] = ["setpriv", f"--reuid={number}", f"--regid={number}"]
    return [*words, f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of the daemon's user that others may look into, as those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="zmule-"))
    os.chown(folder, DAEMON, DAEMON)
    folder.chmod(0o755)
    if subprocess.run([*user(DAEMON), COMMANDS / "zmuled", "--version"], capture_output=True).returncode:
        pytest.skip("other users cannot run what is tested")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def daemon(place: Path) -> Iterator[Zmuled]:
    zmuled = Zmuled(place, f"ipc://{place}/run/z.sock")
    yield zmuled
    zmuled.end()


def send(endpoint: str, number: int, *groups: int, broker: int | None = DAEMON) -> tuple[int, str]:
    """Send as another user, and be a worker that waits for broadcasts; return exit code and complaint."""
    environ = {"ZMULE_ENDPOINT": endpoint} | ({} if broker is None else {"ZMULE_BROKER_USER": str(broker)})
    done = subprocess.run(
        [*user(number, *groups), COMMANDS / "zmule-send", "any", "hello"],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return done.returncode, done.stderr


def found(zmuled: Zmuled) -> set[tuple[int, int, int]]:
    """Mode, owner and group of both sockets."""
    files = [(zmuled.folder / "run" / name).stat() for name in ("z.sock", "z.pub")]
    return {(stat.S_IMODE(file.st_mode), file.st_uid, file.st_gid) for file in files}


def test_a_group_is_let_in_and_nobody_else(daemon: Zmuled) -> None:
    daemon.start("--socket-mode=660", f"--socket-group={GROUP}", wrapper=user(DAEMON, GROUP))
    assert found(daemon) == {(0o660, DAEMON, GROUP)}
    assert send(daemon.endpoint, WEB, GROUP) == (0, "")
    assert send(daemon.endpoint, DAEMON, broker=None) == (0, "")
    code, said = send(daemon.endpoint, WEB, GROUP, broker=None)
    assert code == 77
    assert "ZMULE_BROKER_USER" in said
    code, said = send(daemon.endpoint, STRANGER)
    assert code == 77
    assert "is not open to this user: see --socket-mode and --socket-group" in said
    assert "does not let them through" not in daemon.output()


def test_a_web_server_hears_broadcasts_too(daemon: Zmuled) -> None:
    daemon.start(f"--socket-group={GROUP}", wrapper=user(DAEMON, GROUP))
    program = (
        "import zmule; w = zmule.Worker(1); w.register_signal(5, 'workers', print); print(w.signal_wait())"
    )
    environ = {"ZMULE_ENDPOINT": daemon.endpoint, "ZMULE_BROKER_USER": str(DAEMON)}
    with subprocess.Popen(
        [*user(WEB, GROUP), sys.executable, "-c", program],
        env=os.environ | environ,
        stdout=subprocess.PIPE,
        cwd="/",
    ) as worker:
        signal = [*user(WEB, GROUP), COMMANDS / "zmule", "signal", "5"]
        wait_until(
            lambda: subprocess.run(signal, env=os.environ | environ).returncode == 0 and worker.poll() == 0
        )


def test_it_holds_for_a_socket_that_is_made_again(daemon: Zmuled) -> None:
    daemon.start(f"--socket-group={GROUP}", wrapper=user(DAEMON, GROUP))
    for name in ("z.sock", "z.pub"):
        (daemon.folder / "run" / name).unlink()
    wait_until(lambda: daemon.output().count("had vanished and is there again") == 2)
    assert found(daemon) == {(0o660, DAEMON, GROUP)}
    assert send(daemon.endpoint, WEB, GROUP) == (0, "")


def test_a_folder_in_the_way_is_told_of_and_so_it_is_by_check(daemon: Zmuled) -> None:
    folder = daemon.folder / "run"
    folder.mkdir(mode=0o700)
    os.chown(folder, DAEMON, DAEMON)
    daemon.start(f"--socket-group={GROUP}", wrapper=user(DAEMON, GROUP))
    line = f"the sockets are open to group {GROUP}, but {folder} does not let them through"
    assert daemon.output().count(line) == 1
    command: list[str | Path] = [
        COMMANDS / "zmuled",
        "--endpoint",
        daemon.endpoint,
        f"--socket-group={GROUP}",
        "--check",
    ]
    checked = subprocess.run(
        [*user(DAEMON, GROUP), *command], cwd="/", capture_output=True, text=True, timeout=PATIENCE
    )
    assert (checked.returncode, checked.stderr.count("\n")) == (0, 1)
    assert checked.stderr.startswith(f"zmuled: {line}")
    assert send(daemon.endpoint, WEB, GROUP)[0] == 77
    folder.chmod(0o711)
    assert send(daemon.endpoint, WEB, GROUP) == (0, "")


def test_root_can_give_the_sockets_to_a_user(daemon: Zmuled) -> None:
    os.chown(daemon.folder, 0, 0)
    daemon.program("print.py", "import zmule\nwhile True: print('got', zmule.get_msg())\n")
    daemon.start(f"--chown-socket={WEB}:{GROUP}", "--chmod-socket=600", "--mule=print.py")
    assert found(daemon) == {(0o600, WEB, GROUP)}
    assert send(daemon.endpoint, WEB, broker=None) == (0, "")
    assert send(daemon.endpoint, STRANGER, GROUP)[0] == 77
    wait_until(lambda: "got hello" in daemon.output())


def test_a_user_who_cannot_give_them_away_is_told(daemon: Zmuled) -> None:
    for option, said in (
        (f"--socket-group={GROUP}", "zmuled's user is not in group"),
        (f"--socket-owner={WEB}", "only root can give a socket"),
    ):
        refused = subprocess.run(
            [*user(DAEMON), COMMANDS / "zmuled", "--endpoint", daemon.endpoint, option],
            cwd="/",
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert said in refused.stderr
