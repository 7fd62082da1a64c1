"""Output becomes lines, whatever the bytes and however they are cut."""

from __future__ import annotations

import fcntl
import os

from hypothesis import given
from hypothesis import strategies as st

from zmule.daemon.output import CHUNK, LONGEST_LINE, Lines, Output


def test_lines_wait_for_their_newline() -> None:
    lines = Lines()
    assert lines.feed(b"one\ntw") == ["one"]
    assert lines.feed(b"o\n\nthree") == ["two", ""]
    assert lines.feed(b"", final=True) == ["three"]
    assert lines.feed(b"", final=True) == []


def test_a_character_cut_in_two_is_one_character() -> None:
    lines = Lines()
    assert lines.feed("è".encode()[:1]) == []
    assert lines.feed("è".encode()[1:] + b"\n") == ["è"]


def test_bytes_that_are_not_utf8_become_escapes() -> None:
    assert Lines().feed(b"a\xffb\n") == ["a\\xffb"]
    assert Lines().feed(b"a\xc3", final=True) == ["a\\xc3"]


def test_only_newline_ends_a_line() -> None:
    assert Lines().feed("a\u2028b\x0bc\rd\n".encode()) == ["a\u2028b\x0bc\rd"]


def test_a_line_over_the_limit_comes_in_pieces() -> None:
    lines = Lines()
    assert lines.feed(b"x" * LONGEST_LINE) == []
    assert lines.feed(b"\n") == ["x" * LONGEST_LINE]
    assert lines.feed(b"x" * (2 * LONGEST_LINE + 1)) == ["x" * LONGEST_LINE] * 2
    assert lines.feed(b"y\n") == ["xy"]


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_the_cuts_between_reads_do_not_show(chunks: list[bytes]) -> None:
    lines, found = Lines(), []
    for chunk in chunks:
        found += lines.feed(chunk)
    found += lines.feed(b"", final=True)
    expected = b"".join(chunks).decode("utf-8", "backslashreplace").split("\n")
    assert found == (expected if expected[-1] else expected[:-1])


def test_a_pipe_is_read_without_blocking_and_a_bounded_piece_a_turn() -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 2 * CHUNK)
    with open(writing, "wb", buffering=0) as writer:  # noqa: PTH123
        output = Output(open(reading, "rb", buffering=0))  # noqa: PTH123, SIM115
        assert output.read() == []
        writer.write(b"\n" * (CHUNK + 1))
        assert output.read() == [""] * CHUNK
        writer.write(b"end")
        assert output.finish() == ["", "end"]
        assert output.closed


def test_the_end_of_the_output_is_none() -> None:
    reading, writing = os.pipe()
    output = Output(open(reading, "rb", buffering=0))  # noqa: PTH123, SIM115
    os.close(writing)
    assert output.read() is None
    assert output.finish() == []
