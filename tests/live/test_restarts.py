"""How peers notice that the broker has been started anew: by the cut, and not by a silence.

The silences here are longer than any test waits.
"""

from __future__ import annotations

import threading

import pytest

from tests.conftest import PATIENCE, Zmuled, wait_until
from zmule.mules.mule import Mule, Worker

LONG = ("--heartbeat=600", "--heartbeat-timeout=1200")


@pytest.fixture(params=["zmuled", "zmuled_tcp"])
def patient(request: pytest.FixtureRequest) -> Zmuled:
    """A zmuled that gives nobody up for being silent, nor do its peers give it up."""
    daemon: Zmuled = request.getfixturevalue(request.param)
    return daemon.start(*LONG)


def again(daemon: Zmuled) -> None:
    daemon.kill()
    daemon.start(*LONG)


def sends_go_on(sent: list[int]) -> None:
    before = sent[0]
    wait_until(lambda: sent[0] > before, "more sends")


def test_mules_and_workers_that_wait_are_back(patient: Zmuled) -> None:
    with Mule(5, farms=["f"], endpoint=patient.endpoint) as mule, Worker(endpoint=patient.endpoint):
        thread = threading.Thread(target=mule.get_msg, kwargs={"timeout": PATIENCE})
        thread.start()
        for _ in range(2):
            again(patient)
            wait_until(lambda: [each["id"] for each in patient.status()["mules"]] == [5], "the mule")
            wait_until(lambda: patient.status()["workers"] == [1], "the worker")
        patient.client().farm_msg("f", "for the one that waits")
        thread.join()


def test_a_sender_that_waits_for_a_confirm_sends_again(patient: Zmuled) -> None:
    sender, sent, over = patient.client(timeout=PATIENCE), [0], threading.Event()

    def send() -> None:
        while not over.is_set():
            sender.mule_msg("x")
            sent[0] += 1

    thread = threading.Thread(target=send)
    thread.start()
    try:
        for _ in range(3):
            sends_go_on(sent)
            again(patient)
        sends_go_on(sent)
    finally:
        over.set()
        thread.join()
