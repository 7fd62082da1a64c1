"""Who may come in, as what: the answer to a HELLO.

A client is whoever says so. A mule gets the number that it asks for, if nobody has it, or a free one. A
number of the configuration is only for the process that the supervisor has started for it, which knows
the secret token. Every registration begins an epoch, and no two brokers have epochs in common: what an
earlier one had delivered is not this one's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zmule.core import greeting
from zmule.core.events import Peer
from zmule.core.frames import PROTOCOL_VERSION, Hello, Refused, Reset, Welcome
from zmule.core.mules import Mule
from zmule.errors import NotPermitted, NumberInUse, ProtocolError, ZmuleError

if TYPE_CHECKING:
    from zmule.core.broker import Broker


class Admission:
    """Greets the peers of a broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._epoch = int.from_bytes(broker.setup.id[:5]) << 20

    def hello(self, peer: Peer, frame: Hello) -> None:
        """Answer a HELLO: welcome the peer, or refuse it."""
        if frame.version != PROTOCOL_VERSION:
            text = f"this broker speaks version {PROTOCOL_VERSION} of the protocol, not {frame.version}"
            self._broker.send(peer, Refused(ProtocolError.code, text))
        elif frame.role == "client":
            self._client(peer, frame)
        elif frame.role in ("mule", "worker"):
            self._mule(peer, frame)
        else:
            raise ProtocolError(f"there is no role {frame.role[:20]!r}")

    def _client(self, peer: Peer, frame: Hello) -> None:
        floor, crowded, pid = greeting.client(frame.details)
        self._broker.gone(peer)
        sender = self._broker.senders.connect(peer, frame.session, floor, crowded)
        sender.pid = pid
        details = {
            "max_message": self._broker.limits.max_message,
            "heartbeat": float(self._broker.limits.heartbeat),
        }
        self._broker.send(peer, Welcome(PROTOCOL_VERSION, self._broker.setup.id, 0, details))
        self._broker.confirm(sender, sender.refused_after(floor))

    def _mule(self, peer: Peer, frame: Hello) -> None:
        if self._broker.stopping:
            self._broker.send(peer, Reset("stopping", "the broker is stopping"))
            return
        wish = greeting.mule(frame.details)
        if (former := self._broker.roster.at(peer)) is not None:
            self._broker.turns.lose(former)
        try:
            mule = self._admit(wish, frame.session, worker=frame.role == "worker")
        except ZmuleError as error:
            self._broker.send(peer, Refused(error.code, str(error)))
            return
        self._epoch += 1
        self._broker.roster.connect(mule, peer, frame.session, self._epoch, self._broker.now.mono)
        self._broker.turns.joined(mule)
        self._broker.send(
            peer, Welcome(PROTOCOL_VERSION, self._broker.setup.id, mule.epoch, self._welcome_mule(mule))
        )
        self._broker.returned()

    def _admit(self, wish: greeting.MuleWish, session: bytes, *, worker: bool) -> Mule:
        """Return the mule, or worker, that a process may be.

        Raises:
            NumberInUse: another process is that mule.
            NotPermitted: the number is configured, and the process is not the one that was started for it.
        """
        number = self._number(wish.number, worker)
        mule = self._broker.roster.join(number, wish.program)
        if mule.configured and (not mule.token or wish.token != mule.token):
            raise NotPermitted(f"mule {number} is one that zmuled starts itself; take another number")
        if mule.peer is not None:
            if mule.session != session:
                raise NumberInUse(f"mule {number} is another process already (pid {mule.pid})")
            self._broker.turns.lose(mule)
            mule = self._broker.roster.join(number, wish.program)
        if not mule.configured:
            mule.farms, mule.program = wish.farms, wish.program
        mule.pid = wish.pid
        return mule

    def _number(self, wished: int, worker: bool) -> int:
        """Return a mule's number, or that of a worker, which is kept as a negative one."""
        if worker:
            return -wished or self._broker.roster.free_worker()
        waiting = (int(name[5:]) for name in self._broker.dispatch.queues if name.startswith("mule:"))
        return wished or self._broker.roster.free_number(waiting)

    def _welcome_mule(self, mule: Mule) -> dict[str, Any]:
        return {
            "number": abs(mule.number),
            "farms": mule.farms,
            "publish": self._broker.setup.publish,
            "broadcast": self._broker.broadcast,
            "heartbeat": self._broker.limits.heartbeat,
            "heartbeat_timeout": self._broker.limits.heartbeat_timeout,
        }
