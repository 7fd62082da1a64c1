"""A mule whose handler computes in pure Python for as long as a message says, in seconds."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from zmule import Mule


def main(address: str, begun: Path) -> None:
    """Work until killed; say in a file when a long computation begins."""
    mule = Mule(1, endpoint=address)
    while True:
        seconds = float(str(mule.get_msg()))
        if seconds:
            begun.write_text(str(time.monotonic_ns()))
            compute(time.monotonic() + seconds)


def compute(end: float) -> None:
    while time.monotonic() < end:
        pass


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
