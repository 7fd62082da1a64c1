"""What the daemon asks of a store, and the records that go in and out.

The broker's core has the books; a store is its memory across a crash. What is written in one `Changes` is
on disk either as a whole or not at all. `save` returns at once and `completed` tells later, in the order of
`save`, whether it is safe, because the next store may be a cluster at the end of a network.

A loss is told as it is. Messages and marks of senders in a lost `Changes` are given up: the senders will
hear that they were refused. So is every batch that was given before the core could know of the loss, even
if the disk has recovered since: a later mark of the same sender would otherwise call the lost messages kept.
A dead letter that was to be requeued stays dead. Whatever only shrinks the books or replaces a value (acks,
amended messages, new dead letters, dropped ones, facts) is not given up: the store holds it in memory and
writes it as soon as it can.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from zmule.core.effects import Changes, Recovery

__all__ = ["Changes", "Lost", "Saved", "Store"]


class Saved(NamedTuple):
    """The batch is on disk."""

    batch: int


class Lost(NamedTuple):
    """The batch could not be written; its messages are not kept."""

    batch: int
    reason: str


class Copy(NamedTuple):
    """A copy for who has the ticket is at `path`, unless there is an error."""

    ticket: object
    path: str
    error: str | None


class Store(Protocol):
    """A store. All methods are for one thread, the loop's."""

    def recover(self) -> Recovery:
        """Return what the store holds.

        Raises:
            ConfigError: the stored data cannot be read.
        """

    def save(self, changes: Changes) -> None:
        """Take note of what happened; `completed` will answer.

        Raises:
            ValueError: the store is closed.
        """

    def completed(self) -> list[Saved | Lost]:
        """Return the answers since the last call, in the order of `save`.

        The core is to hear all of them before it gives anything more to `save`: what comes then counts as
        said in the knowledge of every `Lost` among them.
        """

    def descriptor(self) -> int | None:
        """Return what to poll: readable while `completed` has answers, or since `healthy` has changed.

        None: answers come with `save`.
        """

    def healthy(self) -> str | None:
        """Return None, or why the store cannot write at present: then new messages are to be refused."""

    def backup(self, ticket: object) -> None:
        """Have a copy made; `backups` will tell of it, and `descriptor` that it does."""

    def backups(self) -> list[Copy]:
        """Return the copies that have been made, or have failed, since the last call."""

    def close(self) -> None:
        """Write what was given, then end. The last answers can still be had from `completed`."""
