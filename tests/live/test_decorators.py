"""Programs written for uWSGI's mules, unchanged, in mules of a real zmuled."""

from __future__ import annotations

import datetime
import decimal
import os
import signal
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path

import pytest

from tests.conftest import Zmuled, wait_until

FEATURES = """
    import uwsgi
    from uwsgidecorators import timer, signal, filemon

    # run a timer in the first available mule
    @timer(30, target='mule')
    def hello(signum):
        print("Hi! I am responding to signal %d, running on mule %d" % (signum, uwsgi.mule_id()))

    # map signal 17 to mule 2
    @signal(17, target='mule2')
    def i_am_mule2(signum):
        print("Greetings! I am running in mule number two.")

    # monitor /tmp and arouse all of the mules on modifications
    @filemon('/tmp', target='mules')
    def tmp_modified(signum):
        print("/tmp has been modified. I am mule %d!" % uwsgi.mule_id())
"""


def lines(zmuled: Zmuled, number: int | None = None) -> list[str]:
    """What mules, or one of them, have printed."""
    printed = [line.partition(": ") for line in zmuled.output().splitlines() if line.startswith("mule ")]
    return [text for mule, _, text in printed if number is None or mule == f"mule {number}"]


def handlers(zmuled: Zmuled) -> dict[int, list[int]]:
    """Which mules handle which signals."""
    return {row["number"]: row["mules"] for row in zmuled.status()["signals"]}


def test_the_feature_documents_decorators(zmuled: Zmuled, tmp_path: Path) -> None:
    watched = tmp_path / "watched"
    watched.mkdir()
    source = FEATURES.replace("@timer(30,", "@timer(0.2,").replace("'/tmp'", repr(str(watched)))
    zmuled.program("tasks.py", source)
    zmuled.program("somaro.py", "import tasks, uwsgi\nwhile True: print(uwsgi.mule_get_msg(), flush=True)")
    client = zmuled.start("--app=tasks", "--mule", "--mule", "--mule=somaro.py").client()
    wait_until(lambda: list(handlers(zmuled).values()) == [[1, 2, 3]] * 3, "all to have registered")
    assert sorted(handlers(zmuled)) == [0, 1, 17]
    assert len(zmuled.status()["timers"]) == 2

    def on(number: int) -> str:
        return f"Hi! I am responding to signal 0, running on mule {number}"

    wait_until(lambda: {on(1), on(2), on(3)} <= set(lines(zmuled)), "the timer, in turn everywhere")
    client.signal(17)
    wait_until(lambda: "Greetings! I am running in mule number two." in lines(zmuled, 2))
    assert not [line for line in lines(zmuled, 1) + lines(zmuled, 3) if line.startswith("Greetings")]
    (watched / "file").touch()
    for number in (1, 2, 3):
        text = f"/tmp has been modified. I am mule {number}!"
        wait_until(lambda: text in lines(zmuled, number))  # noqa: B023
    client.mule_msg("ciuchino", 3)
    wait_until(lambda: "b'ciuchino'" in lines(zmuled, 3))
    assert zmuled.stop() == 0


def test_the_feature_document_verbatim(zmuled: Zmuled) -> None:
    zmuled.program("tasks.py", FEATURES)
    zmuled.start("--app=tasks", "--mule", "--mule")
    assert handlers(zmuled) == {0: [1, 2], 1: [1, 2], 17: [1, 2]}
    timers = {row["kind"]: row for row in zmuled.status()["timers"]}
    assert timers["timer"]["spec"] == "every 30.0 s"
    assert timers["filemon"].items() >= {"signal": 1, "askers": 2}.items()


def test_two_programs_do_not_mix_up_their_signals(zmuled: Zmuled) -> None:
    for name in ("one", "two"):
        zmuled.program(
            f"{name}.py",
            f"""
            import uwsgi
            from uwsgidecorators import mstimer, rbtimer

            def make(what):
                @mstimer(50, target='mule')
                def handler(number):
                    print("{name}", what, number, flush=True)

            make("a"), make("b")
            @rbtimer(0.05, iterations=2, target='mule')
            def twice(number):
                print("{name} twice", flush=True)
            while True: uwsgi.mule_get_msg()
            """,
        )
    zmuled.start("--mule=one.py", "--mule=two.py", "--mule=one.py")
    wait_until(lambda: len({line for line in lines(zmuled) if "twice" not in line}) == 4, "four timers")
    names = {tuple(line.split()[:2]): line.split()[-1] for line in lines(zmuled) if "twice" not in line}
    assert sorted(names) == [("one", "a"), ("one", "b"), ("two", "a"), ("two", "b")]
    assert len(set(names.values())) == 4
    wait_until(lambda: [line for line in lines(zmuled) if line == "two twice"] == ["two twice"] * 2)
    wait_until(lambda: "one twice" in lines(zmuled))


def test_a_number_that_a_decorator_took_is_taken(zmuled: Zmuled) -> None:
    zmuled.program(
        "clash.py",
        """
        import uwsgi
        from uwsgidecorators import cron, get_free_signal, timer

        @timer(30)
        def one(number): pass
        @cron(-1, -1, -1, -1, -1, signum=1)
        def two(number): pass
        print("free", get_free_signal(), flush=True)
        try:
            uwsgi.register_signal(0, "", print)
        except ValueError as error:
            print("error", error, flush=True)
        uwsgi.mule_get_msg()
        """,
    )
    zmuled.start("--mule=clash.py")
    wait_until(
        lambda: any(line.startswith("error signal 0 belongs to a decorator") for line in lines(zmuled))
    )
    assert "free 2" in lines(zmuled)


# Calls.

FUNCTIONS = """
    import uwsgi
    from uwsgidecorators import mulefunc

    @mulefunc
    def anywhere(*args, **kwargs):
        print(uwsgi.mule_id(), "anywhere", repr(args), repr(kwargs), flush=True)

    @mulefunc(2)
    def second(*args):
        print(uwsgi.mule_id(), "second", args, flush=True)

    @mulefunc('busy')
    def busy(*args):
        print(uwsgi.mule_id(), "busy", args, flush=True)

    @mulefunc(b'busy')
    def busy_too(*args):
        print(uwsgi.mule_id(), "busy too", args, flush=True)

    @mulefunc
    def fails():
        raise KeyError("on purpose")
"""

ARGUMENTS = (
    None, True, 7, 10**30, 1.5, "così", b"\xff", [1, [2]], {"a": 1, 2: (3,)}, (1, (2,)), {1},
    frozenset({b"x"}), datetime.datetime(2024, 2, 29, 12, 30, 1, 5),
    datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    datetime.date(2024, 1, 2), datetime.time(1, 2), datetime.timedelta(days=-1, microseconds=5),
    decimal.Decimal("1.10"), uuid.UUID(int=5),
)  # fmt: skip


def call(zmuled: Zmuled, source: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a script that has the functions, and is no mule."""
    script = "import zmule.compat\nzmule.compat.install()\nfrom functions import *\n" + textwrap.dedent(
        source
    )
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=zmuled.folder,
        env={**os.environ, "ZMULE_ENDPOINT": zmuled.endpoint, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_mule_functions(zmuled: Zmuled) -> None:
    zmuled.program("functions.py", FUNCTIONS)
    zmuled.program(
        "other.py", "import uwsgi\nwhile True: print('swallowed', uwsgi.mule_get_msg(), flush=True)"
    )
    zmuled.start("--app=functions", "--mule=other.py", "--mule", "--mule", "--farm=busy:1,3")
    done = call(
        zmuled,
        """
        import datetime
        from decimal import Decimal
        from uuid import UUID
        for argument in ARGUMENTS: print(anywhere(argument, [argument], name=argument))
        second(2); second(); busy("b"); busy_too("c")
        """.replace("ARGUMENTS", repr(ARGUMENTS)),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "None\n" * len(ARGUMENTS)
    for argument in ARGUMENTS:
        text = f" anywhere {(argument, [argument])!r} { {'name': argument}!r}"
        wait_until(lambda: any(line[1:] == text for line in lines(zmuled)), text)  # noqa: B023
    wait_until(
        lambda: {"2 second (2,)", "2 second ()", "3 busy ('b',)", "3 busy too ('c',)"} <= set(lines(zmuled))
    )
    assert {line[0] for line in lines(zmuled) if "anywhere" in line} == {"2", "3"}
    assert "swallowed" not in zmuled.output()


def test_mule_functions_in_a_programmed_mule(zmuled: Zmuled) -> None:
    zmuled.program("functions.py", FUNCTIONS)
    zmuled.program(
        "reads.py", "import functions, uwsgi\nfunctions.anywhere(1)\nwhile True: uwsgi.mule_get_msg()"
    )
    zmuled.start("--mule=reads.py")
    wait_until(lambda: "1 anywhere (1,) {}" in lines(zmuled))


def test_a_call_that_cannot_be_made(zmuled: Zmuled) -> None:
    zmuled.program("functions.py", FUNCTIONS)
    zmuled.start("--app=functions", "--mule", "--max-message=1000")
    done = call(
        zmuled,
        """
        from uwsgidecorators import mulefunc
        def attempt(function, *args):
            try:
                function(*args)
            except Exception as error:
                print(type(error).__name__, error)
        for value in (object(), 1j, bytearray()): attempt(anywhere, [value])
        attempt(anywhere, "x" * 2000)
        attempt(second, 1)
        attempt(busy, 1)
        attempt(mulefunc, lambda: None)
        """,
    )
    assert done.returncode == 0, done.stderr
    errors = [line.partition(" ")[0] for line in done.stdout.splitlines()]
    assert errors == ["TypeError"] * 3 + ["ValueError"] * 4
    for text in ("object cannot be", "1000", "invalid mule number", "unknown farm", "<lambda>"):
        assert text in done.stdout


def test_a_function_that_raises_harms_nobody(zmuled: Zmuled) -> None:
    zmuled.program("functions.py", FUNCTIONS)
    zmuled.start("--app=functions", "--mule")
    assert call(zmuled, "fails()\nanywhere(1)").returncode == 0
    wait_until(lambda: "1 anywhere (1,) {}" in lines(zmuled))
    assert "KeyError: 'on purpose'" in zmuled.output()
    assert zmuled.mule(1)["restarts"] == 0


def test_pickle_is_for_those_who_switch_it_on(zmuled: Zmuled) -> None:
    zmuled.program("functions.py", FUNCTIONS)
    zmuled.start("--app=functions", "--mule")
    assert call(zmuled, "anywhere(1j)\nanywhere(1)", ZMULE_MULEFUNC_SERIALIZER="pickle").returncode == 0
    wait_until(lambda: 'serializer is not "pickle" here' in zmuled.output())
    assert call(zmuled, "anywhere(2)").returncode == 0
    wait_until(lambda: "1 anywhere (2,) {}" in lines(zmuled))
    zmuled.stop()
    zmuled.start("--app=functions", "--mule", "--mulefunc-serializer=pickle")
    assert call(zmuled, "anywhere(3j)", ZMULE_MULEFUNC_SERIALIZER="pickle").returncode == 0
    wait_until(lambda: "1 anywhere (3j,) {}" in lines(zmuled))
    assert "1 anywhere (1j,) {}" not in lines(zmuled)


# Signal-only mules that are taken over.


def test_mulemsg_muleloop_mule_and_farm(zmuled: Zmuled) -> None:
    zmuled.program(
        "tasks.py",
        """
        import time, uwsgi
        from uwsgidecorators import farm, mule, muleloop, mulemsg, postfork, signal

        postfork(lambda: print("forked", uwsgi.mule_id(), flush=True))

        @mulemsg(1)
        def first(message):
            print("first", message, flush=True)

        @mule(2)
        def second():
            print("second", flush=True)
            print("second got", uwsgi.mule_get_msg(), flush=True)

        @muleloop(3)
        def third():
            with open("loops", "a") as loops:
                print("loop", file=loops)
            time.sleep(0.05)

        @farm("busy")
        def fourth(message):
            print("fourth", uwsgi.mule_id(), message, flush=True)

        @signal(17, target="mules")
        def everybody(number):
            print("signal", uwsgi.mule_id(), flush=True)

        print("names", first, second, third, fourth, flush=True)
        """,
    )
    zmuled.start("--app=tasks", *["--mule"] * 5, "--farm=busy:4,5")
    client = zmuled.client()
    assert "names None None None None" in lines(zmuled)
    assert {f"forked {number}" for number in range(1, 6)} <= set(lines(zmuled))
    assert {zmuled.mule(number)["state"] for number in (1, 4, 5)} == {"idle"}
    client.mule_msg("m", 1)
    client.mule_msg("", 1)
    client.mule_msg("n", 2)
    client.farm_msg("busy", "f")
    wait_until(lambda: {"first b'm'", "second got b'n'"} <= set(lines(zmuled)))
    wait_until(lambda: any(line in lines(zmuled) for line in ("fourth 4 b'f'", "fourth 5 b'f'")))
    wait_until(lambda: len((zmuled.folder / "loops").read_text()) > 15, "a third loop")
    client.signal(17)
    wait_until(lambda: {"signal 1", "signal 2"} <= set(lines(zmuled)), "the ones that can")
    assert "first b''" not in lines(zmuled)
    assert zmuled.stop() == 0


def test_a_message_that_was_sent_while_the_mule_was_loading_arrives(zmuled: Zmuled) -> None:
    zmuled.program(
        "tasks.py",
        """
        import uwsgi
        from uwsgidecorators import mule
        with open("gate") as gate: gate.read()

        @mule(1)
        def run():
            with open("gate") as gate: gate.read()
            while True:
                print("got", uwsgi.mule_get_msg(), flush=True)
        """,
    )
    gate = zmuled.folder / "gate"
    os.mkfifo(gate)
    client = zmuled.start("--app=tasks", "--mule", ready=False).client()
    wait_until(lambda: zmuled.mule(1)["state"] == "starting")
    client.mule_msg("early", 1)
    gate.write_text("load")
    wait_until(lambda: "info: ready" in zmuled.tail(), "readiness, before the mule waits for anything")
    client.mule_msg("later", 1)
    gate.write_text("run")
    wait_until(lambda: lines(zmuled) == ["got b'early'", "got b'later'"])


def test_a_message_for_a_hook_that_was_sent_while_the_mule_was_loading_arrives(zmuled: Zmuled) -> None:
    zmuled.program(
        "tasks.py",
        """
        import uwsgi
        with open("gate") as gate: gate.read()
        uwsgi.mule_msg_hook = lambda message: print("got", message, flush=True)
        """,
    )
    gate = zmuled.folder / "gate"
    os.mkfifo(gate)
    client = zmuled.start("--app=tasks", "--mule", ready=False).client()
    wait_until(lambda: zmuled.mule(1)["state"] == "starting")
    client.mule_msg("early", 1)
    gate.write_text("load")
    wait_until(lambda: lines(zmuled) == ["got b'early'"])
    assert zmuled.status()["dead"]["count"] == 0


def test_a_message_in_work_is_not_lost_with_a_mule_that_was_taken_over(zmuled: Zmuled) -> None:
    zmuled.program(
        "tasks.py",
        """
        import os, uwsgi
        from uwsgidecorators import mulemsg

        @mulemsg(1)
        def handle(message):
            print("begun", message, flush=True)
            if not os.path.exists("died"):
                open("died", "w").close()
                os.kill(os.getpid(), 9)
            print("done", message, flush=True)
        """,
    )
    zmuled.start("--app=tasks", "--mule").client().mule_msg("x", 1)
    wait_until(lambda: "done b'x'" in lines(zmuled))
    assert lines(zmuled).count("begun b'x'") == 2


@pytest.mark.parametrize("how", ["uwsgi.mule_msg_hook = hook", "uwsgi.install_mule_msg_hook(hook)"])
def test_message_hooks(zmuled: Zmuled, how: str) -> None:
    zmuled.program(
        "tasks.py",
        f"""
        import uwsgi
        from uwsgidecorators import mulefunc, signal

        def hook(message):
            if message == b"bad":
                raise ValueError("bad message")
            print("hook", uwsgi.mule_id(), repr(message), flush=True)

        {how}

        @signal(17, target="mules")
        def handler(number):
            print("signal", flush=True)

        @mulefunc
        def function():
            print("function", flush=True)
        """,
    )
    client = zmuled.start("--app=tasks", "--mule", "--farm=own:1", "--max-deliveries=2").client()
    for message in ("così", b"", "bad"):
        client.mule_msg(message, 1)
    client.farm_msg("own", "farm")
    client.mule_msg("any")
    client.signal(17)
    client.call("function", "any", bytes.fromhex("929080"))
    wanted = {
        f"hook 1 {'così'.encode()!r}",
        "hook 1 b''",
        "hook 1 b'farm'",
        "hook 1 b'any'",
        "signal",
        "function",
    }
    wait_until(lambda: wanted <= set(lines(zmuled)), "all of it")
    wait_until(lambda: zmuled.status()["dead"]["count"] == 1, "the bad one to be a dead letter")
    wait_until(lambda: zmuled.output().count("ValueError: bad message") == 2, "both its failures in the log")
    assert zmuled.mule(1)["restarts"] == 0


def test_a_hook_that_never_returns_takes_the_mule_over(zmuled: Zmuled) -> None:
    zmuled.program(
        "tasks.py",
        """
        import uwsgi

        def run():
            while True:
                print("got", uwsgi.mule_get_msg(), flush=True)

        uwsgi.post_fork_hook = run
        """,
    )
    client = zmuled.start("--app=tasks", "--mule", "--mule").client()
    for number in (1, 2):
        client.mule_msg("x", number)
        wait_until(lambda: "got b'x'" in lines(zmuled, number))  # noqa: B023
    os.kill(zmuled.mule(1)["pid"], signal.SIGKILL)
    client.mule_msg("y", 1)
    wait_until(lambda: "got b'y'" in lines(zmuled, 1))
    assert zmuled.stop() == 0


# The rest of the decorators.


def test_lock_thread_and_harakiri(zmuled: Zmuled) -> None:
    zmuled.program(
        "tasks.py",
        """
        import os, sys, time, uwsgi
        from uwsgidecorators import harakiri, lock, signal, thread

        def say(*words):  # in one piece, for two threads speak
            sys.stdout.write(" ".join(map(str, words)) + "\\n")
            sys.stdout.flush()

        @lock
        def alone(x):
            say("held", uwsgi.is_locked())
            return x

        @thread
        @lock
        def apart(x):
            say("apart", x)

        @harakiri(60)
        def quick(x):
            return x

        @harakiri(0.1)
        def slow():
            open("slow", "w").close()
            time.sleep(1000)

        @signal(1, target="mules")
        def run(number):
            say(alone(5), quick(6), uwsgi.is_locked(), apart(7).__name__)

        @signal(2, target="mules")
        def die(number):
            os.path.exists("slow") or slow()
            print("survived", flush=True)
        """,
    )
    client = zmuled.start("--app=tasks", "--mule").client()
    client.signal(1)
    wait_until(lambda: {"held True", "5 6 False apart", "apart 7"} <= set(lines(zmuled)))
    pid = zmuled.mule(1)["pid"]
    client.signal(2)
    wait_until(lambda: f"*** HARAKIRI ON MULE 1 (pid: {pid}) ***" in zmuled.output())
    wait_until(lambda: "survived" in lines(zmuled))


def test_no_task_is_started_twice_by_task_managers_that_are_killed(zmuled: Zmuled) -> None:
    zmuled.program(
        "manager.py",
        """
        import os, uwsgi
        while True:
            uwsgi.lock()
            left = sorted(set(range(60)) - {int(line.split()[0]) for line in open("started")})
            if left:
                with open("started", "a") as started:
                    print(left[0], os.getpid(), file=started)
            uwsgi.unlock()
            if not left:
                uwsgi.mule_get_msg()
            elif left[0] % 20 == 19:
                os.kill(os.getpid(), 9)
        """,
    )
    started = zmuled.folder / "started"
    started.touch()
    zmuled.start(*["--mule=manager.py"] * 4)
    wait_until(lambda: len(started.read_text().splitlines()) == 60, "all tasks")
    tasks = [int(line.split()[0]) for line in started.read_text().splitlines()]
    assert tasks == list(range(60))
    assert sum(zmuled.mule(number)["restarts"] for number in range(1, 5)) >= 2


PROBING = """
    import uwsgi
    from uwsgidecorators import get_free_signal, timer

    def free():
        for number in range(256):
            if not uwsgi.signal_registered(number):
                return number

    @timer(1000, target="mule")
    def decorated(number):
        pass

    for name in ("first", "second"):
        number = free() if name == "first" else get_free_signal()
        uwsgi.register_signal(number, "mule", lambda number, name=name: print(name, number, flush=True))
        uwsgi.add_timer(number, 1000)
    print("at the end", [bool(uwsgi.signal_registered(number)) for number in range(4)], flush=True)
"""


def test_libraries_that_look_for_a_free_signal_find_the_same_in_all_mules(zmuled: Zmuled) -> None:
    zmuled.program("probing.py", PROBING)
    zmuled.program("script.py", PROBING + "\n    while True: uwsgi.mule_get_msg()\n")
    zmuled.program("run.py", "def run():\n    import probing, uwsgi\n    while True: uwsgi.mule_get_msg()")
    zmuled.start("--app=probing", *["--mule"] * 2, "--mule=run:run", *["--mule=script.py"] * 2)
    wait_until(lambda: len(handlers(zmuled)) == 6)
    groups = sorted(handlers(zmuled).values())
    assert groups == [[1, 2, 3]] * 3 + [[4, 5]] * 3
    assert len(zmuled.status()["timers"]) == 6
