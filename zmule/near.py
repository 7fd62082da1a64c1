"""The name that was meant: for complaints about one that is not known."""

from __future__ import annotations

from collections.abc import Iterable

NEAR = 0.7
"""How alike two names must be: one of a few letters may have one wrong, or two of them swapped."""


def near(word: str, known: Iterable[str]) -> str | None:
    """Return the name among the known ones that may have been meant, None if none comes near."""
    from difflib import get_close_matches  # not for a command that is spelled right

    return next(iter(get_close_matches(word, known, n=1, cutoff=NEAR)), None)


def hint(word: str, known: Iterable[str]) -> str:
    """Return a question to end a complaint with, "" if no known name comes near."""
    name = near(word, known)
    return f": did you mean {name}?" if name else ""
