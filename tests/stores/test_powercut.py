"""A power cut at any moment loses nothing that was answered, and leaves no file that is refused.

All that the store does to its files is recorded. At each sync, and before it, the power is cut: of what was
not synced, some has reached the disk and some has not. What the store then finds must be what one of its
changes has left, not earlier than the last that was answered.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.stores import lives
from tests.stores.powercut import Disk, pieces
from tests.stores.recorder import Op, missing, record
from zmule.core.effects import Recovery
from zmule.stores import schema
from zmule.stores.sqlite import SqliteStore
from zmule.testing.memory import MemoryStore

SEED = 1
TORN = 2
"""How often each moment is tried with some of what was not synced."""

JOURNAL = "journal"


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Op], Path]:
    """What some lives of a store do to its folder, and the folder as it is at the end."""
    why = missing()
    if why is not None:
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("recorded")
    return record(folder, [sys.executable, "-m", "tests.stores.lives", str(folder), str(SEED)]), folder


def contents(recovery: Recovery) -> tuple[Any, ...]:
    """Return what can be compared of what a store holds."""
    return recovery.messages, sorted(recovery.senders), recovery.dead, recovery.facts


def histories() -> list[tuple[Any, ...]]:
    """Return what the store holds after each of the changes, before the first included."""
    model, found = MemoryStore(), [contents(MemoryStore().recover())]
    for changes in chain.from_iterable(chain.from_iterable(lives.plan(SEED))):
        model.save(changes)
        found.append(contents(model.recover()))
    return found


def cuts(ops: list[Op]) -> Iterator[tuple[int, int, list[dict[str, bytes]]]]:
    """Yield, for each moment: how many changes were answered and given, and what may be on the disk."""
    disk, draw = Disk(), Random(SEED)
    answered = given = 0
    for op in ops:
        if op.name == JOURNAL:
            word, _, number = op.data.decode().partition(" ")
            answered, given = (int(number), given) if word == "saved" else (answered, int(number or 0))
            continue
        if op.kind == "sync" and disk.dirty():
            yield answered, given, [disk.least(), disk.whole(), *(disk.some(draw) for _ in range(TORN))]
        disk.do(op)
    yield answered, given, [disk.least(), disk.whole()]


def opened(folder: Path) -> Recovery:
    """Return what the store finds in a folder."""
    store = SqliteStore(folder / "zmule.db")
    try:
        return store.recover()
    finally:
        store.close()


@pytest.mark.timeout(400)
def test_a_power_cut_loses_nothing_that_was_answered(
    recording: tuple[list[Op], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "WAL_BYTES", lives.LOG_BYTES)
    ops, _ = recording
    expected = histories()
    highest = [0, *(max((m[0] for m in each[0]), default=0) for each in expected)]
    tried = 0
    for answered, given, states in cuts(ops):
        for state in states:
            folder = tmp_path / "cut"
            folder.mkdir(mode=0o700)
            for name, data in state.items():
                (folder / name).touch(mode=0o600)
                (folder / name).write_bytes(data)
            what = f"{tried}: {answered} answered, {given} given, { ({n: len(d) for n, d in state.items()}) }"
            try:
                found = opened(folder)
            except Exception as error:
                raise AssertionError(what) from error
            assert contents(found) in expected[answered : given + 1], what
            assert found.next_id > max(highest[: answered + 2]), what
            shutil.rmtree(folder)
            tried += 1
    assert tried > 300


def test_the_recording_is_whole(recording: tuple[list[Op], Path]) -> None:
    ops, folder = recording
    disk = Disk()
    for op in ops:
        disk.do(op)
    assert disk.whole() == {path.name: path.read_bytes() for path in folder.iterdir()}
    kinds = {(op.kind, op.name) for op in ops}
    assert {("remove", "zmule.db-wal"), ("resize", "zmule.db"), ("sync", "")} <= kinds


def test_what_was_not_synced_may_be_gone() -> None:
    disk = Disk()
    for op in (Op("create", "a"), Op("sync", ""), Op("write", "a", 0, b"x" * 1000), Op("sync", "a")):
        disk.do(op)
    disk.do(Op("write", "a", 500, b"y" * 1000))
    disk.do(Op("create", "b"))
    states = [disk.some(Random(seed)) for seed in range(500)]
    assert disk.least() == {"a": b"x" * 1000}
    assert {len(state) for state in states} == {1, 2}
    assert all(state["a"][:500] == b"x" * 500 for state in states)
    after = {state["a"][500:].rstrip(b"\0") for state in states}
    assert {b"x" * 500, b"y" * 1000, b"x" * 12 + b"y" * 988} <= after


def test_a_write_is_cut_where_sectors_end() -> None:
    cut = pieces(Op("write", "a", 500, bytes(range(256)) * 4), 512)
    assert [(op.offset, len(op.data)) for op in cut] == [(500, 12), (512, 512), (1024, 500)]
    assert b"".join(op.data for op in cut) == bytes(range(256)) * 4
