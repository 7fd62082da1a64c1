"""The table of file monitors."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from zmule.core import monitors
from zmule.core.monitors import Monitors

QUESTION = (b"peer", 1)


def test_a_path_is_watched_once_for_all_who_ask() -> None:
    table = Monitors()
    assert table.add(1, "/a", "x", (b"x", 1)) is True
    assert table.add(1, "/a", "y", (b"y", 1)) is False
    assert table.add(2, "/a", "x", (b"x", 2)) is False
    assert table.settled("/a", refused=False) == [(b"x", 1), (b"y", 1), (b"x", 2)]
    assert not table.is_new("/a")
    assert table.changed("/a") == [1, 2]
    assert table.settled("/a", refused=False) == [], "each question is answered once"


def test_the_same_again_is_the_same() -> None:
    table = Monitors()
    for _ in range(3):
        table.add(1, "/a", "x", QUESTION)
    table.settled("/a", refused=False)
    table.changed("/a")
    assert table.status() == [
        {"kind": "filemon", "signal": 1, "spec": "/a", "askers": 1, "fired": 1, "next_in_s": None}
    ]


def test_it_is_gone_with_the_last_who_asks() -> None:
    table = Monitors()
    table.add(1, "/a", "x", QUESTION)
    table.add(1, "/a", "y", QUESTION)
    table.add(1, "/b", "x", QUESTION)
    assert table.drop("x") == ["/b"]
    assert table.changed("/a") == [1]
    assert table.drop("y") == ["/a"]
    assert table.drop("nobody") == []
    assert table.status() == []
    assert table.add(1, "/a", "x", QUESTION) is True


def test_what_cannot_be_watched_is_forgotten() -> None:
    table = Monitors()
    table.add(1, "/a", "x", QUESTION)
    assert table.settled("/a", refused=True) == [QUESTION]
    assert not table.changed("/a")
    assert not table.status()
    assert not table.drop("x")
    assert table.add(1, "/a", "x", QUESTION) is True, "it may be watched when it is asked for again"


def test_removed_whoever_asks() -> None:
    table = Monitors()
    table.add(1, "/a", "x", (b"x", 1))
    table.add(2, "/a", "y", (b"y", 2))
    table.add(1, "/b", "y", (b"y", 3))
    assert table.remove(1) == (2, [(b"x", 1), (b"y", 3)], ["/b"])
    assert table.remove(1) == (0, [], [])
    assert table.changed("/a") == [2]
    assert table.settled("/a", refused=False) == [(b"y", 2)], "those removed have their answers"
    assert table.remove(2) == (1, [], ["/a"])


def test_one_asker_cannot_have_any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitors, "MONITORS_PER_ASKER", 2)
    table = Monitors()
    table.add(1, "/a", "x", QUESTION)
    table.add(2, "/a", "x", QUESTION)
    table.add(2, "/a", "x", QUESTION)
    with pytest.raises(ValueError, match="can ask for 2 file monitors, not for more"):
        table.add(1, "/b", "x", QUESTION)
    assert table.add(1, "/b", "y", QUESTION) is True


SIGNALS, PATHS, ASKERS = st.integers(1, 3), st.sampled_from("abc"), st.sampled_from("xyz")


class Machine(RuleBasedStateMachine):
    """Against a plain set of (signal, path, asker)."""

    def __init__(self) -> None:
        super().__init__()
        self.table = Monitors()
        self.links: set[tuple[int, str, str]] = set()

    def paths(self) -> set[str]:
        return {path for _, path, _ in self.links}

    @rule(signal=SIGNALS, path=PATHS, asker=ASKERS)
    def add(self, signal: int, path: str, asker: str) -> None:
        assert self.table.add(signal, path, asker, QUESTION) == (path not in self.paths())
        self.links.add((signal, path, asker))

    @rule(asker=ASKERS)
    def drop(self, asker: str) -> None:
        before = self.paths()
        unneeded = self.table.drop(asker)
        self.links = {link for link in self.links if link[2] != asker}
        assert sorted(unneeded) == sorted(before - self.paths())

    @rule(signal=SIGNALS)
    def remove(self, signal: int) -> None:
        before = self.paths()
        removed = {link[:2] for link in self.links if link[0] == signal}
        count, _, unneeded = self.table.remove(signal)
        self.links = {link for link in self.links if link[0] != signal}
        assert count == len(removed)
        assert sorted(unneeded) == sorted(before - self.paths())

    @rule(path=PATHS, refused=st.booleans())
    def settled(self, path: str, refused: bool) -> None:
        self.table.settled(path, refused=refused)
        if refused:
            self.links = {link for link in self.links if link[1] != path}

    @invariant()
    def agrees(self) -> None:
        self.table.validate()
        for path in "abc":
            assert set(self.table.changed(path)) == {signal for signal, p, _ in self.links if p == path}


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=50, stateful_step_count=30)
