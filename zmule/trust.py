"""Whom the way to a file leads through: who else could put another file in its place.

Whoever may rename an entry of a folder decides what a path means, and so does who may change any folder
above it, or a symbolic link on the way. So each of them must belong to root or to somebody who is trusted,
and no others may write to it. Two exceptions are harmless: a sticky folder, as /tmp is, where nobody can
remove what is another's; and a group that is its user's own, as most distributions give one to each user.

Where a volume is open to all by design, as in a container, `ZMULE_TRUST_FOLDERS` turns that check off. Whose
the file itself is, is checked all the same.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

from zmule.errors import ConfigError, NotPermitted

ROOT = 0
MOST_LINKS = 40
VARIABLE = "ZMULE_TRUST_FOLDERS"
YES = ("1", "true", "yes", "on")
BROKER_USER = "ZMULE_BROKER_USER"


class Untrusted(Exception):
    """Somebody else could put another file there; the text says where and why."""


def check_way(path: Path, trusted: Set[int]) -> None:
    """Make sure that nobody but root and the trusted users decides what is at a path.

    The last entry itself is not looked at, unless it is a link. What is missing ends the way.

    Args:
        path: absolute.
        trusted: numbers of users, besides root.

    Raises:
        Untrusted: somebody else could.
        OSError: a folder cannot be looked at.
    """
    users = trusted | {ROOT}
    for step, found in steps(path):
        if found.st_uid not in users:
            raise Untrusted(f"{step} belongs to {user_name(found.st_uid)}")
        if stat.S_ISDIR(found.st_mode) and is_open(found) and not found.st_mode & stat.S_ISVTX:
            raise Untrusted(f"others may replace files in {step}")


def check_socket(endpoint: str, environ: Mapping[str, str]) -> None:
    """Make sure that a broker's socket is a broker's whom we may trust with messages.

    It has to belong to this user, to root, or to the user whom `ZMULE_BROKER_USER` names, and so has the way
    to it. Nothing is said about a socket that is not there.

    Args:
        endpoint: one of ipc.
        environ: the environment of the process.

    Raises:
        NotPermitted: it is somebody else's, or somebody else could put his own in its place.
        ConfigError: there is no user of that name.
    """
    path = Path(endpoint.removeprefix("ipc://"))
    users = {os.geteuid(), *_broker_users(environ)}
    try:
        if environ.get(VARIABLE, "").lower() not in YES:
            check_way(path, users)
        owner = path.stat().st_uid
    except Untrusted as error:
        raise NotPermitted(
            f"{endpoint}: {error}: it may be another's broker. If that user runs yours, set {BROKER_USER}"
        ) from None
    except OSError:
        return
    if owner not in users | {ROOT}:
        name = user_name(owner).removeprefix("user ")
        raise NotPermitted(
            f"{endpoint}: the socket belongs to {name}: it may be another's broker. If it is yours, set"
            f" {BROKER_USER}={name}"
        )


def _broker_users(environ: Mapping[str, str]) -> set[int]:
    """Return the number of the user as whom the broker runs, if that is said."""
    name = environ.get(BROKER_USER, "")
    if not name:
        return set()
    if name.isascii() and name.isdigit():
        return {int(name)}
    import pwd

    try:
        return {pwd.getpwnam(name).pw_uid}
    except KeyError:
        raise ConfigError(f"{BROKER_USER}: there is no user {name!r:.80}") from None


def is_open(found: os.stat_result) -> bool:
    """Tell whether anybody but the owner may write: others, or a group that is not the owner's own."""
    if found.st_mode & stat.S_IWOTH:
        return True
    return bool(found.st_mode & stat.S_IWGRP) and not _is_private(found.st_gid, found.st_uid)


def user_name(number: int) -> str:
    """Return a user's name, or the number if it has none."""
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _is_private(group: int, user: int) -> bool:
    """Tell whether nobody but the user is in the group: it has the user's name and no other member.

    Root's is none such: containers give it to users that have no entry.
    """
    import grp

    if group == ROOT:
        return False
    try:
        entry = grp.getgrgid(group)
    except KeyError:
        return False
    name = user_name(user)
    return entry.gr_name == name and set(entry.gr_mem) <= {name}


def steps(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the folders and links through which the kernel goes to a path; a link's own folder before it."""
    here, links = Path("/"), 0
    ahead = _names(os.fspath(path))
    yield here, here.stat()
    while ahead:
        name = ahead.pop()
        step = here.parent if name == ".." else here / name
        try:
            found = step.lstat()
        except FileNotFoundError:
            return
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > MOST_LINKS:
                raise Untrusted(f"{path} goes round in links")
            yield step, found
            target = step.readlink()
            here = Path("/") if target.is_absolute() else here
            ahead += _names(os.fspath(target))
        elif stat.S_ISDIR(found.st_mode):
            here = step
            if ahead:
                yield step, found
        else:
            return


def _names(path: str) -> list[str]:
    """Return a path's names, the last one first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]
