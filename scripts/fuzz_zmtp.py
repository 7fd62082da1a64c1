"""Raw ZMTP under the frames: sockets that shake hands wrongly, or well and then say what libzmq never would.

`attack` does one thing that a seed decides, on a new connection, and returns the socket if it is to stay open
for a while. See ZMTP 3.1 (https://rfc.zeromq.org/spec/37/) for the words.

Left out is a PING: behind more messages than RCVHWM, and with the connection closed after it, it has libzmq
4.3.5 abort (`!_io_error`), and no option of its helps but RCVHWM 0. See docs/guarantees.rst.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from collections.abc import Callable

MORE, LONG, COMMAND = 1, 2, 4
SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
PATIENCE = 5.0
"""How long a broker may take to shake hands, or not to read, in seconds, before the attack is over."""

PAUSE = 0.002
MOST_PARTS, PART = 2000, 1000
"""A multipart message without an end is at most so long, times so many bytes."""

Wire = socket.socket


class Vandal:
    """Attacks an endpoint.

    Args:
        seed: decides everything but the moments.
        endpoint: `ipc://PATH` or `tcp://HOST:PORT`.
        frames: those that are said by the way, such as a good HELLO.
    """

    def __init__(self, seed: int, endpoint: str, frames: list[bytes]) -> None:
        self.draw = random.Random(seed)
        self.endpoint = endpoint
        self.frames = frames
        self.open: list[Wire] = []
        self.done: dict[str, int] = {}

    def attack(self) -> None:
        """Do one thing; what the broker does in return is its affair."""
        before, after = self.draw.choice((BEFORE, AFTER, AFTER))
        act = self.draw.choice(after)
        self.done[act.__name__] = self.done.get(act.__name__, 0) + 1
        wire = self.connected()
        with contextlib.suppress(OSError):
            if before:
                self.shake_hands(wire)
            act(self, wire)
        self.leave(wire)

    def connected(self) -> Wire:
        """Return a new connection."""
        kind, _, address = self.endpoint.partition("://")
        if kind == "ipc":
            wire = socket.socket(socket.AF_UNIX)
            wire.settimeout(PATIENCE)
            wire.connect(address)
            return wire
        host, _, port = address.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=PATIENCE)

    def shake_hands(self, wire: Wire) -> None:
        """Shake hands as a DEALER does."""
        wire.sendall(greeting())
        receive(wire, 64)
        wire.sendall(ready(b"DEALER"))
        receive(wire, 2)

    def leave(self, wire: Wire) -> None:
        """Let the connection stand for a while, close it, or break it."""
        how = self.draw.randrange(4)
        with contextlib.suppress(OSError):
            if how == 0:
                wire.shutdown(socket.SHUT_WR)
            elif how == 1:
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how == 3:
            wire.close()
        else:
            self.open.append(wire)
        while len(self.open) > self.draw.randrange(60):
            self.open.pop(0).close()

    def close(self) -> None:
        """Leave no connection behind."""
        while self.open:
            self.open.pop().close()

    # Instead of a handshake.

    def say_nothing(self, wire: Wire) -> None:
        """Connect, and be silent."""

    def cut_the_greeting(self, wire: Wire) -> None:
        wire.sendall(greeting()[: self.draw.randrange(64)])

    def damage_the_greeting(self, wire: Wire) -> None:
        data = bytearray(greeting() + ready(b"DEALER"))
        for _ in range(self.draw.randint(1, 4)):
            data[self.draw.randrange(len(data))] = self.draw.randrange(256)
        wire.sendall(data)

    def name_a_mechanism(self, wire: Wire) -> None:
        """PLAIN, CURVE or one that is none, with a first command that may go with it."""
        name = self.draw.choice((b"PLAIN", b"CURVE", b"GSSAPI", b"", b"\xff" * 20, b"null"))
        hello = self.draw.choice((b"\x05HELLO\x03abc\x03def", b"\x05HELLO" + bytes(194), b"\x05ERROR\x03abc"))
        wire.sendall(greeting(name, server=self.draw.randrange(2)) + frame(hello, COMMAND))

    def speak_an_old_version(self, wire: Wire) -> None:
        """ZMTP 1.0 and 2.0 have other greetings, and versions to come may have any."""
        old = (b"\x01\x00", SIGNATURE + b"\x00\x05" + b"\x00\x00", SIGNATURE + b"\x01\x05\x00\x00")
        wire.sendall(self.draw.choice((*old, SIGNATURE + b"\x09\x09" + b"NULL" + bytes(48))))
        wire.sendall(frame(self.draw.randbytes(20)))

    def send_garbage(self, wire: Wire) -> None:
        wire.sendall(self.draw.randbytes(self.draw.choice((1, 10, 100, 100_000))))

    def send_http(self, wire: Wire) -> None:
        wire.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")

    def be_another_socket(self, wire: Wire) -> None:
        kinds = (b"PUB", b"SUB", b"REQ", b"ROUTER", b"STREAM", b"", b"x" * 300, b"\0")
        wire.sendall(greeting() + ready(self.draw.choice(kinds)) + frame(b"x"))

    def lie_in_the_ready(self, wire: Wire) -> None:
        """Properties that are longer than the command, very many, or very long; identities, too."""
        lie = self.draw.choice(
            (
                b"\x0bSocket-Type\xff\xff\xff\xffDEALER",
                b"\xffSocket-Type",
                prop(b"Identity", self.draw.randbytes(self.draw.choice((1, 255, 256, 3000)))),
                prop(b"Identity", bytes(5)),
                b"".join(prop(b"X-%d" % number, b"y" * 10) for number in range(2000)),
                prop(b"Resource", b"x" * 60_000),
                b"",
            )
        )
        wire.sendall(greeting() + frame(b"\x05READY" + prop(b"Socket-Type", b"DEALER") + lie, COMMAND))

    def send_messages_first(self, wire: Wire) -> None:
        """Messages before the handshake is over."""
        wire.sendall(greeting() + frame(self.draw.choice(self.frames)) * 3)

    def command_before_ready(self, wire: Wire) -> None:
        """Commands without end instead of a READY."""
        wire.sendall(greeting() + frame(b"\x04PING\x00\x00abc", COMMAND) * self.draw.randint(1, 500))

    def come_slowly(self, wire: Wire) -> None:
        """A handshake and a message, a few bytes at a time."""
        data = greeting() + ready(b"DEALER") + frame(self.draw.choice(self.frames))
        for place in range(0, len(data), 7):
            wire.sendall(data[place : place + 7])
            time.sleep(PAUSE)

    def stop_writing(self, wire: Wire) -> None:
        """Shut one direction in the middle of it."""
        wire.sendall((greeting() + ready(b"DEALER"))[: self.draw.randrange(110)])
        wire.shutdown(socket.SHUT_WR)

    # After one.

    def promise_much(self, wire: Wire) -> None:
        """A frame that says that it is huge, and a little of it."""
        length = self.draw.choice((2**63 - 1, 2**63, 2**64 - 1, 2**40, 2**31, 17_000_000))
        flags = LONG | self.draw.choice((0, MORE, COMMAND))
        wire.sendall(struct.pack(">BQ", flags, length) + b"x" * self.draw.choice((0, 1, 8192)))

    def send_odd_flags(self, wire: Wire) -> None:
        wire.sendall(bytes([self.draw.randrange(256), self.draw.randrange(256)]) + self.draw.randbytes(300))

    def send_no_end(self, wire: Wire) -> None:
        """A message of many parts, the last of which never comes."""
        part = frame(bytes(self.draw.choice((0, 1, PART))), MORE)
        for _ in range(self.draw.choice((10, MOST_PARTS)) // 10):
            wire.sendall(part * 10)

    def send_many_parts(self, wire: Wire) -> None:
        """A message of many parts, with an end."""
        wire.sendall(frame(b"x", MORE) * self.draw.choice((1, 7, 300)) + frame(self.draw.choice(self.frames)))

    def command(self, wire: Wire) -> None:
        """Commands without end, of all kinds."""
        kinds = (
            b"\x04PONGabc", b"\x09SUBSCRIBEabc", b"\x06CANCEL", b"\x05READY", b"\x05ERROR\xffabc",
            b"\x00", b"", b"\xff", b"\x07UNKNOWN" + b"x" * 5000,
        )  # fmt: skip
        for _ in range(self.draw.choice((1, 20, 200))):
            wire.sendall(frame(self.draw.choice(kinds), COMMAND))

    def send_frames(self, wire: Wire) -> None:
        """What a good peer would say, whole, cut or followed by garbage, and never read an answer."""
        for _ in range(self.draw.randint(1, 30)):
            wire.sendall(frame(self.draw.choice(self.frames)))
        data = frame(self.draw.choice(self.frames))
        wire.sendall(
            data[: self.draw.randrange(len(data))] + self.draw.choice((b"", self.draw.randbytes(50)))
        )

    def say_ready_again(self, wire: Wire) -> None:
        wire.sendall(ready(b"DEALER") * 3 + greeting())

    def send_in_pieces(self, wire: Wire) -> None:
        """A good frame, byte by byte."""
        for byte in frame(self.draw.choice(self.frames)):
            wire.sendall(bytes([byte]))

    def half_a_frame(self, wire: Wire) -> None:
        """Half of a frame, and then no more: not now, not ever."""
        wire.sendall(struct.pack(">BQ", LONG, 5000) + b"x" * self.draw.randrange(5000))
        if self.draw.randrange(2):
            wire.shutdown(socket.SHUT_WR)


Act = Callable[[Vandal, Wire], None]

BEFORE: tuple[bool, tuple[Act, ...]] = (
    False,
    (
        Vandal.say_nothing, Vandal.cut_the_greeting, Vandal.damage_the_greeting, Vandal.name_a_mechanism,
        Vandal.speak_an_old_version, Vandal.send_garbage, Vandal.send_http, Vandal.be_another_socket,
        Vandal.lie_in_the_ready, Vandal.send_messages_first, Vandal.command_before_ready,
        Vandal.come_slowly, Vandal.stop_writing,
    ),
)  # fmt: skip
"""What is done instead of a handshake."""

AFTER: tuple[bool, tuple[Act, ...]] = (
    True,
    (
        Vandal.promise_much, Vandal.send_odd_flags, Vandal.send_no_end, Vandal.send_many_parts,
        Vandal.command, Vandal.send_frames, Vandal.say_ready_again, Vandal.send_in_pieces,
        Vandal.half_a_frame,
    ),
)  # fmt: skip
"""What is done after one."""


def receive(wire: Wire, count: int) -> None:
    """Read so many bytes."""
    while count > 0:
        data = wire.recv(count)
        if not data:
            raise ConnectionResetError
        count -= len(data)


def frame(body: bytes, flags: int = 0) -> bytes:
    """Return a frame."""
    if len(body) > 255:
        return struct.pack(">BQ", flags | LONG, len(body)) + body
    return bytes([flags, len(body)]) + body


def greeting(mechanism: bytes = b"NULL", *, server: int = 0) -> bytes:
    """Return the 64 bytes that open a connection."""
    return SIGNATURE + b"\x03\x00" + mechanism.ljust(20, b"\0") + bytes([server]) + bytes(31)


def prop(name: bytes, value: bytes) -> bytes:
    """Return a property of a command."""
    return bytes([len(name)]) + name + struct.pack(">I", len(value)) + value


def ready(kind: bytes) -> bytes:
    """Return the command that ends a handshake."""
    return frame(b"\x05READY" + prop(b"Socket-Type", kind) + prop(b"Identity", b""), COMMAND)
