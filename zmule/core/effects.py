"""What is to be done: the outputs of `Broker.handle`, imperatives in the order they must be done.

What must be durable stands before the send that it justifies: a `Save`'s messages are confirmed and
delivered only by what the event `BatchSaved` brings about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from zmule.core.events import Peer
from zmule.core.frames import Broadcast, Frame
from zmule.core.queues import Dead, Message


class Mark(NamedTuple):
    """How far a sender has been answered: what makes its retry no duplicate.

    `refusals` are those that the sender may not have heard of: (sequence number, code, reason), and how many
    there are of them in a row if it is more than one.
    """

    session: bytes
    last: int
    refusals: tuple[tuple[int, str, str] | tuple[int, str, str, int], ...]


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


class Changes(NamedTuple):
    """What happened to the books: what a store is told, and what it has to write as a whole or not at all.

    Attributes:
        batch: names it in the answer, `BatchSaved` or `BatchLost`; 0 means that nobody waits for one, and
            none comes.
        messages: to keep; one whose id is known replaces the older record.
        removed: ids of messages that are finished; an unknown one is no error.
        senders: how far they were answered; replaces the session's older mark.
        forgotten: sessions that will not come back.
        dead: messages that are dead letters from now on, and no longer messages.
        undead: ids of dead letters that were dropped or, with `messages` in the same record, requeued.
        facts: small values to have back after a restart, by name; an empty one deletes the name.
        amended: what messages that are kept already are like from now on.
    """

    batch: int = 0
    messages: Sequence[Message] = ()
    removed: Sequence[int] = ()
    senders: Sequence[Mark] = ()
    forgotten: Sequence[bytes] = ()
    dead: Sequence[Dead] = ()
    undead: Sequence[int] = ()
    facts: Mapping[str, bytes] = MappingProxyType({})
    amended: Sequence[Message] = ()


class Save(NamedTuple):
    """Keep these messages and the sender's mark; `BatchSaved` or `BatchLost` follows, in order.

    `mark` is None for what the broker itself has raised: nobody waits for a confirm.
    """

    batch: int
    messages: list[Message]
    mark: Mark | None

    def changes(self) -> Changes:
        """Return what the store is told."""
        return Changes(self.batch, messages=self.messages, senders=(self.mark,) if self.mark else ())


class Forget(NamedTuple):
    """These messages are finished: the store need not keep them."""

    ids: list[int]

    def changes(self) -> Changes:
        """Return what the store is told."""
        return Changes(removed=self.ids)


class Bury(NamedTuple):
    """Keep this message as a dead letter instead of in its queue."""

    dead: Dead

    def changes(self) -> Changes:
        """Return what the store is told."""
        return Changes(dead=(self.dead,))


class Send(NamedTuple):
    """Send the frame to the peer. `Undelivered` or `PeersVanished` follow if nobody is there."""

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


class Stop(NamedTuple):
    """Have the daemon end, and its mules; `StopRequested` follows."""


class Reload(NamedTuple):
    """Have all mules of the configuration started anew, each when it has finished its work."""


class Backup(NamedTuple):
    """Have the store make a copy of itself; `BackupEnded` follows."""

    peer: Peer
    request: int


class KillMule(NamedTuple):
    """Kill the process of a mule of the configuration, and what it has started; `MuleExited` follows."""

    number: int


class Note(NamedTuple):
    """Tell the operator: `level` is that of Python's logging, `text` one line.

    `damped`: of many that are alike within a second, it is enough to tell how many there were.
    """

    level: str
    text: str
    damped: bool = True


Effect = (
    Changes
    | Save
    | Forget
    | Bury
    | Send
    | Publish
    | Watch
    | Unwatch
    | Stop
    | Reload
    | Backup
    | KillMule
    | Note
)
