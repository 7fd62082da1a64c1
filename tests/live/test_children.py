"""What a mule forks is no mule: it has nothing of its parent's, and dies and lives as any process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import Zmuled, wait_until

LONG = ("--heartbeat=600", "--heartbeat-timeout=1200")
"""Deaths are seen at once, or in these tests never."""

STARTS = {
    "fork": "os.fork() or nap()",
    "forkpty": "os.forkpty()[0] or nap()",
    "process": "multiprocessing.get_context('fork').Process(target=nap, daemon=True).start()",
    "preexec": "subprocess.Popen(['sleep', '1000'], preexec_fn=lambda: None)",
    "spawned": "subprocess.Popen(['sleep', '1000'], close_fds=False)",
}

HELPED = """
    import multiprocessing, os, signal, subprocess, sys, threading, time, zmule

    def nap():
        while True:
            time.sleep(1000)

"""


@pytest.fixture(params=["zmuled", "zmuled_tcp"])
def patient(request: pytest.FixtureRequest) -> Zmuled:
    """A zmuled that takes nobody for dead because he is silent."""
    daemon: Zmuled = request.getfixturevalue(request.param)
    return daemon.start(*LONG)


def run(daemon: Zmuled, source: str) -> subprocess.Popen[bytes]:
    daemon.program("helped.py", HELPED + source)
    with daemon.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "helped.py"],
            cwd=daemon.folder,
            env={**os.environ, "ZMULE_ENDPOINT": daemon.endpoint},
            stdout=log,
            stderr=log,
            process_group=0,
        )


@pytest.mark.parametrize("how", STARTS)
def test_a_death_is_seen_though_a_child_lives(patient: Zmuled, how: str) -> None:
    client = patient.client()
    client.mule_msg("in work")
    process = run(
        patient,
        f"""
    lock = zmule.lock("gate")
    lock.acquire()
    mule = zmule.Mule(7)
    mule.get_msg()
    {STARTS[how]}
    print("has it", flush=True)
    nap()
    """,
    )
    try:
        wait_until(lambda: "has it" in patient.output(), "the child")
        process.kill()
        process.wait()
        with client.lock("gate", timeout=20):
            pass
        wait_until(lambda: client.status()["queues"]["any"]["ready"] == 1, "the message")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_a_child_has_nothing_of_its_parents(zmuled: Zmuled) -> None:
    zmuled.program(
        "parent.py",
        """
        import os, signal, socket, zmule

        def sockets():
            links = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
                     if os.path.exists(f"/proc/self/fd/{name}")]
            return sum(link.startswith("socket:") or "eventpoll" in link for link in links)

        message = zmule.get_msg()
        own = socket.socket()
        signal.signal(signal.SIGUSR1, print)
        child = os.fork()
        if child == 0:
            try:
                words = [
                    signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
                    signal.getsignal(signal.SIGINT) is signal.default_int_handler,
                    signal.getsignal(signal.SIGUSR1) is print,
                    signal.set_wakeup_fd(-1),
                    signal.pthread_sigmask(signal.SIG_BLOCK, ()),
                    sockets(),
                    zmule.mule_id(),
                ]
                for call in (zmule.get_msg, lambda: zmule.signal_registered(1)):
                    try:
                        call()
                    except zmule.ZmuleError as error:
                        words.append(str(error))
                zmule.current_mule().ack()
                zmule.current_mule().nack()
                zmule.mule_msg("of the child", 2)
                print("child", words, flush=True)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        print("parent", sockets() > 1, flush=True)
        zmule.get_msg()
        """,
    )
    zmuled.program("other.py", "import zmule\nwhile True: print(zmule.get_msg(), flush=True)")
    client = zmuled.start("--mule=parent.py", "--mule=other.py").client()
    client.mule_msg("one", 1)
    client.mule_msg("two", 1)
    wait_until(lambda: "mule 1: parent True" in zmuled.output())
    error = "'this process is a fork of mule 1, not that mule'"
    words = f"child [True, True, True, -1, set(), 1, 1, {error}, {error}]"
    assert words in zmuled.output()
    assert "mule 2: of the child" in zmuled.output()
    zmuled.wait_for_acks(2)


def test_a_signal_to_a_child_that_has_just_been_forked_is_the_childs(zmuled: Zmuled) -> None:
    """It comes between the fork and the first instruction of the child's: a hook of the test's sends it."""
    zmuled.program(
        "early.py",
        """
        import os, signal, zmule
        os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
        zmule.get_msg()
        ends = []
        for _ in range(20):
            child = os.fork()
            if child == 0:
                os._exit(0)
            ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        print(set(ends), flush=True)
        zmule.get_msg()
        """,
    )
    client = zmuled.start("--mule=early.py").client()
    client.mule_msg("go", 1)
    wait_until(lambda: "mule 1: {-15}" in zmuled.output())
    assert zmuled.mule(1)["restarts"] == 0


def test_pools_of_processes(zmuled: Zmuled) -> None:
    zmuled.program(
        "pools.py",
        """
        import concurrent.futures, multiprocessing, threading, zmule
        fork = multiprocessing.get_context("fork")

        def square(number):
            return number * number

        def once():
            with fork.Pool(2) as pool:
                return sum(pool.map(square, range(10)))

        def main():
            while zmule.get_msg() != "end":
                totals = [once() for _ in range(15)]
                threads = [threading.Thread(target=once) for _ in range(3)]
                [thread.start() for thread in threads]
                [thread.join() for thread in threads]
                with concurrent.futures.ProcessPoolExecutor(2, mp_context=fork) as pool:
                    totals.append(sum(pool.map(square, range(10))))
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    totals.append(sum(pool.map(square, range(10))))
                child = fork.Process(target=threading.Event().wait)
                child.start()
                child.terminate()
                child.join()
                print("pools", set(totals), child.exitcode, flush=True)

        if __name__ == "__main__":
            main()
        """,
    )
    client = zmuled.start("--mule=pools.py").client()
    client.mule_msg("go", 1)
    wait_until(lambda: "mule 1: pools {285} -15" in zmuled.output())
    assert zmuled.mule(1)["restarts"] == 0
