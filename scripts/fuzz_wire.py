"""The wire module under attack by atheris, which looks for bytes that reach code that none has reached yet.

A program of its own, since atheris must be there when the module is imported. Its arguments are libFuzzer's.
"""

from __future__ import annotations

import sys

import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]

with atheris.instrument_imports(include=["zmule.core.wire", "zmule.core.frames"]):
    from zmule.core.frames import NUMBERS
    from zmule.core.wire import decode, encode
    from zmule.errors import ProtocolError


def only_protocol_error(data: bytes) -> None:
    """Decode; what comes, if anything comes, must survive the wire in its turn."""
    try:
        frame = decode(data)
    except ProtocolError:
        return
    assert type(frame) in NUMBERS
    decode(encode(frame))


if __name__ == "__main__":
    atheris.Setup(sys.argv, only_protocol_error)
    atheris.Fuzz()
