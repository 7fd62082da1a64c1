"""How mules end: by themselves, as plain Python ends, and at a stop, once."""

from __future__ import annotations

import os
import signal

import pytest

from tests.conftest import Zmuled, wait_until

MERCY = "--mule-reload-mercy=600"
"""Longer than any test waits: what ends here ends by itself."""

LOOPS = {
    "main": "loop()",
    "daemon": "threading.Thread(target=loop, daemon=True).start(); zmule.get_msg()",
    "thread": "threading.Thread(target=loop).start()",
    "both": "threading.Thread(target=loop).start(); loop()",
    "executor": "concurrent.futures.ThreadPoolExecutor(2).submit(loop)",
    "after the end": "atexit.register(print, 'at exit', flush=True); loop()",
}

STUBBORN = """
    import atexit, concurrent.futures, signal, threading, time, zmule
    from zmule import compat
    caught = []

    def loop():
        while True:
            try:
                zmule.get_msg()
            except:
                caught.append(1)
                print("caught", len(caught), flush=True)

"""


@pytest.mark.parametrize("where", LOOPS)
def test_a_loop_that_catches_everything_ends(zmuled: Zmuled, where: str) -> None:
    zmuled.program("stubborn.py", STUBBORN + f"    {LOOPS[where]}\n")
    zmuled.start("--mule=stubborn.py", MERCY)
    wait_until(lambda: zmuled.mule(1)["waiting"] == (2 if where in ("daemon", "both") else 1))
    assert zmuled.stop() == 0
    assert zmuled.output().count("caught") == (2 if where == "both" else 1)
    assert "exit code 0" in zmuled.output()
    assert ("at exit" in zmuled.output()) == (where == "after the end")


def test_a_second_sigterm_is_the_same_stop(zmuled: Zmuled) -> None:
    zmuled.program(
        "slow.py",
        """
        import zmule
        message = zmule.get_msg()
        print("begun", message, flush=True)
        with open("gate") as gate:  # a fifo: opens when the test opens it
            gate.read()
        print("done", message, flush=True)
        zmule.get_msg()
        """,
    )
    os.mkfifo(zmuled.folder / "gate")
    client = zmuled.start("--mule=slow.py", MERCY).client()
    client.mule_msg("one")
    wait_until(lambda: "begun one" in zmuled.output())
    pid = zmuled.mule(1)["pid"]
    assert zmuled.process is not None
    for process in (pid, zmuled.process.pid, pid, pid):
        os.kill(process, signal.SIGTERM)
    wait_until(lambda: zmuled.mule(1)["state"] == "stopping")
    os.kill(pid, signal.SIGTERM)
    with (zmuled.folder / "gate").open("w"):
        pass
    assert zmuled.process.wait(60) == 0
    assert "done one" in zmuled.output()
    assert "lost" not in zmuled.output()


EXECUTORS = {
    "kept": "pool = concurrent.futures.ThreadPoolExecutor(2); pool.submit(print, 'worked', flush=True)",
    "processes": "pool = concurrent.futures.ProcessPoolExecutor(2); pool.submit(int).result()",
    "atexit": "atexit.register(lambda: zmule.mule_msg('at exit', 2))",
    "daemon": "threading.Thread(target=zmule.get_msg, daemon=True).start()",
}


@pytest.mark.parametrize("what", EXECUTORS)
def test_a_program_ends_as_plain_python_does(zmuled: Zmuled, what: str) -> None:
    zmuled.program(
        "ending.py",
        f"""
        import atexit, concurrent.futures, sys, threading, zmule
        message = zmule.get_msg()
        {EXECUTORS[what]}
        if message == "exit":
            sys.exit(3)
        """,
    )
    zmuled.program("other.py", "import zmule\nwhile True: print('other', zmule.get_msg(), flush=True)")
    client = zmuled.start("--mule=ending.py", "--mule=other.py", "--max-deliveries=1", MERCY).client()
    client.mule_msg("return", 1)
    wait_until(lambda: zmuled.mule(1)["restarts"] == 1, "its end")
    client.mule_msg("exit", 1)
    wait_until(lambda: zmuled.mule(1)["restarts"] == 2, "its end")
    assert "exit code 3" in zmuled.output()
    assert zmuled.status()["totals"]["dead"] == 1
    if what == "atexit":
        wait_until(lambda: "other at exit" in zmuled.output())
    wait_until(lambda: zmuled.mule(1)["waiting"])
    assert zmuled.stop() == 0


def test_what_an_executor_was_given_is_done_at_a_stop(zmuled: Zmuled) -> None:
    zmuled.program(
        "pooled.py",
        """
        import concurrent.futures, zmule

        def work(message):
            print("begun", message, flush=True)
            with open("gate") as gate:
                gate.read()
            print("done", message, flush=True)

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            while True:
                pool.submit(work, zmule.get_msg())
        """,
    )
    os.mkfifo(zmuled.folder / "gate")
    client = zmuled.start("--mule=pooled.py", MERCY).client()
    for message in ("one", "two"):
        client.mule_msg(message)
    wait_until(lambda: "begun one" in zmuled.output() and zmuled.mule(1)["waiting"])
    assert zmuled.process is not None
    zmuled.process.terminate()
    for message in ("one", "two"):
        (zmuled.folder / "gate").write_text("go")
        wait_until(lambda message=message: f"done {message}" in zmuled.output())  # type: ignore[misc]
    assert zmuled.process.wait(60) == 0
    assert "lost" not in zmuled.output()


def test_a_program_with_a_handler_of_its_own_is_told_by_that_first(zmuled: Zmuled) -> None:
    zmuled.program(
        "own.py",
        """
        import signal, uwsgi
        stop = []
        signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
        while not stop:
            uwsgi.mule_get_msg()
        print("my own end", flush=True)
        """,
    )
    zmuled.start("--mule=own.py", MERCY)
    wait_until(lambda: zmuled.mule(1)["waiting"])
    assert zmuled.stop() == 0
    assert "mule 1: my own end" in zmuled.output()


def test_a_loop_that_locks_and_never_unlocks_ends(zmuled: Zmuled) -> None:
    zmuled.program(
        "locks.py",
        """
        import threading, uwsgi

        def loop():
            while True:
                try:
                    uwsgi.lock()
                    uwsgi.farm_get_msg()
                    uwsgi.unlock()
                except:
                    print("caught", flush=True)

        threading.Thread(target=loop).start()
        """,
    )
    zmuled.start("--mule=locks.py", "--farm=f:1", MERCY)
    wait_until(lambda: zmuled.mule(1)["waiting"])
    assert zmuled.stop() == 0
    assert zmuled.output().count("caught") == 1


def test_a_mule_is_stopped_by_the_signal_that_it_asks_for(zmuled: Zmuled) -> None:
    zmuled.program(
        "own.py",
        """
        import signal, sys, uwsgi
        def bye(number, frame):
            print("saved my state, signal", number, flush=True)
            sys.exit(0)
        signal.signal(signal.SIGINT, bye)
        while True:
            uwsgi.mule_get_msg()
        """,
    )
    zmuled.program("plain.py", "import zmule\nzmule.get_msg()")
    (zmuled.folder / "zmule.toml").write_text(
        """
        [[mule]]
        program = "own.py"
        stop_signal = "INT"
        [[mule]]
        program = "plain.py"
        stop_signal = "HUP"
        [broker]
        mule_reload_mercy = 600
        """
    )
    zmuled.start("--config=zmule.toml")
    wait_until(lambda: zmuled.mule(1)["waiting"] and zmuled.mule(2)["waiting"])
    assert zmuled.stop() == 0
    assert "mule 1: saved my state, signal 2" in zmuled.output()
    assert zmuled.output().count("exit code 0") == 2
