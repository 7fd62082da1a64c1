"""The thread that writes what the daemon prints, and readers that are slow, stand still or go away."""

from __future__ import annotations

import os
import queue
import select
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from zmule.daemon.writer import FULL, MOST, Writer

PATIENCE = 30.0


class Pipe:
    """A pipe: its reading end for the test, its writing end for a writer."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def read_all(self, enough: int) -> bytes:
        data = b""
        while len(data) < enough:
            data += os.read(self.reading, 1 << 20)
        return data

    def close(self) -> None:
        for descriptor in (self.reading, self.writing):
            with suppress(OSError):
                os.close(descriptor)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def ignore(_lines: int) -> None:
    """Nobody wants to know."""


def test_what_is_put_is_written_in_order(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file:
        writer = Writer(file.fileno(), ignore)
        for number in range(1000):
            writer.put(b"%d\n" % number)
        assert writer.close(PATIENCE) == 0
    assert (tmp_path / "out").read_text().splitlines() == [str(number) for number in range(1000)]


def test_who_does_not_read_makes_it_full_and_who_reads_again_gets_it_all(pipe: Pipe) -> None:
    writer = Writer(pipe.writing, ignore)
    line = b"x" * 65_535 + b"\n"
    assert not writer.full()
    sent = 0
    while not writer.full():
        writer.put(line)
        sent += len(line)
    assert FULL <= sent < MOST
    assert not select.select([writer], [], [], 0.0)[0]
    reader = threading.Thread(target=pipe.read_all, args=[sent])
    reader.start()
    assert select.select([writer], [], [], PATIENCE)[0]
    writer.heard()
    assert not select.select([writer], [], [], 0.0)[0]
    assert not writer.full()
    assert writer.close(PATIENCE) == 0
    reader.join()


def test_beyond_the_limit_lines_are_dropped_and_counted_and_it_is_said(pipe: Pipe) -> None:
    told: queue.Queue[int] = queue.Queue()
    writer = Writer(pipe.writing, told.put)
    sent = 0
    while sent < MOST:
        writer.put(b"x\n" * 50_000, 50_000)
        sent += 100_000
    writer.put(b"y\ny\n", 2)
    writer.put(b"y\n")
    pipe.read_all(sent)
    assert told.get(timeout=PATIENCE) == 3
    assert writer.close(PATIENCE) == 0


def test_the_end_does_not_wait_for_ever_for_a_reader(pipe: Pipe) -> None:
    writer = Writer(pipe.writing, ignore)
    for _ in range(100):
        writer.put(b"x" * 10_000 + b"\n")
    assert 0 < writer.close(0.1) <= 100


def test_a_reader_that_has_gone_holds_nothing_up(pipe: Pipe) -> None:
    writer = Writer(pipe.writing, ignore)
    os.close(pipe.reading)
    for _ in range(1000):
        writer.put(b"x" * 10_000 + b"\n")
    assert writer.close(PATIENCE) > 0


def test_a_file_that_others_have_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.writing, False)
    writer = Writer(pipe.writing, ignore)
    for _ in range(1000):
        writer.put(b"x" * 999 + b"\n")
    assert len(pipe.read_all(1_000_000)) == 1_000_000
    assert writer.close(PATIENCE) == 0
