"""Who may connect to the sockets, without a broker: modes, names and folders."""

from __future__ import annotations

import grp
import os
import socket
import stat
from pathlib import Path

import pytest

from tests.daemon.test_config import complaint
from zmule.cli.common import UsageError
from zmule.cli.zmuled import respell
from zmule.daemon.access import KEEP, Access, closed
from zmule.daemon.config import load
from zmule.daemon.holding import _open_to, make_folder

OTHER = 34567
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder that lets all through, as those above it do not."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o711)
    return folder


def test_it_is_for_its_owner_alone_unless_something_else_is_said() -> None:
    config = load({}, {})
    assert (config.socket_mode, config.access) == ("600", Access(0o600, KEEP, KEEP))


def test_a_group_that_is_named_is_let_in() -> None:
    group = grp.getgrgid(os.getegid())
    flags = {"socket_group": [group.gr_name]}
    assert load(flags, {}).access == Access(0o660, KEEP, group.gr_gid)
    assert load(flags, {"ZMULE_SOCKET_MODE": "0600"}).access.mode == 0o600
    assert load({"socket_mode": ["0o666"]}, {}).access == Access(0o666)


@pytest.mark.parametrize("mode", ["", "66", "rw-rw----", "888", "060", "6660", "6 0", "\u0666\u0666\u0666"])
def test_a_mode_is_octal_and_lets_the_owner_in(mode: str) -> None:
    assert complaint({"socket_mode": [mode]}).startswith(f"--socket-mode: {mode!r} is not octal digits")


def test_a_number_in_the_file_could_be_of_either_base(tmp_path: Path) -> None:
    (tmp_path / "z.toml").write_text("[broker]\nsocket_mode = 660\n")
    assert ': broker.socket_mode: 660 is not octal digits as a text, such as "660"' in complaint(
        {"config": [str(tmp_path / "z.toml")]}
    )


def test_names_that_nobody_has() -> None:
    assert complaint({"socket_group": ["nobody-here"]}) == "--socket-group: there is no group 'nobody-here'"
    assert complaint({}, {"ZMULE_SOCKET_OWNER": "x y"}) == (
        "ZMULE_SOCKET_OWNER: 'x y' is not a name, or a number as a text"
    )
    assert complaint({}, {"ZMULE_SOCKET_OWNER": "99999999999"}).endswith("there is no user '99999999999'")
    overridden = {"ZMULE_SOCKET_GROUP": "nobody-here"}
    assert complaint({"socket_group": ["0"]}, overridden).startswith("ZMULE_SOCKET_GROUP: there is no group")


def test_what_only_root_can_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: OTHER)
    assert load({"socket_owner": [str(OTHER)], "socket_group": [str(os.getegid())]}, {})
    assert "only root can give a socket to user 1" in complaint({"socket_owner": ["1"]})
    assert f"zmuled's user is not in group {OTHER}" in complaint({"socket_group": [str(OTHER)]})


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["--chmod-socket"], ["--socket-mode=666"]),
        (["--chmod-socket=660", "--mule"], ["--socket-mode=660", "--mule="]),
        (["--chown-socket=app:web"], ["--socket-owner=app", "--socket-group=web"]),
        (["--chown-socket", "app"], ["--socket-owner=app"]),
        (["--chown-socket=:web"], ["--socket-group=web"]),
    ],
)
def test_uwsgis_spellings(words: list[str], meant: list[str]) -> None:
    assert list(respell(words)) == meant


@pytest.mark.parametrize("words", [["--chown-socket"], ["--chown-socket="], ["--chown-socket=app:"]])
def test_half_of_uwsgis_spelling(words: list[str]) -> None:
    with pytest.raises(UsageError, match="--chown-socket needs USER:GROUP"):
        list(respell(words))


@pytest.mark.parametrize(
    ("access", "mode"),
    [(Access(), 0o700), (Access(0o660), 0o710), (Access(0o666), 0o711), (Access(0o600, OTHER), 0o701)],
)
def test_a_folder_that_is_made_lets_through_whom_the_sockets_are_for(
    run: Path, access: Access, mode: int
) -> None:
    make_folder(run / "one" / "two", access)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (run / "one", run / "one" / "two")]
    assert modes == [mode, mode]


@root_only
def test_it_stays_its_owners(run: Path) -> None:
    make_folder(run / "one", Access(0o660, OTHER, OTHER))
    found = (run / "one").stat()
    assert (found.st_uid, found.st_gid) == (0, OTHER)


@root_only
@pytest.mark.parametrize(
    ("folder", "access", "who"),
    [
        (0o700, Access(), ""),
        (0o700, Access(0o660, KEEP, OTHER), f"group {OTHER}"),
        (0o710, Access(0o660, KEEP, OTHER), f"group {OTHER}"),
        (0o701, Access(0o660, KEEP, OTHER), ""),
        (0o701, Access(0o660), "group root"),
        (0o710, Access(0o660), ""),
        (0o710, Access(0o666), "everybody"),
        (0o711, Access(0o666), ""),
        (0o700, Access(0o600, OTHER), "their owner"),
        (0o701, Access(0o600, OTHER), ""),
    ],
)
def test_a_folder_that_does_not_is_told_of(folder: int, access: Access, who: str) -> None:
    top = Path("/run") / f"zmule-test-{os.getpid()}"  # those above pytest's own folders let nobody through
    top.mkdir()
    try:
        top.chmod(folder)
        said = closed(f"ipc://{top}/z.sock", access)
        assert said.startswith(
            f"the sockets are open to {who}, but {top} does not let them through" if who else ""
        )
        assert bool(said) == bool(who)
    finally:
        top.rmdir()


def test_of_tcp_there_is_nothing_to_tell() -> None:
    assert closed("tcp://127.0.0.1:1", Access(0o666)) == ""


def test_what_has_taken_the_sockets_place_keeps_its_mode(run: Path) -> None:
    target = run / "target"
    target.touch(mode=0o600)
    (run / "link").symlink_to(target)
    for path in (target, run / "link"):
        with pytest.raises(OSError, match=r"replaced|symbolic"):
            _open_to(path, Access(0o666))
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.fspath(run / "s"))
        _open_to(run / "s", Access(0o660))
    assert stat.S_IMODE((run / "s").stat().st_mode) == 0o660
