"""Messages through a real zmuled, between real processes."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Zmuled, wait_until
from zmule.clients.sync import Client
from zmule.errors import (
    BrokerUnavailable,
    MessageTooLarge,
    MuleStopped,
    NotProgrammed,
    NumberInUse,
    QueueFull,
    UnknownFarm,
    UnknownMule,
)
from zmule.mules.mule import Mule

WRITER = """
    import os, zmule
    mule = zmule.current_mule()
    with open(f"handled.{mule.mule_id}.{os.getpid()}", "a", buffering=1) as out:
        while True:
            print(mule.get_msg(), file=out)
"""

THREADS = """
    import threading, zmule
    mule = zmule.current_mule()
    lock = threading.Lock()
    out = open(f"handled.{mule.mule_id}", "a", buffering=1)
    def work(name):
        while True:
            message = mule.get_msg()
            with lock:
                print(name, message, file=out)
    for name in "abc":
        threading.Thread(target=work, args=(name,), daemon=True).start()
    work("main")
"""


def handled(folder: Path) -> list[str]:
    """All lines that mules have written, of every process."""
    return [line for path in sorted(folder.glob("handled.*")) for line in path.read_text().splitlines()]


def test_text_comes_as_text_and_bytes_as_bytes(zmuled: Zmuled) -> None:
    zmuled.program("echo.py", "import zmule\nwhile True: print(repr(zmule.get_msg()), flush=True)")
    client = zmuled.start("--mule=echo.py").client()
    for message in ("ciuchino", b"\xff\x00", "", b"", "così è", "x" * 50_000):
        assert client.mule_msg(message, 1) is True
    zmuled.wait_for_acks(5)
    wait_until(lambda: "x" * 50_000 in zmuled.output())
    for line in ("'ciuchino'", r"b'\xff\x00'", "''", "b''", "'così è'"):
        assert f"mule 1: {line}\n" in zmuled.output()


def test_headers_travel_along(zmuled: Zmuled) -> None:
    client = zmuled.start().client()
    with Mule(endpoint=zmuled.endpoint) as mule:
        client.mule_msg("x", headers={"trace": "abc", "n": 1})
        with mule.message(timeout=10) as message:
            assert message is not None
            assert message.headers == {"trace": "abc", "n": 1}
            assert (message.body, message.attempt, message.queue) == ("x", 1, "any")


def test_several_threads_of_a_mule_share_the_messages(zmuled: Zmuled) -> None:
    zmuled.program("threads.py", THREADS)
    client = zmuled.start("--mule=threads.py").client()
    for number in range(2000):
        client.mule_msg(str(number), 1, wait=False)
    client.flush()
    zmuled.wait_for_acks(2000 - 4)
    wait_until(lambda: len(handled(zmuled.folder)) == 2000)
    lines = [line.split() for line in handled(zmuled.folder)]
    assert sorted(int(number) for _, number in lines) == list(range(2000))
    assert {name for name, _ in lines} == {"a", "b", "c", "main"}


CRASHING = """
    import os, signal, zmule
    mule = zmule.current_mule()
    out = open(f"handled.{mule.mule_id}.{os.getpid()}", "a", buffering=1)
    while True:
        message = mule.get_msg()
        if message in ("2000", "5000", "8000"):
            try:
                os.close(os.open(f"crashed.{message}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        print(message, file=out)
"""


@pytest.mark.parametrize("daemon", ["zmuled", "zmuled_tcp"])
def test_a_mule_killed_in_the_middle_loses_nothing(daemon: str, request: pytest.FixtureRequest) -> None:
    zmuled: Zmuled = request.getfixturevalue(daemon)
    zmuled.program("crashing.py", CRASHING)
    client = zmuled.start("--mule=crashing.py", "--mule=crashing.py", "--farm=busy:1,2").client()
    for number in range(10_000):
        client.farm_msg("busy", str(number), wait=False)
    client.flush()
    wait_until(lambda: len(set(handled(zmuled.folder))) == 10_000, "all handled")
    assert len(list(zmuled.folder.glob("crashed.*"))) == 3
    zmuled.wait_for_acks(10_000 - 2)
    totals = zmuled.status()["totals"]
    twice = [line for line, count in Counter(handled(zmuled.folder)).items() if count > 1]
    assert len(twice) <= totals["redelivered"]
    assert totals["dead"] == 0
    assert sum(mule["restarts"] for mule in zmuled.status()["mules"]) == 3


def test_two_farms_do_not_see_each_others_messages(zmuled: Zmuled) -> None:
    zmuled.program("writer.py", WRITER)
    programs = ["--mule=writer.py"] * 3
    client = zmuled.start(*programs, "--farm=busy:1,2", "--farm=idle:3").client()
    for number in range(300):
        client.farm_msg("busy" if number % 3 else "idle", str(number), wait=False)
    client.flush()
    wait_until(lambda: len(handled(zmuled.folder)) == 300)
    idle = next(zmuled.folder.glob("handled.3.*")).read_text().split()
    assert [int(number) for number in idle] == list(range(0, 300, 3))


def test_mules_and_clients_come_back_after_the_broker_was_killed(zmuled: Zmuled) -> None:
    client = zmuled.start().client(timeout=20)
    with Mule(7, farms=["guests"], endpoint=zmuled.endpoint) as mule:
        client.farm_msg("guests", "before")
        assert mule.get_msg(timeout=10) == "before"
        zmuled.kill()
        got: list[object] = []
        thread = threading.Thread(target=lambda: got.append(mule.get_msg(timeout=30)))
        thread.start()
        zmuled.start()
        wait_until(lambda: [entry["id"] for entry in zmuled.status()["mules"]] == [7])
        client.farm_msg("guests", "after")
        thread.join()
        assert got == ["after"]


def test_what_was_unconfirmed_is_sent_again_to_the_next_broker(zmuled: Zmuled) -> None:
    client = zmuled.start().client(timeout=20)
    client.mule_msg("confirmed")
    zmuled.kill()
    for number in range(100):
        client.mule_msg(str(number), wait=False)
    zmuled.start()
    client.flush()
    assert zmuled.status()["queues"]["any"]["ready"] == 100


def test_a_broker_out_of_reach_is_an_error_soon(tmp_path: Path) -> None:
    with Client(f"ipc://{tmp_path}/nobody", timeout=0.05) as client:
        with pytest.raises(BrokerUnavailable, match="is zmuled running"):
            client.mule_msg("x")
        with pytest.raises(BrokerUnavailable):
            client.mule_msg("x", wait=False)


def test_a_broker_that_goes_away_is_an_error_and_not_a_wait_for_ever(zmuled: Zmuled) -> None:
    client = zmuled.start().client(timeout=0.2)
    client.mule_msg("x")
    zmuled.kill()
    with pytest.raises(BrokerUnavailable, match="unconfirmed"):
        client.mule_msg("x")


def test_errors_name_what_is_wrong(zmuled: Zmuled) -> None:
    zmuled.folder.joinpath("app.py").write_text("")
    client = zmuled.start("--mule", "--app=app", "--max-message=1000").client()
    cases: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: client.mule_msg("x", 99), UnknownMule, "there is no mule 99"),
        (lambda: client.farm_msg("none", "x"), UnknownFarm, "there is no farm 'none'"),
        (lambda: client.mule_msg("x", 1), NotProgrammed, "mule 1 is signal-only"),
        (lambda: client.mule_msg("x" * 1001), MessageTooLarge, "1001 bytes, the limit .* is 1000"),
        (lambda: client.mule_msg("è" * 501), MessageTooLarge, "1002 bytes"),
        (lambda: client.mule_msg("x", -1), ValueError, "0 or more"),
        (lambda: client.mule_msg(5), TypeError, "str or bytes"),  # type: ignore[arg-type]
        (lambda: client.mule_msg("\ud800"), UnicodeEncodeError, "surrogates"),
    ]
    for call, error, text in cases:
        with pytest.raises(error, match=text):
            call()
    assert client.mule_msg("è" * 500) is True


def test_flush_tells_of_refusals(zmuled: Zmuled) -> None:
    client = zmuled.start("--queue-messages=3").client()
    for number in range(5):
        client.mule_msg(str(number), wait=False)
    with pytest.raises(QueueFull, match=r"holds 3 messages.*1 more were refused"):
        client.flush()
    client.flush()
    with pytest.raises(QueueFull):
        client.mule_msg("one more")


def test_threads_share_a_client(zmuled: Zmuled) -> None:
    client = zmuled.start().client()
    errors: list[BaseException] = []

    def send(name: int) -> None:
        try:
            for number in range(200):
                client.mule_msg(f"{name} {number}", wait=number % 2 == 0)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=send, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.flush()
    assert errors == []
    assert zmuled.status()["queues"]["any"]["ready"] == 1600


def test_a_client_on_both_sides_of_a_fork(zmuled: Zmuled) -> None:
    client = zmuled.start().client()
    client.mule_msg("parent")
    children = []
    for _ in range(3):
        pid = os.fork()
        if not pid:
            status = 1
            try:
                client.mule_msg("child")
                client.mule_msg("child", wait=False)
                client.flush()
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    client.mule_msg("parent")
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    assert zmuled.status()["queues"]["any"]["ready"] == 8


def test_numbers_of_mules_from_outside(zmuled: Zmuled) -> None:
    zmuled.program("writer.py", WRITER)
    zmuled.start("--mule=writer.py")
    with Mule(endpoint=zmuled.endpoint) as free, Mule(9, endpoint=zmuled.endpoint) as asked:
        assert (free.mule_id, asked.mule_id) == (2, 9)
        with pytest.raises(NumberInUse, match="mule 9 is another process already"):
            Mule(9, endpoint=zmuled.endpoint)
    wait_until(lambda: [mule["id"] for mule in zmuled.status()["mules"]] == [1])


def test_an_unfinished_message_goes_to_another_mule_when_its_own_closes(zmuled: Zmuled) -> None:
    client = zmuled.start().client()
    first = Mule(endpoint=zmuled.endpoint)
    client.mule_msg("x")
    assert first.get_msg(timeout=10) == "x"
    first.abort()
    with Mule(endpoint=zmuled.endpoint) as second, second.message(timeout=10) as message:
        assert message is not None
        assert (message.body, message.attempt) == ("x", 2)
    assert zmuled.status()["totals"]["acked"] == 1


def test_explicit_acks_and_nacks(zmuled: Zmuled) -> None:
    client = zmuled.start().client()
    with Mule(endpoint=zmuled.endpoint) as mule:
        client.mule_msg("x")
        assert mule.get_msg(timeout=10) == "x"
        mule.nack()
        assert mule.get_msg(timeout=10) == "x"
        mule.ack()
        zmuled.wait_for_acks(1)
        assert mule.get_msg(timeout=0) is None
        client.mule_msg("y")
        with pytest.raises(RuntimeError), mule.message(timeout=10):
            raise RuntimeError
        assert mule.get_msg(timeout=10) == "y"


def test_a_look_without_waiting_sees_what_is_there(zmuled: Zmuled) -> None:
    client = zmuled.start().client()
    with Mule(endpoint=zmuled.endpoint) as mule:
        assert mule.get_msg(timeout=0) is None
        client.mule_msg("x")
        assert mule.get_msg(timeout=0) == "x"
        assert mule.get_msg(timeout=0) is None


def test_a_thread_that_dies_with_a_message_gives_it_back(zmuled: Zmuled) -> None:
    zmuled.program(
        "dying.py",
        """
        import threading, zmule
        mule = zmule.current_mule()
        def work():
            with mule.message() as message:
                print("took", message.attempt, flush=True)
            delivery = mule.get_msg()
            if delivery == "die":
                raise RuntimeError("as asked")
        while True:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        """,
    )
    client = zmuled.start("--mule=dying.py").client()
    for message in ("fine", "die"):  # and no more yet, or that might be at hand before it comes again
        client.mule_msg(message)
    wait_until(lambda: "took 2" in zmuled.output())
    assert "RuntimeError: as asked" in zmuled.output()
    for message in ("fine", "fine"):
        client.mule_msg(message)
    wait_until(lambda: zmuled.output().count("took") == 3)
    zmuled.wait_for_acks(4)
    assert zmuled.status()["totals"]["redelivered"] == 1


def test_a_stopped_mule_gives_no_more_messages(zmuled: Zmuled) -> None:
    client = zmuled.start().client()
    with Mule(endpoint=zmuled.endpoint) as mule:
        mule.stop()
        client.mule_msg("x")
        with pytest.raises(MuleStopped):
            mule.get_msg()


def test_a_mule_is_none_in_a_forked_child(zmuled: Zmuled) -> None:
    zmuled.start()
    with Mule(endpoint=zmuled.endpoint) as mule:
        pid = os.fork()
        if not pid:
            try:
                mule.get_msg(timeout=1)
            except BaseException as error:
                os._exit(7 if "is a fork of mule" in str(error) else 1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_many_clients_and_mules_at_once(zmuled: Zmuled) -> None:
    zmuled.start()
    mules = [Mule(endpoint=zmuled.endpoint, farms=["all"]) for _ in range(50)]
    got: list[object] = []
    threads = [threading.Thread(target=lambda mule=mule: work(mule, got)) for mule in mules]
    for thread in threads:
        thread.start()
    clients = [zmuled.client() for _ in range(200)]
    for number, client in enumerate(clients):
        client.farm_msg("all", str(number), wait=False)
        client.mule_msg(f"any {number}", wait=False)
    for client in clients:
        client.flush()
    zmuled.wait_for_acks(400)
    assert len(got) == 400
    for mule in mules:
        mule.stop()
    for thread in threads:
        thread.join()
    for mule in mules:
        mule.close()
    assert zmuled.status()["mules"] == []


def work(mule: Mule, got: list[object]) -> None:
    """Collect messages until the mule stops."""
    try:
        while True:
            with mule.message() as message:
                got.append(message)
    except MuleStopped:
        pass
