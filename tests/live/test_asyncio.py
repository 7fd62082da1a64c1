"""A client behind `asyncio.to_thread`: many calls at once, some of tasks that are cancelled, and the end."""

from __future__ import annotations

import subprocess
from collections import Counter

from tests.conftest import COMMANDS, PATIENCE, Zmuled
from zmule.mules.mule import Mule

PROGRAM = """
    import asyncio, zmule

    client = zmule.Client(timeout=30)
    inside = 0

    def count(number):
        global inside
        with client.lock("one at a time", timeout=30):
            inside += 1
            assert inside == 1, "two hold the lock"
            client.mule_msg(f"locked {number}", wait=False)
            inside -= 1

    async def main():
        sends = [asyncio.to_thread(client.mule_msg, f"sent {number}") for number in range(50)]
        locks = [asyncio.to_thread(count, number) for number in range(50)]
        calls = [asyncio.to_thread(client.mule_msg, f"dropped {number}") for number in range(20)]
        dropped = [asyncio.create_task(call) for call in calls]
        await asyncio.sleep(0)
        for task in dropped:
            task.cancel()
        assert await asyncio.gather(*sends) == [True] * 50
        await asyncio.gather(*locks)
        ends = await asyncio.gather(*dropped, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends

    asyncio.run(main())
    asyncio.run(asyncio.to_thread(client.mule_msg, "another loop"))
"""


def test_calls_in_threads_of_a_loop_lose_and_double_nothing(zmuled: Zmuled) -> None:
    zmuled.start()
    program = zmuled.folder / zmuled.program("loop.py", PROGRAM)
    done = subprocess.run(
        [COMMANDS / "python", program],
        env={"ZMULE_ENDPOINT": zmuled.endpoint},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    got: Counter[str] = Counter()
    with Mule(endpoint=zmuled.endpoint) as mule:
        while (body := mule.get_msg(timeout=0)) is not None:
            got[str(body)] += 1
    assert max(got.values()) == 1
    kept = {f"sent {number}" for number in range(50)} | {f"locked {number}" for number in range(50)}
    assert got.keys() >= kept | {"another loop"}
    assert not any(lock["holder"] or lock["waiting"] for lock in zmuled.status()["locks"])
