"""The functions at module level: the process's own client, and its mule or worker."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator

import pytest

import zmule
from tests.conftest import Zmuled, wait_until
from zmule import current
from zmule.mules.serving import here


@pytest.fixture
def broker(zmuled: Zmuled, monkeypatch: pytest.MonkeyPatch) -> Iterator[Zmuled]:
    """A zmuled without mules, and this process as one that has never spoken to it."""
    monkeypatch.setenv("ZMULE_ENDPOINT", zmuled.endpoint)
    monkeypatch.setattr(current, "_client", None)
    here._begin()
    yield zmuled.start("--locks=1")
    current.close_client()
    here._close()
    here._begin()


@pytest.fixture
def mule(broker: Zmuled, monkeypatch: pytest.MonkeyPatch) -> Iterator[zmule.Mule]:
    """This process as mule 7 of the farm `own`."""
    with zmule.Mule(7, farms=["own"], endpoint=broker.endpoint) as own:
        monkeypatch.setattr(current, "_mule", own)
        yield own


def test_every_name_is_where_it_is_said_to_be() -> None:
    for name in zmule.__all__:
        assert getattr(zmule, name) is not None
    assert set(importlib.import_module("zmule.api").__all__) < set(zmule.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = zmule.nonsense


def test_a_mule(mule: zmule.Mule) -> None:
    assert (zmule.mule_id(), zmule.worker_id(), zmule.current_mule()) == (7, 0, mule)
    assert (zmule.in_farm("own"), zmule.in_farm("other")) == (True, False)
    seen: list[int] = []
    zmule.register_signal(17, "mules", seen.append)
    assert zmule.signal_registered(17)
    zmule.signal(17)
    assert zmule.signal_wait(17) == 17
    assert (seen, zmule.signal_received()) == ([17], 17)
    assert zmule.signal_wait(17, timeout=0.01) is None
    zmule.mule_msg("x", 7)
    zmule.farm_msg("own", "y")
    assert (zmule.get_msg(farms=False), zmule.farm_get_msg(), zmule.get_msg(0)) == ("x", "y", None)
    zmule.signal(17)
    assert zmule.get_msg(0.01, signals=False) is None
    assert seen == [17]
    zmule.unregister_signal(17)
    assert not zmule.signal_registered(17)


@pytest.mark.usefixtures("broker")
def test_a_worker() -> None:
    assert (zmule.mule_id(), zmule.in_farm("own"), zmule.current_mule()) == (0, False, None)
    assert zmule.worker_id() == 1
    ran = threading.Event()
    zmule.register_signal(17, "workers", lambda _: ran.set())
    zmule.signal(17)
    assert ran.wait(30)
    with pytest.raises(zmule.ZmuleError, match="no mule"):
        zmule.get_msg()


def test_sources(broker: Zmuled, mule: zmule.Mule) -> None:
    zmule.add_timer(1, 30)
    zmule.add_rb_timer(1, 30, 2)
    zmule.add_cron(1, 0, 0, -1, -1, -1)
    zmule.add_cron_text(1, "*/5 * * * *", "Europe/Rome")
    zmule.add_file_monitor(1, str(broker.folder))
    assert len(broker.status()["timers"]) == 5
    counts = [zmule.remove_source(kind, 1) for kind in ("timer", "rb_timer", "cron", "filemon")]
    assert (counts, broker.status()["timers"]) == ([1, 1, 2, 1], [])
    with pytest.raises(zmule.WrongValue):
        zmule.add_timer(1, 0)


@pytest.mark.usefixtures("broker")
def test_locks() -> None:
    with zmule.lock(1, timeout=5) as lock:
        assert lock.token
        assert zmule.is_locked(1)
        with pytest.raises(zmule.Deadlock):
            zmule.lock(1).acquire()
    assert not zmule.is_locked(1)
    with zmule.lock("a name"):
        assert zmule.is_locked("a name")
    with pytest.raises(zmule.UnknownLock):
        zmule.lock(2).acquire()
    wait_until(lambda: not zmule.is_locked("a name"))
