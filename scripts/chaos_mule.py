"""The program of the mules of scripts/chaos: writes down what it begins and what it finishes.

Run by zmuled, or as `chaos_mule.py FARMS ENDPOINT SUPERVISOR` from outside. `CHAOS_FOLDER` says where the
lines go: `b TIME THREAD ATTEMPT QUEUE BODY` at the beginning of each message, and `f TIME THREAD BODY` at
its end, `n` if it has failed or `r` if it is rejected, with the monotonic clock in nanoseconds, in a file
named after the pid. Poison kills the process, what is bad is rejected, what is hard succeeds the third time.
"""

from __future__ import annotations

import os
import random
import resource
import sys
import threading
import time
from pathlib import Path

from chaos_end import die_with

import zmule

SLOW = 0.03
SECONDS = 0.2
TRIES = 3


def write(file: int, *words: object) -> None:
    """Append a line, whole or not at all."""
    os.write(file, (" ".join(map(str, words)) + "\n").encode())


def work(mule: zmule.Mule, file: int) -> None:
    """Handle messages until the mule stops."""
    thread = threading.get_native_id()
    while True:
        with mule.message() as message:
            assert message is not None
            write(file, "b", time.monotonic_ns(), thread, message.attempt, message.queue, message.body)
            kind, _, _ = str(message.body).partition(" ")
            if kind == "poison":
                os._exit(1)
            if random.random() < SLOW:
                time.sleep(SECONDS * random.random())
            how = "r" if kind == "bad" else "n" if kind == "hard" and message.attempt < TRIES else "f"
            write(file, how, time.monotonic_ns(), thread, message.body)
            if how != "f":
                mule.nack(dead=how == "r")


def main() -> None:
    """Be a mule with one thread if zmuled has started this, else with two."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
    folder = Path(os.environ["CHAOS_FOLDER"])
    file = os.open(folder / "handled" / str(os.getpid()), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    mule = zmule.current_mule()
    if mule is not None:
        work(mule, file)
        return
    farms, endpoint, supervisor = sys.argv[1:]
    die_with(int(supervisor))
    with zmule.Mule(farms=farms.split(","), endpoint=endpoint, timeout=60) as guest:
        second = threading.Thread(target=work, args=(guest, file), daemon=True)
        second.start()
        work(guest, file)


if __name__ == "__main__":
    main()
