"""What the daemon writes: its own log on standard error, its mules' output on standard output.

Both are written by a thread of their own behind a bounded queue: a reader that stalls (a pager, a full
pipe) must not stall the broker. What does not fit is dropped, and how much is said.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import sys
import time
from types import TracebackType

MOST_LINES = 10_000


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        if record.name == OUTPUT:
            return f"mule {record.mule}: {record.msg}"  # type: ignore[attr-defined]
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        return f"{stamp} {record.levelname.lower()}: {super().format(record)}"


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "text": super().format(record),
        }
        if record.name == OUTPUT:
            entry |= {"mule": record.mule, "pid": record.pid}  # type: ignore[attr-defined]
        return json.dumps(entry, ensure_ascii=False)


OUTPUT = "zmule.output"


class _Queue(logging.handlers.QueueHandler):
    """Puts records into the queue, or counts them."""

    dropped = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


class Log:
    """The daemon's log, from `with` to its end.

    Args:
        level: the least level of the daemon's own log; the mules' output is always written.
        format: `text` or `json`.
    """

    def __init__(self, level: str, format: str) -> None:
        formatter = _JsonFormatter() if format == "json" else _TextFormatter()
        own, output = logging.StreamHandler(sys.stderr), logging.StreamHandler(sys.stdout)
        own.addFilter(lambda record: record.name != OUTPUT)
        output.addFilter(lambda record: record.name == OUTPUT)
        for handler in (own, output):
            handler.setFormatter(formatter)
            handler.handleError = lambda record: None  # type: ignore[method-assign]  # a closed pipe ends no broker
        self._records: queue.Queue[logging.LogRecord] = queue.Queue(MOST_LINES)
        self._queue = _Queue(self._records)
        self._listener = logging.handlers.QueueListener(self._records, own, output)
        self._root = logging.getLogger("zmule")
        self._root.setLevel(level.upper())
        logging.getLogger(OUTPUT).setLevel(logging.INFO)

    def __enter__(self) -> Log:
        self._root.addHandler(self._queue)
        self._root.propagate = False
        self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._root.removeHandler(self._queue)
        self._listener.stop()
        if self._queue.dropped:
            print(f"zmuled: {self._queue.dropped} lines were dropped: nobody read them", file=sys.stderr)


def mule_line(number: int, pid: int, line: str) -> None:
    """Write a line that a mule has printed."""
    logging.getLogger(OUTPUT).info(line, extra={"mule": number, "pid": pid})
