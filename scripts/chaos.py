"""Kills, stops, cuts and fills at random while messages flow, then adds up what was accepted and handled.

The real zmuled with the SQLite store, two mules of its own, three from outside behind a proxy, and three
senders. When the time is up everything is healed, the backlog is worked off, and the ledger is printed. The
exit status is 1 if a message is lost, was handled again for no reason, or came out of order.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from chaos_history import FOR_EVER, Blow
from chaos_ledger import Ledger, balance
from chaos_planted import FAULTS
from ports import free_ports

from zmule import Client, ZmuleError
from zmule.errors import StoreUnavailable
from zmule.stores import open_store
from zmule.testing.proxy import Proxy

HERE = Path(__file__).parent
COMMANDS = Path(sys.executable).parent
SENDERS, GUESTS = 3, 3
HEARTBEAT, TIMEOUT = 0.5, 1.5
NOTICED = TIMEOUT - 2 * HEARTBEAT
"""Who is suspended for less than that, in seconds, is not taken for dead."""

PATIENCE = 120.0
UNLIMITED = resource.RLIM_INFINITY

Process = subprocess.Popen[bytes]


class Stuck(Exception):
    """Something does not come to an end."""


class Chaos:
    """All processes, and what is done to them.

    Args:
        folder: where everything is written.
        store: where the broker keeps messages.
        fault: what is planted into the broker.
        random: decides what happens.
    """

    def __init__(self, folder: Path, store: str, fault: str, random: random.Random) -> None:
        self.folder = folder
        self.store = store
        self.fault = fault
        self.random = random
        self.blows: list[Blow] = []
        self.faults: Counter[str] = Counter()
        self.names = 0
        self.endpoint = f"ipc://{folder}/zmule.sock"
        self.port = free_ports()
        self.proxy = Proxy(self.port)
        self.log = (folder / "log").open("ab")
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("ZMULE_")}
        self.environ["CHAOS_FOLDER"] = str(folder)
        for name in ("accepted", "handled"):
            (folder / name).mkdir()
        self.processes: list[Process] = []
        self.serving: Process | None = None
        with (folder / "journal").open(
            "wb"
        ) as journal:  # a pipe to it, for files of the broker's may be limited
            self.scribe = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=journal, process_group=0)

    def begin(self) -> None:
        """Start everything."""
        self.broker = self.start_broker()
        self.senders = [self.start_sender() for _ in range(SENDERS)]
        self.guests = [self.start_guest() for _ in range(GUESTS)]
        self.wait_until("messages flow", lambda: all(self.has(f"accepted/s{n + 1}") for n in range(SENDERS)))

    def has(self, name: str) -> bool:
        """Return whether there is something in a file."""
        path = self.folder / name
        return path.exists() and path.stat().st_size > 0

    # Processes.

    def start_broker(self) -> Process:
        """Start zmuled; its output is read here, so that a full disk of its own is not ours."""
        program = f"--mule={HERE / 'chaos_mule.py'}"
        settings = {
            "endpoint": self.endpoint,
            "store": self.store,
            "heartbeat": HEARTBEAT,
            "heartbeat-timeout": TIMEOUT,
        }
        words = [f"--{name}={value}" for name, value in settings.items()]
        assert self.scribe.stdin is not None
        pipe = self.scribe.stdin.fileno()
        process = subprocess.Popen(
            [sys.executable, HERE / "chaos_broker.py", str(pipe), self.fault, *words,
             f"--endpoint=tcp://127.0.0.1:{self.port}", program, program, "--farm=busy:1,2"],
            env=self.environ, process_group=0, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            pass_fds=[pipe],
        )  # fmt: skip
        self.processes.append(process)
        threading.Thread(target=self.listen, args=(process,), daemon=True).start()
        return process

    def listen(self, process: Process) -> None:
        """Copy what zmuled says, and note when it has opened its store."""
        for line in process.stdout or ():
            self.log.write(b"zmuled: " + line)
            if b" serves " in line:
                self.serving = process

    def start(self, script: str, *words: object) -> Process:
        """Start one of our own programs."""
        command = [sys.executable, HERE / script, *map(str, words), str(os.getpid())]
        process = subprocess.Popen(
            command, env=self.environ, process_group=0, stdout=self.log, stderr=self.log
        )
        self.processes.append(process)
        return process

    def start_sender(self) -> Process:
        """Start a sender with a name that is like no other."""
        self.names += 1
        return self.start("chaos_sender.py", f"s{self.names}", self.endpoint, self.folder)

    def start_guest(self) -> Process:
        """Start a mule from outside, behind the proxy."""
        return self.start("chaos_mule.py", "guests,busy", f"tcp://127.0.0.1:{self.proxy.port}")

    def own_mules(self) -> list[int]:
        """Return the pids of zmuled's own mules."""
        children = Path(f"/proc/{self.broker.pid}/task/{self.broker.pid}/children")
        try:
            return [int(pid) for pid in children.read_text().split()]
        except OSError:
            return []

    # What is done to them.

    @contextlib.contextmanager
    def blow(self, what: str, pids: Sequence[int] = ()) -> Iterator[None]:
        """Note what is being done to some mules, or to all; it may show for a heartbeat timeout."""
        begun = time.monotonic_ns()
        yield
        self.blows.append(Blow(what, begun, time.monotonic_ns() + int(1e9 * TIMEOUT), tuple(pids)))

    def death(self, pid: int) -> None:
        """Note that a mule is about to be killed."""
        self.blows.append(Blow("its mule died", time.monotonic_ns(), FOR_EVER, (pid,)))

    def kill_guest(self) -> None:
        place = self.random.randrange(GUESTS)
        self.death(self.guests[place].pid)
        end(self.guests[place])
        self.guests[place] = self.start_guest()

    def kill_own_mule(self) -> None:
        for pid in self.random.sample(pids := self.own_mules(), min(1, len(pids))):
            self.death(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_sender(self) -> None:
        place = self.random.randrange(SENDERS)
        end(self.senders[place])
        self.senders[place] = self.start_sender()

    def kill_broker(self) -> None:
        end(self.broker)
        time.sleep(self.random.choice((0.0, 0.5)))
        self.broker = self.start_broker()

    def stop_mule(self) -> None:
        pid = self.random.choice([*self.own_mules(), *self.guest_pids()])
        self.suspend("its mule was suspended", pid, [pid])

    def guest_pids(self) -> list[int]:
        return [guest.pid for guest in self.guests]

    def stop_sender(self) -> None:
        process = self.random.choice(self.senders)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(self.while_silent())
            os.kill(process.pid, signal.SIGCONT)

    def stop_broker(self) -> None:
        self.suspend("the broker was suspended", self.broker.pid, [])

    def while_silent(self) -> float:
        """Return for how long a process is suspended: that may be longer than it may be silent."""
        return TIMEOUT * self.random.choice((0.1, 0.4, 1.4))

    def suspend(self, what: str, pid: int, pids: Sequence[int]) -> None:
        """Stop a process for a while; if that is short, nobody may notice."""
        seconds = self.while_silent()
        noted = self.blow(what, pids) if seconds > NOTICED else contextlib.nullcontext()
        with noted, contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(seconds)
            os.kill(pid, signal.SIGCONT)

    def cut(self) -> None:
        with self.blow("the connections were cut", self.guest_pids()):
            self.proxy.cut()

    def stall(self) -> None:
        seconds = TIMEOUT * self.random.choice((0.2, 1.4))
        cut = self.random.random() < 0.5
        noted = seconds > NOTICED or cut
        with self.blow("the network stood still", self.guest_pids()) if noted else contextlib.nullcontext():
            self.proxy.stall()
            time.sleep(seconds)
            if cut:
                self.proxy.cut()
            self.proxy.flow()

    def fill_disk(self) -> None:
        """Let zmuled write no file any longer than it is; one that is starting would rightly refuse to."""
        self.wait_until("zmuled serves", lambda: self.serving is self.broker)
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(self.broker.pid, resource.RLIMIT_FSIZE, (1, UNLIMITED))
            time.sleep(self.random.uniform(0.3, 1.5))
            resource.prlimit(self.broker.pid, resource.RLIMIT_FSIZE, (UNLIMITED, UNLIMITED))

    def rage(self, seconds: float) -> None:
        """Do all of it, for a time."""
        blows: dict[Callable[[], None], int] = {
            self.kill_guest: 8, self.kill_own_mule: 4, self.kill_sender: 3, self.kill_broker: 3,
            self.stop_mule: 3, self.stop_sender: 1, self.stop_broker: 1, self.cut: 4, self.stall: 2,
            self.fill_disk: 2,
        }  # fmt: skip
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(self.random.uniform(0.05, 0.4))
            self.revive()
            (blow,) = self.random.choices(list(blows), weights=blows.values())
            blow()
            self.faults[blow.__name__.replace("_", " ")] += 1
            self.show(until - time.monotonic())

    def revive(self) -> None:
        """Start anew who has died by itself: a mule of poison, a broker that was started on a full disk."""
        for place, guest in enumerate(self.guests):
            if guest.poll() is not None:
                self.guests[place] = self.start_guest()
        if self.broker.poll() == StoreUnavailable.exit_code:
            self.broker = self.start_broker()
        if self.broker.poll() is not None:
            raise Stuck(f"zmuled has ended by itself, with {self.broker.returncode}")

    def show(self, left: float) -> None:
        """Show how far it is, on a terminal."""
        if sys.stderr.isatty():
            print(f"{max(0.0, left):5.0f} s left, {self.faults.total()} faults ", end="\r", file=sys.stderr)

    # The end.

    def settle(self) -> None:
        """Let the senders end and the mules work until nothing is left; then let them and the broker end."""
        self.finish(self.senders)
        with Client(self.endpoint, timeout=PATIENCE) as client:
            self.work_off(client)
        self.finish(self.guests)
        self.finish([self.broker])

    def work_off(self, client: Client) -> None:
        """Let the mules work until nothing is left, for as long as it gets less."""
        while left := backlog(client.status()):
            self.wait_until(
                f"fewer than {left} messages are left", lambda left=left: backlog(client.status()) < left
            )  # type: ignore[misc]

    def finish(self, processes: Sequence[Process]) -> None:
        """Have processes end in order."""
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                raise Stuck(f"{process.args!r} does not end") from None

    def wait_until(self, what: str, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not is_so():
            self.revive()
            if time.monotonic() > deadline:
                raise Stuck(f"not within {PATIENCE:g} s: {what}")
            time.sleep(0.2)

    def close(self) -> None:
        """Leave no process behind, however it went."""
        for process in self.processes:
            end(process)
        self.scribe.communicate()
        self.proxy.close()
        self.log.close()

    def ledger(self) -> Ledger:
        """Return what it all comes to."""
        with contextlib.closing(open_store(self.store)) as store:
            dead = {dead.message[0]: dead.reason for dead in store.recover().dead}
        return balance(self.folder, dead, self.blows)


def backlog(status: dict[str, Any]) -> int:
    """Return how many messages all queues have: ready, in work, or waiting for their time."""
    held = ("ready", "in_flight", "delayed")
    return sum(queue[name] for queue in status["queues"].values() for name in held)


def end(process: Process) -> None:
    """Kill a process, suspended or not."""
    process.kill()
    process.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Make chaos, and return 0 if nothing came of it."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    add = parser.add_argument
    add("--seconds", type=float, default=60.0, metavar="N", help="how long to rage, default %(default)g")
    add("--seed", type=int, metavar="K", help="decides the faults, if not their exact moments")
    add("--store", metavar="URL", help="default a sqlite: file; memory: is bound to lose messages")
    add("--fault", default="none", choices=["none", *FAULTS], help="plant one, to see that it is found")
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else random.randrange(1_000_000)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folder = Path(tempfile.mkdtemp(prefix="zmule-chaos-"))
    good = False
    try:
        good = run(folder, options, seed)
    except KeyboardInterrupt:
        good = True
        return 128 + signal.SIGINT
    except (Stuck, ZmuleError) as error:
        print(f"chaos: {error}", file=sys.stderr)
    finally:
        if good:
            shutil.rmtree(folder)
        else:
            print(f"the evidence is in {folder}", file=sys.stderr)
    return 0 if good else 1


def run(folder: Path, options: argparse.Namespace, seed: int) -> bool:
    """Rage, settle, and print the ledger; return whether it is good."""
    seconds, store = options.seconds, options.store or f"sqlite://{folder}/zmule.db"
    chaos = Chaos(folder, store, options.fault, random.Random(seed))
    try:
        chaos.begin()
        chaos.rage(seconds)
        chaos.settle()
    finally:
        chaos.close()
    ledger = chaos.ledger()
    print(f"seed {seed}, {seconds:g} s, {chaos.faults.total()} faults")
    table([(f"  {name}", count) for name, count in chaos.faults.most_common()])
    table(ledger.rows())
    if ledger.wrong:
        print(*ledger.wrong[:20], sep="\n", file=sys.stderr)
        (folder / "blows").write_text("\n".join(map(str, chaos.blows)))
    return not ledger.wrong


def table(rows: Any) -> None:
    """Print names and numbers, aligned."""
    print()
    for name, number in rows:
        print(f"{name:<42} {number:>9}")


if __name__ == "__main__":
    sys.exit(main())
