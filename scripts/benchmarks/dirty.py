"""The application of gunicorn's dirty worker; gunicorn loads it where it is to run."""

from __future__ import annotations

from gunicorn.dirty import DirtyApp

from benchmarks import task


class Tasks(DirtyApp):  # type: ignore[misc]
    """The task as a method."""

    def warm_up(self) -> None:
        task.bind()

    def run(self, number: int) -> int:
        return task.run(number)
