"""What mules and zmuled print: floods, odd bytes, and readers that stand still."""

from __future__ import annotations

import fcntl
import os
import select
import signal
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, Zmuled, wait_until
from zmule.daemon.writer import FULL, MOST

COUNTS = """
    import sys, zmule
    while True:
        count = int(zmule.get_msg())
        sys.stdout.write("".join(f"{number}\\n" for number in range(count)))
        sys.stdout.flush()
        open("done", "a").write("x")
"""


class Stalled:
    """A pipe that is nearly full, and that nobody reads."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.writing, False)
        for size in (4096, 1):
            while select.select([], [self.writing], [], 0.0)[1]:
                try:
                    os.write(self.writing, b"x" * size)
                except BlockingIOError:
                    break
        os.set_blocking(self.writing, True)

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


@pytest.fixture
def stalled() -> object:
    pipe = Stalled()
    yield pipe
    pipe.close()


def test_a_flood_loses_no_line(zmuled: Zmuled) -> None:
    count = 200_000
    zmuled.program("counts.py", COUNTS)
    zmuled.start("--mule=counts.py").client().mule_msg(str(count), 1)
    wait_until((zmuled.folder / "done").exists)
    assert zmuled.stop() == 0
    lines = [line for line in zmuled.output().splitlines() if line.startswith("mule 1: ")]
    assert lines == [f"mule 1: {number}" for number in range(count)]


def test_a_reader_that_stands_still_slows_down_who_prints_and_nobody_else(
    zmuled: Zmuled, stalled: Stalled
) -> None:
    zmuled.program("floods.py", "import os\nwhile True: os.write(1, b'x' * 50_000 + b'\\n')")
    zmuled.program("counts.py", "import zmule\nwhile True: zmule.get_msg()")
    zmuled.start("--mule=floods.py", "--mule=counts.py", stdout=stalled.writing)
    pid = zmuled.mule(1)["pid"]
    wait_until(lambda: _printed(pid) > FULL, "the flood")
    client = zmuled.client(timeout=PATIENCE)
    for number in range(100):
        client.mule_msg(str(number), 2)
    zmuled.wait_for_acks(99)
    assert _printed(pid) < MOST
    assert zmuled.stop() == 0
    assert "were dropped: nobody read them in time" in zmuled.output()


def _printed(pid: int) -> int:
    """How many bytes a process has written."""
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(fields["wchar"])


@pytest.mark.parametrize("second", [False, True])
def test_a_stop_ends_though_nobody_reads_the_log(zmuled: Zmuled, stalled: Stalled, second: bool) -> None:
    zmuled.program("counts.py", COUNTS)
    zmuled.start("--mule=counts.py", ready=False, stdout=stalled.writing, stderr=stalled.writing)
    client = zmuled.client(timeout=PATIENCE)
    client.mule_msg("1000", 1)
    wait_until((zmuled.folder / "done").exists)
    assert zmuled.process is not None
    zmuled.process.terminate()
    if second:
        wait_until(lambda: not os.path.exists(zmuled.endpoint.removeprefix("ipc://")))  # noqa: PTH110
        zmuled.process.terminate()
    assert zmuled.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("format", ["text", "json"])
def test_no_character_loses_a_line(zmuled: Zmuled, format: str) -> None:
    zmuled.program(
        "odd.py",
        """
        import sys, zmule
        sys.stdout.buffer.write("gr\\u00fc\\u00dfe\\n".encode() + b"\\xff\\xfe\\nafter\\n")
        sys.stdout.flush()
        zmule.get_msg()
        """,
    )
    zmuled.start(
        "--mule=odd.py", f"--log-format={format}", environ={"PYTHONIOENCODING": "ascii"}, ready=False
    )
    wait_until(lambda: "after" in zmuled.output())
    greeting = "gr\\xfc\\xdfe" if format == "text" else "grüße"
    raw = "\\xff\\xfe" if format == "text" else "\\\\xff\\\\xfe"
    lines = [line for line in zmuled.output().splitlines() if "mule 1: " in line or '"mule": 1' in line]
    assert [text in line for text, line in zip((greeting, raw, "after"), lines, strict=True)] == [True] * 3


def test_a_broken_pipe_for_output_ends_nothing(zmuled: Zmuled) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    zmuled.program("counts.py", COUNTS)
    zmuled.start("--mule=counts.py", stdout=writing)
    os.close(writing)
    os.close(reading)
    zmuled.client().mule_msg("100000", 1)
    wait_until((zmuled.folder / "done").exists)
    assert zmuled.stop() == 0


def test_closed_standard_streams_become_no_sockets(zmuled: Zmuled) -> None:
    zmuled.program("prints.py", "import zmule\nwhile True: print(zmule.get_msg(), flush=True)")
    wrapper = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    zmuled.start("--mule=prints.py", wrapper=wrapper, ready=False)
    client = zmuled.client(timeout=PATIENCE)
    for number in range(20):
        client.mule_msg(str(number), 1)
    zmuled.wait_for_acks(19)
    assert zmuled.stop(signal.SIGINT) == 0
