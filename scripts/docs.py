"""Rewrites the parts of docs/ that are made from the code: settings, frames, life-cycles, error codes.

Each part stands between two comments of its page. tests/test_docs.py fails when one is out of date.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from textwrap import wrap
from typing import Any, get_args, get_type_hints

from zmule.compat import names
from zmule.core import frames, states, wire
from zmule.daemon import settings
from zmule.errors import BY_CODE, ZmuleError

Edit = Callable[[str], str]

DOCS = Path(__file__).resolve().parent.parent / "docs"
ERRORS: list[type[ZmuleError]] = [ZmuleError, *BY_CODE.values()]


def main() -> None:
    for path, text in pages().items():
        path.write_text(text)


def pages() -> dict[Path, str]:
    """Return every page that has generated parts, as it should be."""
    parts: dict[str, list[Edit]] = {
        "configuration.rst": [settings.refresh],
        "protocol.rst": [
            part("frame table", frame_table),
            part("frames", frame_list),
            part("message states", lambda: drawing(states.MESSAGE)),
            part("mule states", lambda: drawing(states.MULE)),
            part("codes", code_table),
        ],
        "client.rst": [part("errors", error_table)],
        "migrating.rst": [part("names", name_tables)],
    }
    return {DOCS / name: refreshed((DOCS / name).read_text(), edits) for name, edits in parts.items()}


def refreshed(page: str, edits: Iterable[Edit]) -> str:
    for edit in edits:
        page = edit(page)
    return page


def part(name: str, lines: Callable[[], Iterable[str]]) -> Edit:
    """Return what puts the lines between the comments of that name."""
    begin, end = f".. {name} begin (generated)\n", f".. {name} end\n"

    def edit(page: str) -> str:
        before, _, rest = page.partition(begin)
        if end not in rest:
            raise SystemExit(f"scripts/docs.py: a page has no part {name!r}")
        return before + begin + "\n" + "\n".join(lines()) + "\n\n" + end + rest.partition(end)[2]

    return edit


def frame_table() -> Iterator[str]:
    """Yield an overview of the frames."""
    rows = (
        (str(number), kind.__name__, "peer" if number < 32 else "broker", ", ".join(kind._fields))
        for kind, number in frames.NUMBERS.items()
    )
    yield from table(("Number", "Frame", "From", "Fields"), rows)


def frame_list() -> Iterator[str]:
    """Yield each frame with its meaning, and a line for each field."""
    for kind, number in frames.NUMBERS.items():
        yield f"{kind.__name__} ({number})"
        yield indented(prose(kind.__doc__)) + "\n"
        hints = get_type_hints(kind)
        fields = zip(hints, wire.CHECKS[kind], strict=True)
        yield from (f"    - ``{name}``: {words(check, hints[name])}" for name, check in fields)
        yield ""


def words(check: wire.Check, hint: Any) -> str:
    """Return what a field must be, in the words in which the wire complains about one that is not."""
    if (item := next(iter(get_args(hint)), None)) in (frames.Batch, frames.Refusal, frames.Parcel):
        return f"a list of {item.__name__} records"
    for probe in ((), object()):
        try:
            check(probe)
        except wire.Invalid as complaint:
            said = str(complaint).removeprefix("is not ").replace(str(2**63 - 1), "2^63 − 1")
            return "a list of pairs of whole numbers" if said == "a list" else said
    return "anything"


def drawing(life: states.Table) -> Iterator[str]:
    """Yield a life-cycle: every state with the ways out of it."""
    yield "::\n"
    width = max(map(len, life)) + 2
    longest = max(len(happening) for ways in life.values() for happening in ways)
    for state, ways in life.items():
        if not ways:
            yield f"    {state:{width}}(the end)"
        for place, (happening, target) in enumerate(ways.items()):
            line = "─" * (longest - len(happening) + 1)
            yield f"    {'' if place else state:{width}}── {happening} {line}► {target}"


def code_table() -> Iterator[str]:
    """Yield the codes that stand for errors on the wire."""
    yield from table(("Code", "Meaning"), [(f"``{cls.code}``", prose(cls.__doc__)) for cls in ERRORS])


def error_table() -> Iterator[str]:
    """Yield the errors that a program may catch."""
    rows = [
        (f"``{cls.__name__}``", f"``{cls.code}``", str(cls.exit_code), prose(cls.__doc__)) for cls in ERRORS
    ]
    yield from table(("Class", "Code", "Exit", "Meaning"), rows)


def name_tables() -> Iterator[str]:
    """Yield what becomes of each name of uWSGI's Python API."""
    for title, entries in {**names.UWSGI, "uwsgidecorators": names.DECORATORS}.items():
        yield f"{title}\n{'~' * len(title)}\n"
        yield ".. list-table::\n   :header-rows: 1\n   :widths: 30 10 60\n"
        yield from cells("Name", "In zmule", "How it differs, or what to do")
        for each, status, text in entries:
            marked = " ".join(f"``{name}``" for name in each.split())
            yield from cells(
                marked, status, prose(text[:1].upper() + text[1:]).rstrip(".") + "." * bool(text)
            )
        yield ""


def cells(*texts: str) -> Iterator[str]:
    """Yield a row of a list table."""
    for place, text in enumerate(texts):
        bullet = "     -" if place else "   * -"
        lines = wrap(text, 100, break_long_words=False, break_on_hyphens=False) or [""]
        yield f"{bullet} {lines[0]}".rstrip()
        yield from (f"       {line}" for line in lines[1:])


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    first, *others = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
    yield from (rule, first, rule, *others, rule)


def prose(docstring: str | None) -> str:
    """Return a docstring's text with code marked as reStructuredText has it; of a class, without its list."""
    text = re.sub(r"`([^`]+)`", r"``\1``", (docstring or "").partition("\n\n    Attributes:")[0])
    lines = text.replace("in docs/protocol.rst", "below").strip().splitlines()
    return "\n".join(line.strip() for line in lines)


def indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())


if __name__ == "__main__":
    main()
