"""Benchmarks of a broker on this machine, as ratios within one run.

Times on these machines vary from run to run by more than what one wants to see; so each line measures the
thing and its peer in turns, and gives the ratio of the medians. Figures in absolute numbers stand beside.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zmule import Client, Mule
from zmule.errors import BrokerUnavailable

ROUNDS = 5
COMMANDS = Path(sys.executable).parent

CLOCK = """
import time, zmule
mule = zmule.current_mule()
client = zmule.Client()
mule.register_signal(17, "mule", lambda signum: client.mule_msg(str(time.monotonic_ns()), 9))
while True:
    message = mule.get_msg()
    now = time.monotonic_ns()
    if message == "time":
        client.mule_msg(str(now), 9)
"""


@contextmanager
def broker(*arguments: str) -> Iterator[str]:
    """Run zmuled with these arguments; give its endpoint."""
    with tempfile.TemporaryDirectory(prefix="zmule-bench-") as folder:
        endpoint = f"ipc://{folder}/zmule.sock"
        (Path(folder) / "clock.py").write_text(CLOCK)
        command = [str(COMMANDS / "zmuled"), "--endpoint", endpoint, "--log-level=error", *arguments]
        process = subprocess.Popen(command, cwd=folder)
        try:
            wait_for(endpoint)
            yield endpoint
        finally:
            process.terminate()
            process.wait()


def wait_for(endpoint: str) -> None:
    """Wait until the broker's mules wait for something."""
    deadline = time.monotonic() + 30
    with Client(endpoint, timeout=1) as client:
        while time.monotonic() < deadline:
            try:
                mules = client.status()["mules"]
            except BrokerUnavailable:
                continue
            if all(mule["waiting"] for mule in mules):
                return
    raise SystemExit("bench: the broker has not come up")


def latencies(count: int) -> dict[str, Any]:
    """One way: from the sender's call to the handler's first line, and to the return of `get_msg`."""
    with (
        broker("--mule=clock.py") as endpoint,
        Client(endpoint) as client,
        Mule(9, endpoint=endpoint) as back,
    ):
        signals: list[float] = []
        messages: list[float] = []
        for turn in range(2 * count):
            begun = time.monotonic_ns()
            if turn % 2:
                client.signal(17)
            else:
                client.mule_msg("time", 1)
            arrived = back.get_msg(timeout=10)
            if arrived is None:
                raise SystemExit("bench: the mule has not answered")
            (signals if turn % 2 else messages).append((int(arrived) - begun) / 1000)
    signal, message = statistics.median(signals), statistics.median(messages)
    return {"signal_us": signal, "message_us": message, "ratio": signal / message}


def throughput(count: int) -> float:
    """Messages of 100 bytes a second that one mule works off from a backlog."""
    with broker() as at, Client(at, timeout=60) as client, Mule(1, endpoint=at) as mule:
        for _ in range(count):
            client.mule_msg("x" * 100, 1, wait=False)
        client.flush()
        begun = time.monotonic()
        for _ in range(count):
            mule.get_msg()
        mule.ack()
        return count / (time.monotonic() - begun)


def main() -> int:
    """Run the benchmarks that there are, print them as a table or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args()
    rounds = 2 if options.quick else ROUNDS
    one_way = [latencies(200 if options.quick else 1000) for _ in range(rounds)]
    ratios = sorted(turn["ratio"] for turn in one_way)
    results = {
        "signal_to_message": {
            "ratio": statistics.median(ratios),
            "spread": [ratios[0], ratios[-1]],
            "signal_us": statistics.median(turn["signal_us"] for turn in one_way),
            "message_us": statistics.median(turn["message_us"] for turn in one_way),
        },
        "backlog_to_one_mule_per_s": statistics.median(throughput(100_000) for _ in range(rounds)),
    }
    if options.json:
        print(json.dumps(results))
        return 0
    signal = results["signal_to_message"]
    assert isinstance(signal, dict)
    print(f"one way, idle, a message    {signal['message_us']:.0f} µs")
    print(f"one way, idle, a signal     {signal['signal_us']:.0f} µs")
    print(f"signal : message            {signal['ratio']:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    print(f"a backlog, 100 B, one mule  {results['backlog_to_one_mule_per_s']:,.0f} messages a second")
    return 0


if __name__ == "__main__":
    sys.exit(main())
