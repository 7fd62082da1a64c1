"""The `uwsgi` module: arguments, results and exceptions are those of uWSGI."""

from __future__ import annotations

import importlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Zmuled, wait_until
from zmule import current
from zmule.errors import BrokerUnavailable, NotPermitted
from zmule.mules.mule import Mule

uwsgi: Any = importlib.import_module("zmule.compat.uwsgi")


def noted(into: list[Any]) -> Callable[[Any], None]:
    """A handler that notes what it is called with."""
    return lambda value: into.append(value)


# Messages.


@pytest.mark.usefixtures("broker")
def test_sending() -> None:
    assert uwsgi.mule_msg("ciuchino") is True
    assert uwsgi.mule_msg(b"ciuchino", 1) is True
    assert uwsgi.mule_msg("x", True) is True
    assert uwsgi.mule_msg("", 0) is True
    for farm in ("busy", b"busy"):
        assert uwsgi.mule_msg("x", farm) is True
        assert uwsgi.farm_msg(farm, "x") is True


@pytest.mark.usefixtures("broker")
def test_sending_where_nobody_is() -> None:
    for number in (99, -1):
        with pytest.raises(ValueError, match=r"^invalid mule number$"):
            uwsgi.mule_msg("x", number)
    with pytest.raises(ValueError, match=r"^unknown farm$"):
        uwsgi.mule_msg("x", "nowhere")
    with pytest.raises(ValueError, match=r"^unknown farm$"):
        uwsgi.farm_msg(b"nowhere", "x")
    for odd in (1.0, None, ()):
        with pytest.raises(ValueError, match=r"^invalid mule$"):
            uwsgi.mule_msg("x", odd)
    with pytest.raises(ValueError, match="signal-only"):
        uwsgi.mule_msg("x", 2)


@pytest.mark.usefixtures("broker")
def test_messages_are_text_or_bytes_up_to_a_limit() -> None:
    for odd in (bytearray(b"x"), memoryview(b"x"), 1, None):
        with pytest.raises(TypeError):
            uwsgi.mule_msg(odd)
        with pytest.raises(TypeError):
            uwsgi.farm_msg("busy", odd)
    with pytest.raises(TypeError):
        uwsgi.farm_msg(1, "x")
    with pytest.raises(UnicodeEncodeError):
        uwsgi.mule_msg("\ud800")
    with pytest.raises(ValueError, match=r"max_message.* 1000"):
        uwsgi.mule_msg(b"x" * 1001)
    assert uwsgi.mule_msg_recv_size() == 1000


def test_a_full_queue_is_false(fresh: Zmuled) -> None:
    fresh.start("--queue-messages=3")
    assert [uwsgi.mule_msg("x") for _ in range(5)] == [True, True, True, False, False]


def test_no_broker_is_an_error(fresh: Zmuled, monkeypatch: pytest.MonkeyPatch) -> None:
    current.client().timeout = 0.01
    with monkeypatch.context() as impatient:
        impatient.setattr("zmule.mules.serving.PATIENCE", 0.01)
        with pytest.raises(BrokerUnavailable):
            uwsgi.mule_msg("x")
        with pytest.raises(BrokerUnavailable):
            uwsgi.register_signal(1, "", print)
    fresh.start()
    assert uwsgi.worker_id() == 1


@pytest.mark.usefixtures("fresh")
def test_only_mules_receive() -> None:
    with pytest.raises(ValueError, match=r"^you can receive mule messages only in a mule !!!$"):
        uwsgi.mule_get_msg()
    with pytest.raises(ValueError, match=r"^you can receive farm messages only in a mule !!!$"):
        uwsgi.farm_get_msg()
    assert (uwsgi.mule_id(), uwsgi.mule_id(3)) == (0, 0)
    assert (uwsgi.in_farm("own"), uwsgi.in_farm(), uwsgi.mule_file()) == (None, None, None)


@pytest.mark.usefixtures("mule")
def test_receiving() -> None:
    for message in ("così", b"\xff", ""):
        uwsgi.mule_msg(message, 7)
    assert [uwsgi.mule_get_msg() for _ in range(3)] == ["così".encode(), b"\xff", b""]
    assert uwsgi.mule_get_msg(timeout=0) == b""
    assert uwsgi.mule_get_msg(True, True, 4, 0.01) == b""
    uwsgi.farm_msg("own", "0123456789")
    assert uwsgi.mule_get_msg(farms=False, timeout=0) == b""
    assert uwsgi.mule_get_msg(farms=None, timeout=0) == b""
    assert uwsgi.mule_get_msg(farms=0, buffer_size=4, timeout=-1) == b"0123456789"
    uwsgi.farm_msg("own", "x")
    assert uwsgi.farm_get_msg("ignored", 1) == b"x"
    for keywords in ({"timeout": "1"}, {"timeout": None}, {"buffer_size": None}, {"odd": 1}):
        with pytest.raises(TypeError):
            uwsgi.mule_get_msg(**keywords)


@pytest.mark.usefixtures("mule")
def test_who_a_mule_is() -> None:
    assert (uwsgi.mule_id(), uwsgi.mule_id(3), uwsgi.worker_id()) == (7, 7, 0)
    assert (uwsgi.in_farm("own"), uwsgi.in_farm(b"own"), uwsgi.in_farm()) == (True, True, True)
    assert uwsgi.in_farm("busy") is None
    with pytest.raises(TypeError):
        uwsgi.in_farm(3)
    assert uwsgi.mule_file() is None


def test_a_handler_of_the_system_interrupts(fresh: Zmuled) -> None:
    fresh.program(
        "interrupted.py",
        """
        import os, signal, threading, uwsgi
        signal.signal(signal.SIGUSR1, lambda *_: print("handled", flush=True))
        for get in (uwsgi.mule_get_msg, uwsgi.farm_get_msg):
            print(get(), flush=True)
        uwsgi.mule_get_msg()
        """,
    )
    fresh.start("--mule=interrupted.py")
    for result in ("b''", "None"):
        wait_until(lambda: fresh.mule(1)["waiting"] == 1 and fresh.mule(1)["state"] == "idle")
        os.kill(fresh.mule(1)["pid"], signal.SIGUSR1)
        wait_until(lambda: f"mule 1: handled\nmule 1: {result}\n" in fresh.output())  # noqa: B023


# Signals.


@pytest.mark.usefixtures("mule")
def test_signals_of_a_mule() -> None:
    seen: list[int] = []
    assert uwsgi.signal_received() == 0
    assert uwsgi.signal_registered(17) is None
    assert uwsgi.register_signal(17, "mule7", noted(seen)) is None
    assert uwsgi.register_signal(17, "mule7", noted(seen)) is None
    assert uwsgi.register_signal(18, "mule7", noted(seen)) is None
    assert uwsgi.signal_registered(17) is True
    assert uwsgi.signal(17) is None
    assert uwsgi.signal_wait() == b""
    assert (seen, uwsgi.signal_received()) == ([17], 17)
    uwsgi.signal(17)
    uwsgi.signal(18)
    assert uwsgi.signal_wait(18) == b""
    assert (seen, uwsgi.signal_received()) == ([17, 17, 18], 18)


@pytest.mark.usefixtures("mule")
def test_signals_within_a_get() -> None:
    seen: list[int] = []
    uwsgi.register_signal(17, "mule7", noted(seen))
    uwsgi.signal(17)
    uwsgi.mule_msg("x", 7)
    for off in (False, None):
        assert uwsgi.mule_get_msg(off, timeout=0.01) == (b"x" if off is False else b"")
    assert seen == []
    while not seen:
        assert uwsgi.mule_get_msg(timeout=0.05) == b""
    assert seen == [17]


@pytest.mark.usefixtures("mule")
def test_an_unregistered_signal_ends_a_wait() -> None:
    uwsgi.signal(200)
    assert uwsgi.signal_wait() == b""
    assert uwsgi.signal_received() == 200


def test_a_handler_that_raises_is_reported(mule: Mule, capfd: pytest.CaptureFixture[str]) -> None:
    uwsgi.register_signal(17, "mule7", lambda _: [][0])
    uwsgi.signal(17)
    assert uwsgi.mule_get_msg(timeout=0.5) == b""
    assert "IndexError" in capfd.readouterr().err
    assert mule.handlers.errors == 1


@pytest.mark.parametrize("who", ["mule", "broker"])
def test_signals_that_cannot_be(who: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(who)
    calls: list[Callable[[int], object]] = [
        uwsgi.signal,
        uwsgi.signal_registered,
        uwsgi.signal_wait,
        lambda number: uwsgi.register_signal(number, "", print),
        lambda number: uwsgi.add_timer(number, 1),
        lambda number: uwsgi.add_file_monitor(number, "/tmp"),
    ]
    for number in (-1, 256, 300):
        for call in calls:
            with pytest.raises(ValueError, match="0 to 255"):
                call(number)
    for odd in ("a", None, 1.0, b"1"):
        with pytest.raises(TypeError):
            uwsgi.signal(odd)
        with pytest.raises(TypeError):
            uwsgi.register_signal(odd, "", print)
    for target in ("spooler", "nonsense", "mule99", "farm_none", "farm9", "x" * 70):
        with pytest.raises(ValueError, match=r"no |unknown|invalid"):
            uwsgi.register_signal(3, target, print)
    for target_of_wrong_type in (b"mule", None, 1):
        with pytest.raises(TypeError):
            uwsgi.register_signal(3, target_of_wrong_type, print)
    with pytest.raises(TypeError, match="handler"):
        uwsgi.register_signal(3, "", "print")
    uwsgi.register_signal(3, "mules", print)
    with pytest.raises(ValueError, match="registered for 'mules' already"):
        uwsgi.register_signal(3, "mule", print)


# What raises them.


def test_sources(mule: Mule, tmp_path: Path) -> None:
    seen: list[int] = []
    for number in (1, 2, 3, 4):
        uwsgi.register_signal(number, "mule7", noted(seen))
    assert uwsgi.add_timer(1, 0.05) is None
    assert uwsgi.add_ms_timer(2, 50) is None
    assert uwsgi.add_rb_timer(3, 0.05, 2) is None
    assert uwsgi.add_file_monitor(4, str(tmp_path / "late")) is None
    assert uwsgi.add_cron(1, -1, -5, 1, -1, 7) is True
    while seen.count(3) < 2 or not {1, 2} <= set(seen):
        uwsgi.signal_wait()
    mule.remove_source("timer", 1)
    mule.remove_source("timer", 2)
    (tmp_path / "late").write_text("x")
    uwsgi.signal_wait(4)
    assert seen.count(3) == 2


def test_a_relative_path_is_this_processs(
    mule: Mule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uwsgi.add_file_monitor(4, "here")
    [monitor] = current.client().status()["timers"]
    assert str(tmp_path / "here") in monitor.values()


@pytest.mark.usefixtures("mule")
def test_rb_timers_without_end_are_given_as_0_or_minus_1() -> None:
    uwsgi.add_rb_timer(1, 1, -1)
    uwsgi.add_rb_timer(1, 1, 0)
    uwsgi.add_rb_timer(1, 1)
    assert len(current.client().status()["timers"]) == 1


@pytest.mark.parametrize("who", ["mule", "broker"])
def test_sources_that_cannot_be(who: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(who)
    for seconds in (1e-9, float("inf")):
        with pytest.raises(ValueError, match="period"):
            uwsgi.add_timer(1, seconds)
        with pytest.raises(ValueError, match="period"):
            uwsgi.add_rb_timer(1, seconds)
        with pytest.raises(ValueError, match="period"):
            uwsgi.add_ms_timer(1, seconds)
    for seconds in (0, -1):  # as in uWSGI
        uwsgi.add_timer(1, seconds)
        uwsgi.add_ms_timer(1, seconds)
    assert current.client().status()["timers"] == []
    for call in (uwsgi.add_timer, uwsgi.add_rb_timer, uwsgi.add_ms_timer, uwsgi.add_file_monitor):
        for odd in (None, b"1"):
            with pytest.raises(TypeError):
                call(1, odd)
    for fields in (
        (60, -1, -1, -1, -1),
        (0, 24, -1, -1, -1),
        (0, 0, 32, -1, -1),
        (0, 0, 1, 13, -1),
        (0, 0, 1, 1, 8),
    ):
        with pytest.raises(ValueError, match="cron"):
            uwsgi.add_cron(1, *fields)
    with pytest.raises(TypeError):
        uwsgi.add_cron(1, 1.5, -1, -1, -1, -1)
    for path, why in (
        ("/a\0b", "NUL"),
        ("/" + "x" * 300, "longer"),
        ("/" + "x/" * 2500, "4095"),
        ("/\ud800", "surrog"),
    ):
        with pytest.raises(ValueError, match=why):
            uwsgi.add_file_monitor(1, path)
    assert current.client().status()["timers"] == []


# Locks.


@pytest.mark.usefixtures("broker")
def test_locks() -> None:
    assert uwsgi.is_locked() is False
    assert uwsgi.lock() is None
    assert uwsgi.is_locked(0) is True
    with pytest.raises(RuntimeError, match=r"deadlock|holds it already|wait for itself"):
        uwsgi.lock(0)
    assert uwsgi.lock(2) is None
    assert uwsgi.unlock() is None
    assert uwsgi.unlock(2) is None
    assert uwsgi.is_locked(2) is False
    with pytest.raises(RuntimeError):
        uwsgi.unlock()


@pytest.mark.usefixtures("broker")
def test_a_lock_is_its_threads() -> None:
    uwsgi.lock(1)
    errors: list[BaseException] = []
    got = threading.Event()

    def other() -> None:
        try:
            uwsgi.unlock(1)
        except RuntimeError as error:
            errors.append(error)
        uwsgi.lock(1)
        got.set()
        uwsgi.unlock(1)

    thread = threading.Thread(target=other)
    thread.start()
    wait_until(lambda: errors, "the stranger's unlock to fail")
    wait_until(lambda: any(lock["waiting"] for lock in current.client().status()["locks"]), "a waiter")
    assert not got.is_set()
    uwsgi.unlock(1)
    thread.join()
    assert got.is_set()


@pytest.mark.usefixtures("broker")
def test_locks_that_cannot_be() -> None:
    for call in (uwsgi.lock, uwsgi.unlock, uwsgi.is_locked):
        for number in (3, -1, 10**6):
            with pytest.raises(ValueError, match="Invalid lock number"):
                call(number)
        for odd in ("a", None, 1.5):
            with pytest.raises(TypeError):
                call(odd)
        with pytest.raises(TypeError):
            call(number=0)


# The rest.


@pytest.mark.usefixtures("broker")
def test_a_worker() -> None:
    assert current.client().status()["workers"] == []
    assert uwsgi.numproc == 1  # as uWSGI, which has one at least
    assert uwsgi.worker_id() == 1
    assert uwsgi.worker_id(3) == 1
    assert uwsgi.numproc == 1
    seen: list[int] = []
    uwsgi.register_signal(5, "workers", noted(seen))
    uwsgi.signal(5)
    wait_until(lambda: seen == [5], "the handler, in its own thread")
    wait_until(lambda: uwsgi.signal_received() == 5)


@pytest.mark.usefixtures("broker")
def test_signal_wait_in_a_worker() -> None:
    seen: list[int] = []
    for number in (5, 6):
        uwsgi.register_signal(number, "worker", noted(seen))
    ready = threading.Event()
    results: list[bytes] = []

    def wait() -> None:
        ready.set()
        results.append(uwsgi.signal_wait(6))

    thread = threading.Thread(target=wait)
    thread.start()
    ready.wait()
    while thread.is_alive():
        uwsgi.signal(5)
        uwsgi.signal(6)
        thread.join(0.05)
    assert results == [b""]
    assert 6 in seen


def test_a_worker_survives_what_its_handlers_do(broker: Zmuled, capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []

    def leave(_: int) -> None:
        raise SystemExit(3)

    uwsgi.register_signal(5, "worker", leave)
    uwsgi.register_signal(6, "worker", lambda _: [][0])
    uwsgi.register_signal(7, "worker", noted(seen))
    for number in (5, 6, 7):
        uwsgi.signal(number)
    wait_until(lambda: seen == [7])
    errors = capfd.readouterr().err
    assert "cannot end this process" in errors
    assert "IndexError" in errors


@pytest.mark.usefixtures("broker")
def test_options() -> None:
    assert uwsgi.opt == {"master": True, "mule": [b"idle.py", True], "farm": [b"busy:1", b"idle:1"]}


def test_one_option_is_no_list(fresh: Zmuled) -> None:
    fresh.start("--mule")
    assert uwsgi.opt == {"master": True, "mule": True}


def test_versions() -> None:
    assert uwsgi.version.startswith(b"2.0.31+zmule.")
    assert uwsgi.version_info[:3] == (2, 0, 31)


def test_the_process(capfd: pytest.CaptureFixture[str]) -> None:
    assert uwsgi.masterpid() == os.getppid()
    assert uwsgi.i_am_the_spooler() is None
    assert uwsgi.ready() is True
    assert uwsgi.log("a line") is True
    assert uwsgi.log(b"another") is True
    assert capfd.readouterr().err == "a line\nanother\n"
    resident, total = uwsgi.mem()
    assert 1 << 20 < resident < total
    assert abs(uwsgi.micros() - time.time() * 1e6) < 60e6
    assert uwsgi.started_on <= time.time()
    assert isinstance(uwsgi.hostname, bytes)


def test_hooks_are_not_there_before_a_program_sets_them() -> None:
    for name in ("mule_msg_hook", "atexit"):
        assert not hasattr(uwsgi, name)
    with pytest.raises(TypeError):
        uwsgi.install_mule_msg_hook(3)


def test_a_reload_starts_the_mules_anew(fresh: Zmuled) -> None:
    fresh.program(
        "asks.py",
        "import uwsgi\nprint(uwsgi.mule_get_msg(), uwsgi.reload(), flush=True)\nuwsgi.mule_get_msg()",
    )
    fresh.start("--mule=asks.py", "--mule")
    before = [fresh.mule(number)["pid"] for number in (1, 2)]
    uwsgi.mule_msg("now", 1)
    wait_until(lambda: [fresh.mule(number)["restarts"] for number in (1, 2)] == [1, 1], "both restarts")
    wait_until(lambda: {fresh.mule(number)["state"] for number in (1, 2)} == {"idle"})
    assert "mule 1: b'now' True\n" in fresh.output()
    assert not set(before) & {fresh.mule(number)["pid"] for number in (1, 2)}


def test_a_stop_ends_it_all(fresh: Zmuled) -> None:
    fresh.program(
        "asks.py", "import uwsgi\nuwsgi.mule_get_msg()\nprint(uwsgi.stop(), flush=True)\nuwsgi.mule_get_msg()"
    )
    fresh.start("--mule=asks.py", "--mule")
    uwsgi.mule_msg("now", 1)
    assert fresh.process is not None
    assert fresh.process.wait(30) == 0
    assert "mule 1: True\n" in fresh.output()


def test_a_client_of_the_same_user_may_stop_it(broker: Zmuled) -> None:
    broker.client()._ask("stop")
    assert broker.process is not None
    assert broker.process.wait(30) == 0


@pytest.mark.parametrize("order", ["stop", "reload"])
def test_who_comes_by_tcp_may_not_stop_it_whatever_it_says_it_is(zmuled_tcp: Zmuled, order: str) -> None:
    zmuled_tcp.start("--mule")
    guest = Mule(7, endpoint=zmuled_tcp.endpoint)
    with pytest.raises(NotPermitted, match="may do that"):
        guest.ask(order)
    with pytest.raises(NotPermitted, match="may do that"):
        zmuled_tcp.client()._ask(order)
    guest.close()
    assert f"warning: mule 7 of another user, or from a network, may not {order}" in zmuled_tcp.output()
    assert zmuled_tcp.mule(1)["restarts"] == 0
