"""What a program does to the files of one folder, in order, as the kernel sees it: recorded by strace."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

CALLS = (
    "openat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,unlink,unlinkat,"
    "rename,renameat,renameat2,link,linkat,fsync,fdatasync,sync_file_range,mmap"
)
LINE = re.compile(rb"(\d+) +(.*)")
CALL = re.compile(rb"(\w+)\((.*)\) += (-?\d+)(?:<(.*)>)?")
TEXT = rb'"((?:\\x[0-9a-f]{2})*)"'
FILE = rb"\d+<((?:\\x[0-9a-f]{2})*)>"
SHARED_WRITES = (b"PROT_WRITE", b"MAP_SHARED")


class Op(NamedTuple):
    """One thing that was done, when it had been done.

    Attributes:
        kind: `create`, `write`, `resize`, `extend`, `remove` or `sync`; of the folder itself only `sync`.
        name: of the file in the folder; empty for the folder.
    """

    kind: str
    name: str
    offset: int = 0
    data: bytes = b""


def missing() -> str | None:
    """Return why nothing can be recorded here, or None."""
    if shutil.which("strace") is None:
        return "strace is not installed: scripts/packages does it"
    probe = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True)
    return f"strace may not trace: {probe.stderr.strip()}" if probe.returncode else None


def record(folder: Path, command: Sequence[str]) -> list[Op]:
    """Run a command; return what it has done to the files of a folder.

    Raises:
        CalledProcessError: it has failed.
        ValueError: it has done something that this cannot tell.
    """
    with tempfile.NamedTemporaryFile() as trace:
        tracer = ["strace", "-f", "-qq", "-y", "-xx", "-s", "100000000", "-e", f"trace={CALLS}"]
        subprocess.run([*tracer, "-o", trace.name, *command], check=True)
        with Path(trace.name).open("rb") as lines:
            return list(_ops(folder, _calls(lines)))


def _calls(lines: Iterator[bytes]) -> Iterator[re.Match[bytes]]:
    """Yield the calls that succeeded, in the order in which they ended."""
    begun: dict[bytes, bytes] = {}
    for line in lines:
        match = LINE.match(line)
        if match is None:
            raise ValueError(f"not a line of strace: {line[:200]!r}")
        pid, text = match.groups()
        if text.endswith(b"<unfinished ...>"):
            begun[pid] = text.removesuffix(b" <unfinished ...>")
            continue
        if text.startswith(b"<... "):
            text = begun.pop(pid) + text.partition(b" resumed>")[2]
        call = CALL.match(text)
        if call is not None and not call[3].startswith(b"-"):
            yield call


def _ops(folder: Path, calls: Iterator[re.Match[bytes]]) -> Iterator[Op]:
    known: set[str] = set()
    inside = re.compile(rb"%s(?:/(.*))?" % re.escape(str(folder).encode()), re.DOTALL)
    for call in calls:
        name, arguments = call[1].decode(), call[2]
        paths = [_bytes(text) for text in (call[4] or b"", *re.findall(FILE, arguments))]
        if name in ("unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat", "truncate"):
            paths += [_bytes(text) for text in re.findall(TEXT, arguments)]
        about = [match for path in paths if (match := inside.fullmatch(path))]
        if about:
            yield from _op(name, (about[0][1] or b"").decode(), arguments, known)


def _op(call: str, name: str, arguments: bytes, known: set[str]) -> Iterator[Op]:
    if call in ("fsync", "fdatasync"):
        yield Op("sync", name)
    elif call == "openat":
        if b"O_CREAT" in arguments and name not in known:
            known.add(name)
            yield Op("create", name)
        if b"O_TRUNC" in arguments:
            yield Op("resize", name)
    elif call == "pwrite64" or (call == "write" and name in known):
        data = re.search(TEXT, arguments)
        offset = int(arguments.rpartition(b", ")[2]) if call == "pwrite64" else -1
        yield Op("write", name, offset, _bytes(data[1] if data else b""))
    elif call == "ftruncate":
        yield Op("resize", name, int(arguments.rpartition(b", ")[2]))
    elif call == "fallocate":
        begin, length = map(int, arguments.split(b", ")[-2:])
        yield Op("extend", name, begin + length)
    elif call == "unlink":
        known.discard(name)
        yield Op("remove", name)
    elif not (call == "mmap" and not all(word in arguments for word in SHARED_WRITES)):
        raise ValueError(f"{call} of {name!r} is not foreseen: {arguments[:200]!r}")


def _bytes(text: bytes) -> bytes:
    """Return what strace has written as hexadecimal escapes."""
    return bytes.fromhex(text.replace(b"\\x", b"").decode())
