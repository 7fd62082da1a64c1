"""What is to be done: the outputs of `Broker.handle`, imperatives in the order they must be done.

What must be durable stands before the send that it justifies: a `Save`'s messages are confirmed and
delivered only by what the event `BatchSaved` brings about.
"""

from __future__ import annotations

from typing import NamedTuple

from zmule.core.events import Peer
from zmule.core.frames import Broadcast, Frame
from zmule.core.queues import Dead, Message


class Mark(NamedTuple):
    """How far a sender has been answered: what makes its retry no duplicate.

    `refusals` are those that the sender may not have heard of: (sequence number, code, reason).
    """

    session: bytes
    last: int
    refusals: tuple[tuple[int, str, str], ...]


class Recovery(NamedTuple):
    """What a store held when it was opened.

    Attributes:
        messages: by ascending id.
        senders: in no order.
        dead: by ascending id of the message.
        facts: by name.
        next_id: greater than every id of a message that was ever saved, acknowledged ones included.
    """

    messages: list[Message]
    senders: list[Mark]
    dead: list[Dead]
    facts: dict[str, bytes]
    next_id: int


class Save(NamedTuple):
    """Keep these messages and the sender's mark; `BatchSaved` or `BatchLost` follows, in order.

    `mark` is None for what the broker itself has raised: nobody waits for a confirm.
    """

    batch: int
    messages: list[Message]
    mark: Mark | None


class Forget(NamedTuple):
    """These messages are finished: the store need not keep them."""

    ids: list[int]


class Bury(NamedTuple):
    """Keep this message as a dead letter instead of in its queue."""

    dead: Dead


class Send(NamedTuple):
    """Send the frame to the peer. `PeerVanished` follows if nobody is there."""

    peer: Peer
    frame: Frame


class Publish(NamedTuple):
    """Send the frame to every mule by PUB."""

    frame: Broadcast


class Watch(NamedTuple):
    """Watch a path; `PathWatched` or `PathRefused` follows, and `PathChanged` at every change."""

    path: str


class Unwatch(NamedTuple):
    """Watch the path no longer."""

    path: str


class Note(NamedTuple):
    """Tell the operator: `level` is that of Python's logging, `text` one line."""

    level: str
    text: str


Effect = Save | Forget | Bury | Send | Publish | Watch | Unwatch | Note
