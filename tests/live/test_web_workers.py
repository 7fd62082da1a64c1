"""Threads and greenlets of gunicorn's workers send; the application was loaded before they were forked."""

from __future__ import annotations

import http.client
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

import pytest

from tests.conftest import PATIENCE, Zmuled, wait_until
from zmule.mules.mule import Mule

REQUESTS = 60

APP = """
import os
from concurrent.futures import ThreadPoolExecutor
import zmule

zmule.mule_msg("of the parent", 2)
pool = ThreadPoolExecutor(4)  # its threads are the parent's
pool.submit(zmule.mule_msg, "of a thread of the parent's", 2, wait=False).result()

def app(environ, start_response):
    number = environ["PATH_INFO"].strip("/")
    if number.isdigit():
        with zmule.current.client().lock("counted", timeout=30):
            zmule.mule_msg(f"posted {number}", 2, wait=False)
        zmule.mule_msg(f"sent {number}", 2)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""

numbers = itertools.count(1)


class Web(http.client.HTTPConnection):
    """A connection to a server at a socket in the file system."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self.path)


def get(path: str, sends: bool = True) -> tuple[str, int]:
    """Return the number of a request and the process that has answered it.

    Tries as often as a browser would need, each time with another number.
    """
    while True:
        number = str(next(numbers))
        with closing(Web(path)) as web, suppress(OSError, http.client.HTTPException):
            web.request("GET", f"/{number if sends else ''}", headers={"Connection": "close"})
            with web.getresponse() as response:
                assert response.status == 200
                return number, int(response.read())


@contextmanager
def gunicorn(zmuled: Zmuled, kind: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Serve the application; yield the process, and where it serves."""
    path = str(zmuled.folder / "http")
    zmuled.program("web.py", APP)
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers=2", "--threads=4"]
    options = [
        f"--worker-class={kind}",
        f"--bind=unix:{path}",
        f"--worker-tmp-dir={zmuled.folder}",
        "web:app",
    ]
    environ = {**os.environ, "HOME": str(zmuled.folder), "ZMULE_ENDPOINT": zmuled.endpoint}
    with subprocess.Popen([*command, *options], cwd=zmuled.folder, env=environ) as process:
        try:
            wait_until(lambda: os.path.exists(path), "the server")  # noqa: PTH110
            yield process, path
        finally:
            process.terminate()


@pytest.mark.parametrize("kind", ["gthread", "gevent"])
def test_each_request_of_a_web_worker_sends(zmuled: Zmuled, kind: str) -> None:
    pytest.importorskip("gunicorn", reason="gunicorn is not installed here")
    pytest.importorskip("gevent", reason="gevent is not installed here")
    zmuled.start()
    with Mule(2, endpoint=zmuled.endpoint) as mule:
        with gunicorn(zmuled, kind) as (process, path):
            with ThreadPoolExecutor(8) as pool:
                requests = [pool.submit(get, path) for _ in range(REQUESTS)]
                requests[10].result(PATIENCE)
                process.send_signal(signal.SIGHUP)
                answers = dict(request.result(PATIENCE) for request in requests)
            pids = set(answers.values())
            wait_until(lambda: get(path, sends=False)[1] not in pids, "the new workers")
            answers.update([get(path)])
        assert process.returncode == 0
        came = Counter[str]()
        while (message := mule.get_msg(timeout=0)) is not None:
            came[str(message)] += 1
    assert came["of the parent"] == came["of a thread of the parent's"] == 1
    assert {came[f"{what} {number}"] for number in answers for what in ("posted", "sent")} == {1}
    assert max(came.values()) == 1
