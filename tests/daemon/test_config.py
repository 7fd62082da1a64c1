from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zmule.daemon.config import MAX_MULES, Config, FarmSpec, MuleSpec, load
from zmule.daemon.main import told_to_mules
from zmule.daemon.raisers import CronSpec, FilemonSpec, TimerSpec, wishes
from zmule.daemon.settings import SETTINGS, Setting, refresh
from zmule.daemon.sources import HEADERS, MAX_FILE, read_file
from zmule.errors import ConfigError

ROOT = Path(__file__).parents[2]

Flags = dict[str, list[str]]
Write = Callable[[str], str]
USER, GROUP = str(os.geteuid()), str(os.getegid())

SAMPLES: dict[str, tuple[str, ...]] = {
    "app": ("one.tasks", "two.tasks", "three"),
    "mule_reload_mercy": ("1.5", "2", "0"),
    "mulefunc_serializer": ("pickle", "msgpack", "pickle"),
    "locks": ("1", "0", "10000"),
    "endpoint": ("ipc:///a/a.sock", "tcp://127.0.0.1:1", "tcp://[::1]:2"),
    "publish": ("ipc:///p/a.pub", "tcp://127.0.0.1:11", "tcp://[::1]:12"),
    "store": ("memory:", "sqlite:///a/b.db", "sqlite:c.db"),
    "insecure": ("true", "false", "true"),
    "trust_folders": ("true", "false", "true"),
    "socket_mode": ("660", "0666", "0o600"),
    "socket_group": (GROUP, f"0{GROUP}", f"00{GROUP}"),
    "socket_owner": (USER, f"0{USER}", f"00{USER}"),
    "heartbeat": ("1", "2", "0.5"),
    "heartbeat_timeout": ("11", "12", "13.5"),
    "max_message": ("1", "2", "3"),
    "queue_messages": ("1", "2", "3"),
    "queue_bytes": ("1", "2", "3"),
    "total_messages": ("1", "2", "3"),
    "total_bytes": ("1", "2", "3"),
    "queue_ttl": ("1", "2", "0"),
    "redelivery_pause": ("0", "2", "0.5"),
    "max_dead": ("1", "2", "3"),
    "max_connections": ("1", "2", "3"),
    "max_memory": ("1", "2", "3"),
    "max_deliveries": ("1", "2", "3"),
    "log_level": ("debug", "warning", "error"),
    "log_format": ("json", "text", "json"),
}
"""Three values of each setting that may come from anywhere: for the file, the environment and the flag."""

PLAIN = [setting for setting in SETTINGS if setting.name in SAMPLES]
FIELDS = {"endpoint": "endpoints", "mule_reload_mercy": "mercy"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("feed.py", "wallow.py"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.fixture
def write(folder: Path) -> Write:
    def write(text: str) -> str:
        (folder / "z.toml").write_text(text)
        return "z.toml"

    return write


@pytest.fixture
def as_nobody(folder: Path) -> Iterator[None]:
    """Have files that may not be read, as root too."""
    folder.chmod(0o755)
    for name in ("secret.toml", "secret.py"):
        (folder / name).touch(mode=0)
    if (user := os.geteuid()) == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


def complaint(flags: Flags, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(flags, environ or {})
    text = str(caught.value)
    assert caught.value.exit_code == (2 if text.startswith("--") else 78)
    assert text.isprintable(), "one line"
    return text


def in_toml(setting: Setting[Any], text: str) -> str:
    value = setting.kind.read(text, "sample")
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def test_every_setting_has_samples() -> None:
    assert {setting.name for setting in SETTINGS} - set(SAMPLES) == {
        "config",
        "mule",
        "mules",
        "farm",
        "ack",
        "set",
    }


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert load({}, {}) == Config(
        endpoints=("ipc:///run/zmule/zmule.sock",),
        publish=("ipc:///run/zmule/zmule.pub",),
        store="memory:",
        insecure=False,
        trust_folders=False,
        socket_mode="600",
        socket_group="",
        socket_owner="",
        app=(),
        placeholders="",
        mules=(),
        farms=(),
        timers=(),
        crons=(),
        filemons=(),
        mercy=60,
        mulefunc_serializer="msgpack",
        heartbeat=6,
        heartbeat_timeout=20,
        locks=0,
        max_message=1 << 20,
        queue_messages=2_000_000,
        queue_bytes=1 << 30,
        total_messages=5_000_000,
        total_bytes=2 << 30,
        queue_ttl=0,
        max_deliveries=5,
        redelivery_pause=1,
        max_dead=100_000,
        max_connections=0,
        max_memory=0,
        log_level="info",
        log_format="text",
    )


def test_a_service_keeps_its_messages_in_its_own_folder(write: Write) -> None:
    environ = {"STATE_DIRECTORY": "/var/lib/zmule:/var/lib/more"}
    assert load({}, environ).store == "sqlite:///var/lib/zmule/zmule.db"
    assert load({"config": [write("[broker]\nstore = 'memory:'")]}, environ).store == "memory:"
    assert load({}, {"STATE_DIRECTORY": "nowhere"}).store == "memory:"


def test_a_mule_and_a_farm_have_a_ttl_of_their_own(write: Write) -> None:
    text = "[[mule]]\nprogram='feed.py'\nttl = 0\n[[mule]]\n[farms]\na = {mules = [1], ttl = 2.5}\nb = [1]"
    config = load({"config": [write(text)]}, {})
    assert [mule.ttl for mule in config.mules] == [0, None]
    assert [farm.ttl for farm in config.farms] == [2.5, None]
    assert "mule 1): -1 is not a number of seconds" in complaint({"config": [write("[[mule]]\nttl = -1")]})
    text = "[farms]\na = {mules = [], ttl = 'x'}"
    assert "farm 'a': 'x' is not a number of seconds" in complaint({"config": [write(text)]})


@pytest.mark.parametrize("setting", PLAIN, ids=lambda setting: setting.name)
@pytest.mark.parametrize("given_in", [{0}, {1}, {2}, {0, 1}, {0, 2}, {1, 2}, {0, 1, 2}, set[int]()], ids=str)
def test_flag_over_environment_over_file_over_default(
    setting: Setting[Any], given_in: set[int], write: Write
) -> None:
    file, variable, flag = SAMPLES[setting.name]
    table, _, key = setting.key.partition(".")
    flags = {"config": [write(f"[{table}]\n{key} = {in_toml(setting, file)}\n" if 0 in given_in else "")]}
    environ = {setting.variable: variable} if 1 in given_in else {}
    if 2 in given_in:
        flags[setting.name] = [flag]
    config = load(flags, environ)
    expected = setting.kind.read(SAMPLES[setting.name][max(given_in)], "") if given_in else setting.default
    found = getattr(config, FIELDS.get(setting.name, setting.name))
    if setting.many:
        expected = (expected,) if expected else found
    assert found == expected


def test_the_environment_names_the_file(write: Write) -> None:
    assert load({}, {"ZMULE_CONFIG": write("[log]\nlevel = 'debug'")}).log_level == "debug"


def test_an_empty_variable_is_not_set() -> None:
    assert load({}, {"ZMULE_LOG_LEVEL": "", "ZMULE_CONFIG": ""}).log_level == "info"


def test_what_a_mule_finds_in_its_environment_is_no_error() -> None:
    environ = {
        "ZMULE_NUMBER": "1",
        "ZMULE_TOKEN": "x",
        "ZMULE_SUPERVISOR": "7",
        "ZMULE_ENDPOINT": "ipc:///a/b",
    }
    assert load({}, environ).endpoints == ("ipc:///a/b",)


CLUSTER = {
    "ZMULE_SERVICE_HOST": "10.3.0.7",
    "ZMULE_SERVICE_PORT": "5870",
    "ZMULE_SERVICE_PORT_MAIN": "5870",
    "ZMULE_PORT": "tcp://10.3.0.7:5870",
    "ZMULE_PORT_5870_TCP": "tcp://10.3.0.7:5870",
    "ZMULE_PORT_5870_TCP_PROTO": "tcp",
    "ZMULE_PORT_5870_TCP_PORT": "5870",
    "ZMULE_PORT_5870_TCP_ADDR": "10.3.0.7",
    "ZMULE_PORT_5870_UDP": "udp://[fd00::7]:5870",
    "ZMULE_BROKER_SERVICE_HOST": "fd00::7",
    "ZMULE_BROKER_PORT": "tcp://[fd00::7]:5870",
}


def test_what_a_cluster_sets_for_a_service_of_that_name_is_no_setting() -> None:
    assert load({}, CLUSTER) == load({}, {})


def test_what_clients_read_is_no_error() -> None:
    assert load({}, {"ZMULE_BROKER_USER": "alice"}) == load({}, {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ZMULE_PORT", "5870"),
        ("ZMULE_PORT", ""),
        ("ZMULE_SERVICE_HOST", "a host"),
        ("ZMULE_SERVICE", "10.3.0.7"),
        ("ZMULE_PORT_5870", "tcp://10.3.0.7:5870"),
        ("ZMULE_PORT_5870_TCP_HOST", "10.3.0.7"),
        ("ZMULE_ENDPOINTS", "tcp://10.3.0.7:5870"),
    ],
)
def test_what_only_looks_like_a_clusters_is_refused(name: str, value: str) -> None:
    assert complaint({}, {name: value}).startswith(f"environment: '{name}' is no setting")


@pytest.mark.parametrize(
    ("text", "flags", "said"),
    [
        ("[log]\nlevel = 'loud'", {"log_level": ["info"]}, "z.toml: log.level: 'loud' is not"),
        ("[limits]\nmax_message = 0", {"max_message": ["5"]}, "z.toml: limits.max_message: 0 is not"),
        ("[broker]\nendpoint = 'x'", {"endpoint": ["ipc:///a"]}, "z.toml: broker.endpoint: 'x' is not"),
        ("[broker]\npublish = 'x'", {"publish": ["ipc:///a.pub"]}, "z.toml: broker.publish: 'x' is not"),
        ("[[mule]]\nprogram = 'x'", {"mule": [""]}, "z.toml: [[mule]] (mule 1): 'x' is not a path"),
        ("[[mule]]\nack = 'late'", {"mule": [""]}, "z.toml: [[mule]] (mule 1): 'late' is not each or early"),
        ("[farms]\nx = [1]", {"mule": [""]}, "z.toml: farm 'x': there is no mule 1"),
        ("[farms]\nx = [7]", {"farm": ["y:"]}, "z.toml: farm 'x': there is no mule 7"),
    ],
)
def test_what_something_stronger_overrides_is_right_all_the_same(
    write: Write, text: str, flags: Flags, said: str
) -> None:
    assert complaint(flags | {"config": [write(text)]}).startswith(said)


def test_a_variable_that_a_flag_overrides_is_right_all_the_same() -> None:
    said = "ZMULE_LOCKS: 'many' is not a whole number from 0 to 10000"
    assert complaint({"locks": ["1"]}, {"ZMULE_LOCKS": "many"}) == said


class TestFile:
    def test_not_there(self, folder: Path) -> None:
        assert (
            complaint({"config": ["nothing.toml"]})
            == "--config: nothing.toml: cannot be read: No such file or directory"
        )

    def test_a_folder(self, folder: Path) -> None:
        assert complaint({"config": ["."]}) == "--config: .: cannot be read: Is a directory"

    def test_not_ours_to_read(self, folder: Path, as_nobody: None) -> None:
        assert (
            complaint({"config": ["secret.toml"]})
            == "--config: secret.toml: cannot be read: Permission denied"
        )

    def test_endless(self) -> None:
        assert complaint({"config": ["/dev/zero"]}) == f"/dev/zero: is longer than {MAX_FILE} bytes"

    def test_not_utf8(self, folder: Path) -> None:
        (folder / "z.toml").write_bytes(b"[log]\nlevel = '\xff'")
        assert complaint({"config": ["z.toml"]}) == "z.toml: is not UTF-8 (at line 2)"

    @pytest.mark.parametrize(
        ("text", "place"),
        [
            ("[log]\nlevel = = 1", "line 2"),
            ("[log", "end of document"),
            ("[log]\n[log]\n", "line 2"),
            ("a = '\x01'", "line 1"),
        ],
    )
    def test_not_toml(self, write: Write, text: str, place: str) -> None:
        text = complaint({"config": [write(text)]})
        assert text.startswith("z.toml: is not TOML: ")
        assert place in text

    @pytest.mark.parametrize("text", ["a = " + "[" * 50_000, "a = " + "9" * 5_000])
    def test_too_much_for_the_parser(self, write: Write, text: str) -> None:
        assert complaint({"config": [write(text)]}).startswith("z.toml: is not TOML: ")

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("[broker]\nstor = 'memory:'", "'broker.stor' is no setting: did you mean broker.store?"),
            (
                "[broker]\nmax_message = 1",
                "'broker.max_message' is no setting: did you mean limits.max_message?",
            ),
            ("[broker]\nlog_level = 1", "'broker.log_level' is no setting: did you mean log.level?"),
            ("[app]\nxyz = 1", "'app.xyz' is no setting"),
            ("[brokr]\nstore = 'memory:'", "'brokr' is no setting: did you mean [broker]?"),
            ("store = 'memory:'", "'store' is no setting: did you mean broker.store?"),
            ("[[mules]]\nprogram = 'feed.py'", "'mules' is no setting: did you mean [[mule]]?"),
            ("[farm]\nbusy = [1]", "'farm' is no setting: did you mean [farms]?"),
            ("[[timers]]\nsignal = 1", "'timers' is no setting: did you mean [[timer]]?"),
            ("[[crons]]\nsignal = 1", "'crons' is no setting: did you mean [[cron]]?"),
            ("[[filemonitor]]\nsignal = 1", "'filemonitor' is no setting: did you mean [[filemon]]?"),
            (
                "[mulefunc]\nserialiser = 1",
                "'mulefunc.serialiser' is no setting: did you mean mulefunc.serializer?",
            ),
            (
                "[[timer]]\nsignal = 1\nsecs = 5",
                "[[timer]] (timer 1): 'secs' is no setting: did you mean seconds?",
            ),
            (
                "[[cron]]\nsignal = 1\nwen = ''",
                "[[cron]] (cron 1): 'wen' is no setting: did you mean when?",
            ),
            (
                "[[filemon]]\nsignal = 1\npaths = ''",
                "[[filemon]] (filemon 1): 'paths' is no setting: did you mean path?",
            ),
            ("'a\\nb' = 1", "'a\\\\nb' is no setting"),
            (
                "[[mule]]\nprogam = 'feed.py'",
                "[[mule]] (mule 1): 'progam' is no setting: did you mean program?",
            ),
            ("[farms]\nx = {mule = []}", "farm 'x': 'mule' is no setting: did you mean mules?"),
        ],
    )
    def test_unknown_key(self, write: Write, text: str, said: str) -> None:
        assert complaint({"config": [write(text)]}) == f"z.toml: {said}"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("broker = 1", "broker is not a table: write [broker] on a line above its keys"),
            ("farms = [1]", "farms is not a table: write [farms] on a line above its keys"),
            ("[mule]\nprogram = 'feed.py'", "[[mule]]: write [[mule]] on a line of its own"),
            ("mule = [1]", "[[mule]]: write [[mule]] on a line of its own"),
            ("[[mule]]\nprogram = 1", "[[mule]] (mule 1): 1 is not a path ending in .py"),
            ("[[mule]]\nprogram = ''", "[[mule]] (mule 1): '' is not a path ending in .py"),
            ("[[mule]]\nack = 'late'", "[[mule]] (mule 1): 'late' is not each or early"),
            ("[[mule]]\nack = []", "[[mule]] (mule 1): [] is not each or early"),
            ("[broker]\nstore = 1", "broker.store: 1 is not a store: memory:"),
            ("[broker]\nstore = 'redis:'", "broker.store: 'redis:' is not a store: memory:"),
            ("[broker]\nstore = 'sqlite:'", "broker.store: 'sqlite:' is not a store: memory: or sqlite:"),
            (
                "[broker]\nstore = 'sqlite://a/b.db'",
                "broker.store: 'sqlite://a/b.db' is not a store: memory:",
            ),
            ("[broker]\ninsecure = 'yes'", "broker.insecure: 'yes' is not true or false"),
            ("[broker]\ninsecure = 1", "broker.insecure: 1 is not true or false"),
            ("[broker]\nendpoint = 1", "broker.endpoint: 1 is not an endpoint"),
            ("[broker]\nendpoint = [1]", "broker.endpoint: 1 is not an endpoint"),
            ("[broker]\nendpoint = []", "broker.endpoint: the list is empty"),
            ("[broker]\nstore = ['memory:']", "broker.store: ['memory:'] is not a store"),
            ("[broker]\nheartbeat = -1", "broker.heartbeat: -1 is not a number of seconds from 0.001 to"),
            ("[broker]\nheartbeat = 0", "broker.heartbeat: 0 is not a number of seconds"),
            ("[broker]\nheartbeat = nan", "broker.heartbeat: nan is not a number of seconds"),
            ("[broker]\nheartbeat = true", "broker.heartbeat: True is not a number of seconds"),
            ("[broker]\nmule_reload_mercy = inf", "broker.mule_reload_mercy: inf is not a number of seconds"),
            ("[limits]\nmax_message = 0", "limits.max_message: 0 is not a whole number from 1 to"),
            ("[limits]\nmax_message = -5", "limits.max_message: -5 is not a whole number"),
            ("[limits]\nmax_message = 1.5", "limits.max_message: 1.5 is not a whole number"),
            ("[limits]\nmax_message = true", "limits.max_message: True is not a whole number"),
            ("[limits]\nmax_message = '1'", "limits.max_message: '1' is not a whole number"),
            (
                "[limits]\nmax_message = 1979-05-27",
                "limits.max_message: datetime.date(1979, 5, 27) is not a whole",
            ),
            (
                f"[limits]\nmax_message = 0x{'f' * 9000}",
                "limits.max_message: a number that long is not a whole",
            ),
            ("[log]\nlevel = 'loud'", "log.level: 'loud' is not debug or info or warning or error"),
            (f"[log]\nformat = '{'x' * 500}'", f"log.format: '{'x' * 79}… is not text or json"),
            ("[app]\nmodule = 'my-project'", "app.module: 'my-project' is not the name of a module"),
            ("[app]\nmodule = 'a..b'", "app.module: 'a..b' is not the name of a module"),
            ("[app]\nmodule = 'a.class'", "app.module: 'a.class' is not the name of a module"),
            ("[app]\nmodule = ''", "app.module: '' is not the name of a module"),
            ("[broker]\nlocks = -1", "broker.locks: -1 is not a whole number from 0 to 10000"),
            ("[mulefunc]\nserializer = 'json'", "mulefunc.serializer: 'json' is not msgpack or pickle"),
            ("[timer]\nsignal = 1", "[[timer]]: write [[timer]] on a line of its own"),
            ("cron = 1", "[[cron]]: write [[cron]] on a line of its own"),
            ("filemon = [1]", "[[filemon]]: write [[filemon]] on a line of its own"),
            ("[[timer]]", "[[timer]] (timer 1): give seconds, or ms, and not both"),
            ("[[timer]]\nseconds = 1\nms = 1", "[[timer]] (timer 1): give seconds, or ms, and not both"),
            (
                "[[timer]]\nseconds = 1",
                "[[timer]] (timer 1): signal is missing: a whole number from 0 to 255",
            ),
            (
                "[[timer]]\nseconds = 1\nsignal = 256",
                "[[timer]] (timer 1): signal: 256 is not a whole number",
            ),
            ("[[timer]]\nseconds = 1\nsignal = -1", "[[timer]] (timer 1): signal: -1 is not a whole number"),
            ("[[timer]]\nseconds = 1\nsignal = true", "[[timer]] (timer 1): signal: True is not a whole"),
            ("[[timer]]\nseconds = 0\nsignal = 1", "[[timer]] (timer 1): seconds: 0 is not a number of"),
            ("[[timer]]\nseconds = -1\nsignal = 1", "[[timer]] (timer 1): seconds: -1 is not a number of"),
            ("[[timer]]\nseconds = nan\nsignal = 1", "[[timer]] (timer 1): seconds: nan is not a number of"),
            ("[[timer]]\nseconds = 2e9\nsignal = 1", "[[timer]] (timer 1): seconds: 2000000000.0 is not a"),
            ("[[timer]]\nseconds = '5'\nsignal = 1", "[[timer]] (timer 1): seconds: '5' is not a number of"),
            ("[[timer]]\nms = 0.5\nsignal = 1", "[[timer]] (timer 1): ms: 0.5 is not a whole number of"),
            ("[[timer]]\nms = 0\nsignal = 1", "[[timer]] (timer 1): ms: 0 is not a whole number of"),
            (
                "[[timer]]\nms = 1\nsignal = 1\niterations = 0",
                "[[timer]] (timer 1): iterations: 0 is not a whole number from 1 to",
            ),
            ("[[cron]]\nsignal = 1", "[[cron]] (cron 1): when is missing: a text"),
            ("[[cron]]\nsignal = 1\nwhen = 5", "[[cron]] (cron 1): when: 5 is not a text"),
            (
                "[[cron]]\nsignal = 1\nwhen = '61 * * * *'",
                "[[cron]] (cron 1): cron string '61 * * * *': bad minute",
            ),
            (
                "[[cron]]\nsignal = 1\nwhen = '* * * *'",
                "[[cron]] (cron 1): cron string '* * * *': write minute",
            ),
            (
                "[[cron]]\nsignal = 1\nwhen = '* * * * *'\nzone = 'Rome'",
                "[[cron]] (cron 1): no time zone 'Rome': write an IANA name",
            ),
            (
                "[[cron]]\nsignal = 1\nwhen = '* * * * *'\nzone = 1",
                "[[cron]] (cron 1): zone: 1 is not a text",
            ),
            ("[[cron]]\nsignal = 300\nwhen = '* * * * *'", "[[cron]] (cron 1): signal: 300 is not a whole"),
            ("[[filemon]]\nsignal = 1", "[[filemon]] (filemon 1): path is missing: an absolute path"),
            (
                "[[filemon]]\nsignal = 1\npath = 'a'",
                "[[filemon]] (filemon 1): path: 'a' is not an absolute path",
            ),
            (
                "[[filemon]]\nsignal = 1\npath = ''",
                "[[filemon]] (filemon 1): path: '' is not an absolute path",
            ),
            (
                f"[[filemon]]\nsignal = 1\npath = '/{'a' * 4095}'",
                f"[[filemon]] (filemon 1): path: '/{'a' * 78}… is not an absolute path of at most 4095",
            ),
            ("[farms]\nx = 1", "farm 'x': 1 is not a list of mule numbers"),
            ("[farms]\nx = {mules = 'a'}", "farm 'x': 'a' is not a list of mule numbers"),
            ("[farms]\nx = {ack = 1}", "farm 'x': 1 is not each or early"),
            ("[farms]\nx = ['1']", "farm 'x': there is no mule '1': mules are not configured at all"),
            ("[[mule]]\n[farms]\nx = [true]", "farm 'x': there is no mule True: mules are numbered 1 to 1"),
            ("[[mule]]\n[farms]\nx = [2]", "farm 'x': there is no mule 2: mules are numbered 1 to 1"),
            ("[[mule]]\n[farms]\nx = [0]", "farm 'x': there is no mule 0: mules are numbered 1 to 1"),
        ],
    )
    def test_wrong_value(self, write: Write, text: str, said: str) -> None:
        assert complaint({"config": [write(text)]}).startswith(f"z.toml: {said}")


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"ZMULE_STOR": "memory:"}, "environment: 'ZMULE_STOR' is no setting: did you mean ZMULE_STORE?"),
        ({"ZMULE_XYZZY": ""}, "environment: 'ZMULE_XYZZY' is no setting"),
        ({"ZMULE_FARM": "a:1"}, "environment: 'ZMULE_FARM' is no setting"),
        ({"ZMULE_MAX_MESSAGE": "big"}, "ZMULE_MAX_MESSAGE: 'big' is not a whole number from 1 to 1073741824"),
        ({"ZMULE_MAX_MESSAGE": "9" * 5000}, f"ZMULE_MAX_MESSAGE: '{'9' * 79}… is not a whole number"),
        ({"ZMULE_HEARTBEAT": "1e999"}, "ZMULE_HEARTBEAT: '1e999' is not a number of seconds"),
        ({"ZMULE_INSECURE": "perhaps"}, "ZMULE_INSECURE: 'perhaps' is not true or false"),
        ({"ZMULE_APP": "a\nb"}, "ZMULE_APP: 'a\\nb' is not the name of a module"),
        ({"ZMULE_CONFIG": "a\udcffb"}, "ZMULE_CONFIG: 'a\\udcffb' is not the path of a file"),
    ],
)
def test_wrong_environment(environ: dict[str, str], said: str) -> None:
    assert complaint({}, environ).startswith(said)


def test_a_variable_is_one_endpoint_whatever_is_in_it() -> None:
    assert load({}, {"ZMULE_ENDPOINT": "ipc:///a, b/c.sock"}).endpoints == ("ipc:///a, b/c.sock",)


class TestEndpoints:
    def test_several(self, write: Write) -> None:
        file = write('[broker]\nendpoint = ["ipc:///a/z.sock", "tcp://127.0.0.1:5"]\n')
        config = load({"config": [file]}, {})
        assert config.endpoints == ("ipc:///a/z.sock", "tcp://127.0.0.1:5")
        assert config.publish == ("ipc:///a/z.pub", "tcp://127.0.0.1:6")

    def test_publish_of_a_weaker_place_goes_with_its_endpoint(self, write: Write) -> None:
        file = write('[broker]\nendpoint = "ipc:///a/z.sock"\npublish = "ipc:///b/other"\n')
        assert load({"config": [file]}, {}).publish == ("ipc:///b/other",)
        assert load({"config": [file], "endpoint": ["ipc:///c/y.sock"]}, {}).publish == ("ipc:///c/y.pub",)
        assert load({"config": [file], "publish": ["ipc:///c/y"]}, {}).publish == ("ipc:///c/y",)

    def test_publish_one_for_each(self) -> None:
        flags = {"endpoint": ["ipc:///a", "ipc:///b"], "publish": ["ipc:///c"]}
        assert complaint(flags) == "--publish: 1 for 2 endpoints: give one for each"

    @pytest.mark.parametrize(
        "flags",
        [
            {"endpoint": ["ipc:///a", "ipc:///a"], "publish": ["ipc:///b", "ipc:///c"]},
            {"endpoint": ["ipc:///a"], "publish": ["ipc:///a"]},
            {"endpoint": ["tcp://127.0.0.1:5", "tcp://127.0.0.1:6"]},
        ],
    )
    def test_none_twice(self, flags: Flags) -> None:
        assert "is used twice" in complaint(flags)

    def test_open_ports_may_be_repeated(self) -> None:
        assert load({"endpoint": ["tcp://127.0.0.1:*"]}, {}).publish == ("tcp://127.0.0.1:*",)

    def test_beyond_loopback(self) -> None:
        flags = {"endpoint": ["tcp://*:5"]}
        assert (
            complaint(flags)
            == "--endpoint: tcp://*:5 is open to other hosts: insecure = true (--insecure) allows that"
        )
        assert load(flags | {"insecure": ["true"]}, {}).publish == ("tcp://*:6",)

    def test_publish_beyond_loopback(self) -> None:
        flags = {"endpoint": ["ipc:///a"], "publish": ["tcp://10.0.0.1:5"]}
        assert complaint(flags).startswith("--publish: tcp://10.0.0.1:5 is open to other hosts")

    def test_path_too_long(self) -> None:
        assert "108 bytes: at most 107" in complaint({"endpoint": ["ipc:///" + "x" * 107]})

    def test_derived_path_too_long(self) -> None:
        assert "has a path of 110 bytes" in complaint({"endpoint": ["ipc:///" + "x" * 105]})

    def test_misspelled_in_the_file(self, write: Write) -> None:
        file = write("[broker]\npublish = 'ipc://x'")
        assert complaint({"config": [file]}).startswith(
            "z.toml: broker.publish: ipc://x is not an absolute path"
        )


class TestRaisers:
    def test_from_the_file(self, write: Write) -> None:
        file = write("""
            [[timer]]
            signal = 0
            seconds = 2
            [[timer]]
            signal = 255
            ms = 1500
            iterations = 3
            [[cron]]
            signal = 1
            when = "*/5 8-18 * * mon-fri"
            zone = "Europe/Rome"
            [[cron]]
            signal = 2
            when = "30 4 * * *"
            [[filemon]]
            signal = 3
            path = "/not/there yet"
        """)
        config = load({"config": [file]}, {})
        assert config.timers == (TimerSpec(0, 2.0, 0), TimerSpec(255, 1.5, 3))
        assert config.crons == (
            CronSpec(1, "*/5 8-18 * * mon-fri", "Europe/Rome"),
            CronSpec(2, "30 4 * * *", ""),
        )
        assert config.filemons == (FilemonSpec(3, "/not/there yet"),)
        assert list(wishes(config.timers, config.crons, config.filemons)) == [
            ("add_timer", (0, 2.0)),
            ("add_rb_timer", (255, 1.5, 3)),
            ("add_cron_text", (1, "*/5 8-18 * * mon-fri", "Europe/Rome")),
            ("add_cron_text", (2, "30 4 * * *", "")),
            ("add_file_monitor", (3, "/not/there yet")),
        ]

    def test_too_many(self, write: Write) -> None:
        table = "[[timer]]\nsignal = 1\nms = 1\n"
        assert (
            complaint({"config": [write(table * 5001)]})
            == "z.toml: [[timer]]: 5001 are too many: at most 5000"
        )


class TestMulefunc:
    def test_pickle_only_where_nobody_else_comes_in(self, write: Write) -> None:
        flags = {"endpoint": ["tcp://0.0.0.0:5"], "insecure": ["true"]}
        file = {"config": [write("[mulefunc]\nserializer = 'pickle'")]}
        said = "pickle is for this host only, since it runs any code that is sent: "
        said += "tcp://0.0.0.0:5 is open to others"
        assert complaint(flags | {"mulefunc_serializer": ["pickle"]}) == f"--mulefunc-serializer: {said}"
        assert complaint(flags | file) == f"z.toml: mulefunc.serializer: {said}"
        assert (
            complaint(flags, {"ZMULE_MULEFUNC_SERIALIZER": "pickle"}) == f"ZMULE_MULEFUNC_SERIALIZER: {said}"
        )
        assert load(flags, {}).mulefunc_serializer == "msgpack"

    def test_publish_counts_too(self) -> None:
        flags = {"endpoint": ["ipc:///a"], "publish": ["tcp://10.0.0.1:5"], "insecure": ["true"]}
        assert "tcp://10.0.0.1:5 is open to others" in complaint(flags | {"mulefunc_serializer": ["pickle"]})

    @pytest.mark.parametrize("word", ["pickle", "msgpack"])
    def test_mules_are_told(self, word: str) -> None:
        told = told_to_mules(load({"mulefunc_serializer": [word]}, {}), "tcp://0.0.0.0:5")
        assert told == {
            "ZMULE_ENDPOINT": "tcp://127.0.0.1:5",
            "ZMULE_MULEFUNC_SERIALIZER": word,
            "ZMULE_TRUST_FOLDERS": "",
            "ZMULE_OPT": "",
        }
        assert load({}, told).mulefunc_serializer == word


def test_silence_must_be_longer_than_the_heartbeat() -> None:
    assert complaint({"heartbeat": ["20"]}) == (
        "--heartbeat: heartbeat_timeout is 20 s and must be longer than the heartbeat of 20 s (default)"
    )


class TestMulesAndFarms:
    FILE = """
        [[mule]]
        program = "feed.py"
        ack = "early"
        [[mule]]
        [farms]
        b = [2, 1]
        a = { mules = [1], ack = "early" }
    """

    def test_from_the_file(self, write: Write) -> None:
        config = load({"config": [write(self.FILE)]}, {})
        assert config.mules == (MuleSpec(1, "feed.py", "early"), MuleSpec(2, None, "each"))
        assert config.farms == (FarmSpec("b", (2, 1), "each"), FarmSpec("a", (1,), "early"))

    def test_flags_for_mules_replace_mules_and_farms(self, write: Write) -> None:
        config = load({"config": [write(self.FILE)], "mule": ["", "a.b:c"]}, {})
        assert config.mules == (MuleSpec(1, None, "each"), MuleSpec(2, "a.b:c", "each"))
        assert config.farms == ()

    def test_flags_for_farms_replace_farms(self, write: Write) -> None:
        config = load({"config": [write(self.FILE)], "farm": ["c:1", "empty:"]}, {})
        assert len(config.mules) == 2
        assert config.farms == (FarmSpec("c", (1,), "each"), FarmSpec("empty", (), "each"))

    @pytest.mark.parametrize("members", ["1,1", "1,2,1"])
    def test_a_member_twice(self, write: Write, members: str) -> None:
        assert complaint({"mule": ["", ""], "farm": [f"a:{members}"]}) == "--farm='a': mule 1 is named twice"
        text = complaint({"config": [write(f"[[mule]]\n[[mule]]\n[farms]\na = [{members}]")]})
        assert text == "z.toml: farm 'a': mule 1 is named twice"

    def test_programs_of_replaced_mules_need_not_be_there(self, write: Write) -> None:
        file = write("[[mule]]\nprogram = 'gone.py'")
        assert load({"config": [file], "mule": ["feed.py"]}, {}).mules == (MuleSpec(1, "feed.py", "each"),)
        assert complaint({"config": [file]}).startswith(
            "z.toml: [[mule]] (mule 1): no such file: 'gone.py' (in /"
        )

    @pytest.mark.parametrize("program", ["feed.py", "./feed.py", "m:f", "a.b_1.c:run", "größe:f"])
    def test_programs(self, folder: Path, program: str) -> None:
        assert load({"mule": [program]}, {}).mules[0].program == program

    @pytest.mark.parametrize(
        ("program", "said"),
        [
            ("gone.py", "no such file: 'gone.py' (in /"),
            ("dir.py", "no such file: 'dir.py' (in /"),
            ("x" * 300 + ".py", "cannot be read: File name too long"),
            ("feed", "'feed' is not a path ending in .py, or package.module:callable"),
            ("1", "'1' is not a path"),
            ("feed.txt", "'feed.txt' is not a path"),
            ("pkg.mod:", "'pkg.mod:' is not a path"),
            (":run", "':run' is not a path"),
            ("pkg/mod:run", "'pkg/mod:run' is not a path"),
            ("pkg.mod:a.b", "'pkg.mod:a.b' is not a path"),
            ("pkg.mod:a:b", "'pkg.mod:a:b' is not a path"),
            ("pkg.mod:run()", "'pkg.mod:run()' is not a path"),
            ("pkg..mod:run", "'pkg..mod:run' is not a path"),
            ("class.x:run", "'class.x:run' is not a path"),
            (" ", "' ' is not a path"),
            ("a\nb.py", "'a\\nb.py' is not a path"),
            ("a\udcff.py", "'a\\udcff.py' is not a path"),
        ],
    )
    def test_no_programs(self, folder: Path, program: str, said: str) -> None:
        (folder / "dir.py").mkdir()
        text = complaint({"mule": ["feed.py", program]})
        assert text.startswith("--mule (mule 2): ")
        assert said in text

    def test_a_program_that_is_not_ours_to_read(self, as_nobody: None) -> None:
        assert (
            complaint({"mule": ["secret.py"]})
            == "--mule (mule 1): 'secret.py' cannot be read: Permission denied"
        )

    @pytest.mark.parametrize("name", ["busy", "größe", "a.b", "9lives", "x" * 100])
    def test_farm_names(self, name: str) -> None:
        assert load({"mule": [""], "farm": [f"{name}:1"]}, {}).farms == (FarmSpec(name, (1,), "each"),)

    @pytest.mark.parametrize(
        ("farm", "said"),
        [
            ("busy", "--farm: 'busy' is not a name and numbers: NAME:1,2"),
            ("", "--farm: '' is not a name and numbers: NAME:1,2"),
            (":1", "--farm='': a farm needs a name"),
            ("any:1", "--farm='any': a farm's name is neither a number nor 'any'"),
            ("12:1", "--farm='12': a farm's name is neither a number nor 'any'"),
            ("a b:1", "--farm='a b': a farm's name has no white space"),
            ("a,b:1", "--farm='a,b': a farm's name has no white space"),
            ("a\tb:1", "--farm='a\\tb': a farm's name has no white space"),
            ("a\udcff:1", "--farm='a\\udcff': a farm's name has no white space"),
            ("x" * 101 + ":1", f"--farm='{'x' * 79}…: a farm's name has at most 100 characters"),
            ("a:2", "--farm='a': there is no mule 2: mules are numbered 1 to 1"),
            ("a:0", "--farm='a': there is no mule 0: mules are numbered 1 to 1"),
            ("a:-1", "--farm='a': there is no mule '-1'"),
            ("a:b", "--farm='a': there is no mule 'b'"),
            ("a:1,", "--farm='a': there is no mule ''"),
            ("a:١", "--farm='a': there is no mule '١'"),
            ("a:" + "9" * 5000, f"--farm='a': there is no mule '{'9' * 79}…"),
        ],
    )
    def test_no_farms(self, farm: str, said: str) -> None:
        assert complaint({"mule": [""], "farm": [farm]}).startswith(said)

    def test_farm_name_in_the_file(self, write: Write) -> None:
        assert complaint({"config": [write("[farms]\n'a:b' = []")]}).startswith(
            "z.toml: farm 'a:b': a farm's name has"
        )

    def test_farm_twice(self) -> None:
        assert complaint({"farm": ["a:", "a:"]}) == "--farm: farm 'a' is given twice"

    def test_farm_without_any_mule(self) -> None:
        assert (
            complaint({"farm": ["a:1"]}) == "--farm='a': there is no mule 1: mules are not configured at all"
        )

    def test_too_many(self) -> None:
        assert (
            complaint({"mule": [""] * (MAX_MULES + 1)})
            == "--mule: 10001 mules: at most 10000 can be configured"
        )


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    sorted(
        {word for setting in SETTINGS for word in setting.key.split(".")}
        | {"ack", "mules", "signal", "seconds", "ms", "when", "path"}
        | set(HEADERS)
    )
)
TABLES = st.dictionaries(
    KEYS | st.text(max_size=5), VALUES | st.dictionaries(KEYS, VALUES, max_size=4), max_size=4
)
TEXTS = st.lists(st.text(max_size=12), min_size=1, max_size=3)


def toml(value: object) -> str:
    """Return any value as inline TOML, with what TOML has not as something else that is wrong."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        escaped = "".join(f"\\U{ord(char):08x}" for char in value if not "\ud800" <= char <= "\udfff")
        return f'"{escaped}"'
    return str(value).lower() if value is not None else "0"


def outcome(flags: Flags) -> str:
    """Return the complaint about a configuration, or nothing if it is good; any other error is a bug."""
    try:
        load(flags, {})
    except ConfigError as error:
        return str(error)
    return ""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables=TABLES)
def test_any_file_gives_a_configuration_or_one_line(write: Write, tables: dict[str, Any]) -> None:
    text = outcome(
        {"config": [write("".join(f"{toml(key)} = {toml(value)}\n" for key, value in tables.items()))]}
    )
    assert text.isprintable()
    assert text.startswith("z.toml: ") or not text


@given(
    st.dictionaries(
        st.sampled_from([setting.name for setting in SETTINGS if setting.name != "config"]), TEXTS
    )
)
def test_any_flags_give_a_configuration_or_one_line(flags: Flags) -> None:
    assert outcome(flags).isprintable()


def declared(setting: Setting[Any], tables: dict[str, Any]) -> Any:
    table, _, key = setting.key.partition(".")
    return tables[table][key]


class TestShippedFile:
    """etc/zmule.toml, as it stands and with every `#key = value` uncommented."""

    PATH = ROOT / "etc" / "zmule.toml"

    @pytest.mark.parametrize("user", [0, 1000])
    def test_as_it_stands_it_changes_nothing(self, monkeypatch: pytest.MonkeyPatch, user: int) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: user)
        assert load({"config": [str(self.PATH)]}, {}) == load({}, {})

    @pytest.fixture
    def uncommented(self, write: Write) -> str:
        return write(re.sub(r"^#(?=[a-z\[])", "", self.PATH.read_text(), flags=re.MULTILINE))

    def test_it_has_every_key_with_its_default(self, uncommented: str) -> None:
        tables = read_file(uncommented)
        for setting in PLAIN:
            value = declared(setting, tables)
            assert setting.kind.accept(value, setting.key) == value
            assert value == setting.default or setting.name in ("app", "endpoint", "publish", "store")

    def test_its_examples_load(self, uncommented: str) -> None:
        config = load({"config": [uncommented]}, {})
        assert [mule.program for mule in config.mules] == ["feed.py", "mypkg.myapp:run_mule", None]
        assert [farm.ack for farm in config.farms] == ["each", "early"]
        assert len(config.timers) == len(config.crons) == len(config.filemons) == 1


class TestDocumentation:
    PATH = ROOT / "docs" / "configuration.rst"

    def test_the_list_of_settings_is_current(self) -> None:
        page = self.PATH.read_text()
        assert refresh(page) == page, "write zmule.daemon.settings.refresh(page) back to the page"

    def test_every_setting_is_in_it(self) -> None:
        page = self.PATH.read_text()
        for setting in SETTINGS:
            for name in filter(None, (setting.flag, setting.variable, setting.key)):
                assert f"``{name}" in page
