"""`python -m zmule.compat COMMAND`: whatever the command runs, and whatever it starts, has the modules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SHOW = """
import sys, uwsgi, uwsgidecorators as decorators
print(sys.argv, __name__, uwsgi.__name__, decorators.__name__, uwsgi is sys.modules["zmule.compat.uwsgi"])
"""
SHOWN = "__main__ zmule.compat.uwsgi zmule.compat.uwsgidecorators True"


def run(folder: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "zmule.compat", *words],
        cwd=folder,
        env={**environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


def test_a_script(tmp_path: Path) -> None:
    folder = tmp_path / "sub"
    folder.mkdir()
    (folder / "beside.py").touch()
    (folder / "show.py").write_text("import beside" + SHOW)
    assert run(tmp_path, "sub/show.py", "--a", "b").stdout == f"['sub/show.py', '--a', 'b'] {SHOWN}\n"


def test_a_module(tmp_path: Path) -> None:
    (tmp_path / "shows.py").write_text(SHOW)
    assert run(tmp_path, "shows", "x").stdout == f"['{tmp_path}/shows.py', 'x'] {SHOWN}\n"


def test_a_console_script(tmp_path: Path) -> None:
    for package, code in (
        ("served", "import uwsgi\ndef main():\n    print(uwsgi.__name__)\n    return 3\n"),
    ):
        (tmp_path / f"{package}.py").write_text(code)
        info = tmp_path / f"{package}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[console_scripts]\nserve-it = {package}:main\n")
    done = run(tmp_path, "serve-it", "app:app", check=False)
    assert (done.stdout, done.returncode) == ("zmule.compat.uwsgi\n", 3)


def test_processes_that_are_started_anew(tmp_path: Path) -> None:
    (tmp_path / "show.py").write_text(SHOW)
    (tmp_path / "only.py").write_text("import uwsgidecorators, uwsgi; print(uwsgidecorators.__name__)")
    (tmp_path / "start.py").write_text(
        "import subprocess, sys\n"
        "for script in ('show.py', 'only.py'): subprocess.run([sys.executable, script], check=True)\n"
    )
    assert run(tmp_path, "start.py").stdout == f"['show.py'] {SHOWN}\nzmule.compat.uwsgidecorators\n"


def test_processes_that_multiprocessing_spawns(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(
        "def work():\n    import uwsgidecorators\n    print(uwsgidecorators.__name__)"
    )
    (tmp_path / "serve.py").write_text(
        "import multiprocessing, work\n"
        "def main():\n"
        "    process = multiprocessing.get_context('spawn').Process(target=work.work)\n"
        "    process.start()\n"
        "    process.join()\n"
        "if __name__ == '__main__': main()\n"
    )
    assert run(tmp_path, "serve.py").stdout == "zmule.compat.uwsgidecorators\n"


@pytest.mark.parametrize("words", [(), ("no-such-command", "x"), ("no.such.module",), ("..",)])
def test_what_cannot_be_run(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = run(tmp_path, *words, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert ("usage: " if not words else f"{words[0]} is no command") in done.stderr


def test_a_real_uwsgi_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import sys, types\n"
        "sys.modules['uwsgi'] = real = types.ModuleType('uwsgi')\n"
        "import zmule.compat\n"
        "zmule.compat.install()\n"
        "assert sys.modules['uwsgi'] is real and 'uwsgidecorators' not in sys.modules\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, tmp_path / "script.py"], check=True, env=environ, timeout=60)


def test_the_decorators_are_loaded_when_they_are_used(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import zmule.compat\n"
        "zmule.compat.install()\n"
        "zmule.compat.install()\n"
        "import uwsgi\n"
        "assert not hasattr(uwsgi, 'post_fork_hook')\n"
        "uwsgi.post_fork_hook = lambda: None\n"
        "from uwsgidecorators import postfork_chain_hook\n"
        "assert uwsgi.post_fork_hook is postfork_chain_hook\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, tmp_path / "script.py"], check=True, env=environ, timeout=60)
