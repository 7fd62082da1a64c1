"""Life-cycles as tables: state → what happens → next state. What is not in the table cannot happen.

The drawings in docs/protocol.rst are made from these (scripts/docs). A message's state is where it is
(a queue, a mule's hands), so its table is not consulted at run time: the tests hold every step of the
broker against it.
"""

from __future__ import annotations

Table = dict[str, dict[str, str]]

MESSAGE: Table = {
    "ready": {"delivered": "in flight", "buried": "dead"},
    "in flight": {"acknowledged": "done", "put back": "ready", "buried": "dead"},
    "done": {},
    "dead": {},
}

MULE: Table = {
    "gone": {"spawned": "starting", "joined": "busy", "vanished": "gone", "given up": "failed"},
    "starting": {"spawned": "starting", "joined": "busy", "vanished": "gone", "given up": "failed"},
    "busy": {"waited": "idle", "told to stop": "stopping", "vanished": "gone", "joined": "busy"},
    "idle": {"worked": "busy", "told to stop": "stopping", "vanished": "gone", "joined": "busy"},
    "stopping": {"vanished": "gone"},
    "failed": {"spawned": "starting", "given up": "failed"},
}


class Forbidden(Exception):
    """A transition that the table does not have: a bug in the broker, never a peer's doing."""


def step(table: Table, state: str, happening: str) -> str:
    """Return the state after `happening`.

    Raises:
        Forbidden: the table has no such transition.
    """
    try:
        return table[state][happening]
    except KeyError:
        raise Forbidden(f"{happening!r} cannot happen in state {state!r}") from None
