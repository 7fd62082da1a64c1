"""Mules that zmuled starts: how they run, stop, crash and end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import COMMANDS, PATIENCE, Zmuled, wait_until
from zmule.errors import NotProgrammed

SLOW = """
    import os, threading, zmule
    mule = zmule.current_mule()
    while True:
        message = mule.get_msg()
        print("begun", message, flush=True)
        with open("gate") as gate:  # a fifo: opens when the test opens it
            gate.read()
        print("done", message, flush=True)
"""


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_the_feature_documents_somaro(zmuled: Zmuled) -> None:
    zmuled.program(
        "somaro.py",
        """
        import uwsgi
        from threading import Thread
        import time

        def loop1():
            while True:
                print("loop1: Waiting for messages... yawn.", flush=True)
                message = uwsgi.mule_get_msg()
                print(message, flush=True)

        def loop2():
            print("Hi! I am loop2.", flush=True)
            while True:
                time.sleep(2)
                print("This is a thread!", flush=True)

        t = Thread(target=loop2)
        t.daemon = True
        t.start()

        if __name__ == '__main__':
            loop1()
        """,
    )
    client = zmuled.start("--mule", "--mule=somaro.py").client()
    client.mule_msg("ciuchino", 2)
    wait_until(lambda: "mule 2: b'ciuchino'\n" in zmuled.output())
    assert "Hi! I am loop2." in zmuled.output()
    assert [mule["mode"] for mule in zmuled.status()["mules"]] == ["signal-only", "programmed"]
    assert zmuled.stop() == 0


def test_scripts_callables_and_what_they_see(zmuled: Zmuled) -> None:
    zmuled.folder.joinpath("pkg").mkdir()
    zmuled.program("beside.py", "VALUE = 1")
    zmuled.program("pkg/__init__.py", "")
    zmuled.program("pkg/near.py", "VALUE = 2")
    source = """
        import sys, os, beside, near, zmule
        print(__name__, __file__, sys.argv, beside.VALUE, near.VALUE, zmule.mule_id(), flush=True)
        zmule.get_msg()
    """
    zmuled.program("pkg/script.py", source)
    zmuled.program(
        "pkg/mod.py",
        """
        import zmule
        def run():
            print("called", zmule.mule_id(), flush=True)
            zmule.get_msg()
        """,
    )
    zmuled.start("--mule=pkg/script.py", "--mule=pkg.mod:run")
    wait_until(lambda: "mule 1: __main__ pkg/script.py ['uwsgi'] 1 2 1\n" in zmuled.output())
    wait_until(lambda: "mule 2: called 2\n" in zmuled.output())


def test_a_mule_respawns_however_it_ends(zmuled: Zmuled) -> None:
    zmuled.program(
        "ending.py",
        """
        import os, sys, zmule
        message = zmule.get_msg()
        print("got", message, flush=True)
        if message == "return":
            pass
        elif message == "exit":
            sys.exit(0)
        elif message == "raise":
            raise RuntimeError
        else:
            os.kill(os.getpid(), 9)
        """,
    )
    client = zmuled.start("--mule=ending.py", "--max-deliveries=2").client()
    for message in ("return", "exit", "raise", "kill"):
        client.mule_msg(message)
    wait_until(lambda: zmuled.status()["totals"]["dead"] == 2, "two dead letters")
    wait_until(lambda: zmuled.mule(1)["restarts"] == 6, "six respawns")
    output = zmuled.output()
    assert [output.count(f"got {word}") for word in ("return", "exit", "raise", "kill")] == [1, 1, 2, 2]
    assert zmuled.status()["totals"]["acked"] == 2
    assert "mule 1 died with it, at delivery 2 of 2" in output


def test_a_stop_waits_for_the_work_in_hand(zmuled: Zmuled) -> None:
    zmuled.program("slow.py", SLOW)
    os.mkfifo(zmuled.folder / "gate")
    client = zmuled.start("--mule=slow.py").client()
    client.mule_msg("one")
    client.mule_msg("two")
    wait_until(lambda: "begun one" in zmuled.output())
    assert zmuled.process is not None
    zmuled.process.terminate()
    wait_until(lambda: zmuled.status()["broker"]["stopping"])
    assert zmuled.mule(1)["state"] == "stopping"
    with (zmuled.folder / "gate").open("w"):
        pass
    assert zmuled.process.wait(PATIENCE) == 0
    assert "done one" in zmuled.output()
    assert "begun two" not in zmuled.output()
    assert "1 messages are lost: the store is memory:" in zmuled.output()


def test_mercy_runs_out(zmuled: Zmuled) -> None:
    zmuled.program("slow.py", SLOW)
    os.mkfifo(zmuled.folder / "gate")
    client = zmuled.start("--mule=slow.py", "--mule-reload-mercy=0.2").client()
    client.mule_msg("one")
    wait_until(lambda: "begun one" in zmuled.output())
    pid = zmuled.mule(1)["pid"]
    assert zmuled.stop() == 0
    assert not alive(pid)
    assert "1 messages are lost" in zmuled.output()


def test_a_second_signal_does_not_wait(zmuled: Zmuled) -> None:
    zmuled.program("slow.py", SLOW)
    os.mkfifo(zmuled.folder / "gate")
    client = zmuled.start("--mule=slow.py").client()
    client.mule_msg("one")
    wait_until(lambda: "begun one" in zmuled.output())
    assert zmuled.process is not None
    zmuled.process.send_signal(signal.SIGINT)
    wait_until(lambda: zmuled.status()["broker"]["stopping"])
    assert zmuled.stop(signal.SIGINT) == 0
    assert "SIGINT again: killing what is left" in zmuled.output()


def test_mules_with_nothing_in_hand_stop_wherever_they_are(zmuled: Zmuled) -> None:
    zmuled.program("waiting.py", "import zmule\nzmule.get_msg()")
    zmuled.program("sleeping.py", "import time\nprint('asleep', flush=True)\ntime.sleep(1000)")
    zmuled.program(
        "threads.py",
        """
        import threading, zmule
        for _ in range(3):
            threading.Thread(target=zmule.get_msg).start()
        print("started", flush=True)
        """,
    )
    zmuled.program("app.py", "")
    zmuled.start(
        "--mule=waiting.py",
        "--mule=sleeping.py",
        "--mule=threads.py",
        "--mule",
        "--app=app",
        "--mule-reload-mercy=600",
    )
    wait_until(lambda: "asleep" in zmuled.output() and "started" in zmuled.output())
    wait_until(lambda: zmuled.mule(3)["waiting"] == 3)
    assert zmuled.stop() == 0
    assert "killing" not in zmuled.output()


def test_a_programs_own_sigterm_handler_is_its_own(zmuled: Zmuled) -> None:
    zmuled.program(
        "own.py",
        """
        import signal, uwsgi
        stop = []
        signal.signal(signal.SIGTERM, lambda *_: (print("my handler", flush=True), stop.append(1)))
        while not stop:
            print("got", uwsgi.mule_get_msg(), flush=True)
        print("my own end", flush=True)
        """,
    )
    zmuled.start("--mule=own.py")
    wait_until(lambda: zmuled.mule(1)["waiting"])
    os.kill(zmuled.mule(1)["pid"], signal.SIGTERM)
    wait_until(lambda: "my own end" in zmuled.output())
    assert "mule 1: my handler\n" in zmuled.output()
    assert "mule 1: got b''\n" in zmuled.output()


def test_a_mule_stops_though_the_system_has_given_the_signal_to_another_thread(zmuled: Zmuled) -> None:
    """As it may for a process that was suspended; Python then does not interrupt the main thread."""
    zmuled.program(
        "other.py",
        """
        import os, signal, threading, zmule

        def other():
            with open("go") as go:
                go.read()
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

        threading.Thread(target=other).start()
        zmule.get_msg()
        """,
    )
    os.mkfifo(zmuled.folder / "go")
    zmuled.start("--mule=other.py")
    wait_until(lambda: zmuled.mule(1)["waiting"])
    (zmuled.folder / "go").write_text("now")
    wait_until(lambda: zmuled.mule(1)["restarts"] == 1, "its end")


def test_mules_end_when_zmuled_is_killed(zmuled: Zmuled) -> None:
    zmuled.program("busy.py", "while True: pass")
    zmuled.program("waiting.py", "import zmule\nzmule.get_msg()")
    zmuled.start("--mule=busy.py", "--mule=waiting.py", "--mule")
    pids = [mule["pid"] for mule in zmuled.status()["mules"]]
    assert all(map(alive, pids))
    zmuled.kill()
    wait_until(lambda: not any(map(alive, pids)), "the mules' ends")


def test_signal_only_mules_load_the_application(zmuled: Zmuled) -> None:
    zmuled.program("app.py", "import os\nprint('loaded', os.getcwd(), flush=True)")
    zmuled.start("--mule", "--mule", "--app=app")
    wait_until(lambda: zmuled.output().count(f"loaded {zmuled.folder}") == 2)
    assert [mule["state"] for mule in zmuled.status()["mules"]] == ["idle", "idle"]
    with pytest.raises(NotProgrammed):
        zmuled.client().mule_msg("x", 1)


def test_a_signal_only_mule_whose_code_reads_is_a_reader(zmuled: Zmuled) -> None:
    zmuled.program(
        "app.py",
        """
        import threading, zmule
        def read():
            while True:
                print("read", zmule.get_msg(), flush=True)
        threading.Thread(target=read, daemon=True).start()
        """,
    )
    client = zmuled.start("--mule", "--app=app").client()
    wait_until(lambda: zmuled.mule(1)["waiting"] == 2)
    client.mule_msg("x", 1)
    wait_until(lambda: "mule 1: read x\n" in zmuled.output())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--mule=nowhere.mod:run"], "zmule: cannot import nowhere.mod: No module named 'nowhere'"),
        (["--mule=os:nothing"], "zmule: the program os:nothing: os has no 'nothing'"),
        (["--mule=os:name"], "zmule: the program os:name: 'name' cannot be called"),
        (["--mule", "--app=nowhere"], "zmule: cannot import nowhere: No module named 'nowhere'"),
    ],
)
def test_a_program_that_cannot_be_loaded_says_so(zmuled: Zmuled, arguments: list[str], line: str) -> None:
    zmuled.start(*arguments, ready=False)
    wait_until(lambda: f"mule 1: {line}\n" in zmuled.output(), line)
    assert zmuled.stop() == 0


def test_a_second_zmuled_on_the_same_endpoint_harms_nothing(zmuled: Zmuled) -> None:
    client = zmuled.start().client()
    second = subprocess.run(
        [COMMANDS / "zmuled", "--endpoint", zmuled.endpoint], capture_output=True, text=True, check=False
    )
    assert second.returncode == 73
    assert second.stderr.startswith("zmuled: ")
    assert second.stderr.count("\n") == 1
    assert client.mule_msg("x") is True


def test_json_log(zmuled: Zmuled) -> None:
    zmuled.program("hello.py", "print('hi')\nimport zmule\nzmule.get_msg()")
    zmuled.start("--mule=hello.py", "--log-format=json", ready=False)
    wait_until(lambda: '"text": "hi"' in zmuled.output())
    wait_until(lambda: '"text": "ready: 1 of 1 mules are at work"' in zmuled.output())
    entries = [json.loads(line) for line in zmuled.output().splitlines()]
    assert [entry["mule"] for entry in entries if entry["text"] == "hi"] == [1]


def test_zmuled_in_a_pipeline(zmuled: Zmuled) -> None:
    zmuled.program("upper.py", "import zmule\nwhile True: print(zmule.get_msg().upper(), flush=True)")
    script = f"""
        PATH={COMMANDS}:$PATH ZMULE_ENDPOINT={zmuled.endpoint}
        export ZMULE_ENDPOINT
        (zmuled --mule=upper.py --log-level=error & echo $! >&3; wait) 3>pid | head -n 3 >out &
        printf 'a\\nb\\nc\\n' | zmule-send --timeout 20 1 -
        while [ "$(wc -l <out)" -lt 3 ]; do sleep 0.01; done
        kill "$(cat pid)"
        wait
        cat out
    """
    done = subprocess.run(["sh", "-c", script], cwd=zmuled.folder, capture_output=True, text=True, check=True)
    assert done.stdout == "mule 1: A\nmule 1: B\nmule 1: C\n"
