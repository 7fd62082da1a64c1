"""The real command, from its words to its exit code. Nothing is started: `--check` ends before that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmule.cli.common import UsageError
from zmule.cli.zmuled import respell
from zmule.daemon.settings import SETTINGS
from zmule.version import VERSION

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from zmule.cli.zmuled import main; main()"]


class Shell:
    """A folder with the programs of the examples, and `zmuled` run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("feed.py", "wallow.py", "somaro.py"):
            (folder / name).touch()

    def run(self, *words: str | bytes, **environ: str) -> subprocess.CompletedProcess[str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("ZMULE_")}
        return subprocess.run(
            [*COMMAND, *words],
            cwd=self.folder,
            env=ours | {"PYTHONPATH": str(ROOT), "COLUMNS": "80", "TERM": "dumb"} | environ,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def check(self, *words: str, **environ: str) -> list[list[str]]:
        """Return the cells of what `--check` prints, for a good configuration."""
        done = self.run("--check", *words, **environ)
        assert (done.returncode, done.stderr) == (0, "")
        return [line.split() for line in done.stdout.splitlines()]

    def fail(self, code: int, *words: str | bytes, **environ: str) -> str:
        """Return the one line on standard error, without the name of the command."""
        done = self.run(*words, **environ)
        assert (done.returncode, done.stdout) == (code, "")
        name, _, text = done.stderr.removesuffix("\n").partition(": ")
        assert name == "zmuled"
        assert text.isprintable()
        return text


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_the_farms_example(shell: Shell) -> None:
    words = ["--mule=feed.py", "--mule=feed.py", "--mule=wallow.py", "--farm=busy:1,2", "--farm=idle:3"]
    lines = shell.check(*words)
    assert ["1", "feed.py", "busy", "each", "--mule"] in lines
    assert ["2", "feed.py", "busy", "each", "--mule"] in lines
    assert ["3", "wallow.py", "idle", "each", "--mule"] in lines
    assert ["busy", "1", "2", "each", "--farm"] in lines
    assert ["idle", "3", "each", "--farm"] in lines


def test_the_somaro_example(shell: Shell) -> None:
    lines = shell.check(
        "--mule", "--mule=somaro.py", "--mules", "2", "--mule=mypkg.myapp:run_mule", "--mules=1"
    )
    start = lines.index(["MULE", "PROGRAM", "FARMS", "ACK", "FROM"]) + 1
    programs = ["(signal-only)", "somaro.py", *["(signal-only)"] * 2, "mypkg.myapp:run_mule", "(signal-only)"]
    assert [line[1] for line in lines[start : start + 6]] == programs


def test_flag_over_environment_over_file(shell: Shell) -> None:
    (shell.folder / "z.toml").write_text("[limits]\nmax_message = 1\nqueue_bytes = 1\nmax_deliveries = 1\n")
    lines = shell.check(
        "--config=z.toml",
        "--max-message=3",
        ZMULE_MAX_MESSAGE="2",
        ZMULE_QUEUE_BYTES="2",
    )
    assert ["limits.max_message", "3", "--max-message"] in lines
    assert ["limits.queue_bytes", "2", "ZMULE_QUEUE_BYTES"] in lines
    assert ["limits.max_deliveries", "1", "z.toml:4"] in lines
    assert ["limits.max_dead", "100000", "default"] in lines


def test_every_flag_at_once(shell: Shell) -> None:
    words = [
        "--endpoint=ipc:///a/a.sock",
        "--endpoint",
        "tcp://*:5",
        "--publish",
        "ipc:///b/b",
        "--publish=tcp://*:7",
    ]
    words += [
        "--store",
        "memory:",
        "--insecure",
        "--app=my.tasks",
        "--log-level",
        "debug",
        "--log-format=json",
    ]
    words += ["--heartbeat=1", "--heartbeat-timeout", "2.5", "--mule-reload-mercy", "0", "--max-deliveries=1"]
    lines = shell.check(*words)
    for row in (
        "broker.endpoint ipc:///a/a.sock --endpoint",
        "broker.endpoint tcp://*:5 --endpoint",
        "broker.publish ipc:///b/b --publish",
        "broker.publish tcp://*:7 --publish",
        "broker.insecure true --insecure",
        "app.module my.tasks --app",
        "log.level debug --log-level",
        "log.format json --log-format",
        "broker.heartbeat_timeout 2.5 --heartbeat-timeout",
        "broker.mule_reload_mercy 0 --mule-reload-mercy",
        "limits.max_deliveries 1 --max-deliveries",
    ):
        assert row.split() in lines


FILE = """\
[broker]
publish = "ipc:///z.pub"   # of another endpoint

[[mule]]
  program = "a.b:c"
[[mule]]
[farms]
busy = [1, 2]
[[timer]]
signal = 1
seconds = 2
[[timer]]
signal = 2
seconds = 3
"""


def test_where_each_part_of_a_file_stands(shell: Shell) -> None:
    (shell.folder / "z.toml").write_text(FILE)
    lines = shell.check("--config=z.toml")
    assert ["broker.publish", "ipc:///z.pub", "z.toml:2"] in lines
    assert ["1", "a.b:c", "busy", "each", "z.toml:4"] in lines
    assert ["2", "(signal-only)", "busy", "each", "z.toml:6"] in lines
    assert ["busy", "1", "2", "each", "z.toml:8"] in lines
    assert ["2", "timer", "every", "3", "s", "z.toml:12"] in lines
    lines = shell.check("--config=z.toml", "--endpoint=ipc:///y.sock")
    assert ["broker.publish", "ipc:///y.pub", "default"] in lines


def test_the_shipped_file(shell: Shell) -> None:
    assert shell.check("--config", str(ROOT / "etc" / "zmule.toml")) == shell.check()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--mule", "somaro.py"],
            "unexpected 'somaro.py': a mule's program follows an equals sign, --mule=somaro.py",
        ),
        (["--mule", "a.b:c"], "unexpected 'a.b:c': a mule's program follows an equals sign, --mule=a.b:c"),
        (["serve"], "unexpected 'serve': zmuled takes options only, see zmuled --help"),
        (["--", "--mule"], "unexpected '--mule': zmuled takes options only, see zmuled --help"),
        (["--mule="], "--mule= names no program: write --mule=PROGRAM, or --mule for a signal-only mule"),
        (["--mules"], "--mules needs a number up to 10000, not ''"),
        (["--mules", "two"], "--mules needs a number up to 10000, not 'two'"),
        (["--mules=-1"], "--mules needs a number up to 10000, not '-1'"),
        (["--mules=10001"], "--mules needs a number up to 10000, not '10001'"),
        (["--mules=" + "9" * 5000], f"--mules needs a number up to 10000, not '{'9' * 79}…"),
        (["--mules=²"], "--mules needs a number up to 10000, not '²'"),
        ([b"a\xff\n"], "unexpected 'a\\udcff\\n': zmuled takes options only, see zmuled --help"),
    ],
)
def test_usage(shell: Shell, words: list[str], said: str) -> None:
    assert shell.fail(2, *words) == said


@pytest.mark.parametrize("words", [["--moule"], ["--endpoint"], ["--check=yes"], ["-x"]])
def test_what_typer_refuses(shell: Shell, words: list[str]) -> None:
    done = shell.run(*words)
    assert done.returncode == 2
    assert words[0].partition("=")[0] in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--mule=gone.py"], "--mule (mule 1): no such file: 'gone.py' (in "),
        (["--mule=gone"], "--mule (mule 1): 'gone' is not a path ending in .py, or package.module:callable"),
        (["--mule", "--farm=busy:1,2"], "--farm='busy': there is no mule 2: mules are numbered 1 to 1"),
        (["--farm", "busy"], "--farm: 'busy' is not a name and numbers: NAME:1,2"),
        (["--store="], "--store: '' is not a store: memory:"),
        (["--store=memory"], "--store: 'memory' is not a store: memory:"),
        (["--log-level=loud"], "--log-level: 'loud' is not debug or info or warning or error"),
        (["--max-message=-1"], "--max-message: '-1' is not a whole number from 1 to 1073741824"),
        (
            ["--endpoint=tcp://0.0.0.0:5"],
            "--endpoint: tcp://0.0.0.0:5 is open to other hosts: insecure = true",
        ),
        (["--endpoint=ipc:///" + "x" * 107], "--endpoint: ipc:///xxx"),
        (["--config=gone.toml"], "--config: gone.toml: cannot be read: No such file or directory"),
        (["--config="], "--config: '' is not the path of a file"),
        (["--config=bad.toml"], "bad.toml: is not TOML: "),
        (["--config=typo.toml"], "typo.toml: 'broker.stor' is no setting: did you mean broker.store?"),
    ],
)
@pytest.mark.parametrize("check", [["--check"], []], ids=["check", "run"])
def test_bad_configuration(shell: Shell, check: list[str], words: list[str], said: str) -> None:
    code = 2 if said.startswith("--") else 78
    (shell.folder / "bad.toml").write_text("[broker")
    (shell.folder / "typo.toml").write_text("[broker]\nstor = 'memory:'")
    assert shell.fail(code, *check, *words).startswith(said)


def test_bad_environment(shell: Shell) -> None:
    said = "environment: 'ZMULE_STOR' is no setting: did you mean ZMULE_STORE?"
    assert shell.fail(78, ZMULE_STOR="memory:") == said


def test_version(shell: Shell) -> None:
    assert shell.run("--version").stdout == f"zmuled {VERSION}\n"


@pytest.mark.parametrize("columns", ["80", "120"])
def test_help_has_every_flag_and_fits(shell: Shell, columns: str) -> None:
    done = shell.run("--help", COLUMNS=columns)
    assert done.returncode == 0
    for flag in [*(setting.flag for setting in SETTINGS), "--check", "--version", "--help"]:
        assert flag in done.stdout.replace("[", " ").split()
    assert not any(sign in done.stdout for sign in "<>{}")
    assert max(map(len, done.stdout.splitlines())) <= int(columns)


def test_a_name_that_the_terminal_cannot_show(shell: Shell) -> None:
    lines = shell.check("--mule", "--farm=größe:1", PYTHONIOENCODING="ascii")
    assert ["gr\\xf6\\xdfe", "1", "each", "--farm"] in lines


WORDS = st.lists(
    st.just(["--mule"])
    | st.sampled_from(["feed.py", "a.b:c"]).map(lambda program: [f"--mule={program}"])
    | st.integers(0, 3).map(lambda count: [f"--mules={count}"])
    | st.integers(0, 3).map(lambda count: ["--mules", str(count)])
    | st.sampled_from(["--check", "--store=memory:", "--farm=a:1"]).map(lambda word: [word])
)


@given(WORDS)
def test_respelling_keeps_the_order(groups: list[list[str]]) -> None:
    expected: list[str] = []
    for first, *value in groups:
        if first.startswith("--mules"):
            expected += ["--mule="] * int((value or [first.partition("=")[2]])[0])
        else:
            expected.append("--mule=" if first == "--mule" else first)
    assert list(respell([word for group in groups for word in group])) == expected


@given(st.lists(st.text(max_size=8) | st.sampled_from(["--mule", "--mules", "--mule=", "--", "--mules=2"])))
def test_respelling_any_words_fails_as_usage_or_ends(words: list[str]) -> None:
    try:
        list(respell(words))
    except UsageError as error:
        assert error.exit_code == 2  # noqa: PT017
