"""The `zmuled` command: flags become a `Config`, and the daemon runs it.

The options are built from the declarations in `zmule.daemon.settings`; only `--check` and `--version`, which
are no settings, stand here. uWSGI's `--mule` takes a value after `=` or none at all, which typer cannot
say, so the words are respelled before typer sees them: `--mule` becomes `--mule=`, and `--mules 2` two of
those, each in its place, because the order gives the mules their numbers. uWSGI's options for sockets become
our own.
"""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from zmule.cli import common
from zmule.cli.app import Command, carry_out
from zmule.cli.check import Origins, summary
from zmule.cli.common import UsageError
from zmule.daemon.alarm import STOP_SIGNALS
from zmule.daemon.config import MAX_MULES, load
from zmule.daemon.settings import (
    MULE,
    MULES,
    SETTINGS,
    SOCKET_GROUP,
    SOCKET_MODE,
    SOCKET_OWNER,
    SWITCH,
    Setting,
    shown,
)
from zmule.version import VERSION

EPILOG = (
    "Every setting but the mules and farms has an environment variable as well: --max-message is "
    "ZMULE_MAX_MESSAGE. A flag beats the environment, the environment the file, the file the default."
)


UWSGI_MODE = "666"
"""What `--chmod-socket` without a mode stands for, as in uWSGI."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def main() -> None:
    """Run `zmuled` and exit; an error is one line on standard error."""
    common.run("zmuled", command)


def command() -> None:
    """Do what the command line says. What goes wrong is told with no signal held back."""
    try:
        carry_out("zmuled", app, respell)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def respell(words: Sequence[str]) -> Iterator[str]:
    """Yield the command line with each signal-only mule as `--mule=`.

    Raises:
        UsageError: `--mule=` names no program, or `--mules` no number.
    """
    rest = iter(words)
    for word in rest:
        flag, equals, value = word.partition("=")
        if word == "--":
            yield word
            yield from rest
        elif word == f"{MULE.flag}=":
            raise UsageError(
                "--mule= names no program: write --mule=PROGRAM, or --mule for a signal-only mule"
            )
        elif word == MULE.flag:
            yield f"{MULE.flag}="
        elif flag == "--chmod-socket":
            yield f"{SOCKET_MODE.flag}={value if equals else UWSGI_MODE}"
        elif flag == "--chown-socket":
            yield from _owners(value if equals else next(rest, ""))
        elif flag == MULES.flag:
            yield from [f"{MULE.flag}="] * _count(value if equals else next(rest, ""))
        else:
            yield word


def _owners(text: str) -> Iterator[str]:
    """Yield options for what uWSGI writes as `user`, `user:group` or `:group`."""
    user, colon, group = text.partition(":")
    if not (user or group) or (colon and not group):
        raise UsageError(f"--chown-socket needs USER:GROUP, not {shown(text)}")
    if user:
        yield f"{SOCKET_OWNER.flag}={user}"
    if group:
        yield f"{SOCKET_GROUP.flag}={group}"


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= MAX_MULES):
        raise UsageError(f"--mules needs a number up to {MAX_MULES}, not {shown(text)}")
    return int(text)


def _run(context: typer.Context, check: bool, version: bool, **flags: Any) -> None:
    """Start the broker and its mules.

    It hands messages to mules and farms, starts again the mules that die, and ends on SIGTERM or Ctrl-C.
    """
    if version:
        typer.echo(f"zmuled {VERSION}")
        return
    if context.args:
        raise UsageError(_stray(context.args[0]))
    given = _given(flags)
    config = load(given, os.environ)
    if check:
        text = summary(config, Origins(given, os.environ))
        typer.echo(text.encode(sys.stdout.encoding, "backslashreplace"))
        for remark in config.remarks():
            common.tell(f"zmuled: {remark}\n")
        return
    from zmule.daemon import main as daemon

    raise typer.Exit(daemon.run(config))


def _stray(word: str) -> str:
    if word.endswith(".py") or ":" in word:
        return f"unexpected {shown(word)}: a mule's program follows an equals sign, --mule={word}"
    return f"unexpected {shown(word)}: zmuled takes options only, see zmuled --help"


def _given(flags: dict[str, Any]) -> dict[str, list[str]]:
    """Return what the flags on the command line were given, as texts; a switch that is on is `true`."""
    return {name: _texts(value) for name, value in flags.items() if value not in (None, False)}


def _texts(value: Any) -> list[str]:
    if isinstance(value, list):
        return value
    return ["true" if value is True else value]


def _option(setting: Setting[Any]) -> inspect.Parameter:
    annotation: Any = list[str] | None if setting.many else bool if setting.kind is SWITCH else str | None
    option = typer.Option(
        setting.flag,
        metavar=setting.kind.metavar or None,
        help=_help(setting),
        show_default=False,
        rich_help_panel=setting.panel or None,
    )
    return _parameter(setting.name, annotation, option, False if annotation is bool else None)


def _help(setting: Setting[Any]) -> str:
    default = setting.default_in_words
    return f"{setting.help} (default: {default})" if default else setting.help


def _flag(name: str, help_text: str) -> inspect.Parameter:
    return _parameter(name, bool, typer.Option(f"--{name}", help=help_text, show_default=False), False)


def _parameter(name: str, annotation: Any, option: Any, default: object) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=Annotated[annotation, option])


def _signature() -> inspect.Signature:
    """Return the signature that typer reads the options from."""
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    check = _flag("check", "Read and check the configuration, show it, and exit.")
    version = _flag("version", "Show the version and exit.")
    return inspect.Signature([context, *map(_option, SETTINGS), check, version])


_run.__signature__ = _signature()  # type: ignore[attr-defined]
app.command(cls=Command, epilog=EPILOG, context_settings={"allow_extra_args": True})(_run)
