from __future__ import annotations

import os
import subprocess
import sys
import warnings

import platformdirs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmule.endpoints import MAX_IPC_PATH, check_endpoint, default_endpoint, default_publish, is_local
from zmule.errors import ConfigError

PATHS = st.from_regex(r"(/[a-z.]{1,12}){1,6}", fullmatch=True)
PORTS = st.integers(1, 65534).map(str) | st.just("*")


def as_user(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: number)


def test_the_environment_names_the_endpoint() -> None:
    assert default_endpoint({"ZMULE_ENDPOINT": "tcp://127.0.0.1:7"}) == "tcp://127.0.0.1:7"


@pytest.mark.parametrize("environ", [{}, {"ZMULE_ENDPOINT": ""}])
def test_root_has_the_system_folder(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
    as_user(monkeypatch, 0)
    assert default_endpoint(environ) == "ipc:///run/zmule/zmule.sock"


def test_others_have_their_own_folder_and_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def folder(name: str) -> str:
        warnings.warn("XDG_RUNTIME_DIR is not set", stacklevel=1)
        return f"/run/user/1000/{name}"

    as_user(monkeypatch, 1000)
    monkeypatch.setattr(platformdirs, "user_runtime_dir", folder)
    assert default_endpoint({}) == "ipc:///run/user/1000/zmule/zmule.sock"


def test_a_runtime_folder_of_somebody_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def folder(name: str) -> str:
        raise PermissionError(f"/tmp/runtime-1000/{name} is owned by another user")

    as_user(monkeypatch, 1000)
    monkeypatch.setattr(platformdirs, "user_runtime_dir", folder)
    with pytest.raises(ConfigError, match=r"owned by another user\)?: set ZMULE_ENDPOINT"):
        default_endpoint({})


def test_naming_an_endpoint_imports_nothing_slow() -> None:
    code = (
        "import sys; from zmule.endpoints import default_endpoint; default_endpoint({'ZMULE_ENDPOINT': 'x'});"
        "print(sorted({'platformdirs', 'dataclasses'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("endpoint", "publish"),
    [
        ("ipc:///run/zmule/zmule.sock", "ipc:///run/zmule/zmule.pub"),
        ("ipc:///tmp/broker.1", "ipc:///tmp/broker.1.pub"),
        ("ipc:///tmp/broker", "ipc:///tmp/broker.pub"),
        ("ipc:///tmp/broker.pub", "ipc:///tmp/broker.pub.pub"),
        ("tcp://127.0.0.1:5870", "tcp://127.0.0.1:5871"),
        ("tcp://[::1]:5870", "tcp://[::1]:5871"),
        ("tcp://127.0.0.1:*", "tcp://127.0.0.1:*"),
    ],
)
def test_publish_beside_the_endpoint(endpoint: str, publish: str) -> None:
    assert default_publish(endpoint) == publish


@given(PATHS, PATHS)
def test_no_two_paths_share_a_publish_path_nor_use_it(one: str, two: str) -> None:
    if {one.removesuffix(".sock"), two.removesuffix(".sock")} == {one, two} and one != two:
        assert default_publish(f"ipc://{one}") != default_publish(f"ipc://{two}")
    assert default_publish(f"ipc://{one}") != f"ipc://{one}"


@given(st.sampled_from(["localhost", "127.0.0.1", "[::1]", "*"]), PORTS)
def test_what_is_derived_is_an_endpoint(host: str, port: str) -> None:
    check_endpoint(default_publish(f"tcp://{host}:{port}"))


def test_the_last_port_has_no_next_one() -> None:
    with pytest.raises(ConfigError, match="no next port"):
        default_publish("tcp://127.0.0.1:65535")


@pytest.mark.parametrize(
    ("endpoint", "complaint"),
    [
        ("", "is not an endpoint"),
        ("zmule.sock", "is not an endpoint"),
        ("inproc://x", "is not an endpoint"),
        ("udp://127.0.0.1:1", "is not an endpoint"),
        ("tcp://127.0.0.1", "is not an endpoint"),
        ("tcp://127.0.0.1:", "is not an endpoint"),
        ("tcp://:5870", "is not an endpoint"),
        ("tcp://::1:5870", "is not an endpoint"),
        ("tcp://a b:5870", "is not an endpoint"),
        ("tcp://127.0.0.1:58x", "is not an endpoint"),
        ("tcp://127.0.0.1:٥", "is not an endpoint"),
        ("tcp://127.0.0.1:5870\n", "is not an endpoint"),
        ("tcp://127.0.0.1:5870/x", "is not an endpoint"),
        ("tcp://eth0;127.0.0.1:5870", "is not an endpoint"),
        ("tcp://127.0.0.1:0", "from 1 to 65535"),
        ("tcp://127.0.0.1:65536", "from 1 to 65535"),
        ("ipc://", "absolute path"),
        ("ipc://*", "absolute path"),
        ("ipc://@zmule", "absolute path"),
        ("ipc://zmule.sock", "absolute path"),
        ("ipc:///run/zmule/", "is a folder"),
        ("ipc:///run/a\0b", "printed"),
        ("ipc:///run/a\nb", "printed"),
        ("ipc:///run/\udcff", "printed"),
        ("ipc:///" + "x" * MAX_IPC_PATH, "108 bytes"),
        ("ipc:///" + "é" * 54, "109 bytes"),
    ],
)
def test_no_endpoint(endpoint: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        check_endpoint(endpoint)
    assert len(str(caught.value).splitlines()) == 1


def test_the_longest_path_fits() -> None:
    check_endpoint("ipc:///" + "x" * (MAX_IPC_PATH - 1))


@pytest.mark.parametrize(
    "endpoint",
    ["ipc:///x", "tcp://localhost:1", "tcp://127.0.0.1:1", "tcp://127.9.9.9:*", "tcp://[::1]:1"],
)
def test_local(endpoint: str) -> None:
    assert is_local(endpoint)


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://*:1",
        "tcp://0.0.0.0:1",
        "tcp://[::]:1",
        "tcp://10.0.0.1:1",
        "tcp://127.evil.example:1",
        "tcp://lo:1",
    ],
)
def test_not_local(endpoint: str) -> None:
    assert not is_local(endpoint)
