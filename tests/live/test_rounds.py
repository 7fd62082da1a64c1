"""Mules that get under a lock and work without it, and are killed."""

from __future__ import annotations

import os
import signal

import pytest

from tests.conftest import Zmuled, wait_until

PLAIN = """
def next_message():
    uwsgi.lock()
    try:
        return uwsgi.farm_get_msg()
    finally:
        uwsgi.unlock()

while True:
    work(next_message().decode())
"""
IN_PLACE = """
while True:
    uwsgi.lock()
    try:
        message = uwsgi.farm_get_msg()
    finally:
        uwsgi.unlock()
    work(message.decode())
"""
WITH = """
client = zmule.Client()
while True:
    with client.lock(0):
        message = zmule.get_msg()
    work(message)
"""
DECORATED = """
@uwsgidecorators.lock
def next_message():
    return uwsgi.mule_get_msg()

while True:
    work(next_message().decode())
"""
IN_THREAD = """
def run():
    while True:
        uwsgi.lock()
        message = uwsgi.farm_get_msg()
        uwsgi.unlock()
        work(message.decode())

thread = threading.Thread(target=run)
thread.start()
thread.join()
"""
SHAPES = pytest.mark.parametrize("shape", [PLAIN, IN_PLACE, WITH, DECORATED, IN_THREAD])

START = """
import os, threading, time, uwsgi, uwsgidecorators, zmule

def note(text):
    with open("notes", "a") as notes:
        notes.write(text + "\\n")

def until_told():
    while not os.path.exists("go"):
        time.sleep(0.01)
"""
WORKS = """
def work(message):
    note(message)
    until_told()
"""
LOCKS = """
def work(message):
    note(message)
    until_told()
    uwsgi.lock()
    uwsgi.unlock()
    note("end of " + message)
"""


def start(zmuled: Zmuled, program: str) -> None:
    zmuled.program("mule.py", program)
    zmuled.start("--mule=mule.py", "--farm=f:1")


def notes(zmuled: Zmuled) -> list[str]:
    file = zmuled.folder / "notes"
    return file.read_text().splitlines() if file.exists() else []


def wait_for_note(zmuled: Zmuled, note: str) -> None:
    wait_until(lambda: note in notes(zmuled), note)


def waits_for_the_lock(zmuled: Zmuled) -> bool:
    return any(lock["waiting"] for lock in zmuled.status()["locks"])


def kill_at_the_lock(zmuled: Zmuled, acks: int) -> None:
    """Kill the mule while it waits for the lock, as so many messages are acknowledged."""
    client = zmuled.client()
    client.farm_msg("f", "one")
    wait_for_note(zmuled, "one")
    with client.lock(0):
        (zmuled.folder / "go").touch()
        wait_until(lambda: waits_for_the_lock(zmuled), "the mule at the lock")
        zmuled.wait_for_acks(acks)
        os.kill(zmuled.mule(1)["pid"], signal.SIGKILL)
        wait_until(lambda: not waits_for_the_lock(zmuled), "its death")
    client.farm_msg("f", "two")


@SHAPES
def test_what_was_finished_before_the_lock_is_not_done_again(zmuled: Zmuled, shape: str) -> None:
    start(zmuled, START + WORKS + shape)
    kill_at_the_lock(zmuled, acks=1)
    wait_for_note(zmuled, "two")
    assert notes(zmuled) == ["one", "two"]


@SHAPES
def test_what_waits_for_the_lock_within_the_work_is_done_again(zmuled: Zmuled, shape: str) -> None:
    start(zmuled, START + LOCKS + shape)
    kill_at_the_lock(zmuled, acks=0)
    wait_for_note(zmuled, "end of two")
    assert notes(zmuled) == ["one", "one", "end of one", "two", "end of two"]
