"""The vocabulary of the wire: one class a frame, shared by the broker's core and the cores of its peers.

A frame is one ZeroMQ message part: a msgpack array whose first element is the frame's number and whose
others are the fields below, in order. docs/protocol.rst says what each is for and when it may be sent;
`zmule.core.wire` turns frames into bytes and checks what comes back.
"""

from __future__ import annotations

from typing import Any, NamedTuple

PROTOCOL_VERSION = 1

Body = str | bytes
Headers = dict[str, str | bytes | int | float | bool | None]

DIRECT, FARM, SIGNAL, STRAY = 1, 2, 4, 8
"""What a blocked thread waits for, as bits: its mule's own queue and `any`; its farms' queues; signals that
its process has a handler for; signals that nobody has one for, which only `signal_wait` takes."""

SOURCES = (DIRECT, FARM, SIGNAL, STRAY)
EVERY_SOURCE = 15


class Options(NamedTuple):
    """When messages may be delivered: after `delay` seconds, or from the Unix time `at` on, and not later
    than `ttl` seconds after they were accepted."""

    delay: float | None = None
    at: float | None = None
    ttl: float | None = None


class Batch(NamedTuple):
    """Messages of one sender for one queue, in order."""

    queue: str
    bodies: tuple[Body, ...]
    headers: Headers | None
    options: Options | None = None


class Refusal(NamedTuple):
    """Why the message of that sequence number was not accepted."""

    sequence: int
    code: str
    reason: str


class Parcel(NamedTuple):
    """Messages of one queue on their way to a mule; `ids` and `bodies` run in parallel."""

    queue: str
    attempt: int
    ids: tuple[int, ...]
    bodies: tuple[Body, ...]
    headers: Headers | None


# From a peer to the broker.


class Hello(NamedTuple):
    """Opens, or opens anew, the session of a client or mule. `details` are listed in docs/protocol.rst."""

    version: int
    role: str
    session: bytes
    details: dict[str, Any]


class Put(NamedTuple):
    """Messages, numbered without a gap from `first` in the order they stand in.

    When the sender numbered them, it had heard what became of all up to `floor`.
    """

    first: int
    floor: int
    batches: tuple[Batch, ...]


class Report(NamedTuple):
    """A mule's turn: what it finished, what reached it, and who waits for more.

    `received` counts the messages that have reached the mule in this epoch, for each of `SOURCES`;
    `waits` are pairs of source bits and the number of threads blocked for just those; `buffered` counts
    what no thread has started.
    """

    epoch: int
    acks: tuple[int, ...]
    received: tuple[int, ...]
    waits: tuple[tuple[int, int], ...]
    buffered: int


class Nack(NamedTuple):
    """A mule failed with these messages: deliver them again, or with `dead` never.

    `delay` is for how many seconds not to deliver them, nil for the broker's own pause.
    """

    epoch: int
    ids: tuple[int, ...]
    delay: float | None = None
    dead: bool = False


class Return(NamedTuple):
    """Messages that no thread of the mule has started, given back."""

    epoch: int
    ids: tuple[int, ...]


class Settled(NamedTuple):
    """A signal-only mule has loaded its application: if it reads messages, it has said so by now."""

    epoch: int


class Ping(NamedTuple):
    """The peer lives; `busy` is for how many seconds its longest piece of work has been going on.

    The `Pong` bears the same number, and comes after all that the broker had sent before.
    """

    number: int
    busy: float


class Bye(NamedTuple):
    """The peer leaves for good; answered by `Farewell`. `acks` are the last messages that a mule has
    finished, `unstarted` those that no thread has started. These were not delivered, and nor was what
    `received` does not count: see `Report`."""

    epoch: int
    acks: tuple[int, ...]
    unstarted: tuple[int, ...]
    received: tuple[int, ...]


class Ask(NamedTuple):
    """A question with an answer, such as `status`."""

    request: int
    what: str
    arguments: tuple[Any, ...]


# From the broker to a peer.


class Welcome(NamedTuple):
    """Accepts a `Hello`. `details` are listed in docs/protocol.rst."""

    version: int
    broker: bytes
    epoch: int
    details: dict[str, Any]


class Refused(NamedTuple):
    """Declines a `Hello`; saying it again will not help."""

    code: str
    reason: str


class Confirm(NamedTuple):
    """Every message up to the sequence number is accepted, but for the refusals."""

    upto: int
    refusals: tuple[Refusal, ...]


class Deliver(NamedTuple):
    """Messages for a mule."""

    epoch: int
    parcels: tuple[Parcel, ...]


class Recall(NamedTuple):
    """The broker wants back what the mule has not started, up to `most` messages from the end."""

    epoch: int
    most: int


class Pong(NamedTuple):
    """The broker lives; `broadcast` is the number of the last broadcast."""

    number: int
    broadcast: int


class Reset(NamedTuple):
    """The broker does not know this peer, or no longer: only a `Hello` can follow."""

    code: str
    reason: str


class Farewell(NamedTuple):
    """The broker has done what the `Bye` asked; the peer may close."""


class Answer(NamedTuple):
    """Answers an `Ask`: `code` is empty and `value` the result, or `value` is the reason."""

    request: int
    code: str
    value: Any


class Broadcast(NamedTuple):
    """To every mule, by PUB: `what` is `stop`."""

    number: int
    what: str


Frame = (
    Hello
    | Put
    | Report
    | Nack
    | Return
    | Settled
    | Ping
    | Bye
    | Ask
    | Welcome
    | Refused
    | Confirm
    | Deliver
    | Recall
    | Pong
    | Reset
    | Farewell
    | Answer
    | Broadcast
)

NUMBERS: dict[type[Frame], int] = {
    Hello: 1,
    Put: 2,
    Report: 3,
    Nack: 4,
    Return: 5,
    Settled: 6,
    Ping: 7,
    Bye: 8,
    Ask: 9,
    Welcome: 32,
    Refused: 33,
    Confirm: 34,
    Deliver: 35,
    Recall: 36,
    Pong: 37,
    Reset: 38,
    Farewell: 39,
    Answer: 40,
    Broadcast: 41,
}
