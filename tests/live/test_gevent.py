"""Greenlets are threads to clients and mules, no matter when gevent patches Python."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import PATIENCE, Zmuled

BEFORE = """
from gevent import monkey
monkey.patch_all()
import gevent, os, signal, threading, zmule
client = zmule.Client(timeout=60)
"""

AFTER = """
import gevent, os, signal, threading, zmule
client = zmule.Client(timeout=60)
from gevent import monkey
monkey.patch_all()
"""

PROGRAMS = {
    "messages": """
def send(name):
    for number in range(60):
        client.mule_msg(f"{name} {number}", 2, wait=number % 3 == 0)

with zmule.Mule(2) as mule:
    came = []

    def work():
        while len(came) < 600:
            if (message := mule.get_msg(timeout=1)) is not None:
                came.append(message)

    workers = [gevent.spawn(work) for _ in range(3)]
    gevent.joinall([gevent.spawn(send, name) for name in range(10)], raise_error=True)
    client.flush()
    gevent.joinall(workers, raise_error=True)
    assert len(set(came)) == 600
    for name in range(10):
        own = [message for message in came if message.startswith(f"{name} ")]
        assert own == [f"{name} {number}" for number in range(60)]
""",
    "locks": """
held = []

def hold():
    with client.lock("one at a time", timeout=60):
        held.append(1)
        client.mule_msg("x")
        gevent.sleep(0)
        assert len(held) == 1
        held.pop()

gevent.joinall([gevent.spawn(hold) for _ in range(10)], raise_error=True)

with client.lock("gate"):
    waiting = gevent.spawn(client.lock("gate").acquire)
    while len(client.status()["locks"][-1]["waiting"]) < 1:
        gevent.sleep(0.01)
    waiting.kill()
ended = gevent.spawn(client.lock("gate").acquire)
ended.join()
del waiting, ended  # with a greenlet goes what it holds
with client.lock("gate", timeout=60):
    pass
""",
    "waiting": """
broker = client.status()["broker"]["pid"]
os.kill(broker, signal.SIGSTOP)
try:
    waiting = [gevent.spawn(client.mule_msg, "x") for _ in range(3)]
    for _ in range(100):
        gevent.sleep(0.001)  # others run meanwhile
    assert not any(each.ready() for each in waiting)
    killed = waiting.pop()
    killed.kill()
finally:
    os.kill(broker, signal.SIGCONT)
gevent.joinall(waiting, raise_error=True)
assert client.mule_msg("y")
""",
    "the end": """
gevent.spawn(lambda: [client.mule_msg("x", wait=False) for _ in range(100)]).join()
client.flush()
for _ in range(100):
    client.mule_msg("y", wait=False)
pid = os.fork()
if not pid:
    for _ in range(100):
        client.mule_msg("z", wait=False)
    raise SystemExit
assert os.waitpid(pid, 0)[1] == 0
""",
}


@pytest.mark.parametrize("patched", ["before", "after"])
@pytest.mark.parametrize("what", PROGRAMS)
def test_greenlets_are_threads(zmuled: Zmuled, patched: str, what: str) -> None:
    pytest.importorskip("gevent", reason="gevent is not installed here")
    zmuled.start()
    name = zmuled.program("green.py", (BEFORE if patched == "before" else AFTER) + PROGRAMS[what])
    done = subprocess.run(
        [sys.executable, name],
        cwd=zmuled.folder,
        env={**os.environ, "ZMULE_ENDPOINT": zmuled.endpoint, "PYTHONWARNINGS": "ignore"},
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    if what == "the end":
        assert zmuled.status()["totals"]["accepted"] == 300
