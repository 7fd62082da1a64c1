"""Runs a server's command with the drop-in modules: `python -m zmule.compat gunicorn app:app`.

The processes that it forks have them from it; those that it starts anew (uvicorn's and granian's workers)
find them on the import path: `multiprocessing` hands that on, others have PYTHONPATH.
"""

from __future__ import annotations

import os
import runpy
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from zmule.compat import install

SHIMS = str(Path(__file__).with_name("path"))


def main() -> None:
    """Run the command line after `-m zmule.compat`: a command, a module, or a script ending in .py."""
    command, *_ = sys.argv = sys.argv[1:] or [""]
    if not command:
        sys.exit("usage: python -m zmule.compat COMMAND [ARGUMENT]...")
    install()
    sys.path.insert(0, SHIMS)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [SHIMS, os.environ.get("PYTHONPATH", "")]))
    scripts = entry_points(group="console_scripts", name=command)
    if scripts:
        sys.exit(next(iter(scripts)).load()())
    if command.endswith(".py"):
        sys.path.insert(0, str(Path(command).parent.resolve()))
        runpy.run_path(command, run_name="__main__")
    elif _is_module(command):
        runpy.run_module(command, run_name="__main__", alter_sys=True)
    else:
        sys.exit(f"zmule.compat: {command} is no command, module or script that is installed here")


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


if __name__ == "__main__":
    main()
