"""docs/status.rst names every key of a real status, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docutils.core
from docutils import nodes

from tests.conftest import Zmuled, wait_until

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "status.rst"

PROGRAM = """
    import time, zmule
    mule = zmule.current_mule()
    mule.register_signal(17, "mule", lambda number: None)
    mule.add_timer(17, 1000)
    lock = zmule.lock(0)
    lock.acquire()
    zmule.get_msg()
    time.sleep(1000)
"""

NAMED_BY_USERS = ("farms", "queues")


def keys(value: Any, inside: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield the keys of a part of the status, and of the maps in it, with whether they are of the latter."""
    if isinstance(value, list):
        for item in value:
            yield from keys(item, inside)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key, inside
            yield from keys(item, True)


def documented() -> dict[str, tuple[set[str], set[str]]]:
    """For each section of the page: what its entries are called, and all code in it."""
    tree = docutils.core.publish_doctree(PAGE.read_text(), settings_overrides={"report_level": 5})
    return {
        section[0].astext(): (
            {code.astext() for term in section.findall(nodes.term) for code in term.findall(nodes.literal)},
            {code.astext() for code in section.findall(nodes.literal)},
        )
        for section in tree.findall(nodes.section)
    }


def test_every_key_of_a_real_status_is_on_the_page(zmuled: Zmuled) -> None:
    program = zmuled.program("program.py", PROGRAM)
    zmuled.program("dies.py", "import os, zmule\nzmule.get_msg()\nos.abort()\n")
    zmuled.start(f"--mule={program}", "--mule=dies.py", "--farm=busy:1", "--mule-reload-mercy=0.1")
    client = zmuled.client()
    client.mule_msg("x", 2)
    client.mule_msg("x", 1)
    client.mule_msg("y", 1)
    wait_until(lambda: zmuled.mule(1)["work"] and zmuled.mule(2)["last_exit"], "work and an exit")
    status, page = zmuled.status(), documented()
    assert set(status) == set(page)
    for name, part in status.items():
        parts = list(part.values()) if name in NAMED_BY_USERS else part
        found = list(keys(parts))
        assert {key for key, inside in found if not inside} == page[name][0], name
        assert {key for key, inside in found if inside} <= page[name][1], name
