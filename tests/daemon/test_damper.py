"""The log's damper: enough is written, and the rest is counted."""

from __future__ import annotations

from zmule.daemon.damper import MOST, MOST_KINDS, Damper


def damper() -> tuple[Damper, list[tuple[str, str]]]:
    written: list[tuple[str, str]] = []
    return Damper(lambda level, text: written.append((level, text))), written


def test_what_is_rare_is_written_as_it_is() -> None:
    notes, written = damper()
    for second in range(3 * MOST):
        notes.note("info", f"mule {second}: x", float(second))
    notes.close()
    assert written == [("info", f"mule {second}: x") for second in range(3 * MOST)]


def test_of_a_flood_some_is_written_and_the_rest_counted() -> None:
    notes, written = damper()
    for number in range(MOST + 312):
        notes.note("warning", f"peer {number} broke the protocol: reason {number}", 7.0 + number / 1000)
    assert len(written) == MOST
    assert written[-1] == ("warning", f"peer {MOST - 1} broke the protocol: reason {MOST - 1}")
    assert notes.next_deadline() == 8.0
    notes.tick(7.999)
    assert len(written) == MOST
    notes.tick(8.0)
    assert written[MOST:] == [("warning", "peer … broke the protocol: 312 more like it within 1 s")]
    assert notes.next_deadline() is None
    notes.note("warning", "peer 1 broke the protocol: again", 8.0)
    assert written[-1] == ("warning", "peer 1 broke the protocol: again")


def test_a_flood_drowns_nothing_else() -> None:
    notes, written = damper()
    for number in range(100):
        notes.note("warning", f"noise: {number}", 0.0)
    notes.note("error", "noise: of another level", 0.0)
    notes.note("warning", "the store cannot write: full", 0.5)
    assert written[MOST:] == [
        ("error", "noise: of another level"),
        ("warning", "the store cannot write: full"),
    ]
    notes.close()
    assert written[-1] == ("warning", "noise: 80 more like it within 1 s")


def test_kinds_without_end_are_told_apart_no_more() -> None:
    written: list[tuple[str, str]] = []
    damper = Damper(lambda level, text: written.append((level, text)))
    for number in range(3 * MOST_KINDS):
        damper.note("info", f"{'x' * number} has gone", 0.0)
    assert len(written) == MOST_KINDS + MOST
    assert len(damper._begun) == MOST_KINDS + 1
