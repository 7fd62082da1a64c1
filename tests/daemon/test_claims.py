"""Two things that would be one file."""

from __future__ import annotations

from pathlib import Path

import pytest

from zmule.daemon.claims import check_claims
from zmule.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "real.db").touch()
    (tmp_path / "other.db").hardlink_to(tmp_path / "real.db")
    (tmp_path / "z.db").symlink_to("z.sock")
    return tmp_path


def test_what_differs_is_fine(folder: Path) -> None:
    endpoints = [f"ipc://{folder}/a.sock", f"ipc://{folder}/a.pub", "tcp://127.0.0.1:5", "tcp://127.0.0.1:5"]
    check_claims(endpoints, f"sqlite://{folder}/a.db", [("the file", f"{folder}/zmule.toml")])
    check_claims([], "memory:", [])


@pytest.mark.parametrize(
    ("endpoints", "store"),
    [
        (["z.sock", "z.sock"], "a.db"),
        (["z.sock", "link/z.sock"], "a.db"),
        (["z.sock", "link/./link/z.sock"], "a.db"),
        (["z.sock", "z.sock.lock"], "a.db"),
        (["z.sock"], "z.sock"),
        (["z.sock"], "link/z.sock"),
        (["z.sock"], "z.sock.lock"),
        (["z.sock"], "z.db"),
        (["a.db-wal"], "a.db"),
        (["a.db-journal"], "a.db"),
        (["link/a.db-shm"], "a.db"),
        (["other.db"], "real.db"),
        (["a.sock"], "zmule.toml"),
    ],
)
def test_what_is_the_same_is_refused(folder: Path, endpoints: list[str], store: str) -> None:
    with pytest.raises(ConfigError, match="would be the same file") as caught:
        check_claims(
            [f"ipc://{folder}/{name}" for name in endpoints],
            f"sqlite://{folder}/{store}",
            [("the configuration", f"{folder}/zmule.toml")],
        )
    assert caught.value.exit_code == 78
    assert "\n" not in str(caught.value)
