"""The `zmule` command: look at a broker, raise signals, and run a program as one of its mules."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from zmule import placeholders
from zmule.cli import app as apps
from zmule.cli import backup, common, dead, options, signals
from zmule.cli.app import Command, Group
from zmule.clients.sync import DEFAULT_TIMEOUT
from zmule.core.greeting import MAX_NUMBER
from zmule.errors import ConfigError

app = typer.Typer(cls=Group, add_completion=False, pretty_exceptions_enable=False)


def main() -> None:
    """Run `zmule` to its exit."""
    apps.run("zmule", app)


@app.callback(
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 69 broker out of reach, 75 try again later, "
    "77 not permitted, 78 bad configuration."
)
def zmule(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=options.show_version("zmule"),
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    """Look at a zmule broker, and run mules of your own."""


@app.command(cls=Command)
def status(
    endpoint: options.Endpoint = None,
    timeout: options.Timeout = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, for programs.")] = False,
    watch: Annotated[
        float | None,
        typer.Option(
            "--watch",
            metavar="SECONDS",
            parser=options.seconds,
            show_default=False,
            help="Show it again and again, with so many seconds in between, until Ctrl-C.",
        ),
    ] = None,
) -> None:
    """Show the broker's mules, queues, farms and totals."""
    from zmule.cli.status import follow, show_once

    with common.connect(endpoint, timeout) as client:
        if watch is None:
            show_once(client, as_json)
        else:
            follow(client, watch, as_json)


@app.command(cls=Command)
def ping(
    endpoint: options.Endpoint = None,
    timeout: options.Timeout = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--count",
            metavar="N",
            parser=options.whole(1, 10**9),
            help="How many times, one after the other (default: 1).",
        ),
    ] = None,
) -> None:
    """Measure how long the broker takes to answer."""
    with common.connect(endpoint, timeout) as client:
        times = []
        for _ in range(count or 1):
            times.append(client.ping() * 1000)
            print(f"{client.endpoint} answered in {times[-1]:.3f} ms", flush=True)
        if len(times) > 1:
            print(f"least {min(times):.3f} ms, median {median(times):.3f} ms, most {max(times):.3f} ms")


@app.command(cls=Command)
def run(
    program: Annotated[
        str,
        typer.Argument(metavar="PROGRAM", help="A path ending in .py, or package.module:callable."),
    ],
    endpoint: options.Endpoint = None,
    timeout: options.Timeout = None,
    number: Annotated[
        int | None,
        typer.Option(
            "--id",
            metavar="N",
            parser=options.whole(1, MAX_NUMBER),
            show_default=False,
            help="The number to have (default: one that is free).",
        ),
    ] = None,
    farm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", parser=options.farm, help="A farm to join. May be repeated.", show_default=False
        ),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A value for uwsgi.opt. May be repeated.", show_default=False
        ),
    ] = None,
) -> None:
    """Run a program as a mule of the broker, on this terminal, until it ends or Ctrl-C."""
    from zmule.mules import runner
    from zmule.mules.mule import Mule

    farms = farm or []
    check_program(program)
    try:
        os.environ[placeholders.VARIABLE] = placeholders.pack(given or [])
    except ConfigError as error:
        raise common.UsageError(str(error)) from None
    if len(set(farms)) < len(farms):
        raise typer.BadParameter("a farm is named twice", param_hint="'--farm'")
    if timeout is None:
        common.connect(endpoint, None).close()
    mule = Mule(
        number or 0, farms=farms, endpoint=endpoint, program=program, timeout=timeout or DEFAULT_TIMEOUT
    )
    os.environ["ZMULE_ENDPOINT"] = mule.endpoint
    common.tell(f"zmule: {program} is mule {mule.mule_id} of {mule.endpoint}\n")
    runner.run(mule, runner.load(program))


for command in signals.COMMANDS:
    app.command(cls=Command)(command)
app.command()(backup.backup)
app.add_typer(dead.commands, name="dead")


def check_program(program: str) -> None:
    """Refuse what cannot be run, before there is a mule.

    Raises:
        UsageError: the script cannot be read, or it is neither a script nor a callable.
    """
    if program.endswith(".py"):
        try:
            Path(program).open("rb").close()
        except OSError as error:
            raise common.UsageError(f"cannot read the program {program}: {error.strerror}") from None
    elif ":" not in program:
        raise common.UsageError(
            f"{program!r} is no program: name a path ending in .py, or package.module:callable"
        )
