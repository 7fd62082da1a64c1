"""A file and its log that do not belong together, or are not whole; a file that does not stay where it is."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.stores.test_sqlite import answers, ids, message, refusal
from zmule.errors import EndpointInUse
from zmule.stores import Changes, Lost, Saved, Store, open_store, sqlite, wal
from zmule.stores.schema import State

KILLED = """
import os, select, sys
from zmule.stores import Changes, open_store
store = open_store(sys.argv[1])
for batch in range(1, int(sys.argv[2]) + 1):
    store.save(Changes(batch, [(batch, "any", "ciuchino" * 40, 1, 0.5, None, None)]))
    select.select([store.descriptor()], [], [])
    store.completed()
os._exit(0)
"""
COUNT = 30


def killed(path: Path, count: int = COUNT) -> None:
    """Be a process that has messages confirmed, one by one, and is killed."""
    subprocess.run([sys.executable, "-c", KILLED, f"sqlite://{path}", str(count)], check=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "zmule.db"


@pytest.fixture
def log(path: Path) -> Path:
    return path.with_name("zmule.db-wal")


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite://{path}")
    yield store
    store.close()


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RETRY_SECONDS", "TIDY_SECONDS", "LOOK_SECONDS"):
        monkeypatch.setattr(sqlite, name, 0.02)


def test_what_a_kill_leaves_is_whole(path: Path) -> None:
    killed(path)
    assert ids(path) == list(range(1, COUNT + 1))
    assert ids(path) == list(range(1, COUNT + 1))


def test_a_copy_made_without_the_log_is_noticed(path: Path, log: Path, tmp_path: Path) -> None:
    killed(path)
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    assert "its log copy.db-wal is missing: was the file copied while zmuled ran, without it?" in refusal(
        copy
    )
    shutil.copy(log, tmp_path / "copy.db-wal")
    assert ids(copy) == list(range(1, COUNT + 1))


def test_a_copy_of_a_file_that_was_closed_needs_no_log(path: Path, store: Store, tmp_path: Path) -> None:
    store.save(Changes(1, [message(1)]))
    store.close()
    shutil.copy(path, tmp_path / "copy.db")
    assert ids(tmp_path / "copy.db") == [1]


def test_a_log_that_is_older_than_the_file_is_noticed(path: Path, log: Path, tmp_path: Path) -> None:
    killed(path)
    shutil.copy(log, tmp_path / "old")
    open_store(f"sqlite://{path}").close()
    shutil.copy(tmp_path / "old", log)
    assert "it was closed in good order, so zmule.db-wal is another file's or an older one's" in refusal(path)
    log.unlink()
    killed(path, 1)
    shutil.copy(tmp_path / "old", log)
    assert "zmule.db-wal is the log of another file, or of this one at another time" in refusal(path)


def flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 0x55
    file.write_bytes(data)


def frames(log: Path) -> int:
    """Return how many frames of the present salt a log has."""
    data = log.read_bytes()
    return sum(data[32 + at * 4120 + 8 :][:8] == data[16:24] for at in range(len(data) // 4120))


def damages(log: Path) -> dict[str, Callable[[], object]]:
    used = 32 + frames(log) * 4120
    return {
        "the header": lambda: flip(log, 5),
        "its checksum": lambda: flip(log, 30),
        "the first frame": lambda: flip(log, 32 + 100),
        "a header in the middle": lambda: flip(log, 32 + used // 4120 // 2 * 4120 + 9),
        "a page in the middle": lambda: flip(log, used // 2),
        "zeros in the middle": lambda: log.write_bytes(
            log.read_bytes()[: used // 3] + bytes(9000) + log.read_bytes()[used // 3 + 9000 :]
        ),
        "cut": lambda: os.truncate(log, used // 2),
        "cut behind its end": lambda: os.truncate(log, used + 5),
        "empty": lambda: os.truncate(log, 0),
        "gone": log.unlink,
    }


@pytest.mark.parametrize("damage", damages(Path(os.devnull)))
def test_damage_of_the_log_is_noticed_and_left_alone(path: Path, log: Path, damage: str) -> None:
    killed(path)
    damages(log)[damage]()
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    said = refusal(path)
    assert "zmule.db-wal" in said
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_damage_of_the_last_commit_is_said(path: Path, log: Path) -> None:
    killed(path)
    flip(log, 32 + frames(log) * 4120 - 2000)
    store = open_store(f"sqlite://{path}")
    remark = getattr(store, "remark", None)
    found = len(store.recover().messages)
    store.close()
    assert found == COUNT - 1
    assert remark is not None
    assert "zmule.db-wal ends in an unfinished transaction after frame" in remark


def test_an_unfinished_transaction_is_no_damage(path: Path, log: Path) -> None:
    killed(path)
    end = 32 + frames(log) * 4120
    data = bytearray(log.read_bytes())
    data[end : end + 24] = b"\0\0\0\1\0\0\0\0" + data[16:24] + b"rubbish."
    log.write_bytes(data)
    assert ids(path) == list(range(1, COUNT + 1))


@pytest.mark.parametrize("gone", [True, False])
def test_a_log_without_its_file_is_kept(path: Path, log: Path, gone: bool) -> None:
    killed(path)
    before = log.read_bytes()
    path.unlink()
    if not gone:
        path.touch()
    assert "it is missing or empty, but its log zmule.db-wal is there" in refusal(path)
    assert log.read_bytes() == before


def test_a_journal_beside_a_log_is_not_followed(path: Path) -> None:
    killed(path)
    path.with_name("zmule.db-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(504))
    assert "zmule.db-journal is not ours: move it away" in refusal(path)


def test_the_state_of_the_log_is_read_as_it_was_written() -> None:
    state = State(is_open=True, lineage=7, length=8 << 20)
    read = State.read(state.pack())
    assert read is not None
    assert (read.is_open, read.lineage, read.length) == (True, 7, 8 << 20)
    assert State.read(state.pack()[:-1] + b"x") is None
    assert State.read(b"") is None
    assert len(State().pack()) == len(state.pack()) == 17


def test_the_lineage_outlives_new_beginnings(path: Path, log: Path) -> None:
    store = open_store(f"sqlite://{path}")
    before = wal.lineage(log), log.read_bytes()[:32]
    for batch in range(1, 40):
        store.save(Changes(batch, [message(batch, "x" * 300_000)]))
        assert answers(store, 1) == [Saved(batch)]
    assert log.read_bytes()[:32] != before[1]
    assert wal.lineage(log) == before[0]
    store.close()


# Whose it is.


def test_another_name_of_the_file_is_refused(path: Path, tmp_path: Path) -> None:
    killed(path)
    (tmp_path / "second.db").hardlink_to(path)
    for name in ("zmule.db", "second.db"):
        assert "has another name (a hard link)" in refusal(tmp_path / name)


def test_another_way_to_the_file_is_the_same_file(path: Path, store: Store, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(path)
    (tmp_path / "folder").symlink_to(tmp_path)
    for way in ("link.db", "folder/zmule.db", "folder/link.db"):
        with pytest.raises(EndpointInUse):
            open_store(f"sqlite://{tmp_path}/{way}")
    store.close()
    assert ids(tmp_path / "folder" / "link.db") == []


@pytest.mark.parametrize("name", ["zmule.db", "zmule.db-wal"])
def test_a_file_that_others_may_write_is_refused(path: Path, name: str) -> None:
    killed(path)
    path.with_name(name).chmod(0o606)
    assert f"others may write to {path.with_name(name)}" in refusal(path)


@pytest.mark.parametrize("name", ["zmule.db", "zmule.db-wal"])
def test_a_file_of_another_user_is_refused(path: Path, name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    killed(path)
    os.chown(path.with_name(name), 12345, -1)
    assert f"{name} belongs to user 12345" in refusal(path)


def test_a_folder_that_others_may_write_is_refused_unless_trusted(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    assert f"others may replace files in {folder}" in refusal(folder / "zmule.db")
    open_store(f"sqlite://{folder}/zmule.db", trust_folders=True).close()


# A file that goes away.


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_goes_away_is_said_and_heals_when_it_is_back(
    path: Path, store: Store, replaced: bool
) -> None:
    store.save(Changes(1, [message(1), message(2)]))
    assert answers(store, 1) == [Saved(1)]
    path.rename(path.with_name("aside"))
    if replaced:
        path.touch(mode=0o600)
    wait_until(lambda: store.healthy() is not None)
    assert store.healthy() == f"{path} was removed or replaced while zmuled ran: put it back"
    store.save(Changes(2, [message(3)], removed=[1]))
    (lost,) = answers(store, 1)
    assert isinstance(lost, Lost)
    path.unlink(missing_ok=True)
    path.with_name("aside").rename(path)
    wait_until(lambda: store.healthy() is None)
    store.save(Changes(3, [message(4)]))
    assert answers(store, 1) == [Saved(3)]
    store.close()
    assert ids(path) == [2, 4]


@pytest.mark.usefixtures("hurry")
def test_nothing_is_confirmed_that_went_to_a_file_without_a_name(path: Path, store: Store) -> None:
    path.unlink()
    store.save(Changes(1, [message(1)]))
    assert [type(answer) for answer in answers(store, 1)] == [Lost]


@pytest.mark.usefixtures("hurry")
def test_a_log_that_goes_away_is_begun_anew(path: Path, log: Path, store: Store) -> None:
    store.save(Changes(1, [message(1)]))
    assert answers(store, 1) == [Saved(1)]
    log.unlink()
    wait_until(log.exists)
    wait_until(lambda: store.healthy() is None)
    store.save(Changes(2, [message(2)]))
    assert answers(store, 1) == [Saved(2)]
    copy = sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)
    assert copy.execute("SELECT id FROM message").fetchall()[0] == (1,)
    copy.close()
    store.close()
    assert ids(path) == [1, 2]


def test_files_of_another_that_took_the_place_are_not_touched_at_close(
    path: Path, log: Path, store: Store
) -> None:
    store.save(Changes(1, [message(1)]))
    assert answers(store, 1) == [Saved(1)]
    for file in (path, log):
        file.unlink()
        file.write_text("precious")
    store.close()
    assert path.read_text() == log.read_text() == "precious"
