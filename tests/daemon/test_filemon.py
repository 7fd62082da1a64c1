"""The file monitors against a real file system; every wait is for the descriptor, none for a time."""

from __future__ import annotations

import os
import select
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from watchfiles._rust_notify import RustNotify

from zmule.daemon import filemon
from zmule.daemon.filemon import FileMonitors

TIMEOUT_MS = 20_000
NOBODY = 65534


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the comparison that follows activity far off, so that it does not hide an event that was missed."""
    monkeypatch.setattr(filemon, "SETTLE_S", 3600.0)


@pytest.fixture
def monitors() -> Iterator[FileMonitors]:
    with opened() as made:
        yield made


@contextmanager
def opened() -> Iterator[FileMonitors]:
    monitors = FileMonitors()
    try:
        yield monitors
    finally:
        monitors.close()


def readable(monitors: FileMonitors, timeout_ms: int = TIMEOUT_MS) -> bool:
    poll = select.poll()
    poll.register(monitors.descriptor(), select.POLLIN)
    return bool(poll.poll(timeout_ms))


def begin(monitors: FileMonitors, path: Path) -> None:
    """Monitor a path from now on; ValueError if it is refused."""
    monitors.add(str(path))
    answers = dict(monitors.answers())
    while str(path) not in answers:
        assert readable(monitors)
        answers.update(monitors.answers())
    assert answers.keys() == {str(path)}
    if refusal := answers[str(path)]:
        raise ValueError(refusal)


def notices(monitors: FileMonitors, *awaited: Path) -> Counter[str]:
    """Drain until each of the awaited paths was noticed; return how often each path was."""
    seen: Counter[str] = Counter()
    while not {str(path) for path in awaited} <= seen.keys():
        assert readable(monitors), f"waited for {awaited}, saw {seen}"
        drained = monitors.changed()
        assert len(drained) == len(set(drained))
        seen.update(drained)
    return seen


def settled(monitors: FileMonitors, at: Path) -> Counter[str]:
    """Return when the watching thread has taken up what went before, and what it noticed meanwhile.

    It has to see a file in a directory of its own, and again when no change of the watched set waits.
    """
    at.mkdir(exist_ok=True)
    file, seen = at / "file", Counter[str]()
    begin(monitors, file)
    for _ in range(2):
        append(file)
        seen += notices(monitors, file)
        while monitors._wake.is_set():
            os.sched_yield()
    return seen


def replace(path: Path, text: str) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text)
    fresh.replace(path)


def write(path: Path) -> None:
    path.write_text("changed")


def append(path: Path) -> None:
    with path.open("a") as file:
        file.write("more")


def touch(path: Path) -> None:
    os.utime(path, (1, 1))


def recreate(path: Path) -> None:
    path.unlink()
    path.write_text("again")


@pytest.mark.parametrize("settle", [True, False], ids=["watched", "just added"])
@pytest.mark.parametrize(
    "change", [write, append, touch, recreate, Path.unlink, lambda path: path.chmod(0o600)]
)
def test_a_change_of_a_file_is_noticed(
    monitors: FileMonitors, tmp_path: Path, change: Callable[[Path], None], settle: bool
) -> None:
    path = tmp_path / "file"
    path.write_text("first")
    begin(monitors, path)
    if settle:
        settled(monitors, tmp_path / "other")
    change(path)
    notices(monitors, path)


def test_a_file_that_is_replaced_over_and_over_is_noticed_each_time(
    monitors: FileMonitors, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_text("")
    begin(monitors, path)
    for turn in range(20):
        replace(path, str(turn))
        notices(monitors, path)


def test_a_file_is_followed_through_deletion_and_rebirth(monitors: FileMonitors, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    begin(monitors, path)
    for _ in range(3):
        path.unlink()
        notices(monitors, path)
        path.write_text("")
        notices(monitors, path)


def test_a_rewrite_that_leaves_size_and_time_alone_is_noticed(monitors: FileMonitors, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    os.utime(path, (1, 1))
    begin(monitors, path)
    settled(monitors, tmp_path / "other")
    path.write_text("two")
    os.utime(path, (1, 1))
    notices(monitors, path)


def test_a_file_that_comes_and_goes_is_noticed(monitors: FileMonitors, tmp_path: Path) -> None:
    path = tmp_path / "file"
    begin(monitors, path)
    settled(monitors, tmp_path / "other")
    with held(monitors):
        path.touch()
        path.unlink()
    notices(monitors, path)


def test_a_path_that_comes_late_is_noticed(monitors: FileMonitors, tmp_path: Path) -> None:
    path = tmp_path / "late"
    begin(monitors, path)
    path.write_text("")
    notices(monitors, path)


@pytest.mark.parametrize("stepwise", [True, False], ids=["one by one", "at once"])
def test_a_path_whose_folders_come_late_is_noticed(
    monitors: FileMonitors, tmp_path: Path, stepwise: bool
) -> None:
    path = tmp_path / "a" / "b" / "c" / "late"
    begin(monitors, path)
    settled(monitors, tmp_path / "other")
    for folder in reversed(path.parents):
        folder.mkdir(exist_ok=True)
        if stepwise:
            assert str(path) not in settled(monitors, tmp_path / "other")
    path.write_text("")
    notices(monitors, path)
    replace(path, "again")
    notices(monitors, path)


def test_a_folder_that_comes_while_the_watcher_is_built_is_watched(
    monitors: FileMonitors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a" / "file"

    def slow(*args: Any) -> RustNotify:
        path.parent.mkdir(exist_ok=True)
        return RustNotify(*args)

    monkeypatch.setattr(filemon, "RustNotify", slow)
    begin(monitors, path)
    while str(path.parent) not in monitors._directories():
        os.sched_yield()
    path.write_text("")
    notices(monitors, path)


def test_a_folder_on_the_way_may_be_exchanged(monitors: FileMonitors, tmp_path: Path) -> None:
    path = tmp_path / "release" / "etc" / "file"
    for release in ("release", "next"):
        (tmp_path / release / "etc").mkdir(parents=True)
        (tmp_path / release / "etc" / "file").write_text(release)
    begin(monitors, path)
    settled(monitors, tmp_path / "other")
    (tmp_path / "release").rename(tmp_path / "old")
    notices(monitors, path)
    (tmp_path / "next").rename(tmp_path / "release")
    notices(monitors, path)
    path.write_text("edited")
    notices(monitors, path)


def test_a_tree_that_is_removed_and_made_again_is_followed(monitors: FileMonitors, tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    begin(monitors, path)
    for _ in range(3):
        path.parent.mkdir(parents=True)
        path.write_text("")
        notices(monitors, path)
        shutil.rmtree(tmp_path / "a")
        notices(monitors, path)


def test_a_tree_that_is_exchanged_in_one_go_is_followed(monitors: FileMonitors, tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    path.parent.mkdir(parents=True)
    begin(monitors, path)
    begin(monitors, path.parent)
    settled(monitors, tmp_path / "other")
    with held(monitors):
        shutil.rmtree(tmp_path / "a")
        path.parent.mkdir(parents=True)
    settled(monitors, tmp_path / "other")
    path.write_text("")
    notices(monitors, path, path.parent)


def test_a_link_is_followed_to_what_it_names(monitors: FileMonitors, tmp_path: Path) -> None:
    first, second = tmp_path / "1" / "file", tmp_path / "2" / "file"
    for target in (first, second):
        target.parent.mkdir()
        target.write_text("same")
    link, path = tmp_path / "current", tmp_path / "current" / "file"
    link.symlink_to("./2/../1")
    begin(monitors, path)
    settled(monitors, tmp_path / "other")
    first.write_text("edited")
    notices(monitors, path)
    settled(monitors, tmp_path / "other")
    (tmp_path / "link").symlink_to(second.parent)
    (tmp_path / "link").replace(link)
    notices(monitors, path)
    settled(monitors, tmp_path / "other")
    replace(second, "edited")
    notices(monitors, path)


def test_links_in_a_circle_are_nothing_until_they_end(monitors: FileMonitors, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    begin(monitors, path)
    settled(monitors, tmp_path / "other")
    (tmp_path / "b").unlink()
    (tmp_path / "b").write_text("")
    notices(monitors, path)


def test_a_directory_is_noticed_for_its_own_entries_only(monitors: FileMonitors, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    (spool / "deep").mkdir(parents=True)
    begin(monitors, spool)
    begin(monitors, spool / "deep" / "watched")
    settled(monitors, tmp_path / "other")
    (spool / "deep" / "entry").write_text("")
    (tmp_path / "beside").write_text("")
    assert str(spool) not in settled(monitors, tmp_path / "another")

    entry = spool / "entry"
    for change in (write, append, touch, Path.unlink, Path.mkdir, Path.rmdir):
        change(entry)
        notices(monitors, spool)
    spool.rename(tmp_path / "gone")
    notices(monitors, spool)
    spool.mkdir()
    notices(monitors, spool)
    write(entry)
    notices(monitors, spool)


def test_an_entry_edited_just_after_its_directory_was_added_is_noticed(
    monitors: FileMonitors, tmp_path: Path
) -> None:
    (tmp_path / "entry").write_text("")
    begin(monitors, tmp_path)
    append(tmp_path / "entry")
    notices(monitors, tmp_path)


def test_the_root_can_be_monitored(monitors: FileMonitors, tmp_path: Path) -> None:
    begin(monitors, Path("/"))
    settled(monitors, tmp_path / "other")


def test_files_that_change_together_are_noticed_each_and_in_order(
    monitors: FileMonitors, tmp_path: Path
) -> None:
    paths = [tmp_path / name for name in "cab"]
    for path in paths:
        begin(monitors, path)
    settled(monitors, tmp_path / "other")
    with held(monitors):
        for path in paths:
            path.write_text("")
    seen = notices(monitors, *paths)
    assert [Path(path) for path in seen if Path(path) in paths] == paths


@contextmanager
def held(monitors: FileMonitors) -> Iterator[None]:
    """Keep the watching thread from taking anything before the block has ended."""
    with monitors._lock:
        yield


def test_thousands_of_events_make_one_notice(monitors: FileMonitors, tmp_path: Path) -> None:
    path, folder = tmp_path / "file", tmp_path / "folder"
    folder.mkdir()
    begin(monitors, path)
    begin(monitors, folder)
    settled(monitors, tmp_path / "other")
    for turn in range(5_000):
        append(path)
        (folder / str(turn)).touch()
    assert readable(monitors)
    seen = notices(monitors, path, folder)
    assert max(seen.values()) < 50


def test_the_descriptor_is_quiet_once_drained(monitors: FileMonitors, tmp_path: Path) -> None:
    assert not readable(monitors, 0)
    assert monitors.changed() == []
    with held(monitors):
        for name in "ab":
            monitors._changed[name] = None
            os.eventfd_write(monitors.descriptor(), 1)
    assert readable(monitors)
    assert monitors.changed() == ["a", "b"]
    assert not readable(monitors, 0)
    assert monitors.changed() == []


def test_no_event_is_lost_while_others_are_added_and_removed(monitors: FileMonitors, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    folder = tmp_path / "folder"
    folder.mkdir()
    begin(monitors, path)
    begin(monitors, folder)
    settled(monitors, tmp_path / "other")
    for turn in range(20):
        other = tmp_path / str(turn) / "file"
        begin(monitors, other)
        replace(path, str(turn))
        monitors.remove(str(tmp_path / str(turn - 1) / "file"))
        append(folder / "entry")
        begin(monitors, tmp_path / f"and {turn}")
        notices(monitors, path, folder)


def test_a_removed_path_is_noticed_no_more(monitors: FileMonitors, tmp_path: Path) -> None:
    path, sentinel = tmp_path / "file", tmp_path / "sentinel"
    begin(monitors, path)
    path.write_text("")
    assert readable(monitors)
    monitors.remove(str(path))
    assert monitors.changed() == []
    monitors.remove(str(path))
    begin(monitors, sentinel)
    path.write_text("unseen")
    sentinel.write_text("")
    assert notices(monitors, sentinel).keys() == {str(sentinel)}
    monitors.remove(str(sentinel))
    begin(monitors, path)
    path.write_text("seen again")
    notices(monitors, path)


def test_a_path_removed_while_it_is_looked_at_stays_removed(
    monitors: FileMonitors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "file")
    look = filemon._look

    def slow(looked_at: str, unwanted: Callable[[], bool]) -> filemon._Look:
        if looked_at == path:
            monitors.remove(path)
        return look(looked_at, lambda: False)

    begin(monitors, Path(path))
    settled(monitors, tmp_path / "other")
    monkeypatch.setattr(filemon, "_look", slow)
    Path(path).write_text("")
    assert path not in settled(monitors, tmp_path / "another")
    assert path not in dict(monitors._monitors())


def test_adding_twice_is_adding_once(monitors: FileMonitors, tmp_path: Path) -> None:
    path = tmp_path / "file"
    begin(monitors, path)
    begin(monitors, path)
    path.write_text("")
    notices(monitors, path)
    monitors.remove(str(path))
    assert monitors._monitors() == []


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "absolute"),
        ("relative/file", "absolute"),
        ("/tmp/\0", "NUL"),
        ("/tmp/\udcff", "UTF-8"),
        ("/tmp/" + "é" * 128, "longer"),
        ("/tmp" + "/name" * 1000, "longer"),
    ],
)
def test_what_cannot_be_watched_is_refused_in_one_line(monitors: FileMonitors, path: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as refusal:
        monitors.add(path)
    text = str(refusal.value)
    assert text.startswith("cannot monitor ")
    assert text.isprintable()
    assert len(text) < 600
    assert monitors._threads == []


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be nobody for a while, if root: root may read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_directory_that_may_not_be_listed_is_refused_but_may_be_passed() -> None:
    with TemporaryDirectory() as made:
        outer, closed, ajar = Path(made), Path(made) / "closed", Path(made) / "ajar"
        closed.mkdir()
        ajar.mkdir()
        closed.chmod(0o000)
        ajar.chmod(0o777)
        outer.chmod(0o311)
        with unprivileged(), opened() as monitors:
            for path in (closed, closed / "file", closed / "sub" / "file", outer, outer / "file"):
                with pytest.raises(ValueError, match="no permission to list"):
                    begin(monitors, path)
            begin(monitors, ajar / "file")
            settled(monitors, ajar / "other")
            (ajar / "file").write_text("")
            notices(monitors, ajar / "file")
            assert not monitors._blind


def test_a_name_that_is_no_text_blinds_nobody(monitors: FileMonitors, tmp_path: Path) -> None:
    path = tmp_path / "file"
    begin(monitors, path)
    settled(monitors, tmp_path / "other")
    odd = tmp_path / os.fsdecode(b"\xff")
    for turn in range(5):
        odd.mkdir()
        replace(path, str(turn))
        odd.rmdir()
        notices(monitors, path)


def test_a_link_to_a_name_that_is_no_text_blinds_nobody(monitors: FileMonitors, tmp_path: Path) -> None:
    odd = os.fsdecode(b"\xff")
    (tmp_path / odd).mkdir()
    (tmp_path / "link").symlink_to(f"{odd}/file")
    begin(monitors, tmp_path / "link")
    begin(monitors, tmp_path / "file")
    settled(monitors, tmp_path / "other")
    (tmp_path / "file").write_text("")
    notices(monitors, tmp_path / "file")


@pytest.mark.parametrize("settle", [0.0, 3600.0], ids=["while others change", "when all is quiet"])
def test_what_the_kernel_lost_is_found_soon(
    monitors: FileMonitors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settle: float
) -> None:
    path = tmp_path / "file"
    reached, changed = threading.Event(), threading.Event()

    class Deaf:
        """Reports once that something happened somewhere, and never that the file changed."""

        def __init__(self, *_: object) -> None:
            pass

        def __enter__(self) -> Deaf:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def watch(
            self, _d: int, _s: int, timeout_ms: int, stop: threading.Event
        ) -> set[tuple[int, str]] | str:
            if timeout_ms:
                return "timeout"
            if reached.is_set() and changed.is_set():
                stop.wait()
                return "stop"
            reached.set()
            changed.wait(TIMEOUT_MS / 1000)
            return {(2, "/elsewhere")}

    monkeypatch.setattr(filemon, "RustNotify", Deaf)
    monkeypatch.setattr(filemon, "SETTLE_S", settle)
    begin(monitors, path)
    reached.wait()
    path.write_text("")
    changed.set()
    notices(monitors, path)


def test_without_watches_paths_are_looked_at_by_and_by(
    monitors: FileMonitors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def exhausted(*_: object) -> None:
        raise OSError("no more watches")

    monkeypatch.setattr(filemon, "RustNotify", exhausted)
    monkeypatch.setattr(filemon, "SETTLE_S", 0.01)
    path = tmp_path / "file"
    begin(monitors, path)
    for turn in range(3):
        replace(path, str(turn))
        notices(monitors, path)
    assert [record.message for record in caplog.records] == [
        "file monitors look once a second, as the system lets none watch: no more watches"
    ]


def test_closing_leaves_neither_thread_nor_descriptor(tmp_path: Path) -> None:
    def owned() -> int:
        return len(os.listdir("/proc/self/fd")) + len(os.listdir("/proc/self/task"))  # noqa: PTH208

    before = owned()
    for turn in range(10):
        with opened() as monitors:
            settled(monitors, tmp_path / str(turn))
            monitors.close()
            monitors.close()
        assert "zmule-filemon" not in {thread.name for thread in threading.enumerate()}
    while owned() > before:  # the library's own thread is told to end, not waited for
        os.sched_yield()


def test_closing_unused_monitors_is_fine() -> None:
    with opened() as monitors:
        monitors.close()


# Folders that take long to look at.


class Endless:
    """Makes one folder one of endlessly many entries until it is given an end, and tells when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.reached, self.ended = threading.Event(), threading.Event()
        self._entries = filemon._entries

    def entries(self, folder: str) -> Iterator[Any]:
        while folder == self.folder and not self.ended.is_set():
            self.reached.set()
            yield 0  # the hash of which adds nothing to the sum
        yield from self._entries(folder)


@pytest.fixture
def endless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Endless:
    made = Endless(tmp_path / "endless")
    (tmp_path / "endless").mkdir()
    monkeypatch.setattr(filemon, "_entries", made.entries)
    return made


def test_who_adds_a_folder_of_very_many_entries_is_not_held_up(
    monitors: FileMonitors, endless: Endless
) -> None:
    monitors.add(endless.folder)
    monitors.add(endless.folder)
    assert endless.reached.wait(TIMEOUT_MS / 1000)
    assert list(monitors.answers()) == []
    endless.ended.set()
    assert readable(monitors)
    assert list(monitors.answers()) == [(endless.folder, None)]
    assert not readable(monitors, 0)
    append(Path(endless.folder) / "file")
    notices(monitors, Path(endless.folder))


def test_a_folder_that_is_removed_while_first_looked_at_is_let_go(
    monitors: FileMonitors, endless: Endless, tmp_path: Path
) -> None:
    for _ in range(3):
        endless.reached.clear()
        monitors.add(endless.folder)
        assert endless.reached.wait(TIMEOUT_MS / 1000)
        monitors.remove(endless.folder)
    begin(monitors, tmp_path / "file")
    monitors.add(endless.folder)
    endless.ended.set()
    assert readable(monitors)
    assert list(monitors.answers()) == [(endless.folder, None)]


def test_a_folder_that_is_removed_while_compared_is_let_go(
    monitors: FileMonitors, endless: Endless, tmp_path: Path
) -> None:
    endless.ended.set()
    begin(monitors, Path(endless.folder))
    settled(monitors, tmp_path / "other")
    endless.reached.clear()
    endless.ended.clear()
    append(Path(endless.folder) / "file")
    assert endless.reached.wait(TIMEOUT_MS / 1000)
    monitors.remove(endless.folder)
    assert endless.folder not in settled(monitors, tmp_path / "another")


@pytest.mark.parametrize("first", [True, False], ids=["first looked at", "compared"])
def test_closing_does_not_wait_for_a_folder_that_is_looked_at(endless: Endless, first: bool) -> None:
    with opened() as monitors:
        if not first:
            endless.ended.set()
            begin(monitors, Path(endless.folder))
            endless.ended.clear()
            append(Path(endless.folder) / "file")
        monitors.add(endless.folder)
        assert endless.reached.wait(TIMEOUT_MS / 1000)
        monitors.close()
        assert not any(thread.is_alive() for thread in monitors._threads)


def test_closing_leaves_a_look_behind_that_hangs(
    endless: Endless, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hanging(_: str) -> Iterator[tuple[str, int]]:
        endless.reached.set()
        endless.ended.wait()
        return iter([])

    monkeypatch.setattr(filemon, "_entries", hanging)
    monkeypatch.setattr(filemon, "CLOSING_S", 0.0)
    with opened() as monitors:
        monitors.add(endless.folder)
        assert endless.reached.wait(TIMEOUT_MS / 1000)
        monitors.close()
    os.fstat(monitors.descriptor())  # what hangs may come to an end, and use it
    endless.ended.set()
    for thread in monitors._threads:
        thread.join()
    os.close(monitors.descriptor())


def test_an_answer_that_waits_is_dropped_with_its_path(monitors: FileMonitors, tmp_path: Path) -> None:
    path, other = str(tmp_path / "file"), str(tmp_path / "other")
    monitors.add(path)
    assert readable(monitors)
    monitors.remove(path)
    assert list(monitors.answers()) == []
    monitors.add(path)
    monitors.add(other)
    while len(monitors._answers) < 2:
        os.sched_yield()
    answers = monitors.answers()
    assert next(answers) == (path, None)
    monitors.remove(other)
    assert list(answers) == []


def test_what_is_added_again_is_answered_again(monitors: FileMonitors, tmp_path: Path) -> None:
    for _ in range(3):
        begin(monitors, tmp_path)
        monitors.add(str(tmp_path))
        assert list(monitors.answers()) == [(str(tmp_path), None)]
        monitors.remove(str(tmp_path))


def test_one_entry_of_thousands_is_noticed(monitors: FileMonitors, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(5000):
        (folder / str(number)).touch()
    begin(monitors, folder)
    settled(monitors, tmp_path / "other")
    for change in (append, touch, recreate, Path.unlink):
        with held(monitors):
            change(folder / "2500")
        notices(monitors, folder)


A = Path("a")
B = A / "b"
STEPS: dict[str, Callable[[Path], object]] = {
    "make tree": lambda root: (root / B).mkdir(parents=True),
    "write": lambda root: append(root / B / "file"),
    "replace": lambda root: replace(root / B / "file", "new"),
    "delete": lambda root: (root / B / "file").unlink(),
    "touch": lambda root: touch(root / B / "file"),
    "move a away": lambda root: (root / A).rename(root / "x"),
    "move a back": lambda root: (root / "x").rename(root / A),
    "link a": lambda root: (root / A).symlink_to("x"),
    "unlink a": lambda root: (root / A).unlink(),
    "link b": lambda root: (root / B).symlink_to(root / "y"),
    "move b": lambda root: (root / B).rename(root / "y"),
    "remove tree": lambda root: shutil.rmtree(root / A),
    "link file": lambda root: (root / B / "file").symlink_to("../../z"),
    "write target": lambda root: append(root / "z"),
    "change set": lambda root: None,
}


@settings(max_examples=6)
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=10, max_size=30))
def test_whatever_happens_on_the_way_what_is_found_is_what_was_noticed(steps: list[str]) -> None:
    def found() -> tuple[int, int, int] | None:
        with suppress(OSError):
            stat = path.stat()
            return stat.st_ino, stat.st_size, stat.st_mtime_ns
        return None

    with TemporaryDirectory() as made, opened() as monitors:
        path = Path(made) / B / "file"
        begin(monitors, path)
        for turn, step in enumerate(["make tree", "write", *steps]):
            before = found()
            with suppress(OSError):
                STEPS[step](Path(made))
            if step == "change set":
                begin(monitors, Path(made) / str(turn))
            if found() != before:
                notices(monitors, path)
