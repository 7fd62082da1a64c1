"""What the tests of the drop-in share: this very process as one that uses it, beside a real zmuled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import Zmuled
from zmule import current
from zmule.compat import state
from zmule.mules.mule import Mule
from zmule.mules.serving import here


@pytest.fixture
def fresh(zmuled: Zmuled, monkeypatch: pytest.MonkeyPatch) -> Iterator[Zmuled]:
    """A zmuled that is not started yet, which this process will find, and has never spoken to."""
    monkeypatch.setenv("ZMULE_ENDPOINT", zmuled.endpoint)
    monkeypatch.setattr(current, "_client", None)
    here._begin()
    try:
        yield zmuled
    finally:
        current.close_client()
        here._close()
        here._begin()
        state.named_signals.clear()
        state.message_hooks.clear()


@pytest.fixture
def broker(fresh: Zmuled) -> Zmuled:
    """A zmuled with two farms, three locks and a signal-only mule; this process is a worker at most."""
    fresh.program("idle.py", "import uwsgi\nwhile True: uwsgi.mule_get_msg()")
    return fresh.start(
        "--mule=idle.py", "--mule", "--farm=busy:1", "--farm=idle:1", "--locks=2", "--max-message=1000"
    )


@pytest.fixture
def mule(broker: Zmuled, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mule]:
    """This process as mule 7 of the farm `own`."""
    with Mule(7, farms=["own"], endpoint=broker.endpoint) as own:
        monkeypatch.setattr(current, "_mule", own)
        yield own
