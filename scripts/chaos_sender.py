"""One sender of scripts/chaos: numbers its messages, and writes down those that the broker has accepted.

Run as `chaos_sender.py NAME ENDPOINT FOLDER SUPERVISOR`, ended by SIGTERM. Each lane is a thread that sends
to one queue. A lane waits for each confirm, or sends bundles and flushes; what was confirmed is appended to
`FOLDER/accepted/NAME`, and what may or may not have been is not.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from chaos_end import die_with

from zmule import Client, ZmuleError

PAUSE = 0.01
BUNDLE = 40
KINDS = {"guests": ("poison", 1000), "busy": ("bad", 100), "any": ("hard", 100)}
"""What is special of a lane: one in so many messages."""


class Sender:
    """A client, its lanes, and the file of what was accepted."""

    def __init__(self, name: str, endpoint: str, folder: Path) -> None:
        self.name = name
        self.stopping = threading.Event()
        self.client = Client(endpoint)
        self.bulk = Client(endpoint)
        self.file = os.open(folder / "accepted" / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def run(self) -> None:
        """Send until told to stop; then be sure of everything."""
        one, bulk = self.client, self.bulk
        lanes: list[tuple[str, Callable[[str], None]]] = [
            ("any", lambda body: self.confirmed(body, one.mule_msg(body))),
            ("own", lambda body: self.confirmed(body, one.mule_msg(body, 1))),
            ("busy", lambda body: self.confirmed(body, one.farm_msg("busy", body))),
            ("guests", lambda body: self.confirmed(body, one.farm_msg("guests", body))),
            ("bulk", lambda body: self.bundle(body, bulk)),
        ]
        threads = [threading.Thread(target=self.lane, args=lane) for lane in lanes]
        for thread in threads:
            thread.start()
        signal.sigwait({signal.SIGTERM})
        self.stopping.set()
        for thread in threads:
            thread.join()

    def lane(self, lane: str, send: Callable[[str], None]) -> None:
        """Send numbered messages, one after the other."""
        number = 0
        while not self.stopping.is_set():
            number += 1
            special, every = KINDS.get(lane, ("message", 1))
            kind = special if number % every == every // 2 else "message"
            try:
                send(f"{kind} {self.name} {lane} {number}")
            except ZmuleError as error:
                print(f"{self.name} {lane} {number}: {error}", file=sys.stderr)
            time.sleep(PAUSE)

    def bundle(self, body: str, client: Client) -> None:
        """Send many messages without waiting, then wait for all of them."""
        bodies = [f"{body}.{part}" for part in range(BUNDLE)]
        for each in bodies:
            client.mule_msg(each, wait=False)
        client.flush()
        for each in bodies:
            self.confirmed(each, True)
        time.sleep(PAUSE * BUNDLE)

    def confirmed(self, body: str, _: bool) -> None:
        """Write down that the broker has accepted a message."""
        os.write(self.file, f"{body}\n".encode())


def main() -> None:
    """Be a sender."""
    name, endpoint, folder, supervisor = sys.argv[1:]
    die_with(int(supervisor))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # or a thread gets it that runs no handlers
    Sender(name, endpoint, Path(folder)).run()
    os._exit(0)  # what is unconfirmed is in nobody's ledger


if __name__ == "__main__":
    main()
