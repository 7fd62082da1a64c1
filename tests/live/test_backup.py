"""Backups of a real zmuled that is at work, and what a plain copy of the file does instead."""

from __future__ import annotations

import shutil
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from tests.conftest import COMMANDS, PATIENCE, Zmuled, wait_until
from zmule.stores import open_store


def backup(zmuled: Zmuled, file: Path) -> subprocess.CompletedProcess[str]:
    command = [str(COMMANDS / "zmule"), "backup", str(file), "--endpoint", zmuled.endpoint]
    return subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE)


def bodies(path: Path) -> list[str]:
    store = open_store(f"sqlite://{path}")
    try:
        return [str(message[2]) for message in store.recover().messages]
    finally:
        store.close()


@pytest.fixture
def running(zmuled: Zmuled) -> Zmuled:
    return zmuled.start(f"--store=sqlite://{zmuled.folder}/zmule.db")


def test_a_backup_has_what_was_confirmed_and_can_be_served(running: Zmuled, tmp_path: Path) -> None:
    client = running.client(timeout=PATIENCE)
    for number in range(300):
        client.mule_msg(f"{number} " + "x" * 20_000, wait=False)
    client.flush()
    done, sent = threading.Event(), [300]

    def send() -> None:
        while not done.is_set():
            client.mule_msg(str(sent[0]))
            sent[0] += 1

    sender = threading.Thread(target=send)
    sender.start()
    wait_until(lambda: sent[0] > 310)
    confirmed = sent[0]
    made = backup(running, tmp_path / "copy.db")
    done.set()
    sender.join()
    assert made.returncode == 0, made.stderr
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600
    assert not (tmp_path / "zmule.db.backup").exists()
    found = [int(body.split()[0]) for body in bodies(tmp_path / "copy.db")]
    assert found == list(range(len(found)))
    assert confirmed <= len(found) <= sent[0]
    assert made.stdout.startswith(f"{tmp_path}/copy.db: {len(found)} messages and 0 dead letters")


def test_nothing_is_overwritten(running: Zmuled, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    made = backup(running, precious)
    assert (made.returncode, made.stderr.count("\n")) == (1, 1)
    assert precious.read_text() == "precious"


def test_memory_has_no_backup(zmuled: Zmuled, tmp_path: Path) -> None:
    made = backup(zmuled.start(), tmp_path / "copy.db")
    assert made.returncode == 75
    assert "the store is memory:" in made.stderr
    assert not (tmp_path / "copy.db").exists()


def test_a_copy_of_the_file_alone_is_refused(running: Zmuled, tmp_path: Path) -> None:
    running.client(timeout=PATIENCE).mule_msg("x")
    shutil.copy(tmp_path / "zmule.db", tmp_path / "copy.db")
    refused = subprocess.run(
        [COMMANDS / "zmuled", f"--endpoint=ipc://{tmp_path}/2.sock", f"--store=sqlite://{tmp_path}/copy.db"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (refused.returncode, refused.stderr.count("\n")) == (78, 1)
    assert "copied while zmuled ran" in refused.stderr
