"""Who decides what a path means: folders, links and groups, good and bad."""

from __future__ import annotations

import grp
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from zmule import trust
from zmule.trust import Untrusted, check_way

STRANGER = 12345
ME = {os.geteuid()}
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def way(tmp_path: Path) -> Path:
    path = tmp_path / "one" / "two" / "z.sock"
    path.parent.mkdir(parents=True)
    return path


def test_own_folders_are_fine(way: Path) -> None:
    check_way(way, ME)


def test_what_is_missing_ends_the_way(way: Path) -> None:
    check_way(way.parent / "three" / "four" / "z.sock", ME)


@pytest.mark.parametrize(
    ("mode", "safe"), [(0o777, False), (0o757, False), (0o1777, True), (0o755, True), (0o700, True)]
)
@pytest.mark.parametrize("which", [0, 1])
def test_every_folder_counts(way: Path, which: int, mode: int, safe: bool) -> None:
    way.parents[which].chmod(mode)
    if safe:
        check_way(way, ME)
    else:
        with pytest.raises(Untrusted, match=f"others may replace files in {way.parents[which]}$"):
            check_way(way, ME)


@root_only
@pytest.mark.parametrize("which", [0, 1])
def test_a_strangers_folder_anywhere_on_the_way(way: Path, which: int) -> None:
    os.chown(way.parents[which], STRANGER, -1)
    with pytest.raises(Untrusted, match=f"{way.parents[which]} belongs to user {STRANGER}"):
        check_way(way, ME)
    check_way(way, {STRANGER})


def test_a_link_leads_through_the_folders_of_its_target(way: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("one/../one/two")
    check_way(link / "z.sock", ME)
    way.parent.chmod(0o777)
    with pytest.raises(Untrusted, match="others may replace"):
        check_way(link / "z.sock", ME)


def test_a_link_as_the_last_entry_is_followed(way: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(way)
    way.parent.chmod(0o777)
    with pytest.raises(Untrusted):
        check_way(link, ME)


@root_only
def test_a_strangers_link_in_a_sticky_folder(way: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(way.parent)
    os.chown(link, STRANGER, -1, follow_symlinks=False)
    with pytest.raises(Untrusted, match=f"{link} belongs to"):
        check_way(link / "z.sock", ME)


def test_links_that_go_round(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(link)
    with pytest.raises(Untrusted, match="goes round"):
        check_way(link / "z.sock", ME)


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, list[str]], None]:
    """Have every file's group be one with a name and members."""

    def be(name: str, members: list[str]) -> None:
        monkeypatch.setattr(trust, "user_name", lambda _: "alice")
        monkeypatch.setattr(grp, "getgrgid", lambda _: SimpleNamespace(gr_name=name, gr_mem=members))

    return be


@root_only
@pytest.mark.parametrize(
    ("name", "members", "safe"),
    [
        ("alice", [], True),
        ("alice", ["alice"], True),
        ("alice", ["alice", "bob"], False),
        ("users", [], False),
    ],
)
def test_a_group_of_its_own_is_no_other(
    way: Path, groups: Callable[[str, list[str]], None], name: str, members: list[str], safe: bool
) -> None:
    groups(name, members)
    way.parent.chmod(0o775)
    os.chown(way.parent, -1, STRANGER)
    if safe:
        check_way(way, ME)
    else:
        with pytest.raises(Untrusted):
            check_way(way, ME)


@root_only
def test_a_group_without_a_name_is_others(way: Path) -> None:
    way.parent.chmod(0o775)
    os.chown(way.parent, -1, STRANGER)
    with pytest.raises(Untrusted):
        check_way(way, ME)
