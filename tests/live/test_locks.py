"""Locks through a real zmuled, between real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, Zmuled, wait_until
from zmule.errors import (
    Deadlock,
    LockBusy,
    LockTimeout,
    NotHolder,
    UnknownLock,
    ZmuleError,
)

HOLDER = """
    import sys, zmule
    with zmule.Client() as client:
        lock = client.lock("it")
        print(lock.acquire(), flush=True)
        sys.stdin.read(1)
        try:
            lock.release()
        except zmule.NotHolder:
            print("lost", flush=True)
        else:
            print("released", flush=True)
"""

WAITER = """
    import os, sys, zmule
    with zmule.Client() as client, client.lock("it"):
        with open("order", "a") as order:
            order.write(sys.argv[1] + "\\n")
"""

MANAGER = """
    import time, zmule

    def next_task():
        # What a task manager must not do without a lock: look, think, and then write.
        with open("started") as started:
            done = {line.split()[0] for line in started}
        task = next((str(task) for task in range(300) if str(task) not in done), None)
        time.sleep(0.001)
        if task is not None:
            with open("started", "a") as started:
                started.write(f"{task} {zmule.mule_id()}\\n")
        return task

    with zmule.Client() as client:
        while True:
            with client.lock(1):
                task = next_task()
            if task is None:
                break
    zmule.get_msg()
"""

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(zmuled: Zmuled) -> Iterator[Start]:
    """Start a program beside the broker; kill it at the end of the test, and all others."""
    processes: list[subprocess.Popen[bytes]] = []
    for name, source in (("holder.py", HOLDER), ("waiter.py", WAITER), ("manager.py", MANAGER)):
        zmuled.program(name, source)

    def start(*words: str) -> subprocess.Popen[bytes]:
        environ = {**os.environ, "ZMULE_ENDPOINT": zmuled.endpoint}
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=zmuled.folder,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def holding(start: Start) -> tuple[subprocess.Popen[bytes], int]:
    """Start a process that holds the lock `it`; return its fencing token, too."""
    process = start("holder.py")
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def outcome(process: subprocess.Popen[bytes]) -> str:
    """Let a holder let go; return how that went."""
    output, _ = process.communicate(b"x", timeout=PATIENCE)
    return output.decode().strip()


def waiting(zmuled: Zmuled) -> int:
    return sum(len(lock["waiting"]) for lock in zmuled.status()["locks"])


def test_one_at_a_time_with_a_growing_token(zmuled: Zmuled) -> None:
    client = zmuled.start("--locks=2").client()
    with client.lock(2) as first:
        assert client.is_locked(2)
        assert not client.is_locked(0)
        token = first.token
    assert first.token is None
    assert not client.is_locked(2)
    with client.lock(2) as second:
        assert second.token is not None
        assert token is not None
        assert second.token > token


def test_what_is_wrong_is_told(zmuled: Zmuled) -> None:
    client, other = zmuled.start("--locks=1").client(), zmuled.client()
    for name in (2, -1, "", "x" * 201):
        with pytest.raises(UnknownLock):
            client.lock(name).acquire()
        with pytest.raises(UnknownLock):
            client.is_locked(name)
    with client.lock(1):
        with pytest.raises(Deadlock):
            client.lock(1).acquire()
        with pytest.raises(LockBusy):
            other.lock(1, blocking=False).acquire()
        with pytest.raises(LockTimeout):
            other.lock(1, timeout=0.05).acquire()
        with pytest.raises(NotHolder):
            other.lock(1).release()
        assert client.is_locked(1)
    with pytest.raises(NotHolder):
        client.lock(1).release()
    with pytest.raises(ZmuleError, match="a timeout is a number of seconds"):
        client.lock(1, timeout=float("inf")).acquire()
    assert not client.is_locked(1)


def test_threads_of_one_process_exclude_each_other(zmuled: Zmuled) -> None:
    client = zmuled.start().client()
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with client.lock():
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert most == 1


def test_first_come_first_served_among_processes(zmuled: Zmuled, start: Start) -> None:
    zmuled.start()
    holder, _ = holding(start)
    waiters = []
    for number in range(5):
        waiters.append(start("waiter.py", str(number)))
        wait_until(lambda: waiting(zmuled) == number + 1, "one more that waits")  # noqa: B023
    waiters[1].kill()
    wait_until(lambda: waiting(zmuled) == 4, "one less")
    assert outcome(holder) == "released"
    assert [waiter.wait(PATIENCE) for waiter in waiters] == [0, -signal.SIGKILL, 0, 0, 0]
    assert (zmuled.folder / "order").read_text().split() == ["0", "2", "3", "4"]


def test_status_names_the_processes(zmuled: Zmuled, start: Start) -> None:
    zmuled.start()
    holder, token = holding(start)
    waiter = start("waiter.py", "w")
    wait_until(lambda: waiting(zmuled) == 1, "a waiter")
    entry = zmuled.status()["locks"][-1]
    assert (entry["name"], entry["token"]) == ("it", token)
    assert entry["holder"] == {"pid": holder.pid, "thread": holder.pid}
    assert entry["waiting"] == [{"pid": waiter.pid, "thread": waiter.pid}]


@pytest.mark.parametrize("endpoint", ["ipc", "tcp"])
def test_a_holder_that_is_killed_frees_its_lock(endpoint: str, request: pytest.FixtureRequest) -> None:
    zmuled: Zmuled = request.getfixturevalue("zmuled")
    if endpoint == "tcp":
        zmuled.endpoint = request.getfixturevalue("zmuled_tcp").endpoint
    start: Start = request.getfixturevalue("start")
    client = zmuled.start("--heartbeat-timeout=1000").client()
    holder, token = holding(start)
    os.kill(holder.pid, signal.SIGKILL)
    with client.lock("it", timeout=PATIENCE) as lock:
        assert lock.token is not None
        assert lock.token > token


def test_a_holder_that_is_stopped_loses_its_lock_in_time(zmuled: Zmuled, start: Start) -> None:
    client = zmuled.start("--heartbeat=0.2", "--heartbeat-timeout=1").client()
    holder, token = holding(start)
    with pytest.raises(LockTimeout):
        client.lock("it", timeout=1.5).acquire()  # it lives, and keeps what it holds
    os.kill(holder.pid, signal.SIGSTOP)
    with client.lock("it", timeout=PATIENCE) as lock:
        assert lock.token is not None
        assert lock.token > token
        os.kill(holder.pid, signal.SIGCONT)
        assert outcome(holder) == "lost"
        assert client.is_locked("it")


def test_the_lock_of_a_broker_that_was_killed_is_lost(zmuled: Zmuled, start: Start) -> None:
    zmuled.start()
    holder, token = holding(start)
    zmuled.kill()
    zmuled.start()
    with zmuled.client().lock("it", timeout=PATIENCE) as lock:
        assert lock.token is not None
        assert lock.token > token
        assert outcome(holder) == "lost"


def test_who_waits_over_a_restart_of_the_broker_gets_the_lock(zmuled: Zmuled, start: Start) -> None:
    zmuled.start()
    holding(start)
    waiter = start("waiter.py", "w")
    wait_until(lambda: waiting(zmuled) == 1, "a waiter")
    zmuled.kill()
    zmuled.start()
    assert waiter.wait(PATIENCE) == 0


def test_a_child_does_not_hold_what_its_parent_holds(zmuled: Zmuled, start: Start) -> None:
    zmuled.program(
        "fork.py",
        """
        import os, sys, zmule
        client = zmule.Client()
        with client.lock("it"):
            if not os.fork():
                try:
                    client.lock("it", blocking=False).acquire()
                except zmule.LockBusy:
                    os._exit(7)
                os._exit(1)
            print(os.waitstatus_to_exitcode(os.wait()[1]), client.is_locked("it"))
        client.close()
        """,
    )
    zmuled.start()
    assert start("fork.py").communicate(timeout=PATIENCE)[0] == b"7 True\n"


def test_a_task_manager_on_several_mules_starts_no_task_twice(zmuled: Zmuled, start: Start) -> None:
    started = zmuled.folder / "started"
    started.touch()
    zmuled.start(*["--mule=manager.py"] * 4, "--locks=1")
    for kills in range(1, 9):
        wait_until(lambda: lines(started) > 25 * kills, "tasks")  # noqa: B023
        number = 1 + kills % 4
        mule = wait_until(lambda: alive(zmuled, number), f"mule {number}")  # noqa: B023
        os.kill(mule["pid"], signal.SIGKILL)
    wait_until(lambda: lines(started) == 300, "all tasks", 60)
    tasks = Counter(line.split()[0] for line in started.read_text().splitlines())
    assert tasks == dict.fromkeys(map(str, range(300)), 1)
    wait_until(lambda: sum(mule["restarts"] for mule in zmuled.status()["mules"]) == 8, "8 restarts")
    assert len({line.split()[1] for line in started.read_text().splitlines()}) == 4


def lines(path: Path) -> int:
    return path.read_text().count("\n")


def alive(zmuled: Zmuled, number: int) -> dict[str, object] | None:
    """Return a mule's entry if it is at work."""
    entry = zmuled.mule(number)
    return entry if entry["state"] in ("idle", "busy") else None
