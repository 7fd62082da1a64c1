"""Feeds a text to three mules by all the ways there are, and shows that each line was handled.

What was sent is counted here; what was handled is counted twice, by the broker's status and by what the
mules have printed, and all of it must agree.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from ast import literal_eval
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zmule import BrokerUnavailable, Client, ZmuleError

ROOT = Path(__file__).resolve().parents[1]
TEXT = ROOT / "docs" / "configuration.rst"
PROGRAMS = ROOT / "etc" / "examples"
COMMANDS = Path(sys.executable).parent
MULES = "--mule=feed.py --mule=feed.py --mule=wallow.py --farm=busy:1,2 --farm=idle:3"
PATIENCE = 60.0

Row = tuple[str, str, int]
Sending = tuple[str, str, list[str]]
"""(target, by what, the lines)"""


class Wrong(Exception):
    """Something does not add up."""


def main() -> int:
    """Run the demo; return its exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with tempfile.TemporaryDirectory(prefix="zmule-demo-") as folder:
            demonstrate(Path(folder))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (Wrong, ZmuleError, subprocess.CalledProcessError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def demonstrate(folder: Path) -> None:
    """Do it all, with sockets and output in the folder."""
    endpoint = f"ipc://{folder}/zmule.sock"
    output = folder / "output"
    ours = {name: value for name, value in os.environ.items() if not name.startswith("ZMULE_")}
    environ = ours | {"ZMULE_ENDPOINT": endpoint}
    lines = TEXT.read_text("utf-8").removesuffix("\n").split("\n")
    print(f"zmuled {MULES}")
    with broker(environ, output) as wait_until, Client(endpoint, timeout=PATIENCE) as client:
        wait_until("the mules are ready", lambda: all_idle(client))
        print(f"Its mules are ready. They get {TEXT.relative_to(ROOT)}, {len(lines)} lines:\n")
        sent = list(feed(lines, client, environ))
        total = sum(len(these) for _, _, these in sent)
        wait_until("all lines are handled", lambda: client.status()["totals"]["acked"] == total)
        status = client.status()
    show("SENT TO", "BY", [(target, by, len(these)) for target, by, these in sent])
    show("HANDLED BY", "FARMS", [mule_row(mule) for mule in status["mules"]])
    compare(Counter(line for _, _, these in sent for line in these), status, read(output))
    print(f"All {total} lines that were sent were handled, each of them once.")


@contextmanager
def broker(environ: dict[str, str], output: Path) -> Iterator[Callable[[str, Callable[[], bool]], None]]:
    """Run `zmuled`; give what waits until something is so, for as long as the broker runs."""

    def wait_until(what: str, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not is_so():
            if process.poll() is not None:
                raise Wrong(f"zmuled has ended with {process.returncode}:\n{read(output)}")
            if time.monotonic() > deadline:
                raise Wrong(f"not within {PATIENCE:g} s: {what}\n{read(output)}")
            time.sleep(0.02)

    with output.open("wb") as file:
        process = subprocess.Popen(
            [COMMANDS / "zmuled", *MULES.split()], cwd=PROGRAMS, env=environ, stdout=file, stderr=file
        )
    try:
        yield wait_until
    finally:
        process.terminate()
        process.wait()
    if process.returncode != 0:
        raise Wrong(f"zmuled has ended with {process.returncode}:\n{read(output)}")


def all_idle(client: Client) -> bool:
    """Return whether the broker is there and every mule waits for messages."""
    try:
        return all(mule["state"] == "idle" for mule in client.status(timeout=1.0)["mules"])
    except BrokerUnavailable:
        return False


def feed(lines: list[str], client: Client, environ: dict[str, str]) -> Iterator[Sending]:
    """Send the lines, each way some; yield what was sent by each."""

    def command(*words: str, stdin: Iterable[str] = ()) -> None:
        text = "".join(f"{line}\n" for line in stdin)
        subprocess.run(
            [COMMANDS / "zmule-send", *map(str.encode, words)], env=environ, input=text.encode(), check=True
        )

    command("busy", "-", stdin=lines)
    yield "farm busy", "zmule-send busy -", lines

    command("idle", "-", stdin=lines[::3])
    yield "farm idle", "zmule-send idle -", lines[::3]

    few = [line for line in lines if not line.startswith("-")][:10]
    for line in few:
        command("1", line)
    yield "mule 1", "zmule-send 1 LINE", few

    for line in lines[::2]:
        client.mule_msg(line, wait=False)
    client.flush()
    yield "any", "zmule.Client", lines[::2]


def compare(sent: Counter[str], status: dict[str, Any], output: str) -> None:
    """Raise `Wrong` unless the broker's books and the mules' output agree with what was sent."""
    printed = re.findall(r"^mule (\d+): (?:ate|wallowed in) (b.*)$", output, re.MULTILINE)
    books = {str(mule["id"]): mule["messages"] for mule in status["mules"] if mule["messages"]}
    handled = Counter(literal_eval(body).decode() for _, body in printed)
    by_mule = Counter(number for number, _ in printed)
    if sum(books.values()) != sum(sent.values()):
        raise Wrong(f"{sum(sent.values())} lines were sent, {sum(books.values())} were handled")
    if books != by_mule:
        raise Wrong(f"the broker counts {books}, the mules have printed {dict(by_mule)}")
    if handled != sent:
        raise Wrong(f"lost: {list(sent - handled)}, handled too often: {list(handled - sent)}")


def read(output: Path) -> str:
    """Return what `zmuled` and its mules have written so far."""
    return output.read_text("utf-8", errors="replace")


def mule_row(mule: dict[str, Any]) -> Row:
    """Return a mule's row of the table."""
    return f"mule {mule['id']}, {mule['program']}", " ".join(mule["farms"]), mule["messages"]


def show(first: str, second: str, rows: list[Row]) -> None:
    """Print a table of numbers of lines, with their total."""
    total = sum(number for _, _, number in rows)
    for name, detail, number in [(first, second, "LINES"), *rows, ("total", "", total)]:
        print(f"    {name:<18}  {detail:<20}  {number:>6}")
    print()


if __name__ == "__main__":
    sys.exit(main())
