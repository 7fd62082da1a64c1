"""What signal-only mules load: modules and files, in their order."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.conftest import Zmuled, wait_until
from zmule.daemon.config import load
from zmule.errors import ConfigError


def test_modules_and_files_are_loaded_in_their_order(zmuled: Zmuled) -> None:
    (zmuled.folder / "pkg").mkdir()
    (zmuled.folder / "far").mkdir()
    zmuled.program("pkg/tasks.py", 'print("loads", __name__, __file__, flush=True)')
    zmuled.program("far/beside.py", "")
    zmuled.program("far/queue.py", "raise SystemExit('not this one')")
    zmuled.program(
        "far/other.py",
        """
        import queue, sys
        import beside, pkg.tasks
        from uwsgidecorators import signal

        @signal(17, target="mule")
        def handle(number):
            print("handles", number, __name__, handle.__module__ in sys.modules, flush=True)

        print("loads", __name__, __file__, queue.Queue, flush=True)
        """,
    )
    client = zmuled.start("--mule", "--app=pkg.tasks", "--app=./far/other.py").client()
    client.signal(17)
    wait_until(lambda: "handles" in zmuled.output())
    output = zmuled.output()
    assert output.index("loads pkg.tasks") < output.index("loads uwsgi_file_far_other_py ./far/other.py")
    assert "handles 17 uwsgi_file_far_other_py True" in output


def test_the_file_names_several(zmuled: Zmuled) -> None:
    for name in ("one", "two"):
        zmuled.program(f"{name}.py", f"print('loads {name}', flush=True)")
    zmuled.program("z.toml", "[app]\nmodule = ['one', './two.py']\n[[mule]]\n")
    zmuled.start("--config=z.toml")
    wait_until(lambda: "loads two" in zmuled.output())
    assert zmuled.output().index("loads one") < zmuled.output().index("loads two")


def test_a_message_is_done_at_once_if_the_flag_says_so(zmuled: Zmuled) -> None:
    zmuled.program("hold.py", "import time, zmule\nprint(zmule.get_msg(), flush=True)\ntime.sleep(1000)")
    client = zmuled.start("--mule=hold.py", "--ack=1:early", "--mule-reload-mercy=0").client()
    client.mule_msg("one", 1)
    wait_until(lambda: "mule 1: one" in zmuled.output())
    os.kill(zmuled.mule(1)["pid"], signal.SIGKILL)
    client.mule_msg("two", 1)
    wait_until(lambda: "mule 1: two" in zmuled.output())
    assert zmuled.output().count("mule 1: one") == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["gone.py"], "--app: no such file: 'gone.py' (in "),
        (["folder.py"], "--app: no such file: 'folder.py' (in "),
        (["a", "b", "a"], "--app: 'a' is named twice"),
        (
            ["a-b"],
            "--app: 'a-b' is not the name of a module, such as myproject.tasks, or a path ending in .py",
        ),
    ],
)
def test_what_cannot_be_loaded(
    given: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.py").mkdir()
    with pytest.raises(ConfigError) as raised:
        load({"app": given}, {})
    assert str(raised.value).startswith(said)
