"""scripts/demo, but for the making of `.venv`; and that it notices when something does not add up."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import PATIENCE, wait_until

DEMO = Path(__file__).parents[2] / "scripts" / "demo.py"


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    """The demo as a module."""
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(folder: Path) -> subprocess.Popen[str]:
    """Start the demo, with the folder for its files."""
    return subprocess.Popen(
        [sys.executable, "-u", DEMO],
        env=os.environ | {"TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_shows_that_every_line_was_handled(demo: ModuleType, tmp_path: Path) -> None:
    with start(tmp_path) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    lines = len(demo.TEXT.read_text().splitlines())
    assert lines >= 100
    assert re.search(rf"^    farm busy +zmule-send busy - +{lines}$", out, re.MULTILINE)
    sent, handled = re.findall(r"^    total +(\d+)$", out, re.MULTILINE)
    assert sent == handled
    assert f"All {sent} lines that were sent were handled" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_leaves_nothing_behind_when_it_is_interrupted(tmp_path: Path, number: int, code: int) -> None:
    with start(tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("zmuled --mule=feed.py")
        wait_until(lambda: list(tmp_path.glob("zmule-demo-*/zmule.sock")), "the broker's socket")
        process.send_signal(number)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert list(tmp_path.iterdir()) == []


STATUS = {"mules": [{"id": 1, "messages": 2}, {"id": 2, "messages": 1}, {"id": 3, "messages": 0}]}
OUTPUT = "2026-01-01 info: ready\nmule 1: ate b'a'\nmule 2: wallowed in b'a'\nmule 1: ate b'b'\n"
SENT = Counter(["a", "a", "b"])


def test_what_adds_up(demo: ModuleType) -> None:
    demo.compare(SENT, STATUS, OUTPUT)


@pytest.mark.parametrize(
    ("sent", "status", "output", "complaint"),
    [
        (SENT + Counter("c"), STATUS, OUTPUT, "4 lines were sent, 3 were handled"),
        (SENT, STATUS, OUTPUT.replace("mule 2", "mule 1"), "the broker counts"),
        (SENT, STATUS, OUTPUT.replace("b'b'", "b'c'"), r"lost: \['b'\], handled too often: \['c'\]"),
    ],
)
def test_what_does_not_add_up(
    demo: ModuleType, sent: Counter[str], status: dict[str, Any], output: str, complaint: str
) -> None:
    with pytest.raises(demo.Wrong, match=complaint):
        demo.compare(sent, status, output)


def test_a_broker_that_does_not_start_is_a_failure_in_a_line(
    demo: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "MULES", "--mule=nosuch.py")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert demo.main() == 1
    assert "demo: zmuled has ended with 2:\nzmuled: --mule" in capsys.readouterr().err
