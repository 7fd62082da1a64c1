"""Which paths are watched, for which signals, and who asked for it."""

from __future__ import annotations

from collections.abc import Hashable


class _Path:
    """A watched path: askers by signal, and the questions that wait for the watch to begin."""

    __slots__ = ("settled", "signals", "waiting")

    def __init__(self) -> None:
        self.signals: dict[int, set[Hashable]] = {}
        self.waiting: list[tuple[bytes, int]] = []
        self.settled = False


class Monitors:
    """The table of file monitors."""

    def __init__(self) -> None:
        self._paths: dict[str, _Path] = {}

    def add(self, signal: int, path: str, asker: Hashable, question: tuple[bytes, int] | None) -> bool:
        """Note that somebody wants a signal when the path changes; return whether it must be watched now.

        `question` is answered when the watch has begun; see `settled`.
        """
        entry = self._paths.get(path)
        new = entry is None
        if entry is None:
            entry = self._paths[path] = _Path()
        entry.signals.setdefault(signal, set()).add(asker)
        if question is not None and not entry.settled:
            entry.waiting.append(question)
        return new

    def is_new(self, path: str) -> bool:
        """Return whether the watch has yet to begin."""
        return not self._paths[path].settled

    def settled(self, path: str, *, refused: bool) -> list[tuple[bytes, int]]:
        """The watch has begun, or cannot: return the questions that waited for it."""
        entry = self._paths.get(path)
        if entry is None:
            return []
        waiting, entry.waiting, entry.settled = entry.waiting, [], True
        if refused:
            del self._paths[path]
        return waiting

    def signals(self, path: str) -> list[int]:
        """Return the signals that a change of the path raises."""
        entry = self._paths.get(path)
        return list(entry.signals) if entry else []

    def drop(self, asker: Hashable) -> list[str]:
        """Forget an asker; return the paths that need no watch any more."""
        for entry in self._paths.values():
            for askers in entry.signals.values():
                askers.discard(asker)
            entry.signals = {signal: askers for signal, askers in entry.signals.items() if askers}
        return self._unneeded()

    def remove(self, signal: int) -> list[str]:
        """Forget a signal's monitors; return the paths that need no watch any more."""
        for entry in self._paths.values():
            entry.signals.pop(signal, None)
        return self._unneeded()

    def _unneeded(self) -> list[str]:
        paths = [path for path, entry in self._paths.items() if not entry.signals]
        for path in paths:
            del self._paths[path]
        return paths

    def status(self) -> list[dict[str, object]]:
        """Return the monitors for the status."""
        return [
            {"kind": "filemon", "signal": signal, "path": path, "askers": len(askers)}
            for path, entry in sorted(self._paths.items())
            for signal, askers in sorted(entry.signals.items())
        ]
