"""Signals, limits and children that zmuled was started with, or is given, by whoever starts it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, Zmuled, wait_until

WAITS = "import zmule\nzmule.get_msg()"


def by(preparation: str) -> list[str]:
    """Start a command after some Python has prepared the process for it."""
    source = f"import ctypes, os, resource, signal, sys\n{preparation}\nos.execvp(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", source]


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def state(pid: int) -> str:
    """The state of a process as in `ps`, "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def test_nohup_is_minded(zmuled: Zmuled) -> None:
    zmuled.start(wrapper=["nohup"])
    assert zmuled.process is not None
    zmuled.process.send_signal(signal.SIGHUP)
    zmuled.process.send_signal(signal.SIGTERM)
    assert zmuled.process.wait(PATIENCE) == 0
    assert "SIGTERM: stopping" in zmuled.output()
    assert "SIGHUP" not in zmuled.output()


def test_hangup_stops_it_else(zmuled: Zmuled) -> None:
    zmuled.start()
    assert zmuled.stop(signal.SIGHUP) == 0


def test_blocked_signals_stop_it_all_the_same(zmuled: Zmuled) -> None:
    zmuled.program("waits.py", WAITS)
    blocks = "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))"
    zmuled.start("--mule=waits.py", "--mule-reload-mercy=600", wrapper=by(blocks))
    assert zmuled.stop() == 0


def test_mules_have_the_limits_and_the_mask_that_zmuled_was_started_with(zmuled: Zmuled) -> None:
    zmuled.program(
        "tells.py",
        """
        import os, resource, signal, zmule
        umask = os.umask(0)
        names = sorted(number.name for number in signal.pthread_sigmask(signal.SIG_BLOCK, []))
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], oct(umask), names, ignored, flush=True)
        zmule.get_msg()
        """,
    )
    preparation = (
        "most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (333, most)); os.umask(0o27); "
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM]); "
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    )
    zmuled.start("--mule=tells.py", wrapper=by(preparation))
    wait_until(lambda: "mule 1: 333 0o27 ['SIGUSR1'] True\n" in zmuled.output())


def test_mules_do_not_get_what_a_service_manager_says_to_zmuled(zmuled: Zmuled) -> None:
    zmuled.program(
        "tells.py",
        """
        import os, zmule
        print([name for name in os.environ if name.startswith(("NOTIFY", "WATCHDOG", "LISTEN"))], flush=True)
        zmule.get_msg()
        """,
    )
    said = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000000", "LISTEN_FDS": "1", "LISTEN_PID": "1"}
    zmuled.start("--mule=tells.py", environ=said)
    wait_until(lambda: "mule 1: []\n" in zmuled.output())


def test_the_loop_feeds_the_watchdog(zmuled: Zmuled) -> None:
    path = zmuled.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(PATIENCE)
        zmuled.start(environ={"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "200000"})
        for _ in range(5):
            while manager.recv(4096) != b"WATCHDOG=1":
                pass
        assert zmuled.process is not None
        zmuled.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: state(zmuled.process.pid) == "T")  # type: ignore[union-attr]
        manager.setblocking(False)
        with suppress(BlockingIOError):
            while manager.recv(4096):
                pass
        zmuled.process.send_signal(signal.SIGCONT)


def test_a_subreaper_reaps_what_mules_leave_behind_and_misses_no_mules_end(zmuled: Zmuled) -> None:
    zmuled.program(
        "leaves.py",
        """
        import subprocess, sys, zmule
        for _ in range(20):
            subprocess.run(["sh", "-c", "(setsid sh -c 'exit 5' &); exit 0"])
        print("left", flush=True)
        zmule.get_msg()
        sys.exit(7)
        """,
    )
    zmuled.start("--mule=leaves.py", wrapper=by("ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)"), ready=False)
    assert zmuled.process is not None
    zmuled_pid = zmuled.process.pid
    wait_until(lambda: "mule 1: left\n" in zmuled.output())
    wait_until(lambda: children(zmuled_pid) == [zmuled.mule(1)["pid"]], "the orphans to be reaped")
    zmuled.client().mule_msg("end", 1)
    wait_until(lambda: "exit code 7" in zmuled.output())


def test_children_that_it_was_given_with_its_start_are_reaped(zmuled: Zmuled) -> None:
    zmuled.start(wrapper=["sh", "-c", 'true & sleep 0.1 & exec "$@"', "sh"])
    assert zmuled.process is not None
    pid = zmuled.process.pid
    wait_until(lambda: children(pid) == [])


HELPER = """
    import os, subprocess, zmule
    while True:
        name = zmule.get_msg()
        if os.getuid() == 0:
            os.setuid(65534)
        subprocess.run(["sh", "-c", "echo $$; exec sleep 1000"])
"""


def test_what_a_mule_has_started_dies_with_zmuled(zmuled: Zmuled) -> None:
    """Whoever the mule has become by then: as root, it changes its user first."""
    zmuled.folder.chmod(0o755)
    zmuled.program("starts.py", HELPER)
    zmuled.start("--mule=starts.py").client().mule_msg("x", 1)
    helper = int(wait_until(lambda: zmuled.output().partition("mule 1: ")[2].partition("\n")[0]))
    pids = [zmuled.mule(1)["pid"], helper]
    assert "" not in map(state, pids)
    zmuled.kill()
    wait_until(lambda: set(map(state, pids)) <= {"", "Z"}, "their ends")


def test_who_has_left_the_group_of_a_mule_is_left_alone(zmuled: Zmuled) -> None:
    zmuled.program(
        "daemonizes.py",
        """
        import subprocess, zmule
        subprocess.Popen(["sh", "-c", "echo $$; exec sleep 1000 > /dev/null"], start_new_session=True)
        zmule.get_msg()
        """,
    )
    zmuled.start("--mule=daemonizes.py")
    daemon = int(wait_until(lambda: zmuled.output().partition("mule 1: ")[2].partition("\n")[0]))
    mule = zmuled.mule(1)["pid"]
    zmuled.kill()
    try:
        wait_until(lambda: state(mule) in ("", "Z"))
        assert state(daemon) not in ("", "Z")
    finally:
        os.kill(daemon, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_in_any_phase_leaves_no_traceback(zmuled: Zmuled, number: int) -> None:
    zmuled.program("waits.py", WAITS)
    zmuled.start("--mule=waits.py", "--store=sqlite:///" + str(zmuled.folder / "store.db").lstrip("/"))
    assert zmuled.process is not None
    while zmuled.process.poll() is None:
        zmuled.process.send_signal(number)
    assert zmuled.process.returncode == 0
    assert "Traceback" not in zmuled.output()


def test_a_stop_at_its_start_starts_no_mules(zmuled: Zmuled) -> None:
    zmuled.program("waits.py", WAITS)
    zmuled.start(
        "--mule=waits.py",
        wrapper=by("signal.pthread_sigmask(signal.SIG_BLOCK, [15]); os.kill(os.getpid(), 15)"),
        ready=False,
    )
    assert zmuled.process is not None
    assert zmuled.process.wait(PATIENCE) == 0
    assert "SIGTERM: stopping" in zmuled.output()
    assert "mule 1" not in zmuled.output()


EARLY = """
import os, signal, sys

class Strike:
    def find_spec(name, path=None, target=None):
        if name == "typer":
            os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Strike)
from zmule.cli.entry import zmuled
sys.argv[0] = "zmuled"
zmuled()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_is_being_loaded_is_a_stop(zmuled: Zmuled, number: int) -> None:
    command = [sys.executable, "-c", EARLY.format(number=int(number)), "--endpoint", zmuled.endpoint]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "stopping" in done.stderr


def test_a_signal_while_it_is_being_loaded_hides_no_error(zmuled: Zmuled) -> None:
    command = [sys.executable, "-c", EARLY.format(number=int(signal.SIGTERM)), "--nonsense"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in (2, -signal.SIGTERM)
    assert "Traceback" not in done.stderr


def test_every_end_and_every_start_of_a_mule_is_in_the_log(zmuled: Zmuled) -> None:
    zmuled.program(
        "segfaults.py", "import os, signal, zmule\nzmule.get_msg()\nos.kill(os.getpid(), signal.SIGSEGV)"
    )
    zmuled.program("exits.py", "import sys, zmule\nzmule.get_msg()\nsys.exit(7)")
    client = zmuled.start("--mule=segfaults.py", "--mule=exits.py", "--max-deliveries=1").client()
    first = [zmuled.mule(number)["pid"] for number in (1, 2)]
    client.mule_msg("x", 1)
    client.mule_msg("x", 2)
    wait_until(lambda: zmuled.output().count("started: pid ") == 4)
    output = zmuled.output()
    assert f"warning: mule 1 ended: pid {first[0]}, killed by SIGSEGV after " in output
    assert f"warning: mule 2 ended: pid {first[1]}, exit code 7 after " in output
    assert output.count(" s, with 1 in flight; starts again in ") == 2
    assert f"info: mule 1 started: pid {first[0]}\n" in output
