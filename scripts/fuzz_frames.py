"""Frames that are likely to get far, drawn at random: those that peers send, and those of a broker."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from fuzz_damage import ODD

from zmule.core import frames as f
from zmule.core.queues import source_of

TOKEN = b"token"
PEERS = [b"peer%d" % number for number in range(12)]
QUEUES = (
    "any",
    "mule:1",
    "mule:2",
    "mule:7",
    "farm:busy",
    "farm:none",
    "raise:17",
    "call:f:any",
    "",
    "mule:x",
)
TO_PEERS = [kind for kind, number in f.NUMBERS.items() if number >= 32]


class Known(NamedTuple):
    """What is known of a session: for a peer, what it has learnt from the broker's frames."""

    epoch: int = 0
    ids: tuple[int, ...] = ()
    upto: int = 0
    received: tuple[int, ...] = (0,) * len(f.SOURCES)

    def heard(self, frame: f.Frame) -> Known:
        """Return what is known when the broker has sent a frame."""
        if isinstance(frame, f.Welcome):
            return Known(frame.epoch, upto=self.upto)
        if isinstance(frame, f.Confirm):
            return self._replace(upto=min(frame.upto, 2**63 - 3))
        if not isinstance(frame, f.Deliver):
            return self
        received, ids = list(self.received), list(self.ids)
        for parcel in frame.parcels:
            received[f.SOURCES.index(source_of(parcel.queue))] += len(parcel.ids)
            ids += parcel.ids
        return self._replace(ids=tuple(ids[-20:]), received=tuple(received))


class Writer:
    """Writes frames.

    Args:
        draw: decides everything.
    """

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.fields: dict[type[Any], Callable[[Known], tuple[Any, ...]]] = {
            f.Hello: lambda _: self.hello(draw.choice(PEERS)),
            f.Put: self.put,
            f.Report: self.report,
            f.Nack: lambda k: (
                self.epoch(k),
                self.ids(k),
                draw.choice((None, 0.0, 1, 1e10)),
                self.rarely(0.3),
            ),
            f.Return: lambda k: (self.epoch(k), self.ids(k)),
            f.Settled: lambda k: (self.epoch(k),),
            f.Ping: lambda _: (draw.randrange(9), draw.random()),
            f.Bye: lambda k: (self.epoch(k), self.ids(k), self.ids(k), self.received(k)),
            f.Ask: lambda _: (draw.randrange(20), *self.question()),
            f.Welcome: lambda k: (1, bytes(16), self.epoch(k), self.details()),
            f.Refused: lambda _: (draw.choice(("error", "number-in-use", "?")), "reason"),
            f.Confirm: lambda k: (k.upto + draw.randrange(5), [(k.upto + 1, "queue-full", "full")]),
            f.Deliver: lambda k: (self.epoch(k), [self.parcel() for _ in range(draw.randrange(3))]),
            f.Recall: lambda k: (self.epoch(k), draw.choice((0, 1, 3, 2**63 - 1))),
            f.Pong: lambda _: (draw.randrange(9), 2),
            f.Reset: lambda _: (draw.choice(("unknown", "stopping", "silent", "protocol")), "reason"),
            f.Farewell: lambda _: (),
            f.Answer: lambda _: (draw.randrange(20), draw.choice(("", "", "lock-busy")), draw.choice(ODD)),
            f.Broadcast: lambda _: (1, draw.choice(("stop", "dance"))),
        }
        assert set(self.fields) == set(f.NUMBERS), "a kind of frame is missing here"
        others = (f.Hello, f.Nack, f.Return, f.Settled, f.Ping, f.Bye)
        self.to_brokers = [f.Put, f.Report, f.Ask] * 5 + list(others)
        self.to_mules = [f.Deliver] * 20 + [f.Recall, f.Pong, f.Answer] * 4 + TO_PEERS
        self.to_clients = [f.Confirm] * 20 + [f.Pong, f.Answer] * 4 + TO_PEERS

    def rarely(self, chance: float = 0.05) -> bool:
        return self.draw.random() < chance

    def frame(self, kinds: list[Any], known: Known) -> list[Any]:
        """Return the number and the fields of a frame, nearly always one of these kinds."""
        kind = self.draw.choice(list(f.NUMBERS) if self.rarely() else kinds)
        return [f.NUMBERS[kind], *self.fields[kind](known)]

    def epoch(self, known: Known) -> int:
        return self.draw.choice((0, known.epoch - 1, 2**63 - 1)) if self.rarely() else known.epoch

    def ids(self, known: Known) -> list[int]:
        ids = list(known.ids) or [1]
        return self.draw.sample(ids, self.draw.randint(0, len(ids))) + [99] * self.rarely(0.1)

    def received(self, known: Known) -> Any:
        return [1] * len(f.SOURCES) if self.rarely(0.02) else known.received

    def hello(self, peer: bytes) -> tuple[Any, ...]:
        draw = self.draw
        role, session = draw.choice(("client", "mule", "mule", "worker")), peer.ljust(16, b".")
        if role == "client":
            return (1, role, session, {"floor": draw.choice((*[0] * 50, 5, 2**63 - 2)), "pid": 1})
        number, farms = draw.choice((0, 0, 1, 2, 7, 10**6)), draw.choice(([], ["busy"], ["idle", "new"]))
        details = {"number": number, "farms": farms, "program": draw.choice(("", "p.py")), "pid": 1}
        return (1, role, session, {**details, "token": TOKEN})

    def details(self) -> dict[str, Any]:
        """What a broker says of itself to mules and to clients."""
        details: dict[str, Any] = {
            "number": 1,
            "farms": ["busy"],
            "publish": [["ipc:///tmp/a", "ipc:///tmp/b"]],
        }
        details |= {"broadcast": 0, "heartbeat": 3.0, "heartbeat_timeout": 10.0, "max_message": 1000}
        if self.rarely(0.2):
            odd = (*ODD, ["busy", "busy"], [["tcp://[::1", "tcp://x:99999"]])
            details[self.draw.choice(list(details))] = self.draw.choice(odd)
        return details

    def put(self, known: Known) -> tuple[Any, ...]:
        draw = self.draw
        bodies = draw.choice((["a"], ["a", b"b", "c"], ["x" * 1990], [b"z" * 2001], [""] * 20))
        options = draw.choice(
            (None, None, None, (1.0, None, 9), (None, 1e9, 5), (None, None, 0), (0, None, 1e10))
        )
        batch = (draw.choice(QUEUES), bodies, draw.choice((None, {"trace": "t"})), options)
        first = max(1, known.upto + draw.choice((1, 1, 1, 1, 0, 2)))
        return (first, known.upto, [batch] * draw.choice((1, 1, 2)))

    def report(self, known: Known) -> tuple[Any, ...]:
        draw = self.draw
        waits = [(draw.randint(1, 15), draw.choice((1, 2, 10_000))) for _ in range(draw.randrange(3))]
        return (self.epoch(known), self.ids(known), self.received(known), waits, draw.randrange(3))

    def parcel(self) -> tuple[Any, ...]:
        draw = self.draw
        ids = [draw.randrange(1, 50) for _ in range(draw.randrange(1, 4))]
        queue = draw.choice((*QUEUES, "signal:17", "signal:stray", "signal:17:1"))
        return (queue, draw.randint(1, 9), ids, draw.choices(("a", b"\x11", ""), k=len(ids)), None)

    def question(self) -> tuple[str, list[Any]]:
        number = self.draw.randrange(20)
        name = self.draw.choice((0, 1, 2, "a", "b", 10**9))
        thread = self.draw.randrange(3)
        questions: tuple[tuple[str, list[Any]], ...] = (
            ("status", []), ("ping", []), ("room", ["any", 5]), ("room", ["mule:1", number]),
            ("nothing", []),
            ("register_signal", [number, self.draw.choice(("mule", "mules", "farm_busy", "workers"))]),
            ("unregister_signal", [number]), ("signal_registered", [number]), ("name_signal", ["n", -1]),
            ("register_function", ["f"]), ("read_messages", []), ("add_timer", [number, 1.5]),
            ("add_rb_timer", [number, 0.5, 3]), ("remove_source", ["timer", number]),
            ("add_cron", [number, -2, -1, 31, 2, 0]), ("add_cron_text", [number, "*/5 * * * *", ""]),
            ("add_cron_text", [number, "0 3 * * mon", "Europe/Rome"]),
            ("add_file_monitor", [number, "/tmp/x"]), ("lock", [name, thread, 2.0, True]),
            ("lock", [name, thread, -1.0, True]), ("lock", [name, thread, 0.0, False]),
            ("unlock", [name, thread]), ("give_up_lock", [thread, number]), ("is_locked", [name]),
            ("list_dead", ["any", 0, 10]), ("list_dead", ["", 3, 5]), ("show_dead", [number]),
            ("requeue_dead", [[number, 2], ""]), ("requeue_dead", [[], "any"]), ("requeue_dead", [[], ""]),
            ("drop_dead", [[], "any"]), ("drop_dead", [[], ""]), ("drop_dead", [[number], ""]),
            ("reload", []), ("stop", []),
        )  # fmt: skip
        return self.draw.choice(questions)
