"""Bare pyzmq, the floor: DEALER to a ROUTER that passes each message on to the receivers' DEALERs.

Nothing is confirmed, acknowledged or kept. A receiver has a thread that reads the socket, as it must be where
the program's own thread may be busy; it hands messages over by a queue.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import zmq

from benchmarks import processes
from benchmarks.plan import Handled, Plan, Role

_sockets: list[zmq.SyncSocket] = []


@contextlib.contextmanager
def serve(plan: Plan, folder: Path) -> Iterator[str]:
    with processes.running(sys.executable, "-m", "benchmarks.peers.relay", "relay", cwd=folder):
        yield f"ipc://{folder}"


@contextlib.contextmanager
def answering(folder: Path) -> Iterator[str]:
    """Run a ROUTER that answers each message; give its address."""
    with processes.running(sys.executable, "-m", "benchmarks.peers.relay", "echo", cwd=folder):
        yield f"ipc://{folder}/front"


def send(role: Role, bodies: Iterator[bytes]) -> None:
    """Send all. The socket stays open: what a ROUTER has not read yet would go with its peer."""
    dealer = connected(f"{role.address}/front")
    for body in bodies:
        dealer.send(body)


def receive(role: Role, handled: Handled) -> None:
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    dealer = connected(f"{role.address}/back")
    threading.Thread(target=read, args=(dealer, inbox), daemon=True).start()
    handled.ready()
    while True:
        handled(inbox.get())


def read(dealer: zmq.SyncSocket, inbox: queue.SimpleQueue[bytes]) -> None:
    while True:
        inbox.put(dealer.recv())


def connected(address: str) -> zmq.SyncSocket:
    """Return a DEALER that is connected. It stays open as long as the process lives."""
    dealer: zmq.SyncSocket = zmq.Context.instance().socket(zmq.DEALER)
    dealer.immediate = True
    dealer.connect(address)
    dealer.poll(flags=zmq.POLLOUT)
    _sockets.append(dealer)
    return dealer


def relay() -> None:
    """Pass on what comes, one message a time."""
    context = zmq.Context()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    front.bind("ipc://front")
    back.bind("ipc://back")
    while True:
        back.send(front.recv_multipart()[-1])


def echo() -> None:
    """Answer what comes: one round trip."""
    router = zmq.Context().socket(zmq.ROUTER)
    router.bind("ipc://front")
    while True:
        router.send_multipart([router.recv_multipart()[0], b""])


if __name__ == "__main__":
    {"relay": relay, "echo": echo}[sys.argv[1]]()
