"""Processes that are no mules: scripts, and the workers of servers that fork before or after they load."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Zmuled, wait_until
from zmule import current
from zmule.errors import ZmuleError

SERVER = """
    import os, signal, sys
    import zmule.compat
    zmule.compat.install()
    sys.path.insert(0, os.getcwd())

    def work():
        if "preload" not in sys.argv:
            import app
        while True:
            signal.pause()

    if "preload" in sys.argv:
        import app
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    children = set()
    while True:
        while len(children) < 3:
            child = os.fork()
            if child == 0:
                work()
            children.add(child)
        children.discard(os.wait()[0])
"""

APP = """
    import os, uwsgi
    from uwsgidecorators import postfork, signal, timer

    def note(*words):
        with open("notes", "a") as notes:
            print(os.getpid(), *words, file=notes)

    @signal(17, target="workers")
    def everybody(number):
        note("ran", number, "as", uwsgi.worker_id())

    @timer(0.05, target="worker")
    def somebody(number):
        note("timer")

    @postfork
    def forked():
        note("forked")
"""


class Server:
    """A pre-forking server of three workers, and what they have noted."""

    def __init__(self, zmuled: Zmuled, *arguments: str) -> None:
        zmuled.program("server.py", SERVER)
        zmuled.program("app.py", APP)
        self.zmuled = zmuled
        self.notes = zmuled.folder / "notes"
        self.notes.touch()
        with zmuled.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "server.py", *arguments],
                cwd=zmuled.folder,
                env={**os.environ, "ZMULE_ENDPOINT": zmuled.endpoint},
                stdout=log,
                stderr=log,
                process_group=0,
            )

    def children(self) -> set[int]:
        pid = self.process.pid
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    def words(self) -> list[list[str]]:
        return [line.split() for line in self.notes.read_text().splitlines()]

    def ran(self) -> dict[int, list[int]]:
        """Which processes have run signal 17, and as which workers."""
        runs: dict[int, list[int]] = {}
        for pid, *words in self.words():
            if words[:2] == ["ran", "17"]:
                runs.setdefault(int(pid), []).append(int(words[3]))
        return runs

    def workers(self) -> list[int]:
        workers: list[int] = self.zmuled.status()["workers"]
        return workers

    def handlers(self) -> list[int]:
        """The workers that handle signal 17."""
        return [
            worker
            for row in self.zmuled.status()["signals"]
            if row["number"] == 17
            for worker in row["workers"]
        ]


@pytest.fixture
def serve(zmuled: Zmuled) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*arguments: str) -> Server:
        servers.append(Server(zmuled, *arguments))
        return servers[-1]

    yield start
    for server in servers:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()


@pytest.mark.parametrize("how", ["preload", "lazy"])
def test_each_worker_handles_signals_and_the_master_none(
    zmuled: Zmuled, serve: Callable[..., Server], how: str
) -> None:
    client = zmuled.start().client()
    server = serve(how)
    wait_until(lambda: server.handlers() == [1, 2, 3], "three workers")
    client.signal(17)
    wait_until(lambda: len(server.ran()) == 3, "each to run it")
    wait_until(lambda: ["timer"] in [words[1:] for words in server.words()], "the timer")
    assert set(server.ran()) == server.children()
    assert sorted(server.ran().values()) == [[1], [2], [3]]
    assert str(server.process.pid) not in {pid for pid, *_ in server.words()}
    assert server.workers() == [1, 2, 3]
    forked = [int(pid) for pid, what, *_ in server.words() if what == "forked"]
    assert sorted(forked) == (sorted(server.children()) if how == "preload" else [])
    assert len([row for row in zmuled.status()["timers"] if row["kind"] == "timer"]) == 1


@pytest.mark.parametrize("how", ["preload", "lazy"])
def test_a_worker_that_dies_is_followed_by_another(
    zmuled: Zmuled, serve: Callable[..., Server], how: str
) -> None:
    client = zmuled.start().client()
    server = serve(how)
    wait_until(lambda: server.handlers() == [1, 2, 3], "three workers")
    client.signal(17)
    wait_until(lambda: len(server.ran()) == 3, "each to run it")
    before = server.children()
    killed = min(before)
    os.kill(killed, signal.SIGKILL)

    def all_again() -> bool:
        client.signal(17)
        return len(server.ran()) == 4

    wait_until(all_again, "the successor to run it")
    [successor] = server.ran().keys() & server.children() - before
    assert set(server.ran()[successor]) == set(server.ran()[killed])


def test_workers_that_are_forked_while_the_broker_is_away_come_later(
    zmuled: Zmuled, serve: Callable[..., Server]
) -> None:
    zmuled.start()
    server = serve("preload")
    wait_until(lambda: server.handlers() == [1, 2, 3], "three workers")
    zmuled.kill()
    before = server.children()
    for child in before:
        os.kill(child, signal.SIGKILL)
    wait_until(lambda: len(server.children() - before) == 3, "their successors")
    zmuled.start()
    wait_until(lambda: server.handlers() == [1, 2, 3], "their registration")


def test_workers_register_again_with_a_broker_that_is_back(
    zmuled: Zmuled, serve: Callable[..., Server]
) -> None:
    client = zmuled.start().client()
    server = serve("preload")
    wait_until(lambda: server.handlers() == [1, 2, 3], "three workers")
    zmuled.kill()
    zmuled.start()
    wait_until(lambda: server.handlers() == [1, 2, 3], "their return")
    client.signal(17)
    wait_until(lambda: len(server.ran()) == 3, "each to run it")
    assert len([row for row in zmuled.status()["timers"] if row["kind"] == "timer"]) == 1


def run_script(zmuled: Zmuled, source: str) -> list[str]:
    zmuled.program("script.py", source)
    environ = {**os.environ, "ZMULE_ENDPOINT": zmuled.endpoint, "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=zmuled.folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_threads_that_wait_for_a_lock_end_with_the_process_in_silence(zmuled: Zmuled) -> None:
    zmuled.start()
    source = """
        import threading, time, zmule
        from zmule.compat import uwsgi
        uwsgi.lock()
        for _ in range(3):
            threading.Thread(target=uwsgi.lock, daemon=True).start()
        while sum(len(lock["waiting"]) for lock in zmule.Client().status()["locks"]) < 3:
            time.sleep(0.01)
        print("ends")
    """
    assert run_script(zmuled, source) == ["ends"]


def test_a_signal_that_nobody_has_registered_ends_the_wait_of_a_worker(zmuled: Zmuled) -> None:
    zmuled.start()
    source = """
        import threading, zmule
        from zmule.compat import uwsgi
        uwsgi.register_signal(5, "worker", lambda number: None)
        seen = []
        waits = [threading.Thread(target=lambda: seen.append((uwsgi.signal_wait(), uwsgi.signal_received())))]
        for thread in waits: thread.start()
        while not any(thread.is_alive() for thread in waits): pass
        uwsgi.signal(100)
        for thread in waits: thread.join(20)
        threading.Timer(0.1, lambda: [uwsgi.signal(101), uwsgi.signal(5), uwsgi.signal(102)]).start()
        uwsgi.signal_wait(102)
        print(seen, uwsgi.signal_received(), zmule.signal_wait(timeout=0.01))
    """
    assert run_script(zmuled, source) == ["[(b'', 100)] 102 None"]


def test_helpers_of_a_worker_are_no_workers(zmuled: Zmuled) -> None:
    zmuled.start()
    source = """
        import multiprocessing, os, subprocess, threading
        import zmule
        from zmule.compat import uwsgi

        ran = threading.Event()
        zmule.register_signal(5, "worker", lambda _: ran.set())
        uwsgi.post_fork_hook = lambda: print("forked", flush=True)
        import zmule.compat
        zmule.compat.install()

        def helper():
            with zmule.Client() as client:
                print("helped", client.status()["workers"], flush=True)

        process = multiprocessing.get_context("fork").Process(target=helper)
        process.start()
        process.join()
        subprocess.run(["true"], preexec_fn=lambda: None, check=True)
        print("still", zmule.worker_id(), flush=True)
        zmule.signal(5)
        print(ran.wait(20), flush=True)
    """
    assert run_script(zmuled, source) == ["helped [1]", "still 1", "True"]


def test_a_child_of_a_forked_worker_is_its_helper(zmuled: Zmuled) -> None:
    zmuled.start()
    source = """
        import os, threading, zmule

        ran = threading.Event()
        zmule.register_signal(5, "workers", lambda _: ran.set())
        child = os.fork()
        if child == 0:
            number = zmule.worker_id()
            grandchild = os.fork()
            if grandchild == 0:
                os._exit(0)
            os.waitpid(grandchild, 0)
            zmule.signal(5)
            print("worker", number, zmule.worker_id(), ran.wait(20), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print("master", zmule.worker_id(), ran.is_set())
    """
    assert run_script(zmuled, source) == ["worker 1 1 True", "master 0 False"]


def test_a_master_that_registers_again_serves_again(zmuled: Zmuled) -> None:
    zmuled.start()
    source = """
        import os, threading, zmule

        ran = threading.Event()
        zmule.register_signal(5, "workers", lambda _: ran.set())
        child = os.fork()
        if child == 0:
            zmule.worker_id()
            os._exit(0)
        os.waitpid(child, 0)
        zmule.register_signal(6, "workers", print)
        zmule.signal(5)
        print(zmule.worker_id(), ran.wait(20))
    """
    assert run_script(zmuled, source) == ["1 True"]


def test_a_script_that_only_sends_is_no_worker(zmuled: Zmuled) -> None:
    zmuled.start()
    source = """
        from zmule.compat import uwsgi
        uwsgi.signal(5)
        uwsgi.mule_msg("x")
        uwsgi.lock()
        from zmule import current
        print(len(current.client().status()["workers"]))
    """
    assert run_script(zmuled, source) == ["0"]


@pytest.mark.usefixtures("fresh")
def test_where_threads_are_replaced_there_is_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("_thread.start_new_thread", lambda *_: None)
    with pytest.raises(ZmuleError, match="gevent"):
        current.worker_id()


def test_atexit(zmuled: Zmuled) -> None:
    zmuled.start()
    source = """
        from zmule.compat import uwsgi
        uwsgi.atexit = lambda: print("the end", uwsgi.mule_msg("x"))
        print("begun", uwsgi.mule_msg("x"))
    """
    assert run_script(zmuled, source) == ["begun True", "the end True"]


def test_post_fork_by_hand(zmuled: Zmuled) -> None:
    source = """
        import zmule.compat
        print(zmule.compat.post_fork())
        zmule.compat.install()
        print(zmule.compat.post_fork())
        from uwsgidecorators import postfork
        forked = postfork(lambda: print("forked"))
        print(zmule.compat.post_fork())
    """
    assert run_script(zmuled, source) == ["False", "False", "forked", "True"]


def handlers(zmuled: Zmuled, number: int) -> list[int]:
    """Return which workers handle a signal: each says so a moment after it has registered."""
    return [
        worker
        for signal in zmuled.status()["signals"]
        if signal["number"] == number
        for worker in signal["workers"]
    ]


def test_gunicorn(zmuled: Zmuled) -> None:
    pytest.importorskip("gunicorn", reason="gunicorn is not installed here")
    client = zmuled.start().client()
    zmuled.program("app.py", APP + "\n    def application(environ, start_response): pass\n")
    environ = {**os.environ, "ZMULE_ENDPOINT": zmuled.endpoint}
    command = [
        sys.executable,
        "-m",
        "zmule.compat",
        "gunicorn",
        "--preload",
        "-w",
        "3",
        "-b",
        "127.0.0.1:0",
        "app",
    ]
    with subprocess.Popen(command, cwd=zmuled.folder, env=environ, stderr=subprocess.DEVNULL) as gunicorn:
        try:
            wait_until(lambda: handlers(zmuled, 17) == [1, 2, 3], "three workers with their handlers")
            client.signal(17)
            notes = zmuled.folder / "notes"
            wait_until(lambda: notes.exists() and notes.read_text().count("ran 17") == 3, "each to run it")
        finally:
            gunicorn.terminate()
