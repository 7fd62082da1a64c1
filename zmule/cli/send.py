"""The `zmule-send` command.

Scripts call it once for every message, so two plain words take a path on which nothing but the client is
imported. Whatever else is on the command line goes to typer, in `zmule.cli.send_options`, which comes
back to `send` unless there is help to show or a mistake to explain.

Lines of standard input are sent without waiting for one another. Their confirms are waited for when no
more input is there at once, and every `WINDOW` lines: so a refusal is told soon, even in a pipeline
that never ends, with the lines among which it was.
"""

from __future__ import annotations

import gc
import math
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from zmule.cli import common
from zmule.clients.sync import Client
from zmule.errors import MessageTooLarge, UnknownFarm, UnknownMule, ZmuleError, from_code
from zmule.near import hint

STDIN, STDERR = 0, 2
CHUNK = 1 << 20
WINDOW = 5_000
PROGRESS_SECONDS = 0.25
MOST_DIGITS = 7
LONGEST_FARM = 100

Body = str | bytes
Send = Callable[[Body, bool], bool]


def main() -> None:
    """Run `zmule-send` to its exit."""
    words = sys.argv[1:]
    if len(words) == 2 and all(word == "-" or not word.startswith("-") for word in words):
        common.run("zmule-send", lambda: send(words[0], words[1]))
        gc.freeze()  # or the interpreter looks at every object once more before it ends: a tenth of the time
    else:
        from zmule.cli.app import run
        from zmule.cli.send_options import app

        run("zmule-send", app)


def send(
    target: str,
    message: str,
    endpoint: str | None = None,
    timeout: float | None = None,
    verbose: bool = False,
    delay: float | None = None,
    ttl: float | None = None,
) -> None:
    """Send one message, or the lines of standard input if the message is `-`.

    Args:
        target: a mule's number, `any` or 0, or the name of a farm.
        message: as it came from the command line; what is not UTF-8 there is sent as bytes.
        endpoint: as for `Client`.
        timeout: seconds to wait for the broker and for room in a queue that is full; None: for the broker as
            long as is usual, and for room not at all.
        verbose: whether to say on standard error how many messages were sent.
        delay, ttl: as for `Client.mule_msg`.
    """
    client = common.connect(endpoint, timeout)
    try:
        _send(client, target, message, timeout, verbose, delay, ttl)
    except UnknownFarm as error:
        raise UnknownFarm(f"{error}{_meant(client, target)}") from None
    finally:
        with suppress(ZmuleError):  # what is unconfirmed now has been waited for, or Ctrl-C does not want to
            client.close(timeout=0)


def _send(
    client: Client,
    target: str,
    message: str,
    timeout: float | None,
    verbose: bool,
    delay: float | None,
    ttl: float | None,
) -> None:
    put = sender(client, target, timeout=timeout, delay=delay, ttl=ttl)
    progress = Progress(target, verbose)
    if message == "-":
        Lines(client, put, progress).send(STDIN)
    else:
        put(as_body(os.fsencode(message)), True)
        progress.done(1)


def _meant(client: Client, target: str) -> str:
    """Return a question after the farm that was meant, "" if there is none like it."""
    with suppress(ZmuleError):
        return hint(target, [*client.status()["farms"], "any"])
    return ""


def sender(
    client: Client,
    target: str,
    *,
    timeout: float | None = None,
    delay: float | None = None,
    ttl: float | None = None,
) -> Send:
    """Return what sends a message to the target: its arguments are the message and whether to wait.

    Raises:
        UnknownMule, UnknownFarm: no mule or farm can have that number or name.
        UsageError: it has no name at all.
    """

    def to_mule(number: int) -> Send:
        return lambda body, wait: client.mule_msg(
            body, number, wait=wait, timeout=timeout, delay=delay, ttl=ttl
        )

    if target == "any":
        return to_mule(0)
    if not target:
        raise common.UsageError("the target is empty: name a mule's number, any, or a farm")
    if target.isascii() and target.isdigit():
        if len(target) > MOST_DIGITS:
            raise UnknownMule(f"there is no mule {target[:80]}")
        return to_mule(int(target))
    if not target.isprintable() or len(target) > LONGEST_FARM:
        raise UnknownFarm(f"there is no farm {target[:80]!a}")
    return lambda body, wait: client.farm_msg(target, body, wait=wait, timeout=timeout, delay=delay, ttl=ttl)


def as_body(data: bytes) -> Body:
    """Return a text if the bytes are UTF-8, else the bytes."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


class Lines:
    """Sends lines and keeps count: of those sent, and of those that are known to be accepted."""

    def __init__(self, client: Client, put: Send, progress: Progress) -> None:
        self._client = client
        self._longest = client.max_message()
        self._put = put
        self._progress = progress
        self._sent = 0
        self._accepted = 0

    def send(self, descriptor: int) -> None:
        """Send every line that can be read from the descriptor.

        Raises:
            ZmuleError: the text begins with the line, or the lines, that it is about.
        """
        try:
            for lines in read_lines(descriptor, self._longest):
                for line in lines:
                    self._send(line)
                if not is_readable(descriptor):
                    self._settle()
            self._settle()
            self._progress.done(self._sent)
        finally:
            self._progress.clear()

    def _send(self, line: bytes) -> None:
        try:
            self._put(as_body(line), False)
        except MessageTooLarge:
            self._settle()
            text = f"more than {self._longest} bytes, the limit (max_message) for a message"
            raise located(MessageTooLarge(text), self._sent + 1, self._sent + 1) from None
        except ZmuleError as error:
            raise located(error, self._accepted + 1, self._sent + 1) from None
        self._sent += 1
        if self._sent - self._accepted >= WINDOW:
            self._settle()

    def _settle(self) -> None:
        """Wait until all lines sent are accepted."""
        try:
            self._client.flush()
        except ZmuleError as error:
            raise located(error, self._accepted + 1, self._sent) from None
        self._accepted = self._sent
        self._progress.show(self._sent)


def located(error: ZmuleError, first: int, last: int) -> ZmuleError:
    """Return the error with the lines it is about."""
    lines = f"line {first}" if first == last else f"lines {first} to {last}"
    return from_code(error.code, f"{lines}: {error}")


def read_lines(descriptor: int, longest: int) -> Iterator[list[bytes]]:
    """Yield the lines of a stream without their newlines, as many at a time as one read gives.

    A line of more than `longest` bytes comes in pieces of more than `longest`, so that an endless one
    does not have to fit into memory to be refused.
    """
    held: list[bytes] = []
    size = 0
    while chunk := read(descriptor):
        head, newline, tail = chunk.rpartition(b"\n")
        if newline:
            yield b"".join([*held, head]).split(b"\n")
            held, size = [], 0
        held.append(tail)
        size += len(tail)
        if size > longest:
            yield [b"".join(held)]
            held, size = [], 0
    if size:
        yield [b"".join(held)]


def read(descriptor: int) -> bytes:
    """Return what there is to read, b"" at the end."""
    if sys.stdin is None:  # whatever has been opened since then has its number
        raise ZmuleError("standard input is closed")
    try:
        return os.read(descriptor, CHUNK)
    except OSError as error:
        raise ZmuleError(f"cannot read standard input: {error.strerror}") from None


def is_readable(descriptor: int) -> bool:
    """Return whether a read would not have to wait."""
    return bool(select.select([descriptor], [], [], 0)[0])


class Progress:
    """Says how many messages were sent: at the end if asked, meanwhile if somebody looks on."""

    def __init__(self, target: str, verbose: bool) -> None:
        self._target = target
        self._verbose = verbose
        self._begun = time.monotonic()
        self._due = self._begun + 1.0 if os.isatty(STDERR) and not os.isatty(STDIN) else math.inf
        self._shown = False

    def show(self, count: int) -> None:
        """Show the count on the terminal, not too often, and only after a while."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + PROGRESS_SECONDS
            self._shown = True
            common.tell(f"\r{count} messages sent to {self._target}")

    def clear(self) -> None:
        """Take the count away, so that what follows begins on an empty line."""
        if self._shown:
            common.tell("\r\x1b[K")
            self._shown = False

    def done(self, count: int) -> None:
        """Say how many there were, if asked."""
        self.clear()
        if self._verbose:
            took = time.monotonic() - self._begun
            things = "message" if count == 1 else "messages"
            common.tell(f"zmule-send: {count} {things} sent to {self._target} in {took:.3f} s\n")
