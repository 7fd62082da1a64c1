"""What programs have told the drop-in modules, for both of them and for whoever runs the program."""

from __future__ import annotations

from collections.abc import Callable

message_hooks: list[Callable[[bytes], object]] = []
"""Installed hooks for messages of a signal-only mule."""

named_signals: set[int] = set()
"""Signals whose numbers decorators have chosen."""
