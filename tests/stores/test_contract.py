"""What every store promises, run against each."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from zmule.core.effects import Mark
from zmule.core.frames import Headers
from zmule.core.queues import Dead, Message
from zmule.core.terms import Terms
from zmule.errors import ConfigError
from zmule.stores import Changes, Lost, Recovery, Saved, Store, open_store
from zmule.testing.memory import MemoryStore

NOTHING = Recovery([], [], [], {}, 1)


class Place:
    """A store that can be opened again, as after a restart of the broker."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.store: Store = MemoryStore() if url == "memory:" else open_store(url)

    def reopen(self) -> Store:
        if self.url != "memory:":
            self.store.close()
            self.store = open_store(self.url)
        return self.store

    def save(self, **changes: object) -> None:
        """Save as batch 1 and wait until it is."""
        self.store.save(Changes(1, **changes))  # type: ignore[arg-type]
        assert answers(self.store, 1) == [Saved(1)]


def answers(store: Store, count: int) -> list[Saved | Lost]:
    """Wait for so many answers."""
    got: list[Saved | Lost] = []
    while len(got) < count:
        descriptor = store.descriptor()
        if descriptor is not None:
            assert select.select([descriptor], [], [], 10)[0], f"only {got} after ten seconds"
        more = store.completed()
        assert more
        got += more
    return got


def message(id: int, body: str | bytes = "ciuchino", queue: str = "any", attempt: int = 1) -> Message:
    return id, queue, body, attempt, 1700000000.25, None, None


@pytest.fixture(params=["memory", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    place = Place("memory:" if request.param == "memory" else f"sqlite://{tmp_path}/zmule.db")
    yield place
    place.store.close()


def test_new_store_is_empty(place: Place) -> None:
    assert place.store.recover() == NOTHING
    assert place.reopen().recover() == NOTHING


def test_store_of_a_broker_without_a_file_answers_at_once_and_keeps_nothing() -> None:
    store = open_store("memory:")
    store.save(Changes(1, messages=[message(1)]))
    store.save(Changes(removed=[1]))
    assert store.completed() == [Saved(1)]
    assert store.completed() == []
    assert store.recover() == NOTHING
    store.close()
    with pytest.raises(ValueError, match="closed"):
        store.save(Changes(2))


@pytest.mark.parametrize(
    "body", ["", b"", "a\0b", b"a\0b", "Ciuchino è già lì 🐴", b"\xff\xfe", "x" * 1_000_000, b"y" * 1_000_000]
)
def test_body_comes_back_as_it_was(place: Place, body: str | bytes) -> None:
    place.save(messages=[message(1, body)])
    (back,) = place.reopen().recover().messages
    assert back == message(1, body)
    assert type(back[2]) is type(body)


def test_headers_and_terms_come_back_as_they_were(place: Place) -> None:
    headers: Headers = {
        "trace": "a",
        "raw": b"\x00\xff",
        "n": -(2**63),
        "m": 2**64 - 1,
        "x": 0.1,
        "yes": True,
        "none": None,
    }
    kept: Message = (1, "any", "a", 1, 0.5, headers, Terms(due=1.5))
    bare: Message = (2, "any", "a", 1, 0.5, {}, Terms(expires=2.25))
    dead = Dead((3, "any", "a", 5, 0.5, headers, Terms(at=7)), "too often", 2, 9.5)
    place.save(messages=[kept, bare], dead=[dead])
    recovery = place.reopen().recover()
    assert recovery.messages == [kept, bare]
    assert recovery.dead == [dead]


def test_messages_come_back_by_id(place: Place) -> None:
    place.save(messages=[message(30), message(10)])
    place.save(messages=[message(20, queue="mule:1")])
    assert [id for id, *_ in place.reopen().recover().messages] == [10, 20, 30]


def test_removed_messages_do_not_come_back(place: Place) -> None:
    place.save(messages=[message(id) for id in range(1, 2001)])
    place.save(removed=range(1, 2000, 2), messages=[message(2001)])
    assert [id for id, *_ in place.reopen().recover().messages] == [*range(2, 2001, 2), 2001]


def test_message_that_comes_and_goes_at_once_is_gone(place: Place) -> None:
    place.store.save(Changes(1, [message(1), message(2)]))
    place.store.save(Changes(2, removed=[1]))
    place.store.save(Changes(3, [message(3)], removed=[3]))
    assert answers(place.store, 3) == [Saved(1), Saved(2), Saved(3)]
    assert place.reopen().recover().messages == [message(2)]


def test_removing_what_is_not_there_is_no_error(place: Place) -> None:
    place.save(removed=[7], undead=[8], forgotten=[b"nobody"], facts={"nothing": b""})
    assert place.reopen().recover()[:4] == NOTHING[:4]


def test_known_id_is_replaced(place: Place) -> None:
    place.save(messages=[message(1), message(2)])
    place.save(messages=[message(1, attempt=2)])
    assert place.reopen().recover().messages == [message(1, attempt=2), message(2)]


def test_known_message_is_amended(place: Place) -> None:
    place.save(messages=[message(1), message(2)])
    place.save(amended=[message(2, attempt=2)])
    assert place.reopen().recover().messages == [message(1), message(2, attempt=2)]


def test_dead_letter_is_no_message_until_requeued(place: Place) -> None:
    place.save(messages=[message(1), message(2)])
    first, second = (Dead(message(id, attempt=5), "handler failed 5 times", 3, 1700000001.5) for id in (1, 2))
    place.save(dead=[second, first])
    recovery = place.reopen().recover()
    assert (recovery.messages, recovery.dead) == ([], [first, second])
    place.save(undead=[1], messages=[message(1)])
    recovery = place.reopen().recover()
    assert (recovery.messages, recovery.dead) == ([message(1)], [second])
    place.save(undead=[2])
    assert place.reopen().recover().dead == []


def test_sender_is_known_until_forgotten(place: Place) -> None:
    first = Mark(b"\x00\x01", 7, ((3, "queue-full", "è piena"), (5, "too-large", "9 bytes")))
    place.save(senders=[first, Mark(b"\xff", 1, ())])
    place.save(senders=[Mark(b"\xff", 2, ())])
    assert sorted(place.reopen().recover().senders) == [first, Mark(b"\xff", 2, ())]
    place.save(forgotten=[b"\x00\x01"])
    assert place.reopen().recover().senders == [Mark(b"\xff", 2, ())]


def test_fact_is_the_last_value_until_emptied(place: Place) -> None:
    place.save(facts={"signals": b"\x11", "cron": b"1"})
    place.save(facts={"cron": b"2"})
    assert place.reopen().recover().facts == {"signals": b"\x11", "cron": b"2"}
    place.save(facts={"signals": b""})
    assert place.reopen().recover().facts == {"cron": b"2"}


def test_no_id_is_given_twice(place: Place) -> None:
    place.save(messages=[message(4), message(50_000)])
    place.save(removed=[4, 50_000])
    assert place.reopen().recover().next_id > 50_000


def test_answers_come_in_the_order_of_save(place: Place) -> None:
    for batch in range(1, 201):
        place.store.save(Changes(batch, [message(batch)]))
    assert answers(place.store, 200) == [Saved(batch) for batch in range(1, 201)]
    assert place.store.completed() == []


def test_batch_zero_is_kept_without_an_answer(place: Place) -> None:
    place.store.save(Changes(messages=[message(1)]))
    place.save(messages=[message(2)])
    assert [id for id, *_ in place.reopen().recover().messages] == [1, 2]


def test_descriptor_is_readable_only_while_there_are_answers(place: Place) -> None:
    descriptor = place.store.descriptor()
    if descriptor is None:
        place.store.save(Changes(1))
        assert place.store.completed() == [Saved(1)]
        return
    assert select.select([descriptor], [], [], 0)[0] == []
    place.store.save(Changes(1, [message(1)]))
    assert select.select([descriptor], [], [], 10)[0] == [descriptor]
    assert place.store.completed() == [Saved(1)]
    assert select.select([descriptor], [], [], 0)[0] == []


def test_batch_without_changes_is_answered(place: Place) -> None:
    place.save()


def test_close_writes_what_was_given_and_answers(place: Place) -> None:
    for batch in range(1, 51):
        place.store.save(Changes(batch, [message(batch)]))
    place.store.close()
    assert place.store.completed() == [Saved(batch) for batch in range(1, 51)]
    assert len(place.reopen().recover().messages) == 50


def test_closed_store_takes_no_more(place: Place) -> None:
    place.store.close()
    place.store.close()
    with pytest.raises(ValueError, match="closed"):
        place.store.save(Changes(1))


def test_store_is_healthy(place: Place) -> None:
    assert place.store.healthy() is None


@pytest.mark.parametrize(
    "url",
    ["", "memory", "memory:x", "sqlite:", "sqlite://host/x.db", "sqlite:a\0b", "redis://localhost", "x.db"],
)
def test_what_is_no_store_says_what_is(url: str) -> None:
    with pytest.raises(ConfigError, match=r"write memory: or sqlite:///"):
        open_store(url)


def test_relative_path_is_relative_to_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_store("sqlite::memory:").close()
    assert [path.name for path in tmp_path.iterdir()] == [":memory:"]


IDS = st.integers(1, 8)
MESSAGES = st.builds(message, IDS, st.text(max_size=3) | st.binary(max_size=3), attempt=st.integers(1, 5))
CHANGES = st.builds(
    Changes,
    st.integers(0, 5),
    messages=st.lists(MESSAGES, max_size=3, unique_by=lambda message: message[0]),
    removed=st.lists(IDS, max_size=3),
    senders=st.lists(st.builds(Mark, st.binary(max_size=1), IDS, st.just(())), max_size=2),
    forgotten=st.lists(st.binary(max_size=1), max_size=1),
    dead=st.lists(st.builds(Dead, MESSAGES, st.text(max_size=3), IDS, st.floats(0, 9)), max_size=2),
    undead=st.lists(IDS, max_size=2),
    facts=st.dictionaries(st.text(max_size=1), st.binary(max_size=2), max_size=2),
    amended=st.lists(MESSAGES, max_size=2),
)


class Model(RuleBasedStateMachine):
    """Any changes, saved one by one or together, then restarts: always what plain dictionaries would hold."""

    make: Callable[[], Place]

    @initialize()
    def begin(self) -> None:
        self.place = self.make()
        self.messages: dict[int, Message] = {}
        self.senders: dict[bytes, Mark] = {}
        self.dead: dict[int, Dead] = {}
        self.facts: dict[str, bytes] = {}
        self.highest = 0

    @rule(many=st.lists(CHANGES, min_size=1, max_size=4))
    def save(self, many: list[Changes]) -> None:
        for changes in many:
            known = self.messages.keys() | {message[0] for message in changes.messages}
            changes = changes._replace(amended=[each for each in changes.amended if each[0] in known])
            self.place.store.save(changes)
            self.note(changes)
        wanted = [Saved(changes.batch) for changes in many if changes.batch]
        assert answers(self.place.store, len(wanted)) == wanted

    def note(self, changes: Changes) -> None:
        self.messages |= {message[0]: message for message in (*changes.messages, *changes.amended)}
        self.highest = max([self.highest, *(message[0] for message in changes.messages)])
        for id in changes.removed:
            self.messages.pop(id, None)
        self.senders |= {mark.session: mark for mark in changes.senders}
        for session in changes.forgotten:
            self.senders.pop(session, None)
        for dead in changes.dead:
            self.messages.pop(dead.message[0], None)
            self.dead[dead.message[0]] = dead
        for id in changes.undead:
            self.dead.pop(id, None)
        self.facts = {name: value for name, value in {**self.facts, **changes.facts}.items() if value}

    @rule()
    def restart(self) -> None:
        recovery = self.place.reopen().recover()
        assert recovery.messages == [self.messages[id] for id in sorted(self.messages)]
        assert sorted(recovery.senders) == sorted(self.senders.values())
        assert recovery.dead == [self.dead[id] for id in sorted(self.dead)]
        assert recovery.facts == self.facts
        assert recovery.next_id > self.highest

    def teardown(self) -> None:
        if hasattr(self, "place"):
            self.restart()
            self.place.store.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_store_holds_what_dictionaries_would(kind: str) -> None:
    with TemporaryDirectory() as folder:
        places = iter(range(10**9))

        class Machine(Model):
            @staticmethod
            def make() -> Place:
                return Place("memory:" if kind == "memory" else f"sqlite://{folder}/{next(places)}.db")

        steps = settings(max_examples=25, stateful_step_count=12, database=None)
        run_state_machine_as_test(Machine, settings=steps)
