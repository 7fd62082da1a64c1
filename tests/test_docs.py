"""The documentation says what the code does: nothing public is missing from it, nothing in it is stale."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import io
import os
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import docutils.core
import pytest
import typer
from docutils import nodes

import zmule
import zmule.cli
from tests.conftest import COMMANDS, Zmuled, wait_until
from zmule.compat import uwsgi
from zmule.core.broker import Broker
from zmule.core.events import FrameReceived
from zmule.core.frames import Hello, Welcome
from zmule.core.instant import Instant
from zmule.core.outbox import Outbox
from zmule.core.setup import Setup
from zmule.core.wire import decode, encode
from zmule.daemon.settings import SETTINGS
from zmule.errors import BY_CODE
from zmule.testing import World

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.rst"), *DOCS.glob("*.rst")])
NOW = Instant(0.0, 0.0)


# What is on the pages.


@cache
def parsed(page: Path) -> tuple[nodes.document, str]:
    """Return a page as docutils understands it, and its complaints."""
    complaints = io.StringIO()
    settings = {
        "warning_stream": complaints,
        "report_level": 2,
        "halt_level": 5,
        "syntax_highlight": "none",
        "file_insertion_enabled": False,
        "raw_enabled": False,
    }
    tree = docutils.core.publish_doctree(page.read_text(), str(page), settings_overrides=settings)
    return tree, complaints.getvalue()


def code(*pages: Path) -> str:
    """Return everything on the pages that is marked as code, a piece a line; all pages if none is given."""
    marked = (nodes.literal, nodes.literal_block)
    return "\n".join(
        node.astext()
        for page in pages or PAGES
        for node in parsed(page)[0].findall(lambda node: isinstance(node, marked))
    )


def missing(names: Iterable[str], text: str) -> list[str]:
    """Return the names that the text does not have as words of their own."""
    return [name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)]


def blocks(page: Path, sign: str) -> Iterator[str]:
    """Yield the blocks of code on the page that contain the sign."""
    for node in parsed(page)[0].findall(nodes.literal_block):
        if sign in node.astext():
            yield node.astext()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_is_well_formed(page: Path) -> None:
    assert parsed(page)[1] == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for node in parsed(page)[0].findall(nodes.reference):
        link = urlsplit(node.get("refuri", ""))
        if link.scheme or not link.path:
            continue
        target = page.parent / link.path
        assert target.is_file(), f"{page.name} links to {link.path}"
        if link.fragment:
            assert link.fragment in parsed(target.resolve())[0].ids, f"{page.name}: {node['refuri']}"


def test_index_has_every_page() -> None:
    index = DOCS / "index.rst"
    links = [node.get("refuri", "") for node in parsed(index)[0].findall(nodes.reference)]
    assert {*PAGES} - {(DOCS / link).resolve() for link in links} == {index}


def test_files_that_are_named_exist() -> None:
    paths = re.findall(r"^[\w.]+/[\w./]*\w$", code(), re.MULTILINE)
    paths += re.findall(r"^[\w/]+\.py$", code(DOCS / "design.rst"), re.MULTILINE)
    known = ("", "zmule", "zmule/core", "zmule/daemon")
    assert [path for path in paths if not any((ROOT / folder / path).exists() for folder in known)] == []


def test_pages_that_the_code_names_exist() -> None:
    folders = ("zmule", "etc", "scripts", "tests")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.*") if path.suffix != ".pyc"]
    named = {name for path in sources for name in re.findall(r"docs/\w+\.rst", path.read_text())}
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_generated_parts_are_current() -> None:
    for path, text in generator().pages().items():
        assert path.read_text() == text, f"{path.name} is out of date: run scripts/docs"


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("generator", ROOT / "scripts" / "docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# What is in the code.


def test_public_names() -> None:
    assert missing(zmule.__all__, code(DOCS / "client.rst")) == []


KINDS = [zmule.Client, zmule.Mule, zmule.Worker, zmule.Lock, zmule.Message]
INNER = {
    *("claim_of", "drop_lock", "post_no_more"),
    *("acquire_lock", "after_fork", "ask", "close_at_exit", "inherit", "receive", "release_lock", "run"),
    *(
        "has_waited",
        "loading",
        "look_again",
        "note",
        "register_from",
        "settle",
        "end",
        "own_process",
        "stay_if_told",
        "unwant",
        "want",
    ),
}
"""Methods that the modules of zmule call of each other."""


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")} - INNER


@pytest.mark.parametrize("kind", KINDS)
def test_public_methods(kind: type) -> None:
    assert missing(public(kind), code(DOCS / "client.rst")) == []


def test_arguments() -> None:
    text = (DOCS / "client.rst").read_text()
    for function in callables():
        names = set(inspect.signature(function).parameters) - {"self", "token", "role"}
        entries = re.findall(rf"``(?:\w+\.)?{function.__name__}\((.*?)\)``", text)
        assert any(missing(names, entry) == [] for entry in entries), (function, entries)


def callables() -> Iterator[Any]:
    """Yield what has arguments: public functions, classes that users make, and methods."""
    functions = (getattr(zmule, name) for name in zmule.__all__)
    yield from filter(inspect.isfunction, functions)
    yield from (zmule.Client, zmule.Mule, zmule.Worker)
    methods = (getattr(kind, name) for kind in KINDS for name in public(kind))
    yield from filter(inspect.isfunction, methods)


def test_settings() -> None:
    text = code(DOCS / "configuration.rst")
    names = [name for each in SETTINGS for name in (each.flag, each.variable, each.key) if name]
    assert missing(names, text) == []


def test_commands_and_options() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert missing(scripts, code()) == []
    commands = [typer.main.get_command(module.app) for module in command_modules()]
    assert len(commands) == len(scripts)
    for command in commands:
        assert missing(words(command), code()) == []


def command_modules() -> Iterator[ModuleType]:
    for info in pkgutil.iter_modules(zmule.cli.__path__, "zmule.cli."):
        module = importlib.import_module(info.name)
        if isinstance(getattr(module, "app", None), typer.Typer):
            yield module


def words(command: Any) -> Iterator[str]:
    """Yield the options of a command and of its subcommands, and the names of those."""
    for parameter in command.params:
        if parameter.param_type_name == "option":
            yield from (*parameter.opts, *parameter.secondary_opts)
    for name, subcommand in getattr(command, "commands", {}).items():
        yield name
        yield from words(subcommand)


def test_error_codes() -> None:
    for page in ("protocol.rst", "client.rst"):
        assert missing(BY_CODE, code(DOCS / page)) == []


def test_mule_states() -> None:
    from zmule.core.states import MULE

    assert missing(MULE, code(DOCS / "status.rst")) == []


def test_details_of_the_greeting() -> None:
    inbox = World().mule().inbox
    outbox = Outbox(bytes(16), most_messages=1, most_bytes=1)
    details = [outbox.details(), inbox.details()]
    broker = Broker(Setup(bytes(16)), NOW)
    for peer, role, hello in ((b"c", "client", details[0]), (b"m", "mule", details[1])):
        effects = broker.handle(FrameReceived(peer, decode(encode(Hello(1, role, bytes(16), hello)))), NOW)
        frames = [getattr(effect, "frame", None) for effect in effects]
        details += [frame.details for frame in frames if isinstance(frame, Welcome)]
    assert len(details) == 4
    assert missing({name for each in details for name in each}, code(DOCS / "protocol.rst")) == []


def test_questions_and_reset_codes() -> None:
    sources = [path.read_text() for path in (ROOT / "zmule" / "core").glob("*.py")]
    codes = {code for text in sources for code in re.findall(r'Reset\(\s*"([\w-]+)"', text)}
    questions = Broker(Setup(bytes(16)), NOW).questions
    assert codes
    assert missing({*codes, *questions}, code(DOCS / "protocol.rst")) == []


def test_names_of_the_drop_in() -> None:
    own = [
        name
        for name, value in vars(uwsgi).items()
        if callable(value) and value.__module__ == uwsgi.__name__ and not name.startswith("_")
    ]
    assert missing(own, code(DOCS / "migrating.rst")) == []


# What the pages say can be done.


def test_bytes_of_the_protocol() -> None:
    [text] = blocks(DOCS / "protocol.rst", "→ Hello")
    for name, digits in re.findall(r"[→←] (\w+) +([0-9a-f \n]+)", text):
        data = bytes.fromhex(digits)
        frame = decode(data)
        assert type(frame).__name__ == name
        assert encode(frame) == data


def test_world_of_the_api() -> None:
    [text] = blocks(DOCS / "client.rst", "zmule.testing")
    exec(text, {})


def test_quick_start(zmuled: Zmuled) -> None:
    """The README's mules, started by its command, handle what its commands send."""
    readme = ROOT / "README.rst"
    [program] = blocks(readme, "zmule.get_msg()")
    [start] = blocks(readme, "zmuled --mule")
    [commands] = blocks(readme, "zmule-send")
    [application] = blocks(readme, "def application")
    zmuled.program("somaro.py", program)
    zmuled.start(*shlex.split(start)[1:])
    environ = {**os.environ, "ZMULE_ENDPOINT": zmuled.endpoint, "PATH": f"{COMMANDS}:{os.environ['PATH']}"}
    request = "application({'PATH_INFO': '/hay'}, lambda *_: None)"
    for run in (["sh", "-ec", commands], [sys.executable, "-c", f"{application}\n{request}"]):
        done = subprocess.run(run, cwd=zmuled.folder, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    zmuled.wait_for_acks(1004)
    eaten = {"ciuchino", "eat stuff", "1000", "/hay"}
    wait_until(lambda: eaten <= set(re.findall(r"mule \d got (.+)", zmuled.output())), "all output")
