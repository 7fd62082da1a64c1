"""What a mule prints, line by line.

A mule's stdout and stderr are one pipe, whose read end must never hold up the daemon: it is read without
blocking and at most `CHUNK` bytes a turn, so that a mule that floods its output slows down itself and nobody
else. Lines are cut by newline only; one that grows over `LONGEST_LINE` characters is delivered in pieces, and
bytes that are not UTF-8 become escapes such as \\xff, so that whatever a program writes can be logged.

The pipe outlives the mule when a process that it started (and that left its process group) keeps the other
end open. So the end of the output is not waited for: at the mule's death `finish` takes what is in the pipe
at that moment, which the kernel tells, and closes it.
"""

from __future__ import annotations

import codecs
import fcntl
import os
import sys
import termios
from typing import IO

CHUNK = 65_536
LONGEST_LINE = 65_536


class Lines:
    """Cuts a stream of bytes into lines of text."""

    __slots__ = ("_decoder", "_rest")

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._rest = ""

    def feed(self, data: bytes, *, final: bool = False) -> list[str]:
        """Return the lines that `data` completes, without newlines; with `final` the unterminated one too."""
        *whole, rest = (self._rest + self._decoder.decode(data, final)).split("\n")
        *pieces, self._rest = _cut(rest)
        lines = [piece for line in whole for piece in _cut(line)] + pieces
        if final and self._rest:
            lines.append(self._rest)
            self._rest = ""
        return lines


class Output:
    """The read end of a mule's output.

    Args:
        stream: the unbuffered read end of a pipe, owned from here on.
    """

    __slots__ = ("_lines", "_stream")

    def __init__(self, stream: IO[bytes]) -> None:
        os.set_blocking(stream.fileno(), False)
        self._stream = stream
        self._lines = Lines()

    @property
    def closed(self) -> bool:
        return self._stream.closed

    def fileno(self) -> int:
        return self._stream.fileno()

    def read(self) -> list[str] | None:
        """Return the lines that are complete after one more read; None at the end of the output."""
        data: bytes | None = self._stream.read(CHUNK)
        if data == b"":
            return None
        return self._lines.feed(data or b"")

    def finish(self) -> list[str]:
        """Close the pipe. Return all lines left in it, the last one too if it is unterminated."""
        size = fcntl.ioctl(self._stream, termios.FIONREAD, bytes(4))
        data: bytes | None = self._stream.read(int.from_bytes(size, sys.byteorder))
        self._stream.close()
        return self._lines.feed(data or b"", final=True)


def _cut(line: str) -> list[str]:
    """Return the pieces of a line; an empty line is one empty piece."""
    return [line[at : at + LONGEST_LINE] for at in range(0, len(line), LONGEST_LINE)] or [""]
