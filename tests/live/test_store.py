"""A real zmuled that keeps its messages in a file: killed, without a disk, with a file that is none."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from tests.conftest import COMMANDS, PATIENCE, Zmuled, wait_until
from zmule.clients.sync import Client
from zmule.core.terms import is_held
from zmule.errors import BrokerUnavailable, StoreUnavailable
from zmule.mules.mule import Mule
from zmule.stores import open_store
from zmule.stores.schema import MIGRATIONS


def start(zmuled: Zmuled, *arguments: str) -> Zmuled:
    return zmuled.start(f"--store=sqlite://{zmuled.folder}/zmule.db", *arguments)


def restart(zmuled: Zmuled, *arguments: str) -> None:
    zmuled.kill()
    start(zmuled, *arguments)


def kept(zmuled: Zmuled, body: str) -> tuple[int, bool]:
    """Return which delivery is next of a message in the file of a broker that is dead, and if it pauses."""
    store = open_store(f"sqlite://{zmuled.folder}/zmule.db")
    try:
        (message,) = [message for message in store.recover().messages if message[2] == body]
    finally:
        store.close()
    return message[3], is_held(message[6])


def read_all(zmuled: Zmuled) -> list[Any]:
    """Read what there is for any, in order."""
    bodies: list[Any] = []
    with Mule(endpoint=zmuled.endpoint) as mule:
        while (body := mule.get_msg(timeout=0)) is not None:
            bodies.append(body)
    return bodies


@contextmanager
def no_space(zmuled: Zmuled, limit: int = 1 << 20) -> Iterator[None]:
    """Let no file of the daemon grow beyond `limit` bytes."""
    assert zmuled.process is not None
    before = resource.prlimit(zmuled.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(zmuled.process.pid, resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(zmuled.process.pid, resource.RLIMIT_FSIZE, before)


LONG = "x" * 100_000
"""What there is no room for on a full disk; a short text may find some."""


def fill(client: Client) -> int:
    """Send until the disk is full; return how many were accepted."""
    accepted = 0
    with suppress(StoreUnavailable):
        for accepted in range(1000):
            client.mule_msg(f"{accepted} {LONG}")
    assert accepted < 999, "the disk is never full"
    return accepted


# A broker that is killed.


def test_nothing_accepted_is_lost_and_nothing_is_doubled_when_the_broker_is_killed(zmuled: Zmuled) -> None:
    client = start(zmuled).client(timeout=PATIENCE)
    sent: list[str] = []
    done = threading.Event()

    def send() -> None:
        while not done.is_set() or len(sent) < 2000:
            sent.append(str(len(sent)))
            client.mule_msg(sent[-1], wait=False)
        client.flush()

    sender = threading.Thread(target=send)
    sender.start()
    for _ in range(4):
        accepted = zmuled.client(timeout=PATIENCE).status()["totals"]["accepted"]
        wait_until(lambda: zmuled.clients[-1].status()["totals"]["accepted"] > accepted + 300)  # noqa: B023
        restart(zmuled)
    done.set()
    sender.join()
    got = read_all(zmuled)
    assert [body for body, count in Counter(got).items() if count > 1] == []
    assert got == sent


def test_a_confirmed_message_is_there_after_a_kill(zmuled: Zmuled) -> None:
    client = start(zmuled).client(timeout=PATIENCE)
    for number in range(5):
        client.mule_msg(str(number), headers={"n": number})
        restart(zmuled)
    assert read_all(zmuled) == ["0", "1", "2", "3", "4"]


def test_what_a_mule_had_comes_again_with_its_attempt_counted(zmuled: Zmuled) -> None:
    client = start(zmuled).client(timeout=PATIENCE)
    client.mule_msg("x")
    for attempt in (1, 2):
        with Mule(endpoint=zmuled.endpoint) as mule, mule.message(timeout=PATIENCE) as message:
            assert message is not None
            assert message.attempt == attempt
            mule.nack()
        wait_until(lambda: zmuled.status()["queues"]["any"]["in_flight"] == 0)
        client.mule_msg("later", delay=3600)  # when this is confirmed, what came before it is synced, too
        zmuled.kill()
        assert kept(zmuled, "x") == (attempt + 1, attempt > 1)
        start(zmuled)
    with Mule(endpoint=zmuled.endpoint) as mule, mule.message(timeout=PATIENCE) as message:
        assert message is not None
        assert message.attempt == 3


def test_what_was_acknowledged_does_not_come_again_after_a_stop(zmuled: Zmuled) -> None:
    client = start(zmuled).client(timeout=PATIENCE)
    for number in range(100):
        client.mule_msg(str(number), wait=False)
    client.flush()
    with Mule(endpoint=zmuled.endpoint) as mule:
        for number in range(50):
            assert mule.get_msg(timeout=PATIENCE) == str(number)
    assert zmuled.stop() == 0
    assert "lost" not in zmuled.tail()
    start(zmuled)
    assert read_all(zmuled) == [str(number) for number in range(50, 100)]


def test_dead_letters_and_delayed_messages_outlive_the_broker(zmuled: Zmuled) -> None:
    client = start(zmuled, "--max-deliveries=1").client(timeout=PATIENCE)
    client.mule_msg("dead")
    with Mule(endpoint=zmuled.endpoint) as mule:
        assert mule.get_msg(timeout=PATIENCE) == "dead"
        mule.nack()
    wait_until(lambda: zmuled.status()["dead"]["count"] == 1)
    client.mule_msg("soon", delay=1)
    client.mule_msg("late", delay=3600)
    client.mule_msg("at", at=time.time() + 3600)
    client.mule_msg("mortal", ttl=0.001)
    restart(zmuled)
    assert zmuled.status()["queues"]["any"]["delayed"] >= 2
    with Mule(endpoint=zmuled.endpoint) as mule:
        assert mule.get_msg(timeout=PATIENCE) == "soon"
    wait_until(lambda: zmuled.status()["queues"]["any"]["delayed"] == 2)
    wait_until(lambda: client.dead_list()["count"] == 2, "the end of the mortal one")
    ids = [letter["id"] for letter in client.dead_list()["letters"]]
    assert [client.dead_show(id)["body"] for id in ids] == ["dead", "mortal"]
    assert client.dead_requeue(ids[:1]) == 1
    restart(zmuled)
    assert client.dead_list()["count"] == 1
    assert zmuled.status()["queues"]["any"]["ready"] == 1


# A disk that is full.


def test_a_full_disk_refuses_at_once_loses_nothing_and_heals(zmuled: Zmuled) -> None:
    client = start(zmuled).client(timeout=PATIENCE)
    with no_space(zmuled):
        accepted = fill(client)
        assert accepted > 2
        assert "zmule.db" in wait_until(lambda: zmuled.status()["broker"]["store_error"], "the failure")
        more, done = 0, send_long(zmuled)
        while done.returncode == 0:  # the store has tried once more, and found some room
            more, done = more + 1, send_long(zmuled)
        assert done.returncode == 75
        assert done.stderr.startswith("zmule-send: the store cannot write: ")
        assert done.stderr.count("\n") == 1
        with Mule(endpoint=zmuled.endpoint) as mule:  # what it holds is served all the same, which makes room
            assert str(mule.get_msg(timeout=PATIENCE)).startswith("0 ")
    wait_until(lambda: zmuled.status()["broker"]["store_error"] is None, "that the store writes again")
    client.mule_msg("last")
    assert "error: the store cannot write, so new messages are refused: " in zmuled.output()
    wait_until(lambda: "warning: the store writes again" in zmuled.output(), "the note")
    restart(zmuled)
    bodies = [str(body).split()[0] for body in read_all(zmuled)]
    assert bodies == [*map(str, range(1, accepted)), *[LONG] * more, "last"]


def send_long(zmuled: Zmuled) -> subprocess.CompletedProcess[str]:
    """Send by the command what there may be no room for."""
    command = [str(COMMANDS / "zmule-send"), "--endpoint", zmuled.endpoint, "any", LONG]
    return subprocess.run(command, capture_output=True, text=True)


def test_what_was_accepted_is_safe_if_the_broker_is_killed_on_a_full_disk(zmuled: Zmuled) -> None:
    client = start(zmuled).client(timeout=PATIENCE)
    with no_space(zmuled):
        accepted = fill(client)
        zmuled.kill()
    start(zmuled)
    client.mule_msg("more")
    bodies = [str(body).split()[0] for body in read_all(zmuled)]
    assert bodies == [*map(str, range(accepted)), "more"]


def test_a_broker_does_not_start_on_a_full_disk_and_says_that_it_may_later(zmuled: Zmuled) -> None:
    client = start(zmuled).client(timeout=PATIENCE)
    client.mule_msg("x")
    zmuled.kill()
    store = f"sqlite://{zmuled.folder}/zmule.db"
    code, line = refused(zmuled, store, full=True)
    assert code == 75
    assert "zmuled starts when the disk has room" in line
    start(zmuled)
    assert read_all(zmuled) == ["x"]


# A file that cannot be used.


def refused(zmuled: Zmuled, store: str, *, full: bool = False) -> tuple[int, str]:
    """Start a second zmuled that must not start; return its exit status and its one line.

    `full`: it cannot write anything into files.
    """
    limits = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh"] if full else []
    endpoint = f"ipc://{zmuled.folder}/second.sock"
    done = subprocess.run(
        [*limits, COMMANDS / "zmuled", "--endpoint", endpoint, "--store", store],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stderr.startswith("zmuled: store ")
    assert done.stderr.count("\n") == 1
    assert not (zmuled.folder / "second.sock").exists()
    return done.returncode, done.stderr


def test_a_second_broker_on_the_same_file_is_turned_away(zmuled: Zmuled) -> None:
    client = start(zmuled).client()
    code, line = refused(zmuled, f"sqlite://{zmuled.folder}/zmule.db")
    assert code == 73
    assert "another process has it open" in line
    assert client.mule_msg("x") is True


def test_a_folder_that_cannot_be_written(zmuled: Zmuled) -> None:
    code, line = refused(zmuled, "sqlite:///sys/kernel/zmule.db")
    assert code == 78
    assert "zmuled must be able to write this file and its folder" in line


def test_a_file_that_is_damaged_or_something_else(zmuled: Zmuled) -> None:
    path = zmuled.folder / "zmule.db"
    path.write_text("Dear diary, " * 1000)
    code, line = refused(zmuled, f"sqlite://{path}")
    assert (code, "this is not a SQLite database" in line) == (78, True)
    path.unlink()
    client = start(zmuled).client()
    for _ in range(20):
        client.mule_msg("x" * 10_000)
    assert zmuled.stop() == 0
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\x5a" * 4096)
    code, line = refused(zmuled, f"sqlite://{path}")
    assert (code, "the file is damaged" in line) == (78, True)


def test_a_file_of_a_newer_version(zmuled: Zmuled) -> None:
    assert start(zmuled).stop() == 0
    path = zmuled.folder / "zmule.db"
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    code, line = refused(zmuled, f"sqlite://{path}")
    assert (code, "a newer zmule wrote this file" in line) == (78, True)


# Senders whose broker is gone.


def test_close_says_what_could_not_be_confirmed(zmuled: Zmuled) -> None:
    client = start(zmuled).client()
    client.mule_msg("x")
    zmuled.kill()
    for _ in range(3):
        client.mule_msg("y", wait=False)
    with pytest.raises(BrokerUnavailable, match="3 messages are unconfirmed"):
        client.close(timeout=0.1)


@pytest.mark.parametrize("how", ["a client", "the default client"])
def test_a_process_that_ends_flushes(zmuled: Zmuled, how: str) -> None:
    start(zmuled)
    assert ending(zmuled, how, 100).stderr == ""
    assert zmuled.status()["queues"]["any"]["ready"] == 100


@pytest.mark.parametrize("how", ["a client", "the default client"])
def test_a_process_that_ends_says_what_could_not_be_confirmed(zmuled: Zmuled, how: str) -> None:
    start(zmuled)
    assert zmuled.process is not None
    done = ending(zmuled, how, 3, f"os.kill({zmuled.process.pid}, 9); CLOSE")
    zmuled.process.wait()
    assert done.stderr.startswith("zmule: at exit: no zmuled at ipc://")
    assert done.stderr.endswith(": 3 messages are unconfirmed\n")


def ending(zmuled: Zmuled, how: str, count: int, also: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program that sends without waiting, and ends."""
    make = "zmule.Client()" if how == "a client" else "zmule"
    script = (
        f"import os, zmule\nfrom zmule.clients import sync\nclient = {make}\n"
        f"client.mule_msg('first')\n{also.replace('CLOSE', 'sync.CLOSE_TIMEOUT = 0.1')}\n"
        f"for _ in range({count} - {0 if also else 1}): client.mule_msg('x', wait=False)\n"
    )
    return subprocess.run(
        [COMMANDS / "python", "-c", script],
        env={"ZMULE_ENDPOINT": zmuled.endpoint},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
