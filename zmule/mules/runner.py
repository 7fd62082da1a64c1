"""Runs a program as a mule: a script, a callable, or the application module of a signal-only mule.

`zmuled` starts `python -m zmule.mules.runner` for each of its mules; `zmule run` does the same in its own
process. The mule registers first and loads then, so that the broker knows it as starting. How the
program ends decides about the message in hand: a clean end acknowledges it, anything else does not.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib
import os
import re
import resource
import signal
import sys
import types
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from zmule import compat, current
from zmule.clients import sync as sync  # now, as later a file of the program's may hide what it imports
from zmule.compat import calls as calls
from zmule.compat import signal_only
from zmule.errors import ConfigError, MuleStopped, ZmuleError
from zmule.mules.mule import Mule
from zmule.mules.traces import show

PR_SET_PDEATHSIG = 1
REGISTER_SECONDS = 30.0


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run as a process that `zmuled` has started: its number, token and supervisor are in the environment.

    Args:
        arguments: `PROGRAM`, or `--app MODULE...` for a signal-only mule.
    """
    program, *more = sys.argv[1:] if arguments is None else arguments
    environ = os.environ
    supervisor, lifeline, files = map(int, environ.pop("ZMULE_SUPERVISOR").split())
    hang_on(lifeline)
    die_with(supervisor)  # afterwards, as it looks whether that has ended already
    limit_files(files)
    number, token = int(environ.pop("ZMULE_NUMBER")), bytes.fromhex(environ.pop("ZMULE_TOKEN"))
    stop_signal = int(environ.pop("ZMULE_STOP_SIGNAL"))
    name = "" if program == "--app" else program
    try:
        mule = Mule(number, token=token, program=name, timeout=REGISTER_SECONDS)
    except ZmuleError as error:
        fail(error)
    what = application(more, mule) if program == "--app" else load(program)
    run(mule, what, stop_signal)


def run(mule: Mule, program: Callable[[], object], stop_signal: int = signal.SIGTERM) -> NoReturn:
    """Run a program as the mule, in this process, to its end; then end the process as the interpreter does.

    So threads and executors are waited for, and what is to run at the exit runs, as without us. The last
    thing then is that the mule closes: see `zmule.current`.
    """
    compat.install()
    current.set_mule(mule)
    mule.own_process(stop_signal)
    status = 0
    with contextlib.suppress(MuleStopped):  # the signal came as the program was ending by itself
        status = outcome(program)
    mule.end()
    if status != 0:
        mule.abort()
    sys.exit(status)


def outcome(program: Callable[[], object]) -> int:
    """Run a program to its end; return the exit status."""
    try:
        program()
    except SystemExit as end:
        return exit_status(end)
    except BaseException as error:
        show(error)
        return error.exit_code if isinstance(error, ZmuleError) else 1
    return 0


def load(program: str) -> Callable[[], object]:
    """Return what runs the program: the path of a script that ends in `.py`, or `package.module:callable`.

    Nothing is read or imported before it is called.
    """
    return (lambda: run_script(program)) if program.endswith(".py") else (lambda: run_callable(program))


def run_script(path: str) -> None:
    """Run a script as `__main__`."""
    sys.argv = ["uwsgi"]
    run_file(path, "__main__", "the program")


def run_file(path: str, name: str, what: str) -> None:
    """Run a file as the module of that name, with the working folder to import from, and then its own.

    Its own folder comes last, as it is none of uWSGI's places to look: what lies beside the file must not
    hide the standard library, nor what is installed.
    """
    try:
        source = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {what} {path}: {error.strerror}") from None
    module = types.ModuleType(name)
    module.__dict__.update(__file__=path, __builtins__=__builtins__)
    sys.modules[name] = module
    make_importable(os.getcwd())  # noqa: PTH109
    sys.path.append(os.path.dirname(os.path.abspath(path)))  # noqa: PTH100, PTH120
    exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)


def run_callable(program: str) -> object:
    """Import a module and call something in it without arguments."""
    name, _, attribute = program.partition(":")
    make_importable(os.getcwd())  # noqa: PTH109
    target = getattr(import_module(name), attribute, None)
    if target is None:
        raise ConfigError(f"the program {program}: {name} has no {attribute!r}")
    if not callable(target):
        raise ConfigError(f"the program {program}: {attribute!r} cannot be called")
    return target()


def application(modules: Sequence[str], mule: Mule) -> Callable[[], object]:
    """Return what a signal-only mule does: load the application's modules, if any, and serve its signals."""

    def serve() -> None:
        if modules:
            make_importable(os.getcwd())  # noqa: PTH109
        for module in modules:
            if module.endswith(".py"):
                import_file(module)
            else:
                import_module(module)
        signal_only.serve(mule)

    return serve


def import_file(path: str) -> None:
    """Import a file as a module, under the name that uWSGI would give it."""
    name = "uwsgi_file_" + re.sub(r"\W", "_", path.removeprefix("./"))
    run_file(path, name, "the application")


def import_module(name: str) -> types.ModuleType:
    """Import a module; say which one is missing if one is."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # it is one that the program wants
        raise ConfigError(f"cannot import {name}: {error}") from None


def make_importable(*folders: str) -> None:
    """Put folders at the front of the import path, once."""
    sys.path[:0] = [folder for folder in dict.fromkeys(folders) if folder not in sys.path]


def exit_status(end: SystemExit) -> int:
    """Return the exit status that a `SystemExit` asks for; a text is printed and means 1."""
    if end.code is None or isinstance(end, MuleStopped):
        return 0
    if isinstance(end.code, int):
        return end.code
    print(end.code, file=sys.stderr)
    return 1


def die_with(supervisor: int) -> None:
    """Have the kernel kill this process when the supervisor, its parent, ends.

    With it ends the only one who could take an acknowledgement: the next broker delivers the message in
    hand again, and two must not work on it at a time.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != supervisor:
        sys.exit(0)


def hang_on(lifeline: int) -> None:
    """Have the kernel kill this process, and its group, when the supervisor lets go of the lifeline.

    So what this process has started for its work dies, too; and it does not matter which user this process
    has become by then, as it does for the signal at a parent's death.

    The lifeline is the reading end of a pipe that nobody writes to. When its other end is closed, the kernel
    signals the group that the lifeline's owner is set to: a group and not its number, so that none is meant
    that has got the number since.
    """
    with suppress(OSError):  # there are systems that only look like Linux
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC)
    os.set_inheritable(lifeline, False)


def limit_files(files: int) -> None:
    """Set the limit of open files to what zmuled was started with: it has raised its own."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))


def fail(error: ZmuleError) -> NoReturn:
    """End the process with an error's line and exit code."""
    print(f"zmule: {error}", file=sys.stderr)
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
