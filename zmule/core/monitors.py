"""Which paths are watched, for which signals, and who asked for it."""

from __future__ import annotations

from collections.abc import Hashable

MONITORS_PER_ASKER = 10_000
MONITORS_OF_ALL = 50_000


class _Monitor:
    """What raises one signal when one path changes: who asks for it, how often it has, what waits for it."""

    __slots__ = ("askers", "fired", "waiting")

    def __init__(self) -> None:
        self.askers: set[Hashable] = set()
        self.fired = 0
        self.waiting: list[tuple[bytes, int]] = []

    def take_waiting(self) -> list[tuple[bytes, int]]:
        waiting, self.waiting = self.waiting, []
        return waiting


class _Path:
    """A watched path: its monitors by signal, and whether the watch has begun."""

    __slots__ = ("monitors", "settled")

    def __init__(self) -> None:
        self.monitors: dict[int, _Monitor] = {}
        self.settled = False


class Monitors:
    """The table of file monitors."""

    def __init__(self) -> None:
        self._paths: dict[str, _Path] = {}
        self._asked: dict[Hashable, dict[tuple[str, int], None]] = {}
        self._links = 0

    def add(self, signal: int, path: str, asker: Hashable, question: tuple[bytes, int]) -> bool:
        """Note that somebody wants a signal when the path changes; return whether it must be watched now.

        `question` is answered when the watch has begun; see `settled` and `remove`.

        Raises:
            ValueError: the asker has too many monitors.
        """
        asked = self._asked.setdefault(asker, {})
        if len(asked) >= MONITORS_PER_ASKER and (path, signal) not in asked:
            raise ValueError(f"one process can ask for {MONITORS_PER_ASKER} file monitors, not for more")
        if self._links >= MONITORS_OF_ALL and (path, signal) not in asked:
            raise ValueError(f"all processes together can ask for {MONITORS_OF_ALL} file monitors")
        self._links += (path, signal) not in asked
        asked[path, signal] = None
        new = path not in self._paths
        entry = self._paths.setdefault(path, _Path())
        monitor = entry.monitors.setdefault(signal, _Monitor())
        monitor.askers.add(asker)
        if not entry.settled:
            monitor.waiting.append(question)
        return new

    def is_new(self, path: str) -> bool:
        """Return whether the watch has yet to begin."""
        return not self._paths[path].settled

    def settled(self, path: str, *, refused: bool) -> list[tuple[bytes, int]]:
        """The watch has begun, or cannot: return the questions that waited for it."""
        entry = self._paths.get(path)
        if entry is None:
            return []
        entry.settled = True
        waiting = [question for monitor in entry.monitors.values() for question in monitor.take_waiting()]
        if refused:
            for signal in list(entry.monitors):
                self._end(path, signal)
        return waiting

    def changed(self, path: str) -> list[int]:
        """Return the signals that a change of the path raises."""
        entry = self._paths.get(path)
        if entry is None:
            return []
        for monitor in entry.monitors.values():
            monitor.fired += 1
        return list(entry.monitors)

    def drop(self, asker: Hashable) -> list[str]:
        """Forget an asker; return the paths that need no watch any more."""
        unneeded = []
        asked = self._asked.pop(asker, {})
        self._links -= len(asked)
        for path, signal in asked:
            askers = self._paths[path].monitors[signal].askers
            askers.remove(asker)
            if not askers:
                unneeded += self._end(path, signal)
        return unneeded

    def remove(self, signal: int) -> tuple[int, list[tuple[bytes, int]], list[str]]:
        """Forget a signal's monitors, whoever asks for them.

        Returns:
            how many there were, the questions that waited for them to begin, and the paths that need no watch
            any more.
        """
        paths = {path: entry for path, entry in self._paths.items() if signal in entry.monitors}
        waiting = [each for entry in paths.values() for each in entry.monitors[signal].take_waiting()]
        return len(paths), waiting, [unneeded for path in paths for unneeded in self._end(path, signal)]

    def _end(self, path: str, signal: int) -> list[str]:
        """Forget a monitor, and the path if that was its last; return it then."""
        monitors = self._paths[path].monitors
        for asker in monitors.pop(signal).askers:
            del self._asked[asker][path, signal]
            self._links -= 1
        if monitors:
            return []
        del self._paths[path]
        return [path]

    def status(self) -> list[dict[str, object]]:
        """Return the monitors for the status."""
        return [
            {
                "kind": "filemon",
                "signal": signal,
                "spec": path,
                "askers": len(monitor.askers),
                "fired": monitor.fired,
                "next_in_s": None,
            }
            for path, entry in sorted(self._paths.items())
            for signal, monitor in sorted(entry.monitors.items())
        ]

    def validate(self) -> None:
        """Raise AssertionError if paths and askers do not agree."""
        assert all(entry.monitors for entry in self._paths.values())
        assert self._links == sum(map(len, self._asked.values())), "the monitors are miscounted"
        links = {(asker, path, signal) for asker, asked in self._asked.items() for path, signal in asked}
        assert links == {
            (asker, path, signal)
            for path, entry in self._paths.items()
            for signal, monitor in entry.monitors.items()
            for asker in monitor.askers
        }
