"""Locks: who holds which, who waits, and for how long.

A lock is held by a thread of a peer, never by a peer: two threads of one process exclude each other too.
Waiters are served first come, first served; so a lock that is free has no waiters, and one that is let go
belongs to the next waiter in the same step. A lock dies with the connection of its holder.

Each grant gets a token from one counter. A holder that was declared dead and does not know it yet can be
told from the rightful one by its smaller token (fencing), by the broker and by whatever the lock protects;
therefore the counter must not start anew where tokens were kept: `next_token` is what a store persists.

What a thread asks for is a claim, from its request until it is refused or the lock is released. A request is
named by its owner and number, so that a thread that gives up waiting (`cancel`) can never be left with a lock
that was granted while its word was on the way.
"""

from __future__ import annotations

from collections import OrderedDict
from math import isfinite
from typing import Any, NamedTuple

from zmule.core.deadlines import Deadlines

NAME_LENGTH = 200
CLAIMS_PER_PEER = 1000
CLAIMS_OF_ALL = 200_000

LockName = int | str


class Owner(NamedTuple):
    """Who can hold a lock: one thread at the other end of one connection."""

    peer: bytes
    thread: int


class Granted(NamedTuple):
    """The owner holds the lock from now on. `token` is greater than that of every grant before."""

    owner: Owner
    request: int
    name: LockName
    token: int


class Released(NamedTuple):
    """The owner holds the lock no longer, as it asked."""

    owner: Owner
    request: int
    name: LockName


class Refused(NamedTuple):
    """The request came to nothing. `code` is `unknown-lock`, `deadlock`, `not-holder`, `lock-busy` (it would
    not wait), `lock-timeout` (it waited in vain), `lock-limit` or `protocol`."""

    owner: Owner
    request: int
    code: str
    reason: str


Outcome = Granted | Released | Refused
Key = tuple[Owner, int]


class _Claim:
    """A lock held (`token` is set) or waited for."""

    __slots__ = ("lock", "owner", "request", "token")

    def __init__(self, owner: Owner, request: int, lock: _Lock) -> None:
        self.owner = owner
        self.request = request
        self.lock = lock
        self.token: int | None = None

    @property
    def key(self) -> Key:
        return self.owner, self.request


class _Lock:
    """One lock: the claim that holds it, and by owner those that wait, in order."""

    __slots__ = ("holder", "name", "waiting")

    def __init__(self, name: LockName) -> None:
        self.name = name
        self.holder: _Claim | None = None
        self.waiting: OrderedDict[Owner, _Claim] = OrderedDict()


class Locks:
    """The table of locks. Numbers 0 to `numbered` always exist, names for as long as somebody wants them."""

    def __init__(self, numbered: int = 0, first_token: int = 1) -> None:
        self.next_token = first_token
        self._numbered = numbered
        self._locks: dict[LockName, _Lock] = {number: _Lock(number) for number in range(numbered + 1)}
        self._claims: dict[bytes, dict[Key, _Claim]] = {}
        self._count = 0
        self._deadlines: Deadlines[_Claim] = Deadlines()

    def acquire(
        self,
        name: LockName,
        owner: Owner,
        request: int,
        now: float,
        timeout: float | None = None,
        blocking: bool = True,
    ) -> list[Outcome]:
        """Take the lock, or wait for it (`uwsgi.lock`).

        Parameters:
            name: a number, or a name of 1 to 200 characters.
            request: what the outcome, and `cancel`, refer to; unique among the owner's claims.
            now: seconds on the monotonic clock.
            timeout: for how many seconds to wait; None: for ever.
            blocking: False: do not wait.

        Returns:
            the grant or the refusal, or nothing yet.
        """
        if (fault := self._fault(name, owner, request, timeout)) is not None:
            return [Refused(owner, request, *fault)]
        lock = self._locks.get(name) or _Lock(name)
        if lock.holder is not None and not blocking:
            return [Refused(owner, request, "lock-busy", f"lock {name!r} is held")]
        claim = _Claim(owner, request, lock)
        self._locks[name] = lock
        self._claims.setdefault(owner.peer, {})[claim.key] = claim
        self._count += 1
        if lock.holder is None:
            return [self._grant(lock, claim)]
        lock.waiting[owner] = claim
        if timeout is not None:
            self._deadlines.set(claim, now + timeout)
        return []

    def release(self, name: LockName, owner: Owner, request: int, token: int | None = None) -> list[Outcome]:
        """Let go of the lock (`uwsgi.unlock`); with `token` only if it is still held by that grant.

        Returns:
            the release and the grant to the next waiter, or the refusal.
        """
        if (reason := self._unknown(name)) is not None:
            return [Refused(owner, request, "unknown-lock", reason)]
        lock = self._locks.get(name)
        claim = lock.holder if lock else None
        if claim is None or claim.owner != owner or token not in (None, claim.token):
            by = "" if token is None else f" by token {token}"
            return [Refused(owner, request, "not-holder", f"this thread does not hold lock {name!r}{by}")]
        return [Released(owner, request, name), *self._end(claim)]

    def cancel(self, owner: Owner, request: int) -> list[Outcome]:
        """End the claim of that request, whether it waits or was granted meanwhile; unknown is no error.

        Returns:
            the grant to the next waiter, if the lock was held.
        """
        claim = self._claims.get(owner.peer, {}).get((owner, request))
        return self._end(claim) if claim else []

    def vanish(self, peer: bytes) -> list[Outcome]:
        """End every claim of a peer that is gone; return the grants to others."""
        claims = list(self._claims.get(peer, {}).values())
        claims.sort(key=lambda claim: claim.token is not None)
        return [outcome for claim in claims for outcome in self._end(claim)]

    def has_claims(self, peer: bytes) -> bool:
        """Return whether a peer holds a lock or waits for one."""
        return peer in self._claims

    def tick(self, now: float) -> list[Outcome]:
        """Return the refusals of those who waited in vain, the earliest deadline first."""
        outcomes: list[Outcome] = []
        for _, claim in self._deadlines.pop_due(now):
            self._end(claim)
            reason = f"lock {claim.lock.name!r} was not free in time"
            outcomes.append(Refused(claim.owner, claim.request, "lock-timeout", reason))
        return outcomes

    def next_deadline(self) -> float | None:
        """Return when `tick` has something to do."""
        return self._deadlines.next()

    def is_locked(self, name: LockName) -> bool:
        """Say whether anybody holds the lock (`uwsgi.is_locked`).

        Raises:
            ValueError: there is no such number, or the name is too long or empty.
        """
        if (reason := self._unknown(name)) is not None:
            raise ValueError(reason)
        lock = self._locks.get(name)
        return lock is not None and lock.holder is not None

    def status(self) -> list[dict[str, Any]]:
        """Return for each lock its name, its token, the owner that holds it and those that wait, in order."""
        return [
            {
                "name": lock.name,
                "holder": lock.holder and lock.holder.owner,
                "token": lock.holder and lock.holder.token,
                "waiting": list(lock.waiting),
            }
            for lock in self._locks.values()
        ]

    def _unknown(self, name: LockName) -> str | None:
        if isinstance(name, str):
            return None if 0 < len(name) <= NAME_LENGTH else f"a lock name has 1 to {NAME_LENGTH} characters"
        exists = name in range(self._numbered + 1)
        return None if exists else f"no lock {name!r}: locks are 0 to {self._numbered}"

    def _fault(
        self, name: LockName, owner: Owner, request: int, timeout: float | None
    ) -> tuple[str, str] | None:
        """Return code and reason of what is wrong with an `acquire`."""
        if (reason := self._unknown(name)) is not None:
            return "unknown-lock", reason
        if timeout is not None and not (timeout >= 0 and isfinite(timeout)):
            return "protocol", f"a timeout is a number of seconds from 0 up, not {timeout}"
        claims = self._claims.get(owner.peer, {})
        if (owner, request) in claims:
            return "protocol", f"request {request} was made before"
        if (lock := self._locks.get(name)) and lock.holder and lock.holder.owner == owner:
            return "deadlock", f"deadlock: this thread holds lock {name!r} already, and would wait for itself"
        if lock and owner in lock.waiting:
            return "deadlock", f"deadlock: this thread waits for lock {name!r} already"
        if len(claims) >= CLAIMS_PER_PEER:
            return "lock-limit", f"a process can hold and wait for {CLAIMS_PER_PEER} locks"
        if self._count >= CLAIMS_OF_ALL:
            return "lock-limit", f"all processes together can hold and wait for {CLAIMS_OF_ALL} locks"
        return None

    def _grant(self, lock: _Lock, claim: _Claim) -> Granted:
        lock.holder = claim
        claim.token = self.next_token
        self.next_token += 1
        self._deadlines.discard(claim)
        return Granted(claim.owner, claim.request, lock.name, claim.token)

    def _end(self, claim: _Claim) -> list[Outcome]:
        """Take a claim off the books; if it held its lock, grant it to the next in line."""
        lock, peer = claim.lock, claim.owner.peer
        del self._claims[peer][claim.key]
        self._count -= 1
        if not self._claims[peer]:
            del self._claims[peer]
        if claim.token is None:
            del lock.waiting[claim.owner]
            self._deadlines.discard(claim)
            return []
        lock.holder = None
        if lock.waiting:
            return [self._grant(lock, lock.waiting.popitem(last=False)[1])]
        if isinstance(lock.name, str):
            del self._locks[lock.name]
        return []

    def validate(self) -> None:
        """Check that each claim has one place, that no free lock has waiters, that tokens are unique."""
        self._deadlines.validate()
        assert set(range(self._numbered + 1)) == {name for name in self._locks if isinstance(name, int)}
        if not self._claims:
            assert not any(lock.holder or lock.waiting for lock in self._locks.values())
            return
        found: list[_Claim] = []
        for name, lock in self._locks.items():
            assert lock.name == name
            assert lock.holder or (isinstance(name, int) and not lock.waiting)
            assert not lock.holder or lock.holder.owner not in lock.waiting
            assert not lock.holder or lock.holder.token is not None
            assert all(claim.owner == owner and claim.token is None for owner, claim in lock.waiting.items())
            claims = [*filter(None, [lock.holder]), *lock.waiting.values()]
            assert all(claim.lock is lock for claim in claims)
            found += claims
        assert self._count == sum(map(len, self._claims.values())), "the claims are miscounted"
        booked = [claim for claims in self._claims.values() for claim in claims.values()]
        assert set(found) == set(booked)
        assert len(found) == len(booked)
        assert all(claims for claims in self._claims.values())
        assert all(self._claims[claim.owner.peer][claim.key] is claim for claim in found)
        assert sum(claim in self._deadlines for claim in found if claim.token is None) == len(self._deadlines)
        tokens = [claim.token for claim in found if claim.token is not None]
        assert len(tokens) == len(set(tokens))
        assert all(token < self.next_token for token in tokens)
