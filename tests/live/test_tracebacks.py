"""What a program that dies shows: its own traceback, from its own first line on."""

from __future__ import annotations

import subprocess

import pytest

from tests.conftest import COMMANDS, PATIENCE, Zmuled


@pytest.mark.parametrize(
    ("source", "last", "code"),
    [
        (
            "import zmule\ndef work():\n    zmule.farm_msg('nosuch', 'x')\nwork()\n",
            "UnknownFarm: there",
            1,
        ),
        ("import zmule\nzmule.mule_msg('x', -5)\n", "ValueError: a mule's number", 1),
        ("1 / 0\n", "ZeroDivisionError: division by zero", 1),
        ("def broken(:\n", "SyntaxError: invalid syntax", 1),
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'", 1),
    ],
)
@pytest.mark.parametrize("as_callable", [False, True])
def test_it_begins_with_the_program(
    zmuled: Zmuled, source: str, last: str, code: int, as_callable: bool
) -> None:
    name = zmuled.program("prog.py", source)
    zmuled.start()
    done = subprocess.run(
        [COMMANDS / "zmule", "run", "--endpoint", zmuled.endpoint, "prog:run" if as_callable else name],
        cwd=zmuled.folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    first, *lines = done.stderr.splitlines()[1:]
    where = [line for line in (first, *lines) if line.startswith("  File ")]
    assert done.returncode == code
    assert "prog.py" in where[0]
    assert last in done.stderr.splitlines()[-1]


def test_what_the_program_has_no_part_in_is_one_line(zmuled: Zmuled) -> None:
    zmuled.start()
    command = [str(COMMANDS / "zmule"), "run", "--endpoint", zmuled.endpoint, "nosuch.module:run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 78
    assert done.stderr.splitlines()[1:] == ["zmule: cannot import nosuch.module: No module named 'nosuch'"]
