"""What the commands have instead of typer's own: help as plain text, and mistakes as one line.

Typer's help and complaints differ from release to release, in frames, types and braces. So they are made
here, of what commands and their parameters have always told, and look the same with all of them.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from zmule.cli import common
from zmule.near import hint

UsageError: Any = typer.BadParameter.__base__
"""Typer's own base of all complaints about a command line."""

INTERRUPTED = 130


def run(name: str, app: typer.Typer, spell: Callable[[list[str]], Iterable[str]] = list) -> None:
    """Run a command with the words of the command line, as `spell` has them; end as `common.run` does."""
    common.run(name, lambda: carry_out(name, app, spell))


def carry_out(name: str, app: typer.Typer, spell: Callable[[list[str]], Iterable[str]] = list) -> None:
    """Do what the words of the command line say, as `spell` has them.

    Raises:
        UsageError: they cannot be understood.
        SystemExit: it was done, and with which status.
    """
    try:
        status = app(args=list(spell(sys.argv[1:])), prog_name=name, standalone_mode=False)
    except UsageError as error:
        raise common.UsageError(_complaint(error)) from None
    except typer.Abort:
        sys.exit(1)
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    if status:
        sys.exit(status)


def _complaint(error: Any) -> str:
    """Return what is wrong with a command line, and where to read how it should be."""
    context = error.ctx
    if hasattr(error, "possibilities") and context is not None:
        known = [name for parameter in context.command.get_params(context) for name in parameter.opts]
        text = f"there is no option {error.option_name}{hint(error.option_name, known)}"
    else:
        text = error.format_message().rstrip(".")
    return text if context is None else f"{text} (see {context.command_path} --help)"


class Command(TyperCommand):
    """A command whose help is plain text."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _write(self, ctx, formatter)


class Group(TyperGroup):
    """A command with commands of its own. Alone it shows its help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _write(self, ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name not in self.commands and not name.startswith("-"):
            ctx.fail(f"there is no command {name!r}{hint(name, self.commands)}")
        return super().resolve_command(ctx, args)


def _write(command: Any, context: Any, formatter: Any) -> None:
    parameters = command.get_params(context)
    arguments = [each for each in parameters if each.param_type_name == "argument"]
    commands = getattr(command, "commands", {})
    words = ["[OPTIONS]", *(each.metavar for each in arguments), *(["COMMAND ..."] if commands else [])]
    formatter.write_usage(context.command_path, " ".join(words))
    _write_texts(formatter, command.help)
    _write_list(formatter, "Arguments", [(each.metavar, each.help) for each in arguments])
    for title, options in _panels(each for each in parameters if each.param_type_name == "option"):
        _write_list(formatter, title, options)
    _write_list(formatter, "Commands", [(name, _first(each.help)) for name, each in commands.items()])
    _write_texts(formatter, command.epilog)


def _write_texts(formatter: Any, text: str | None) -> None:
    for paragraph in inspect.cleandoc(text or "").split("\n\n"):
        if paragraph:
            formatter.write_paragraph()
            formatter.write_text(" ".join(paragraph.split()))


def _write_list(formatter: Any, title: str, rows: list[tuple[str, str]]) -> None:
    if rows:
        with formatter.section(title):
            formatter.write_dl(rows)


def _panels(options: Iterator[Any]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield the options under the titles that they were given."""
    panels: dict[str, list[tuple[str, str]]] = {}
    for option in options:
        title = getattr(option, "rich_help_panel", None) or "Options"
        panels.setdefault(title, []).append((_spelling(option), option.help or ""))
    yield from panels.items()


def _spelling(option: Any) -> str:
    """Return how an option is written, with what stands for its value."""
    names = ", ".join(option.opts)
    if option.is_flag or not option.metavar:
        return names
    return f"{names}{'' if option.metavar.startswith('[') else ' '}{option.metavar}"


def _first(text: str | None) -> str:
    return inspect.cleandoc(text or "").partition("\n")[0]
