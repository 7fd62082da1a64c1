"""What `--set KEY=VALUE` gives, on its way into `uwsgi.opt`: through the environment of mules."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from zmule.errors import ConfigError

VARIABLE = "ZMULE_OPT"
OWN = ("master", "mule", "farm")
"""Keys that tell of the mules and farms that there are."""


def pack(texts: Sequence[str]) -> str:
    """Return the value of the variable that carries what was given.

    Raises:
        ConfigError: one has no key, or another's.
    """
    for text in texts:
        key, equals, _ = text.partition("=")
        if not (key.strip() and equals):
            raise ConfigError(f"--set: {text[:80]!r} is not KEY=VALUE")
        if key in OWN:
            raise ConfigError(f"--set: {key!r} tells of what there is, and cannot be set")
    return json.dumps(list(texts)) if texts else ""


def unpack(environ: Mapping[str, str]) -> dict[str, list[bytes]]:
    """Return what was given, by key."""
    given: dict[str, list[bytes]] = {}
    for text in json.loads(environ.get(VARIABLE) or "[]"):
        key, _, value = text.partition("=")
        given.setdefault(key, []).append(value.encode())
    return given
