"""A disk that may lose, at a power cut, whatever was not synced: each write or not, in part, in any order.

Of a write that was not synced, each sector of the disk may be there or not. A file that was made or removed
is so for certain once its folder was synced; before that, what was done last is undone first, as the journals
of file systems have it.
"""

from __future__ import annotations

from random import Random

from tests.stores.recorder import Op

SECTORS = (512, 4096)


class File:
    """One file: what is safe of it, and what has been done to it since."""

    def __init__(self) -> None:
        self.safe = bytearray()
        self.unsynced: list[Op] = []

    def sync(self) -> None:
        """Make everything safe."""
        self.safe = self.content(self.unsynced)
        self.unsynced = []

    def content(self, ops: list[Op]) -> bytearray:
        """Return what is in it if just these have reached the disk."""
        content = bytearray(self.safe)
        for op in ops:
            apply(op, content)
        return content


def apply(op: Op, content: bytearray) -> None:
    """Write to a file, or set its length."""
    offset = len(content) if op.offset < 0 else op.offset
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    if op.kind == "write":
        content[offset : offset + len(op.data)] = op.data
    elif op.kind == "resize":
        del content[offset:]


class Disk:
    """A folder on a disk."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.safe: dict[str, File] = {}
        self.unsynced: list[tuple[str, File | None]] = []

    def do(self, op: Op) -> None:
        """Do what was done."""
        if op.kind in ("create", "remove"):
            self._entry(op.name, File() if op.kind == "create" else None)
        elif op.kind != "sync":
            self.files[op.name].unsynced.append(op)
        elif op.name:
            self.files[op.name].sync()
        else:
            self.safe, self.unsynced = dict(self.files), []

    def _entry(self, name: str, file: File | None) -> None:
        self.unsynced.append((name, file))
        enter(self.files, name, file)

    def dirty(self) -> bool:
        """Return whether a power cut would lose anything."""
        return bool(self.unsynced) or any(file.unsynced for file in self.files.values())

    def whole(self) -> dict[str, bytes]:
        """Return what everybody sees as long as the power is on."""
        return {name: bytes(file.content(file.unsynced)) for name, file in self.files.items()}

    def least(self) -> dict[str, bytes]:
        """Return what is certain to be there after a power cut."""
        return {name: bytes(file.safe) for name, file in self.safe.items()}

    def some(self, draw: Random) -> dict[str, bytes]:
        """Return what may be there after a power cut."""
        names = dict(self.safe)
        for name, file in self.unsynced[: draw.randint(0, len(self.unsynced))]:
            enter(names, name, file)
        keep = draw.choice((0.1, 0.5, 0.9))
        return {name: bytes(file.content(survivors(file, keep, draw))) for name, file in names.items()}


def enter(names: dict[str, File], name: str, file: File | None) -> None:
    """Make an entry of a folder, or take it away."""
    if file is None:
        names.pop(name, None)
    else:
        names[name] = file


def survivors(file: File, keep: float, draw: Random) -> list[Op]:
    """Return what has reached the disk of what was not synced, each sector with the same likelihood."""
    sector = draw.choice(SECTORS)
    torn = draw.random() < 0.5
    ops: list[Op] = []
    for op in file.unsynced:
        if not torn or op.kind != "write" or op.offset < 0:
            ops += [op] if draw.random() < keep else []
        else:
            ops += [piece for piece in pieces(op, sector) if draw.random() < keep]
    return ops


def pieces(op: Op, sector: int) -> list[Op]:
    """Return a write as one for each sector of the disk."""
    found, place = [], op.offset
    end = op.offset + len(op.data)
    while place < end:
        after = min(end, (place // sector + 1) * sector)
        found.append(op._replace(offset=place, data=op.data[place - op.offset : after - op.offset]))
        place = after
    return found
