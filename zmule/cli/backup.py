"""`zmule backup`: the broker copies its store; the copy is checked and put where it is wanted."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from zmule.cli import options
from zmule.cli.common import connect, tell
from zmule.errors import NotPermitted, ZmuleError


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to put it; must not exist yet.")],
    endpoint: options.Endpoint = None,
    timeout: options.Timeout = None,
) -> None:
    """Make a backup of the broker's store while it runs. To be called on the broker's host."""
    from zmule.stores.copies import sync_file, verify

    if os.path.lexists(file):
        raise ZmuleError(f"{file} exists: choose another name, or move it away")
    file = file.absolute()
    with connect(endpoint, timeout) as client:
        client.ping()
        if sys.stderr.isatty():
            tell("zmule: the broker copies its store\n")
        copy = Path(client.backup())
    try:
        fetch(copy, file)
        try:
            messages, dead = verify(file)
            sync_file(file)
        except BaseException:
            file.unlink()
            raise
    finally:
        with suppress(OSError):
            copy.unlink()
    print(f"{file}: {messages} messages and {dead} dead letters, {file.stat().st_size} bytes")


def fetch(copy: Path, file: Path) -> None:
    """Copy a file to a new one that is readable to us only.

    Raises:
        NotPermitted: the one may not be read, or the other not made.
        ZmuleError: it cannot be done.
    """
    try:
        with copy.open("rb") as source:
            descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as target:
                try:
                    os.fchmod(descriptor, 0o600)
                    shutil.copyfileobj(source, target, 1 << 20)
                except BaseException:
                    file.unlink()
                    raise
    except FileNotFoundError as error:
        missing = error.filename or file
        raise ZmuleError(f"{missing}: not there: run zmule backup on the broker's host") from None
    except PermissionError as error:
        denied = error.filename or file
        raise NotPermitted(f"{denied}: {error.strerror}: be the broker's user, or root") from None
    except OSError as error:
        raise ZmuleError(f"{error.filename or file}: {error.strerror}") from None
