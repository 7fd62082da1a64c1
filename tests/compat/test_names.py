"""Every name of uWSGI's Python API is there, or can be imported and says what to use instead."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from zmule.compat import names, uwsgi, uwsgidecorators
from zmule.compat.names import ABSENT, ADDED, DECORATORS, UWSGI, VALUES, Entry

LIST = Path(__file__).parents[1] / "data" / "uwsgi-2.0.31-names.txt"
MODULES: dict[str, ModuleType] = {"uwsgi": uwsgi, "uwsgidecorators": uwsgidecorators}
DECLARED: dict[str, list[Entry]] = {
    "uwsgi": [entry for group in UWSGI.values() for entry in group],
    "uwsgidecorators": list(DECORATORS),
}
ASKED = {"numproc", "opt"}
STATUSES = (names.SAME, names.DIFFERENT, ABSENT, ADDED)


def measured() -> dict[str, list[str]]:
    """Return the names of uWSGI 2.0.31 by module."""
    paragraphs = LIST.read_text().split("\n\n")[1:]
    return {module: rest for module, *rest in map(str.split, paragraphs)}


def having(*statuses: str) -> list[tuple[str, str]]:
    """Return the modules and names that are declared with these statuses."""
    return [
        (module, name)
        for module, entries in DECLARED.items()
        for entry in entries
        for name in entry.names.split()
        if entry.status in statuses
    ]


@pytest.mark.parametrize("module", DECLARED)
def test_all_names_of_uwsgi_are_declared_once(module: str) -> None:
    declared = [name for each, name in having(names.SAME, names.DIFFERENT, ABSENT) if each == module]
    assert sorted(declared) == sorted(measured()[module])


@pytest.mark.parametrize(("module", "name"), having(names.SAME, names.DIFFERENT, ADDED))
def test_what_is_declared_as_there_is_there(module: str, name: str) -> None:
    if name not in (*uwsgi.HOOKS, *ASKED):
        assert name in vars(MODULES[module])


@pytest.mark.parametrize(("module", "name"), having(ABSENT))
def test_what_is_absent_can_be_imported_and_says_what_to_use(module: str, name: str) -> None:
    if name in VALUES:
        with pytest.raises(AttributeError, match=rf"zmule has no {module}\.{name}: .*docs/migrating\.rst"):
            getattr(MODULES[module], name)
        return
    with pytest.raises(NotImplementedError, match=rf"zmule has no {module}\.{name}: .*docs/migrating\.rst"):
        getattr(MODULES[module], name)("an argument", key=1)


def test_values_are_those_of_uwsgi() -> None:
    assert (uwsgi.SPOOL_OK, uwsgi.SPOOL_RETRY, uwsgi.SPOOL_IGNORE) == (-2, -1, 0)
    assert (uwsgi.cores, uwsgi.buffer_size, uwsgi.has_threads) == (1, 4096, 1)
    assert (uwsgi.applications, uwsgi.loop, uwsgi.unbit, uwsgi.is_a_reload) == (None, None, None, False)
    assert (uwsgi.sockets, uwsgi.magic_table) == ([], {})


def test_a_star_brings_all_that_uwsgi_has_and_nothing_of_ours() -> None:
    assert set(measured()["uwsgi"]) - {*uwsgi.HOOKS, *VALUES} <= set(uwsgi.__all__)
    assert set(uwsgi.__all__) <= {name for module, name in having(*STATUSES)}
    assert set(measured()["uwsgidecorators"]) < set(uwsgidecorators.__all__)
    space: dict[str, object] = {}
    exec("from zmule.compat.uwsgidecorators import *", space)
    assert space["uwsgi"] is uwsgi
    assert "os" not in space
    assert "os" not in uwsgi.__all__


def test_other_names_are_plainly_missing() -> None:
    with pytest.raises(AttributeError, match="module 'uwsgi' has no attribute 'nonsense'"):
        _ = uwsgi.nonsense
    with pytest.raises(AttributeError, match=r"nobody has set uwsgi\.mule_msg_hook"):
        _ = uwsgi.mule_msg_hook


def test_a_program_can_look_whether_a_name_is_there() -> None:
    assert {"cache_get", "mule_msg", "SPOOL_OK"} <= set(dir(uwsgi))
    assert repr(uwsgi.cache_get).startswith("<zmule has no uwsgi.cache_get")
