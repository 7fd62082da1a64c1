"""Clients that are dropped, threads and processes that end: what was posted leaves, and nothing stays."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.conftest import PATIENCE, Zmuled, wait_until
from zmule.clients.driver import Driver
from zmule.clients.sync import Client
from zmule.core.outbox import Outbox
from zmule.errors import BrokerUnavailable
from zmule.mules.mule import Mule


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def pumps() -> int:
    return sum(thread.name == "zmule-pump" for thread in threading.enumerate())


def run(zmuled: Zmuled, source: str) -> str:
    """Run a program to its end; return what it has written on standard error."""
    name = zmuled.program("ends.py", source)
    done = subprocess.run(
        [sys.executable, name],
        cwd=zmuled.folder,
        env={**os.environ, "ZMULE_ENDPOINT": zmuled.endpoint, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def accepted(zmuled: Zmuled) -> int:
    total: int = zmuled.status()["totals"]["accepted"]
    return total


CHILD = """
import multiprocessing, sys, zmule
from concurrent.futures import ProcessPoolExecutor

def post(count=10):
    for _ in range(count):
        zmule.mule_msg("x", wait=False)

def main(how):
    if how == "executor":
        with ProcessPoolExecutor(1) as pool:
            pool.submit(post).result()
    else:
        if how == "fork":
            zmule.mule_msg("x")     # the parent's client is there at the fork
        process = multiprocessing.get_context(how).Process(target=post)
        process.start()
        process.join()
        sys.exit(process.exitcode)

if __name__ == "__main__":
    main(HOW)
"""


@pytest.mark.parametrize("how", ["fork", "spawn", "forkserver", "executor"])
def test_what_a_child_has_posted_leaves(zmuled: Zmuled, how: str) -> None:
    zmuled.start()
    assert run(zmuled, CHILD.replace("HOW", repr(how))) == ""
    assert accepted(zmuled) == 10 + (how == "fork")


ENDS = {
    "a thread after the main one": """
import threading, time, zmule

def work():
    threading.main_thread().join()
    for _ in range(10):
        zmule.mule_msg("x", wait=False)

threading.Thread(target=work).start()
""",
    "a first message at the very end": """
import atexit, threading

def late():
    import zmule
    for _ in range(10):
        zmule.mule_msg("x", wait=False)

atexit.register(late)
""",
    "sys.exit in a thread": """
import sys, threading, zmule

def work():
    for _ in range(10):
        zmule.mule_msg("x", wait=False)
    sys.exit(3)

threading.Thread(target=work).start()
""",
    "a handler of atexit that is later than ours": """
import atexit

def late():
    for _ in range(10):
        zmule.mule_msg("x", wait=False)

atexit.register(late)
import zmule
zmule.mule_id()
from zmule.current import client
client()
""",
    "a finalizer of multiprocessing": """
import multiprocessing, multiprocessing.util, zmule

def late():
    for _ in range(9):
        zmule.mule_msg("x", wait=False)

def child():
    zmule.mule_msg("x", wait=False)
    multiprocessing.util.Finalize(None, late, exitpriority=-2000)

process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
""",
    "a client that was dropped": """
import zmule
for _ in range(10):
    zmule.Client().mule_msg("x", wait=False)
""",
}


@pytest.mark.parametrize("end", ENDS)
def test_what_was_posted_leaves(zmuled: Zmuled, end: str) -> None:
    zmuled.start()
    assert run(zmuled, ENDS[end]) == ""
    assert accepted(zmuled) == 10


def test_what_cannot_leave_is_counted_once(zmuled: Zmuled) -> None:
    zmuled.start()
    source = """
    import os, signal, zmule
    from zmule.clients import ending
    ending.CLOSE_TIMEOUT = 0.2
    client = zmule.Client()
    os.kill(client.status()["broker"]["pid"], signal.SIGSTOP)
    for _ in range(10):
        client.mule_msg("x", wait=False)
    """
    try:
        error = run(zmuled, source)
    finally:
        assert zmuled.process is not None
        zmuled.process.send_signal(18)
    assert "10 messages" in error
    assert error.count("\n") == 1


def test_threads_that_wait_at_the_end_are_silent(zmuled: Zmuled) -> None:
    zmuled.start("--locks=1")
    source = """
    import threading, time, zmule
    zmule.lock(0).acquire()
    for number in (0, 0, 0):
        threading.Thread(target=lambda: zmule.lock(0).acquire(), daemon=True).start()

    def send():
        while True:
            zmule.mule_msg("x", wait=False)
            zmule.mule_msg("x")

    threading.Thread(target=send, daemon=True).start()
    while len(zmule.current.client().status()["locks"][0]["waiting"]) < 1:
        time.sleep(0.01)
    """
    assert run(zmuled, source) == ""


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("cycle", [False, True])
def test_a_client_that_is_dropped_leaves_nothing_open(zmuled: Zmuled, wait: bool, cycle: bool) -> None:
    zmuled.start()

    def request() -> None:
        client: Any = Client(zmuled.endpoint)
        if cycle:
            client.own = [client]
        client.mule_msg("x", wait=wait)

    zmuled.status()
    request()
    gc.collect()
    wait_until(lambda: pumps() == 0)
    before = descriptors()
    for _ in range(20):
        request()
    gc.collect()
    wait_until(lambda: pumps() == 0 and descriptors() <= before, "the end of the clients")
    assert accepted(zmuled) == 21


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_lock_of_a_thread_that_has_ended_is_free(zmuled: Zmuled) -> None:
    client = zmuled.start().client()

    def fail() -> None:
        client.lock("kept").acquire()
        raise SystemExit

    for work in (lambda: client.lock("kept").acquire(), fail) * 3:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        with client.lock("kept", timeout=PATIENCE):
            pass


def test_a_lock_is_held_by_the_thread_that_the_system_knows(zmuled: Zmuled) -> None:
    with zmuled.start().client().lock("own"):
        (holder,) = [lock["holder"] for lock in zmuled.status()["locks"] if lock["name"] == "own"]
    assert holder == {"pid": os.getpid(), "thread": threading.get_native_id()}


@contextmanager
def few_descriptors(left: int) -> Iterator[None]:
    """Have that many descriptors left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 64, hard))
    try:
        try:
            while True:
                taken.append(os.eventfd(0))
        except OSError:
            for descriptor in taken[:left]:
                os.close(descriptor)
            del taken[:left]
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_few_descriptors_are_an_error_and_no_end(zmuled: Zmuled) -> None:
    zmuled.start()
    client = zmuled.client()
    for left in (0, 1, 2, 5, 9):
        with few_descriptors(left), pytest.raises(BrokerUnavailable, match="descriptors"):
            client.mule_msg("x")
    assert client.mule_msg("x")


def test_a_connection_that_is_lost_without_descriptors_comes_back(zmuled: Zmuled) -> None:
    client = zmuled.start().client()
    client.mule_msg("x", wait=False)
    client.flush()
    with few_descriptors(0):
        zmuled.kill()
        client.mule_msg("y", wait=False)
        with pytest.raises(BrokerUnavailable):
            client.flush(timeout=0.3)
    zmuled.start()
    client.flush(timeout=PATIENCE)
    assert accepted(zmuled) == 1


def test_a_mule_without_descriptors_says_so(zmuled: Zmuled) -> None:
    client = zmuled.start().client()
    for left in (0, 1, 5, 9, 17):  # the last are enough to connect, not for what is broadcast
        with few_descriptors(left), pytest.raises(BrokerUnavailable, match="descriptor"):
            Mule(2, endpoint=zmuled.endpoint, timeout=1)
    with Mule(2, endpoint=zmuled.endpoint) as mule:
        client.mule_msg("x", 2)
        assert mule.get_msg(timeout=PATIENCE) == "x"


def test_nobody_rings_at_a_descriptor_that_is_closed() -> None:
    driver = Driver("ipc:///nowhere", Outbox(bytes(16), most_messages=1, most_bytes=1, pid=1))
    driver._bell.open()
    ring = driver._bell.ring  # as if another thread were about to call it
    number = driver._bell.descriptor
    driver.close()
    ring()
    del ring
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(number)


class Farewell:
    """Sends when it is collected."""

    def __init__(self, client: Client, wait: bool) -> None:
        self.client, self.wait = client, wait
        self.itself = self

    def __del__(self) -> None:
        self.client.mule_msg("bye", 2, wait=self.wait)


def test_what_is_collected_in_a_call_may_send(zmuled: Zmuled) -> None:
    client = zmuled.start().client(timeout=PATIENCE)
    before = gc.get_threshold()
    with Mule(2, endpoint=zmuled.endpoint) as mule:
        gc.set_threshold(1)  # so that the pump collects, too
        try:
            for number in range(100):
                Farewell(client, wait=number % 2 == 0)
                client.mule_msg("x", 2, wait=number % 3 == 0)
        finally:
            gc.set_threshold(*before)
        gc.collect()
        client.flush()
        came = [mule.get_msg(timeout=PATIENCE) for _ in range(200)]
        assert sorted(map(str, came)) == ["bye"] * 100 + ["x"] * 100
