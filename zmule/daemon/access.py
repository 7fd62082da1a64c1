"""Who may connect to the sockets: their mode, owner and group, and whether folders let these through.

To connect to a socket is to write to its file, so only those bits of a mode count. Who connects has to get
through the folders above, too. Folders that zmuled makes let through whom the socket is for; of those that
were there it says so if they do not.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from zmule.errors import ConfigError
from zmule.trust import Untrusted, steps

CURE = "chmod, or RuntimeDirectoryMode=0711 under systemd"
KEEP = -1
"""Leave owner or group as they are."""


class Access(NamedTuple):
    """The mode of a socket, and the numbers of its owner and group."""

    mode: int = 0o600
    user: int = KEEP
    group: int = KEEP

    @property
    def by_group(self) -> bool:
        """Whether the group may connect."""
        return bool(self.mode & stat.S_IWGRP)

    @property
    def by_others(self) -> bool:
        """Whether somebody may who need not be in the group."""
        return bool(self.mode & stat.S_IWOTH) or self.user not in (KEEP, os.geteuid())

    @property
    def folder_mode(self) -> int:
        """The mode of a folder that lets all of them through, and lets nobody but the owner look around."""
        return 0o700 | (stat.S_IXGRP if self.by_group else 0) | (stat.S_IXOTH if self.by_others else 0)

    def open_socket(self, path: Path) -> None:
        """Let those connect to a socket who may."""
        if (self.user, self.group) != (KEEP, KEEP):
            os.chown(path, self.user, self.group)
        path.chmod(self.mode)

    def open_folder(self, path: Path) -> None:
        """Let them through a folder. It stays its owner's: who has a folder decides what is in it."""
        if self.group != KEEP:
            os.chown(path, KEEP, self.group)
        path.chmod(self.folder_mode)


def access(mode: str, user: str, group: str) -> Access:
    """Return the access that the texts of the settings stand for; an empty name keeps what is.

    Raises:
        ConfigError: this process cannot give a socket that owner or group, or there is none of that name.
    """
    return Access(int(mode, 8), user_number(user), group_number(group))


def user_number(name: str) -> int:
    """Return a user's number, or `KEEP` for no name."""
    number = _number(name, "user", lambda name: pwd.getpwnam(name).pw_uid)
    if os.geteuid() != 0 and number not in (KEEP, os.geteuid()):
        raise ConfigError(f"only root can give a socket to user {name}: let its group in instead")
    return number


def group_number(name: str) -> int:
    """Return a group's number, or `KEEP` for no name."""
    number = _number(name, "group", lambda name: grp.getgrnam(name).gr_gid)
    if os.geteuid() != 0 and number not in (KEEP, os.getegid(), *os.getgroups()):
        raise ConfigError(f"zmuled's user is not in group {name}: add it (usermod -aG, SupplementaryGroups=)")
    return number


def _number(name: str, kind: str, look_up: Callable[[str], int]) -> int:
    if not name:
        return KEEP
    if name.isascii() and name.isdigit() and int(name) < 2**32 - 1:
        return int(name)
    try:
        return look_up(name)
    except KeyError:
        raise ConfigError(f"there is no {kind} {name!r:.80}") from None


def closed(endpoint: str, access: Access) -> str:
    """Return what is to be said of a folder that keeps out whom the socket is for; "" if there is none."""
    if not endpoint.startswith("ipc://"):
        return ""
    with suppress(Untrusted, OSError):  # binding tells
        for folder, found in steps(Path(endpoint.removeprefix("ipc://"))):
            if stat.S_ISDIR(found.st_mode) and (who := _kept_out(found, access)):
                return f"the sockets are open to {who}, but {folder} does not let them through: see {CURE}"
    return ""


def _kept_out(folder: os.stat_result, access: Access) -> str:
    """Return who cannot get through a folder."""
    group = os.getegid() if access.group == KEEP else access.group
    needed = stat.S_IXGRP if folder.st_gid == group else stat.S_IXOTH
    if access.by_group and not folder.st_mode & needed:
        return f"group {_group_name(group)}"
    if access.mode & stat.S_IWOTH and not folder.st_mode & stat.S_IXOTH:
        return "everybody"
    strange = access.user not in (KEEP, folder.st_uid)
    return "their owner" if strange and not folder.st_mode & (stat.S_IXGRP | stat.S_IXOTH) else ""


def _group_name(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
