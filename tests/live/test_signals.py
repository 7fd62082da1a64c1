"""Signals through a real zmuled, between real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, Zmuled, wait_until
from zmule.errors import SignalConflict, UnknownFarm, UnknownMule, UnknownTarget, WrongValue
from zmule.mules.mule import Mule, Worker

COUNTER = """
    import os, zmule
    mule = zmule.current_mule()
    out = os.open(f"ran.{mule.mule_id}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    mule.register_signal(17, "mule1", lambda number: os.write(out, b"%d\\n" % number))
    while True:
        mule.get_msg()
"""

APPLICATION = """
    import zmule
    mule = zmule.current_mule()
    def say(what):
        return lambda number: print(what, number, flush=True)
    mule.register_signal(17, "mule", say("first"))
    mule.register_signal(18, "mules", say("each"))
    mule.register_signal(19, "mule2", say("two"))
    mule.register_signal(20, "farm_idle", say("farm"))
"""


def ran(folder: Path) -> list[str]:
    """What handlers have written, of every mule."""
    return [line for path in sorted(folder.glob("ran.*")) for line in path.read_text().splitlines()]


def pending(zmuled: Zmuled) -> int:
    return sum(entry["pending"] for entry in zmuled.status()["signals"])


def kinds(zmuled: Zmuled) -> list[tuple[str, int]]:
    return [(entry["kind"], entry["signal"]) for entry in zmuled.status()["timers"]]


def test_a_name_has_its_number_though_the_broker_is_killed(zmuled: Zmuled) -> None:
    store = f"--store=sqlite://{zmuled.folder}/zmule.db"
    client = zmuled.start(store).client()
    with Mule(endpoint=zmuled.endpoint) as first, Mule(endpoint=zmuled.endpoint) as second:
        assert (first.name_signal("a"), second.name_signal("b")) == (0, 1)
        client.signal(1)  # waits for whoever handles b
        zmuled.kill()
    zmuled.start(store)
    with Mule(endpoint=zmuled.endpoint) as second:
        got: list[int] = []
        number = second.name_signal("b")
        second.register_signal(number, "mule", got.append)
        assert second.signal_wait(timeout=PATIENCE) == 1
        assert got == [1]


def test_a_thousand_raises_are_a_thousand_runs_though_the_mule_is_killed(zmuled: Zmuled) -> None:
    zmuled.program("counter.py", COUNTER)
    client = zmuled.start("--mule=counter.py").client()
    wait_until(lambda: zmuled.status()["signals"], "the handler")
    kills = 0
    for number in range(1000):
        client.signal(17)
        if number in (200, 400, 600, 800):
            restarts = zmuled.mule(1)["restarts"]
            wait_until(lambda: zmuled.mule(1)["state"] in ("idle", "busy"), "mule 1 at work")
            os.kill(zmuled.mule(1)["pid"], signal.SIGKILL)
            wait_until(lambda: zmuled.mule(1)["restarts"] > restarts, "its end")  # noqa: B023
            kills += 1
    wait_until(lambda: pending(zmuled) == 0, "all runs")
    assert 1000 <= len(ran(zmuled.folder)) <= 1000 + kills
    assert zmuled.status()["dead"]["count"] == 0


def test_raised_while_the_mule_is_dead_they_run_in_its_next_life(zmuled: Zmuled) -> None:
    zmuled.program("counter.py", COUNTER)
    client = zmuled.start("--mule=counter.py").client()
    wait_until(lambda: zmuled.status()["signals"], "the handler")
    pid = zmuled.mule(1)["pid"]
    os.kill(pid, signal.SIGSTOP)  # it cannot run anything any more
    for _ in range(100):
        client.signal(17)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(ran(zmuled.folder)) == 100, "all runs")


def test_each_target(zmuled: Zmuled) -> None:
    zmuled.program("tasks.py", APPLICATION)
    mules = ["--mule", "--mule", "--mule", "--farm=busy:1", "--farm=idle:3"]
    client = zmuled.start(*mules, "--app=tasks").client()
    for number in (17, 18, 19, 20):
        client.signal(number)
    lines = {*(f"mule {mule}: each 18" for mule in (1, 2, 3)), "mule 2: two 19", "mule 3: farm 20"}
    wait_until(lambda: lines <= set(zmuled.output().splitlines()), "all runs")
    wait_until(lambda: zmuled.output().count(": first 17\n") == 1, "the first available")
    assert zmuled.output().count(": two 19\n") == zmuled.output().count(": farm 20\n") == 1


def test_a_handler_that_raises_harms_nobody(zmuled: Zmuled) -> None:
    zmuled.program(
        "mule.py",
        """
        import zmule
        mule = zmule.current_mule()
        mule.register_signal(17, "mule1", lambda number: 1 / 0)
        mule.register_signal(18, "mule1", lambda number: print("errors", mule.handlers.errors, flush=True))
        while True:
            print("got", mule.get_msg(), flush=True)
        """,
    )
    client = zmuled.start("--mule=mule.py").client()
    wait_until(lambda: len(zmuled.status()["signals"]) == 2, "the handlers")
    for number in (17, 17, 18):
        client.signal(number)
    client.mule_msg("hay", 1)
    wait_until(lambda: "mule 1: got hay\n" in zmuled.output())
    wait_until(lambda: "mule 1: errors 2\n" in zmuled.output(), "the line")
    assert zmuled.output().count("mule 1: ZeroDivisionError: division by zero\n") == 2
    assert zmuled.mule(1)["restarts"] == 0


def test_signal_wait_and_signal_received(zmuled: Zmuled) -> None:
    client = zmuled.start().client()
    with Mule(7, endpoint=zmuled.endpoint) as mule:
        seen: list[int] = []
        mule.register_signal(17, "mule7", seen.append)
        assert mule.signal_received() == 0
        assert mule.signal_wait(timeout=0) is None
        for number in (17, 17, 99):
            client.signal(number)
        assert mule.signal_wait(99, timeout=20) == 99, "the others are handled meanwhile"
        assert seen == [17, 17]
        assert mule.signal_received() == 99
        mule.unregister_signal(17)
        client.signal(17)
        assert mule.signal_wait(17, timeout=20) == 17
        assert seen == [17, 17]


def test_workers(zmuled: Zmuled) -> None:
    client = zmuled.start().client()
    seen: list[int] = []
    with Worker(endpoint=zmuled.endpoint) as one, Mule(7, endpoint=zmuled.endpoint) as mule:
        for peer in (one, mule):
            peer.register_signal(17, "worker", seen.append)
        client.signal(17)
        assert one.signal_wait(timeout=20) == 17
        assert mule.signal_wait(timeout=0) is None
    assert seen == [17]
    wait_until(lambda: not zmuled.status()["signals"], "their leave")


def test_what_is_wrong_is_told(zmuled: Zmuled) -> None:
    zmuled.start()
    with Mule(7, endpoint=zmuled.endpoint) as mule, Mule(8, endpoint=zmuled.endpoint) as other:
        mule.register_signal(17, "mules", print)
        with pytest.raises(SignalConflict, match="signal 17 is registered for 'mules' already"):
            other.register_signal(17, "mule8", print)
        for target, error in (
            ("spooler", UnknownTarget),
            ("mule9", UnknownMule),
            ("farm_x", UnknownFarm),
        ):
            with pytest.raises(error):
                mule.register_signal(1, target, print)
        for number in (-1, 256):
            with pytest.raises(WrongValue):
                mule.register_signal(number, "mule", print)
        with pytest.raises(TypeError, match="NoneType cannot be"):
            mule.register_signal(1, "mule", None)  # type: ignore[arg-type]
        for seconds in (0, -1, float("nan"), 1e10):
            with pytest.raises(WrongValue, match=r"the period of a timer is 0.001 to"):
                mule.add_timer(1, seconds)
        with pytest.raises(WrongValue, match="iterations"):
            mule.add_rb_timer(1, 1, -1)
        with pytest.raises(WrongValue, match="cron minute must be 0 to 59"):
            mule.add_cron(1, 60, -1, -1, -1, -1)
        with pytest.raises(WrongValue, match="cron string"):
            mule.add_cron_text(1, "* * *")
        with pytest.raises(WrongValue, match="no time zone"):
            mule.add_cron_text(1, "* * * * *", "Atlantis")
        with pytest.raises(WrongValue, match="absolute path"):
            mule.add_file_monitor(1, "relative")
        with pytest.raises(WrongValue, match="a kind of source is one of"):
            mule.remove_source("tmer", 1)
        assert zmuled.status()["timers"] == []
        assert [entry["number"] for entry in zmuled.status()["signals"]] == [17]


# Sources.


def test_timers_beat_until_the_mule_that_wanted_them_leaves(zmuled: Zmuled) -> None:
    zmuled.start()
    with Mule(7, endpoint=zmuled.endpoint) as mule:
        mule.register_signal(17, "mule7", lambda number: None)
        mule.add_timer(17, 0.05)
        mule.add_timer(17, 0.05)
        mule.add_rb_timer(18, 1000, 2)
        assert kinds(zmuled) == [("timer", 17), ("rb_timer", 18)]
        for _ in range(3):
            assert mule.signal_wait(timeout=20) == 17
    wait_until(lambda: not zmuled.status()["timers"], "the end of the timers")


def test_timers_of_a_mule_that_is_killed_beat_on_and_end_with_code_that_wants_them_no_more(
    zmuled: Zmuled,
) -> None:
    zmuled.program(
        "mule.py",
        """
        import os, zmule
        mule = zmule.current_mule()
        if not os.path.exists("old"):
            mule.add_timer(17, 0.05)
        mule.get_msg()
        """,
    )
    zmuled.start("--mule=mule.py")
    wait_until(lambda: kinds(zmuled) == [("timer", 17)], "the timer")
    (zmuled.folder / "old").touch()
    os.kill(zmuled.mule(1)["pid"], signal.SIGKILL)
    wait_until(lambda: not zmuled.status()["timers"], "the end of the timer")
    assert zmuled.mule(1)["restarts"] == 1


def test_a_file_that_is_replaced_and_one_that_comes_late(zmuled: Zmuled) -> None:
    zmuled.start()
    late, conf, fresh = (zmuled.folder / name for name in ("sub/late", "conf", "fresh"))
    conf.write_text("old")
    with Mule(7, endpoint=zmuled.endpoint) as mule:
        mule.add_file_monitor(17, str(conf))
        mule.add_file_monitor(18, str(late))
        for text in ("new", "newer"):
            fresh.write_text(text)
            subprocess.run(["mv", fresh, conf], check=True)
            assert mule.signal_wait(17, timeout=20) == 17
        late.parent.mkdir()
        late.touch()
        assert mule.signal_wait(18, timeout=20) == 18
        assert mule.remove_source("filemon", 17) == 1
        assert kinds(zmuled) == [("filemon", 18)]
    wait_until(lambda: not zmuled.status()["timers"], "the end of the monitors")


SLOW = """
    import os, runpy, sys, time
    from zmule.daemon import filemon
    look = filemon._look
    def slow(path, unwanted):
        while path.endswith("/huge") and not os.path.exists("go"):
            if unwanted():
                raise filemon._Unwanted
            time.sleep(0.01)
        return look(path, unwanted)
    filemon._look = slow
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs zmuled, for which a folder is so huge that the first look at it takes until there is a file `go`."""


def test_a_folder_that_takes_long_to_look_at_holds_nobody_up(zmuled: Zmuled) -> None:
    client = zmuled.start(wrapper=[sys.executable, zmuled.folder / zmuled.program("slow.py", SLOW)]).client()
    huge, huger = zmuled.folder / "huge", zmuled.folder / "sub/huge"
    huge.mkdir()
    with ThreadPoolExecutor() as pool, Mule(7, endpoint=zmuled.endpoint) as mule:
        added = pool.submit(mule.add_file_monitor, 17, str(huge))
        removed = pool.submit(mule.add_file_monitor, 18, str(huger))
        wait_until(lambda: {*kinds(zmuled)} == {("filemon", 17), ("filemon", 18)}, "the questions")
        for _ in range(10):
            client.ping()
        assert not added.done()
        assert mule.remove_source("filemon", 18) == 1
        removed.result(PATIENCE)
        assert not added.done()
        (zmuled.folder / "go").touch()
        added.result(PATIENCE)
        (huge / "entry").touch()
        assert mule.signal_wait(17, timeout=PATIENCE) == 17


def test_a_stop_does_not_wait_for_a_folder_that_takes_long_to_look_at(zmuled: Zmuled) -> None:
    huge = zmuled.folder / "huge"
    filemon = f"[[filemon]]\nsignal = 17\npath = '{huge}'"
    (zmuled.folder / "z.toml").write_text(filemon)
    zmuled.start("--config=z.toml", wrapper=[sys.executable, zmuled.program("slow.py", SLOW)])
    assert zmuled.stop() == 0


def test_crons_are_listed(zmuled: Zmuled) -> None:
    zmuled.start()
    with Mule(7, endpoint=zmuled.endpoint) as mule:
        mule.add_cron(17, -5, -1, -1, -1, -1)
        mule.add_cron_text(17, "30 4 * * mon-fri", "Europe/Rome")
        first, second = zmuled.status()["timers"]
    assert (first["spec"], second["spec"]) == ("-5 -1 -1 -1 -1", "30 4 * * MON-FRI Europe/Rome")
    assert 0 < first["next_in_s"] <= 300
    assert 0 < second["next_in_s"] <= 4 * 86400


def test_the_configuration_raises_signals(zmuled: Zmuled) -> None:
    watched = zmuled.folder / "watched"
    (zmuled.folder / "z.toml").write_text(
        f"""
        [[timer]]
        signal = 17
        ms = 50
        iterations = 2
        [[cron]]
        signal = 18
        when = "*/5 * * * *"
        [[filemon]]
        signal = 19
        path = "{watched}"
        [[filemon]]
        signal = 19
        path = "/{"x" * 300}"
        """
    )
    zmuled.start("--config=z.toml")
    assert f"error: configuration: cannot monitor '/{'x' * 98}" in zmuled.output()
    assert {("cron", 18), ("filemon", 19)} <= set(kinds(zmuled))
    with Mule(7, endpoint=zmuled.endpoint) as mule:
        assert mule.signal_wait(17, timeout=20) == 17
        watched.touch()
        assert mule.signal_wait(19, timeout=20) == 19
    assert kinds(zmuled).count(("filemon", 19)) == 1


# Connections.


def test_a_broker_that_was_killed_is_told_again(zmuled: Zmuled) -> None:
    client = zmuled.start().client(timeout=20)
    with Mule(7, endpoint=zmuled.endpoint) as mule:
        seen: list[int] = []
        mule.register_signal(17, "mule7", seen.append)
        mule.add_timer(18, 1000)
        zmuled.kill()
        zmuled.start()
        wait_until(lambda: zmuled.status()["signals"] and zmuled.status()["timers"], "its registration")
        client.signal(17)
        assert mule.signal_wait(timeout=20) == 17
        assert seen == [17]


def test_a_mule_that_hears_no_broadcast_gets_every_signal(zmuled: Zmuled) -> None:
    client = zmuled.start().client()
    with Mule(7, endpoint=zmuled.endpoint) as mule:
        mule.register_signal(17, "mules", lambda number: None)
        for raised in range(30):
            client.signal(17)
            if raised == 10:
                # the SUB socket goes, and stays away
                mule._receiver.do(lambda: setattr(mule._inbox, "publish", ()))
                wait_until(lambda: mule._receiver._broadcasts is None, "the cut")
        for _ in range(30):
            assert mule.signal_wait(timeout=20) == 17
    assert pending(zmuled) == 0


def test_mules_are_told_how_calls_travel(zmuled: Zmuled) -> None:
    zmuled.program("env.py", "import os\nprint(os.environ['ZMULE_MULEFUNC_SERIALIZER'], flush=True)")
    zmuled.start("--mule=env.py", "--mulefunc-serializer=pickle", ready=False)
    wait_until(lambda: "mule 1: pickle\n" in zmuled.output())


def test_one_raise_from_a_shell(zmuled: Zmuled) -> None:
    zmuled.program("counter.py", COUNTER)
    zmuled.start("--mule=counter.py")
    wait_until(lambda: zmuled.status()["signals"], "the handler")
    environ = {**os.environ, "ZMULE_ENDPOINT": zmuled.endpoint}
    subprocess.run([Path(sys.executable).parent / "zmule", "signal", "17"], env=environ, check=True)
    wait_until(lambda: ran(zmuled.folder) == ["17"], "the run")
