"""What the daemon writes: its own log on standard error, its mules' output on standard output.

Each of the two has a `Writer`; both have the same one if they are the same file, so that lines stay in order.
A mule's output is formatted here and not by `logging`: it may be a flood, and the loop waits meanwhile. No
character is a reason to lose a line: what the encoding does not have is written as an escape. JSON is UTF-8
whatever the locale, as its standard wants it.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import TextIO

from zmule.daemon.writer import Writer

CLOSE_SECONDS = 5.0
"""How long the end of the daemon waits for whoever reads its output."""

STDOUT, STDERR = 1, 2

log = logging.getLogger("zmule")


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        return f"{stamp} {record.levelname.lower()}: {super().format(record)}"


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _json(record.created, record.levelname.lower(), super().format(record))


class _Handler(logging.Handler):
    """Gives the daemon's own lines to a writer."""

    def __init__(self, writer: Writer, encoding: str) -> None:
        super().__init__()
        self._writer = writer
        self._encoding = encoding

    def emit(self, record: logging.LogRecord) -> None:
        self._writer.put(_encoded(self.format(record) + "\n", self._encoding))


class Output:
    """Where the output of the mules goes.

    Args:
        writer: of standard output.
        encoding: of standard output.
        json: whether each line is to be a JSON object.
    """

    def __init__(self, writer: Writer, encoding: str, *, json: bool) -> None:
        self._encoding = encoding
        self._json = json
        self._writer = writer
        self.full, self.fileno, self.heard = writer.full, writer.fileno, writer.heard

    def write(self, number: int, pid: int, lines: Iterable[str]) -> None:
        """Write lines that a mule has printed."""
        if self._json:
            now = time.time()
            whole = [_json(now, "info", line, mule=number, pid=pid) for line in lines]
        else:
            whole = [f"mule {number}: {line}" for line in lines]
        if whole:
            self._writer.put(_encoded("\n".join([*whole, ""]), self._encoding), len(whole))


class Log:
    """The daemon's log, from `with` to its end.

    Args:
        level: the least level of the daemon's own log; the mules' output is always written.
        format: `text` or `json`.

    Attributes:
        output: takes what mules print.
    """

    def __init__(self, level: str, format: str) -> None:
        json = format == "json"
        self._error = self._output = Writer(STDERR, _tell_dropped)
        if not os.path.sameopenfile(STDERR, STDOUT):
            self._output = Writer(STDOUT, _tell_dropped)
        self.output = Output(self._output, "utf-8" if json else _encoding(sys.stdout), json=json)
        self._handler = _Handler(self._error, "utf-8" if json else _encoding(sys.stderr))
        self._handler.setFormatter(_JsonFormatter() if json else _TextFormatter())
        log.setLevel(level.upper())

    def __enter__(self) -> Log:
        log.addHandler(self._handler)
        log.propagate = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        deadline = monotonic() + CLOSE_SECONDS
        if self._output is not self._error and (left := self._output.close(CLOSE_SECONDS)):
            _tell_dropped(left)
        log.removeHandler(self._handler)
        if left := self._error.close(max(0.5, deadline - monotonic())):
            _say_at_last(f"zmuled: {left} lines were not written: nobody read them in time\n")


def _encoding(stream: TextIO | None) -> str:
    return stream.encoding if stream is not None else "utf-8"


def _tell_dropped(lines: int) -> None:
    log.warning("%d lines were dropped: nobody read them in time", lines)


def _say_at_last(text: str) -> None:
    """Write to standard error if that takes no waiting."""
    poller = select.poll()
    poller.register(STDERR, select.POLLOUT)
    if poller.poll(0):
        with suppress(OSError):
            os.write(STDERR, text.encode())


def _json(created: float, level: str, text: str, **more: int) -> str:
    return json.dumps({"time": round(created, 6), "level": level, "text": text, **more}, ensure_ascii=False)


def _encoded(text: str, encoding: str) -> bytes:
    return text.encode(encoding, "backslashreplace")
