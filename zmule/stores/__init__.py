"""Where accepted messages are kept: `open_store` finds the store that a URL names."""

from __future__ import annotations

from pathlib import Path

from zmule.core.effects import Recovery
from zmule.errors import ConfigError
from zmule.stores.store import Changes, Copy, Lost, Saved, Store

__all__ = ["Changes", "Copy", "Lost", "Recovery", "Saved", "Store", "open_store"]


def open_store(url: str, *, trust_folders: bool = False) -> Store:
    """Open a store.

    Args:
        url: `memory:`, `sqlite:///absolute/path` or `sqlite:relative/path`.
        trust_folders: leave out who else may write to the folders above a file.

    Raises:
        ConfigError: there is no such store, or its file cannot be used.
        EndpointInUse: another process has it open.
    """
    kind, _, rest = url.partition(":")
    if url == "memory:":
        from zmule.stores.volatile import VolatileStore

        return VolatileStore()
    if kind != "sqlite" or not rest or "\0" in rest or (rest.startswith("//") and not rest.startswith("///")):
        raise ConfigError(f"{url!r} is not a store: write memory: or sqlite:///path/to/zmule.db")
    from zmule.stores.sqlite import SqliteStore

    return SqliteStore(Path(rest.removeprefix("//")).absolute(), trust_folders=trust_folders)
