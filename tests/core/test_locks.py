"""zmule.core.locks: by example, and against a model of queues whose first element is the holder."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from zmule.core.locks import (
    CLAIMS_PER_PEER,
    NAME_LENGTH,
    Granted,
    LockName,
    Locks,
    Outcome,
    Owner,
    Refused,
    Released,
)

ANNA, BRUNO, CARLA = (Owner(peer, 1) for peer in (b"a", b"b", b"c"))
ANNA_2 = Owner(b"a", 2)


def code(outcomes: list[Outcome]) -> str:
    (outcome,) = outcomes
    assert isinstance(outcome, Refused)
    return outcome.code


def holding(locks: Locks, name: LockName = 0) -> Owner | None:
    (found,) = (row["holder"] for row in locks.status() if row["name"] == name)
    assert found is None or isinstance(found, Owner)
    return found


def test_first_come_first_served() -> None:
    locks = Locks()
    assert locks.acquire(0, ANNA, 1, 0.0) == [Granted(ANNA, 1, 0, 1)]
    assert locks.acquire(0, BRUNO, 7, 0.0) == []
    assert locks.acquire(0, CARLA, 8, 0.0) == []
    assert locks.release(0, ANNA, 2) == [Released(ANNA, 2, 0), Granted(BRUNO, 7, 0, 2)]
    assert locks.release(0, BRUNO, 8) == [Released(BRUNO, 8, 0), Granted(CARLA, 8, 0, 3)]
    assert locks.release(0, CARLA, 9) == [Released(CARLA, 9, 0)]
    assert not locks.is_locked(0)


def test_threads_of_one_process_exclude_each_other() -> None:
    locks = Locks()
    locks.acquire(0, ANNA, 1, 0.0)
    assert locks.acquire(0, ANNA_2, 2, 0.0) == []
    assert code(locks.release(0, ANNA_2, 3)) == "not-holder"
    assert holding(locks) == ANNA


def test_taking_what_one_holds_or_waits_for_says_deadlock() -> None:
    locks = Locks()
    locks.acquire(0, ANNA, 1, 0.0)
    (refused,) = locks.acquire(0, ANNA, 2, 0.0, blocking=False)
    assert refused == Refused(
        ANNA, 2, "deadlock", "deadlock: this thread holds lock 0 already, and would wait for itself"
    )
    locks.acquire(0, BRUNO, 1, 0.0)
    assert code(locks.acquire(0, BRUNO, 2, 0.0)) == "deadlock"


@pytest.mark.parametrize("name", [-1, 3, "", "x" * (NAME_LENGTH + 1)])
def test_a_lock_that_cannot_be_is_an_error_everywhere(name: LockName) -> None:
    locks = Locks(2)
    assert code(locks.acquire(name, ANNA, 1, 0.0)) == "unknown-lock"
    assert code(locks.release(name, ANNA, 1)) == "unknown-lock"
    with pytest.raises(ValueError, match="lock"):
        locks.is_locked(name)


def test_the_error_names_the_range() -> None:
    (refused,) = Locks(2).acquire(3, ANNA, 1, 0.0)
    assert refused == Refused(ANNA, 1, "unknown-lock", "no lock 3: locks are 0 to 2")


def test_names_are_forgotten_when_free_and_numbers_stay() -> None:
    locks = Locks(1)
    locks.acquire("tasks", ANNA, 1, 0.0)
    locks.acquire("tasks", BRUNO, 2, 0.0)
    assert locks.status()[2] == {"name": "tasks", "holder": ANNA, "token": 1, "waiting": [BRUNO]}
    locks.vanish(b"b")
    locks.release("tasks", ANNA, 2)
    assert [row["name"] for row in locks.status()] == [0, 1]
    assert not locks.is_locked("tasks")


def test_a_number_and_its_digits_are_two_locks() -> None:
    locks = Locks()
    assert locks.acquire(0, ANNA, 1, 0.0)
    assert locks.acquire("0", ANNA, 2, 0.0) == [Granted(ANNA, 2, "0", 2)]


def test_not_blocking() -> None:
    locks = Locks()
    assert locks.acquire(0, ANNA, 1, 0.0, blocking=False) == [Granted(ANNA, 1, 0, 1)]
    assert code(locks.acquire(0, BRUNO, 1, 0.0, blocking=False)) == "lock-busy"
    assert locks.release(0, ANNA, 2) == [Released(ANNA, 2, 0)]


def test_timeouts_end_waits_at_their_time_and_leave_the_others_in_order() -> None:
    locks = Locks()
    locks.acquire(0, ANNA, 1, 10.0, timeout=1.0)
    locks.acquire(0, BRUNO, 2, 10.0, timeout=5.0)
    locks.acquire(0, CARLA, 3, 10.0, timeout=2.5)
    assert locks.next_deadline() == 12.5
    assert locks.tick(12.4) == []
    assert locks.tick(12.5) == [Refused(CARLA, 3, "lock-timeout", "lock 0 was not free in time")]
    assert locks.release(0, ANNA, 4)[1:] == [Granted(BRUNO, 2, 0, 2)]
    assert locks.next_deadline() is None
    assert locks.tick(100.0) == []


@pytest.mark.parametrize("timeout", [-1.0, float("nan"), float("inf")])
def test_a_timeout_that_is_none(timeout: float) -> None:
    assert code(Locks().acquire(0, ANNA, 1, 0.0, timeout=timeout)) == "protocol"


def test_a_dead_peer_frees_its_locks_and_is_not_granted_what_it_waited_for() -> None:
    locks = Locks(1)
    locks.acquire(0, ANNA, 1, 0.0)
    locks.acquire(1, ANNA_2, 2, 0.0)
    locks.acquire(0, ANNA_2, 3, 0.0)
    locks.acquire(0, BRUNO, 1, 0.0)
    locks.acquire(1, CARLA, 1, 0.0)
    assert locks.vanish(b"a") == [Granted(BRUNO, 1, 0, 3), Granted(CARLA, 1, 1, 4)]
    assert locks.vanish(b"a") == []


def test_giving_up_a_wait_or_what_came_of_it() -> None:
    locks = Locks()
    locks.acquire(0, ANNA, 1, 0.0)
    locks.acquire(0, BRUNO, 1, 0.0, timeout=1.0)
    locks.acquire(0, CARLA, 1, 0.0)
    assert locks.cancel(BRUNO, 1) == []
    assert locks.cancel(ANNA, 1) == [Granted(CARLA, 1, 0, 2)]
    assert locks.cancel(ANNA, 1) == []
    assert locks.next_deadline() is None


def test_a_stale_token_releases_nothing() -> None:
    locks = Locks(first_token=100)
    locks.acquire(0, ANNA, 1, 0.0)
    locks.release(0, ANNA, 2, token=100)
    assert locks.acquire(0, ANNA, 3, 0.0) == [Granted(ANNA, 3, 0, 101)]
    assert code(locks.release(0, ANNA, 4, token=100)) == "not-holder"
    assert locks.next_token == 102


def test_a_request_number_is_used_once_at_a_time() -> None:
    locks = Locks(1)
    locks.acquire(0, ANNA, 1, 0.0)
    assert code(locks.acquire(1, ANNA, 1, 0.0)) == "protocol"
    locks.release(0, ANNA, 1)
    assert locks.acquire(1, ANNA, 1, 0.0)


def test_a_peer_that_claims_without_end_harms_only_itself() -> None:
    locks = Locks()
    for number in range(CLAIMS_PER_PEER):
        assert locks.acquire(f"lock {number}", ANNA, number, 0.0)
    assert code(locks.acquire("one more", ANNA_2, -1, 0.0)) == "lock-limit"
    assert locks.acquire("one more", BRUNO, 1, 0.0)
    locks.vanish(b"a")
    assert len(locks.status()) == 2
    locks.validate()


owners = st.builds(Owner, st.sampled_from([b"a", b"b", b"c"]), st.integers(1, 2))
names = st.sampled_from([0, 1, "x", "y"])
timeouts = st.none() | st.integers(0, 5).map(float)


class Machine(RuleBasedStateMachine):
    """The model: for each lock a queue of (owner, request, deadline), whose first is the holder."""

    def __init__(self) -> None:
        super().__init__()
        self.locks = Locks(1, first_token=10)
        self.queues: dict[LockName, list[tuple[Owner, int, float | None]]] = {}
        self.tokens: dict[LockName, int] = {}
        self.last_token = 9
        self.requests = 0
        self.now = 0.0

    def request(self) -> int:
        self.requests += 1
        return self.requests

    def granted(self, outcomes: list[Outcome], names: list[LockName]) -> None:
        """Check that exactly these locks were granted, each to the head of its queue."""
        assert {outcome.name for outcome in outcomes if isinstance(outcome, Granted)} == set(names)
        assert len(outcomes) == len(names)
        for outcome in outcomes:
            assert isinstance(outcome, Granted)
            assert (outcome.owner, outcome.request) == self.queues[outcome.name][0][:2]
            assert outcome.token > self.last_token
            self.last_token = self.tokens[outcome.name] = outcome.token

    def remove(
        self, owner: Owner | None, request: int | None = None, peer: bytes | None = None
    ) -> list[LockName]:
        """Take claims out of the queues; return the locks that have another head then."""
        moved: list[LockName] = []
        for name, queue in list(self.queues.items()):
            head = queue[0]
            queue[:] = [c for c in queue if c[:2] != (owner, request) and c[0].peer != peer]
            if not queue:
                del self.queues[name]
            elif queue[0] != head:
                moved.append(name)
        return moved

    @rule(name=names, owner=owners, timeout=timeouts, blocking=st.booleans())
    def acquire(self, name: LockName, owner: Owner, timeout: float | None, blocking: bool) -> None:
        request, queue = self.request(), self.queues.get(name, [])
        outcomes = self.locks.acquire(name, owner, request, self.now, timeout, blocking)
        if any(claim[0] == owner for claim in queue):
            assert code(outcomes) == "deadlock"
        elif queue and not blocking:
            assert code(outcomes) == "lock-busy"
        else:
            queue.append((owner, request, None if timeout is None else self.now + timeout))
            self.queues[name] = queue
            self.granted(outcomes, [name] if len(queue) == 1 else [])

    @rule(name=names, owner=owners, fenced=st.sampled_from(["no", "right", "stale"]))
    def release(self, name: LockName, owner: Owner, fenced: str) -> None:
        request = self.request()
        token = {"no": None, "right": self.tokens.get(name, 0), "stale": self.tokens.get(name, 0) - 1}[fenced]
        outcomes = self.locks.release(name, owner, request, token)
        queue = self.queues.get(name)
        if not queue or queue[0][0] != owner or fenced == "stale":
            assert code(outcomes) == "not-holder"
        else:
            assert outcomes[0] == Released(owner, request, name)
            self.granted(outcomes[1:], self.remove(*queue[0][:2]))

    @rule(peer=st.sampled_from([b"a", b"b", b"c"]))
    def vanish(self, peer: bytes) -> None:
        outcomes = self.locks.vanish(peer)
        self.granted(outcomes, self.remove(None, peer=peer))

    @precondition(lambda self: self.queues)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        claims = [claim for queue in self.queues.values() for claim in queue]
        owner, request, _ = data.draw(st.sampled_from(claims))
        self.granted(self.locks.cancel(owner, request), self.remove(owner, request))

    @rule(seconds=st.integers(0, 3).map(float))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        waiting = [claim for queue in self.queues.values() for claim in queue[1:]]
        late = {claim[:2] for claim in waiting if claim[2] is not None and claim[2] <= self.now}
        outcomes = self.locks.tick(self.now)
        assert all(isinstance(outcome, Refused) and outcome.code == "lock-timeout" for outcome in outcomes)
        assert {(outcome.owner, outcome.request) for outcome in outcomes} == late
        assert len(outcomes) == len(late)
        for owner, request in late:
            assert self.remove(owner, request) == []

    @invariant()
    def agrees(self) -> None:
        self.locks.validate()
        table = {row["name"]: row for row in self.locks.status()}
        assert set(table) == {0, 1} | set(self.queues)
        for name, row in table.items():
            queue = [claim[0] for claim in self.queues.get(name, [])]
            assert row["holder"] == (queue[0] if queue else None)
            assert row["waiting"] == queue[1:]
            assert row["token"] == (self.tokens[name] if queue else None)
        waits = [claim[2] for queue in self.queues.values() for claim in queue[1:] if claim[2] is not None]
        assert self.locks.next_deadline() == min(waits, default=None)
        assert all(self.locks.is_locked(name) == (name in self.queues) for name in (0, 1, "x", "y"))


TestLocks = Machine.TestCase
