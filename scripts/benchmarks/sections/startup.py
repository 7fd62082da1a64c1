"""Starting: whole processes, from their start to their end, and the broker to its first answer."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks import course, processes
from benchmarks.effort import Effort
from benchmarks.line import Figures, Line
from benchmarks.peers.zmule import zmuled
from zmule import Mule

SEND = "zmule-send 1 hi, the whole process"
IMPORT = "import zmq, msgpack"
FIGURE = "p50 ms"


def lines(effort: Effort) -> Iterator[Line]:
    times = 5 if effort.quick else 10
    sends = {
        "zmule": partial(send, times),
        IMPORT: partial(python, f"{IMPORT}", times),
        "python": partial(python, "pass", times),
    }
    yield Line("startup", SEND, sends, effort.rounds)
    if not effort.quick:
        yield Line("startup", "zmuled, to its first answer", {"zmule": first_answer}, effort.rounds)


def send(times: int) -> Figures:
    with processes.folder() as folder, zmuled(folder) as address, Mule(1, endpoint=address):
        command = [str(processes.COMMANDS / "zmule-send"), "1", "hi"]
        return median(command, times, {"ZMULE_ENDPOINT": address})


def python(code: str, times: int) -> Figures:
    return median([sys.executable, "-c", code], times, {})


def median(command: list[str], times: int, environ: dict[str, str]) -> Figures:
    """Run a command some times, return how long it took, in ms."""
    environ = processes.clean_environ() | environ

    def run() -> None:
        subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)

    run()
    return {FIGURE: course.median([took(run) for _ in range(times)]) / 1000}


def took(call: Callable[[], object]) -> int:
    begun = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - begun


def first_answer() -> Figures:
    with processes.folder() as folder:
        begun = time.perf_counter_ns()
        with zmuled(folder):
            return {FIGURE: (time.perf_counter_ns() - begun) / 1e6}
