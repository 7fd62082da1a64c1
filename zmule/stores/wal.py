"""What SQLite will find in its write-ahead log, told before SQLite looks, for it drops in silence.

SQLite reads a log up to the first frame that is not as it should be, and takes the rest for what a crash has
left unfinished. A crash leaves such a rest, too. What it cannot leave is told apart by the *salt*: a random
number that each frame has, and that changes whenever the log is begun anew from its start. Frames of the
present salt behind a bad one were written later than it. Since each commit is synced before the next begins,
there can be at most one commit among them, and nothing after that; anything else is damage.

The log of one opening has a *lineage*: the first salt goes up by one with each new beginning, as their count
in the header does, so the difference stays. The main file names it (see `zmule.stores.schema`): a log of
another lineage is another file's, or of another time.

https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

HEADER = struct.Struct(">8I")
FRAME = struct.Struct(">6I")
MAGIC = {0x377F0682: "<", 0x377F0683: ">"}
"""The first number of a log, and the byte order of the words that its checksums add up."""

WORD = 0xFFFFFFFF


class Damaged(Exception):
    """What was committed cannot be read from the log; the text says why."""


class Log(NamedTuple):
    """A log that can be read.

    Attributes:
        lineage: to which opening of which file it belongs.
        remark: what is to be said of its end, if it is not certain that nothing is missing.
    """

    lineage: int
    remark: str | None


def read_log(path: Path) -> Log | None:
    """Look through a log; None if there is none, or an empty one.

    Raises:
        Damaged: something committed is lost.
        OSError: it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        size = os.fstat(descriptor).st_size
        return _read(descriptor, size) if size else None
    finally:
        os.close(descriptor)


def lineage(path: Path) -> int:
    """Return the lineage of a log that is sound."""
    with path.open("rb") as file:
        return _lineage(HEADER.unpack(file.read(HEADER.size)))


def _lineage(header: Sequence[int]) -> int:
    return (header[4] - header[3]) & WORD


def _read(descriptor: int, size: int) -> Log:
    data = os.pread(descriptor, HEADER.size, 0)
    if len(data) < HEADER.size:
        raise Damaged("it is too short")
    header = HEADER.unpack(data)
    order, page = MAGIC.get(header[0], ""), header[2]
    if not order or page not in (1 << power for power in range(9, 17)):
        raise Damaged("its header is wrong")
    if _checksum(data[:24], order, (0, 0)) != header[6:]:
        raise Damaged("its header is wrong")
    step = FRAME.size + page
    own = [
        place
        for place in range((size - HEADER.size) // step)
        if os.pread(descriptor, 8, HEADER.size + place * step + 8) == data[16:24]
    ]
    sound = _sound(descriptor, step, order, header)
    beyond = [place for place in own if place >= sound]
    commits = [place for place in beyond if _commits(descriptor, HEADER.size + place * step)]
    if commits and commits[0] != beyond[-1]:
        raise Damaged(f"frame {sound + 1} of {beyond[-1] + 1} is wrong")
    return Log(_lineage(header), _remark(sound) if beyond else None)


def _remark(sound: int) -> str:
    return (
        f"ends in an unfinished transaction after frame {sound}: if the power failed while it was written,"
        " nothing that was confirmed is missing; if not, the log is damaged there"
    )


def _sound(descriptor: int, step: int, order: str, header: Sequence[int]) -> int:
    """Return how many frames there are from the first on that are as they should be."""
    place, sums = 0, tuple(header[6:])
    while True:
        data = os.pread(descriptor, step, HEADER.size + place * step)
        if len(data) < step:
            return place
        frame = FRAME.unpack_from(data)
        if frame[2:4] != header[4:6] or not frame[0]:
            return place
        sums = _checksum(data[:8] + data[FRAME.size :], order, sums)
        if sums != frame[4:]:
            return place
        place += 1


def _commits(descriptor: int, offset: int) -> bool:
    return os.pread(descriptor, 4, offset + 4) != bytes(4)


def _checksum(data: bytes, order: str, sums: Sequence[int]) -> tuple[int, int]:
    first, second = sums
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for word, following in zip(words, words, strict=True):
        first = (first + word + second) & WORD
        second = (second + following + first) & WORD
    return first, second
