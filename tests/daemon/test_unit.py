"""etc/zmuled.service: systemd takes it, and it agrees with the daemon."""

from __future__ import annotations

import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

from zmule.cli.common import UsageError
from zmule.daemon.config import load
from zmule.daemon.respawn import CRASHES, STEADY, Respawn
from zmule.errors import ConfigError, EndpointInUse

UNIT = Path(__file__).parents[2] / "etc" / "zmuled.service"


@pytest.fixture(scope="module")
def service() -> dict[str, str]:
    parser = RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNIT)
    return dict(parser["Service"])


def test_systemd_takes_it(tmp_path: Path, service: dict[str, str]) -> None:
    verifier = shutil.which("systemd-analyze")
    if verifier is None:
        pytest.skip("systemd-analyze is not installed")
    program, _, _ = service["ExecStart"].partition(" ")
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(f"ExecStart={program}", "ExecStart=/bin/true"))
    verified = subprocess.run([verifier, "verify", "--man=no", copy], capture_output=True, text=True)
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


def test_a_stop_is_longer_than_mercy(service: dict[str, str]) -> None:
    assert float(service["TimeoutStopSec"]) > load({}, {"ZMULE_ENDPOINT": "ipc:///run/zmule/z.sock"}).mercy
    assert service["KillMode"] == "mixed"


def test_a_start_waits_for_a_mule_that_is_given_up(service: dict[str, str]) -> None:
    respawn, now = Respawn(), 0.0
    for _ in range(CRASHES - 1):
        respawn.started(now)
        now = respawn.ended(now + STEADY * 0.999, clean=False)
    assert float(service["TimeoutStartSec"]) > now + STEADY


def test_what_a_restart_cannot_heal_is_not_restarted(service: dict[str, str]) -> None:
    exits = {int(code) for code in service["RestartPreventExitStatus"].split()}
    assert exits == {UsageError.exit_code, ConfigError.exit_code, EndpointInUse.exit_code}


def test_it_says_when_it_is_ready_and_runs_as_a_user_with_folders_of_its_own(service: dict[str, str]) -> None:
    expected = {"Type": "notify", "NotifyAccess": "main", "User": "zmule", "RuntimeDirectoryMode": "0700"}
    assert expected.items() <= service.items()
    assert service["RuntimeDirectory"] == service["StateDirectory"] == "zmule"
