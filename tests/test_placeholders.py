"""`--set`, and what `uwsgi.opt` makes of it."""

from __future__ import annotations

import pytest

from tests.conftest import Zmuled, wait_until
from zmule import placeholders
from zmule.errors import ConfigError


def test_what_is_set_arrives() -> None:
    packed = placeholders.pack(["a=1", "b=", "a=x=y", "c=größe"])
    assert placeholders.unpack({"ZMULE_OPT": packed}) == {
        "a": [b"1", b"x=y"],
        "b": [b""],
        "c": ["größe".encode()],
    }
    assert placeholders.unpack({}) == placeholders.unpack({"ZMULE_OPT": placeholders.pack([])}) == {}


@pytest.mark.parametrize("text", ["a", "=1", " =1", "", "mule=1", "farm=a:1", "master=true"])
def test_what_cannot_be_set(text: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        placeholders.pack([text])


def test_mules_see_it(zmuled: Zmuled) -> None:
    zmuled.program(
        "opt.py", "import uwsgi\nprint(sorted(uwsgi.opt.items()), flush=True)\nuwsgi.mule_get_msg()"
    )
    zmuled.start("--mule=opt.py", "--set", "color=red", "--set=size=1", "--set=size=2")
    wait_until(lambda: "[('color', b'red'), ('master', True)" in zmuled.output())
    assert "('size', [b'1', b'2'])]" in zmuled.output()
