"""The core touches nothing of the world."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "zmule" / "core"
IMPURE = {
    "asyncio", "concurrent", "logging", "multiprocessing", "os", "pathlib", "random", "secrets", "selectors",
    "signal", "socket", "sqlite3", "subprocess", "tempfile", "threading", "time", "uuid", "zmq",
}  # fmt: skip
ALLOWED = {"msgpack", "zmule"}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", sorted(CORE.glob("*.py")), ids=lambda path: path.stem)
def test_the_core_imports_only_what_is_pure(path: Path) -> None:
    for name in imported(path):
        root = name.partition(".")[0]
        assert root not in IMPURE, f"{path.name} imports {name}"
        assert root in ALLOWED or root in sys.stdlib_module_names, f"{path.name} imports {name}"
        if root == "zmule":
            assert name.startswith(("zmule.core", "zmule.errors")), f"{path.name} imports {name}"
