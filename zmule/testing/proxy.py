"""A link on loopback that can be cut or stalled: what tests do to a network without owning one."""

from __future__ import annotations

import contextlib
import socket
import threading

CHUNK = 65_536


class Proxy:
    """Forwards connections to a tcp port of this host.

    A stalled proxy moves nothing and closes nothing, so that both ends go on believing in each other. What
    was in it when it is cut is lost.

    Args:
        target: the port.

    Attributes:
        port: where it listens.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._flowing = threading.Event()
        self._flowing.set()
        self._mutex = threading.Lock()
        self._links: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def cut(self) -> None:
        """Break all connections. New ones are welcome at once."""
        with self._mutex:
            for link in self._links:
                with contextlib.suppress(OSError):
                    link.shutdown(socket.SHUT_RDWR)

    def stall(self) -> None:
        """Move nothing until `flow`."""
        self._flowing.clear()

    def flow(self) -> None:
        """Move what comes, and what has come."""
        self._flowing.set()

    def close(self) -> None:
        """Listen no more, and break all connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self.flow()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    near.close()
                    continue
                with self._mutex:
                    self._links |= {near, far}
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._move, args=(source, sink), daemon=True).start()

    def _move(self, source: socket.socket, sink: socket.socket) -> None:
        """Move what comes from one end to the other, until one of them is gone; then so are both."""
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                self._flowing.wait()
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
        with self._mutex:
            self._links.discard(source)
        source.close()
