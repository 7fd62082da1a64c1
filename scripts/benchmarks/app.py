"""The application of zmule_task: what both the sender and the mule load, as under uWSGI."""

from __future__ import annotations

import uwsgidecorators

from benchmarks import task


@uwsgidecorators.mulefunc(1)  # type: ignore[untyped-decorator]
def work(number: int) -> None:
    task.run(number)
