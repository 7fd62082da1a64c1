"""Mules that hang: suspended, stuck in C, or not done in the time that they gave themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests.conftest import COMMANDS, Zmuled, wait_until
from tests.live.test_signalled import state

STUCK = 're.match(r"(a+)+$", "a" * 60 + "b")'
"""What takes for ever, and does not let go of the interpreter."""

QUICK = ("--heartbeat=0.2", "--heartbeat-timeout=1")

HANGS = f"""
    import re, subprocess, sys, zmule
    while True:
        message = zmule.get_msg()
        print("begun", message, flush=True)
        if message == "stick":
            subprocess.Popen(["sleep", "1000"])
            {STUCK}
        print("done", message, flush=True)
"""


def test_a_mule_that_is_stuck_is_killed_and_another_gets_its_message(zmuled: Zmuled) -> None:
    zmuled.program("hangs.py", HANGS)
    client = zmuled.start("--mule=hangs.py", *QUICK, "--max-deliveries=2").client()
    pid = zmuled.mule(1)["pid"]
    client.mule_msg("stick", 1)
    client.mule_msg("good", 1)
    wait_until(lambda: "mule 1: done good\n" in zmuled.output())
    output = zmuled.output()
    assert output.count("mule 1: begun stick\n") == 2
    assert f"mule 1 has been silent for 1 s: killed, pid {pid}\n" in output
    assert f"mule 1 ended: pid {pid}, killed by SIGKILL after " in output
    (letter,) = client.dead_list()["letters"]
    assert letter["reason"].startswith("mule 1 died with it")


def test_a_mule_that_is_suspended_is_replaced(zmuled: Zmuled) -> None:
    zmuled.program("hangs.py", HANGS)
    client = zmuled.start("--mule=hangs.py", *QUICK).client()
    pid = zmuled.mule(1)["pid"]
    os.kill(pid, signal.SIGSTOP)
    client.mule_msg("good", 1)
    wait_until(lambda: "mule 1: done good\n" in zmuled.output())
    assert state(pid) == ""


def test_a_mule_that_is_suspended_before_it_has_registered_again_is_replaced(zmuled: Zmuled) -> None:
    """Its connection is lost first; so it is never found silent."""
    zmuled.program(
        "leaves.py",
        """
        import os, signal, zmule
        zmule.current_mule()._receiver.abandon()  # as if its connection had broken
        os.kill(os.getpid(), signal.SIGSTOP)
        """,
    )
    zmuled.start("--mule=leaves.py", *QUICK, ready=False)
    wait_until(lambda: ": killed, pid " in zmuled.output())
    wait_until(lambda: zmuled.mule(1)["restarts"] >= 1)


def test_a_mule_from_outside_is_not_killed(zmuled: Zmuled) -> None:
    zmuled.program("waits.py", "import zmule\nzmule.get_msg()")
    zmuled.start(*QUICK)
    command = [str(COMMANDS / "zmule"), "run", "--endpoint", zmuled.endpoint, "--id", "5", "waits.py"]
    process = subprocess.Popen(command, cwd=zmuled.folder)
    try:
        wait_until(lambda: any(mule["waiting"] for mule in zmuled.status()["mules"]))
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: "mule 5 has been silent for 1 s\n" in zmuled.output())
        assert state(process.pid) == "T"
    finally:
        process.kill()
        process.wait()


def test_harakiri_kills_a_mule_that_is_stuck(zmuled: Zmuled) -> None:
    zmuled.program(
        "app.py",
        f"""
        import re
        from uwsgidecorators import harakiri, mulefunc

        @mulefunc
        @harakiri(0.5)
        def work(text):
            print("begun", flush=True)
            {STUCK}
        """,
    )
    zmuled.start("--app=app", "--mule", "--max-deliveries=2")
    pid = zmuled.mule(1)["pid"]
    call = "import zmule.compat; zmule.compat.install(); import app; app.work('')"
    environ = os.environ | {"ZMULE_ENDPOINT": zmuled.endpoint}
    subprocess.run([sys.executable, "-c", call], cwd=zmuled.folder, env=environ, check=True)
    wait_until(lambda: zmuled.status()["dead"]["count"] == 1)
    assert f"*** HARAKIRI ON MULE 1 (pid: {pid}) ***" in zmuled.output()
    assert zmuled.output().count("mule 1: begun\n") == 2
    (letter,) = zmuled.client().dead_list()["letters"]
    assert letter["reason"] == "mule 1 was killed with it (harakiri), at delivery 2 of 2"


def test_harakiri_kills_what_the_mule_has_started(zmuled: Zmuled) -> None:
    zmuled.program(
        "starts.py",
        """
        import subprocess, uwsgi
        uwsgi.mule_get_msg()
        uwsgi.set_user_harakiri(0.5)
        subprocess.run(["sh", "-c", "echo $$; exec sleep 1000"])
        """,
    )
    zmuled.start("--mule=starts.py", "--max-deliveries=1").client().mule_msg("x", 1)
    helper = int(wait_until(lambda: zmuled.output().partition("mule 1: ")[2].partition("\n")[0]))
    wait_until(lambda: "*** HARAKIRI ON MULE 1" in zmuled.output())
    wait_until(lambda: state(helper) in ("", "Z"))


def test_harakiri_that_is_taken_back_kills_nobody(zmuled: Zmuled) -> None:
    zmuled.program(
        "works.py",
        """
        import time, uwsgi
        from uwsgidecorators import harakiri

        @harakiri(1000)
        def outer(): inner()

        @harakiri(0.5)
        def inner(): pass

        for seconds in (0.5, 1000):
            uwsgi.set_user_harakiri(seconds)
        outer()
        uwsgi.set_user_harakiri(0.5)
        uwsgi.set_user_harakiri(0)
        time.sleep(1)  # it is twice the time at which it would be killed
        print("lives", flush=True)
        uwsgi.mule_get_msg()
        """,
    )
    zmuled.start("--mule=works.py")
    wait_until(lambda: "mule 1: lives\n" in zmuled.output())
    assert "HARAKIRI" not in zmuled.output()
