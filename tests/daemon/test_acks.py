"""`--ack`: when messages count as done, by mule and by farm."""

from __future__ import annotations

from pathlib import Path

import pytest

from zmule.daemon.config import Config, load
from zmule.daemon.sources import WrongFlag

FLAGS = {"mule": ["", "", ""], "farm": ["busy:1,2", "idle:3"]}


def acks(config: Config) -> tuple[list[str], list[str]]:
    return [mule.ack for mule in config.mules], [farm.ack for farm in config.farms]


@pytest.mark.parametrize(
    ("given", "mules", "farms"),
    [
        ([], "each each each", "each each"),
        (["early"], "early early early", "early early"),
        (["each"], "each each each", "each each"),
        (["2:early"], "each early each", "each each"),
        (["busy:early"], "each each each", "early each"),
        (["2:early", "idle:early"], "each early each", "each early"),
        (["3:each", "early", "idle:each"], "early early each", "early each"),
    ],
)
def test_acks_of_flags(given: list[str], mules: str, farms: str) -> None:
    assert acks(load({**FLAGS, "ack": given}, {})) == (mules.split(), farms.split())


def test_it_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "z.toml"
    file.write_text("[[mule]]\nack = 'early'\n[[mule]]\n[farms]\na = {mules = [2], ack = 'early'}\nb = [2]")
    given = {"config": [str(file)]}
    assert acks(load({**given, "ack": ["b:early"]}, {})) == (["early", "each"], ["early", "early"])
    assert acks(load({**given, "ack": ["each"]}, {})) == (["each", "each"], ["each", "each"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["late"], "--ack: 'late' is not each or early"),
        (["2:"], "--ack: '2:' is not each or early"),
        ([":early"], "--ack: ':early' is not each or early"),
        (["early:2"], "--ack: 'early:2' is not each or early"),
        ([""], "--ack: '' is not each or early"),
        (["4:early"], "--ack=4:early: there is no mule or farm '4'"),
        (["0:early"], "--ack=0:early: there is no mule or farm '0'"),
        (["buzy:early"], "--ack=buzy:early: there is no mule or farm 'buzy': did you mean busy?"),
        (["early", "early"], "--ack=early: this is given twice"),
        (["2:early", "2:each"], "--ack=2:each: '2' is given twice"),
        (["2:early", "busy:each"], "--ack=busy:each: its mule 2 is early, which goes for all that it gets"),
        (["early", "idle:each"], "--ack=idle:each: its mule 3 is early, which goes for all that it gets"),
    ],
)
def test_what_cannot_be_meant(given: list[str], said: str) -> None:
    with pytest.raises(WrongFlag) as raised:
        load({**FLAGS, "ack": given}, {})
    assert str(raised.value).startswith(said)
