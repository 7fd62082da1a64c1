"""Every name of uWSGI 2.0.31's Python API, and what becomes of it here.

One declaration for what the drop-in modules have, for the error that a missing function raises when it is
called, and for the tables in docs/migrating.rst. A program may import a name that is missing: whether it
ever calls it is another question, and the answer to that says what to use instead.
"""

from __future__ import annotations

from typing import Any, NamedTuple

SAME, DIFFERENT, ABSENT, ADDED = "same", "different", "absent", "added"
"""As in uWSGI; otherwise, in the way that is said; not here, but what is said; only here and in uWSGI 2.1."""

PAGE = "see docs/migrating.rst"


class Entry(NamedTuple):
    """Some names, what becomes of them, and how they differ or what to do instead."""

    names: str
    status: str
    words: str = ""


UWSGI: dict[str, tuple[Entry, ...]] = {
    "Messages": (
        Entry("mule_id farm_get_msg", SAME),
        Entry("mule_msg", DIFFERENT, "It raises `ValueError` if there is no such mule or farm."),
        Entry("farm_msg", DIFFERENT, "It returns `True`, or `False` if the queue is full, for `None`."),
        Entry(
            "mule_get_msg",
            DIFFERENT,
            "Handlers of signals run while it waits; with `signals=False` they stay queued. `timeout` may be "
            "a float, a message is never cut.",
        ),
        Entry("in_farm", DIFFERENT, "It takes `bytes`, too."),
        Entry(
            "mule_msg_hook",
            DIFFERENT,
            "Set while the application is loaded. A message whose hook raises is delivered again.",
        ),
        Entry("mule_file mule_msg_recv_size install_mule_msg_hook", ADDED, "As in uWSGI 2.1."),
    ),
    "Signals": (
        Entry("signal_wait", SAME),
        Entry(
            "register_signal",
            DIFFERENT,
            "Everywhere, also in a mule; the same again is fine. There must be such a target.",
        ),
        Entry("signal", DIFFERENT, "It raises `zmule.QueueFull` if the signal waits 10 000 times already."),
        Entry("signal_received", DIFFERENT, "In a worker, what this process has handled last."),
        Entry(
            "signal_registered",
            DIFFERENT,
            "It tells of all processes; while a module is loaded, see numbers_.",
        ),
        Entry("add_timer", DIFFERENT, "The seconds may be a float. The same again is the same timer."),
        Entry(
            "add_rb_timer",
            DIFFERENT,
            "The same again is the same timer; one that has run out stays out for who loads it later.",
        ),
        Entry(
            "add_cron",
            DIFFERENT,
            "At the beginning of the minute, by zmuled's clock and time zone. A field out of range is a "
            "`ValueError`.",
        ),
        Entry("add_file_monitor", DIFFERENT, "It follows a file that is replaced, or comes late."),
        Entry("add_ms_timer", ADDED, "As in uWSGI 2.1."),
    ),
    "Locks": (
        Entry("lock", DIFFERENT, "It raises `RuntimeError` where uWSGI would wait for itself for ever."),
        Entry("unlock", DIFFERENT, "It raises `RuntimeError` if this thread does not hold the lock."),
        Entry("is_locked", DIFFERENT, "It tells, and never harms the lock."),
    ),
    "Processes": (
        Entry(
            "atexit has_threads hostname i_am_the_spooler log mem micros worker_id",
            SAME,
        ),
        Entry(
            "set_user_harakiri",
            DIFFERENT,
            "zmuled kills its mule, stuck or not; in other processes a timer of their own does. Within a "
            "`@harakiri` it is that one's time.",
        ),
        Entry("post_fork_hook", DIFFERENT, "See workers_."),
        Entry("masterpid", DIFFERENT, "The process that started this one: zmuled, or the server's master."),
        Entry("numproc", DIFFERENT, "How many workers are connected, 1 at least."),
        Entry(
            "opt",
            DIFFERENT,
            "`master`, `mule`, `farm`, and in mules what `--set` gives; a list for what is given "
            "several times.",
        ),
        Entry("reload", DIFFERENT, "It starts zmuled's mules anew; the web server reloads in its own way."),
        Entry("stop", DIFFERENT, "It stops zmuled and its mules, not the web server."),
        Entry("ready", DIFFERENT, "Always `True`: whoever can ask has been started."),
        Entry("setprocname", DIFFERENT, "15 bytes, for `ps -e` and `top`."),
        Entry("started_on", DIFFERENT, "When this process has imported the module."),
        Entry("version version_info", DIFFERENT, "`b'2.0.31+zmule.…'` and `(2, 0, 31, 0, b'zmule')`."),
    ),
    "The web server's": (
        Entry("applications buffer_size cores is_a_reload loop magic_table sockets unbit", SAME, "Defaults."),
        Entry("SPOOL_IGNORE SPOOL_OK SPOOL_RETRY", SAME),
        Entry("env mode pidfile", ABSENT, "There is no request here, and no such option."),
        Entry("total_requests request_id workers listen_queue logsize", ABSENT, "ask the web server"),
        Entry(
            "accepting add_var get_logvar log_this_request route set_logvar set_warning_message "
            "start_response",
            ABSENT,
            "that is the web server's business",
        ),
        Entry(
            "async_connect async_sleep chunked_read chunked_read_nb cl close connect connection_fd "
            "disconnect green_schedule is_connected offload ready_fd recv send sendfile suspend wait_fd_read "
            "wait_fd_write",
            ABSENT,
            "the web server has the connection; answer, and send the work to a mule",
        ),
        Entry(
            "websocket_handshake websocket_recv websocket_recv_nb websocket_send websocket_send_binary",
            ABSENT,
            "use an ASGI framework",
        ),
    ),
    "What zmule is not": (
        Entry(
            "spool spooler spoolers send_to_spooler set_spooler_frequency spooler_get_task spooler_jobs "
            "spooler_pid spooler_pids parsefile",
            ABSENT,
            "there is no spooler; send the task to a mule, by mule_msg or @mulefunc, and keep it over "
            "restarts by --store sqlite:///path",
        ),
        Entry(
            "cache_clear cache_dec cache_del cache_div cache_exists cache_get cache_inc cache_keys cache_mul "
            "cache_num cache_set cache_update",
            ABSENT,
            "use Redis, memcached or your framework's cache",
        ),
        Entry(
            "queue_get queue_last queue_pop queue_pull queue_pull_slot queue_push queue_set queue_slot "
            "sharedarea_dec32 sharedarea_dec64 sharedarea_inc32 sharedarea_inc64 sharedarea_inclong "
            "sharedarea_memoryview sharedarea_object sharedarea_read sharedarea_read16 sharedarea_read32 "
            "sharedarea_read64 sharedarea_read8 sharedarea_readbyte sharedarea_readlong sharedarea_rlock "
            "sharedarea_unlock sharedarea_wlock sharedarea_write sharedarea_write16 sharedarea_write32 "
            "sharedarea_write64 sharedarea_write8 sharedarea_writebyte sharedarea_writelong",
            ABSENT,
            "use Redis, or multiprocessing.shared_memory",
        ),
        Entry(
            "call register_rpc rpc rpc_list",
            ABSENT,
            "for a call that gives no result back, use @mulefunc",
        ),
        Entry(
            "metric_dec metric_div metric_get metric_inc metric_mul metric_set metric_set_max metric_set_min "
            "snmp_decr_counter32 snmp_decr_counter64 snmp_decr_gauge snmp_incr_counter32 snmp_incr_counter64 "
            "snmp_incr_gauge snmp_set_community snmp_set_counter32 snmp_set_counter64 snmp_set_gauge",
            ABSENT,
            "use a client of your metrics system; zmule status has what the broker counts",
        ),
        Entry("alarm", ABSENT, "use logging"),
        Entry(
            "i_am_the_lord lord_scroll scrolls",
            ABSENT,
            "there are no legions; one broker serves several hosts by tcp",
        ),
        Entry(
            "SymbolsImporter SymbolsZipImporter ZipImporter embedded_data extract",
            ABSENT,
            "use importlib.resources",
        ),
    ),
}
"""The names of `uwsgi`."""

DECORATORS: tuple[Entry, ...] = (
    Entry(
        "harakiri lock mule muleloop mule_functions postfork_chain postfork_chain_hook signal thread", SAME
    ),
    Entry(
        "cron filemon rbtimer timer",
        DIFFERENT,
        "Without `signum` they take a free signal; all processes that load the function agree on it. "
        "`@rbtimer` takes `iterations`, too.",
    ),
    Entry("get_free_signal", DIFFERENT, "All processes that load a module agree: see numbers_."),
    Entry("farm mulemsg", DIFFERENT, "A message in work is delivered again if the mule dies."),
    Entry("postfork", DIFFERENT, "See workers_."),
    Entry("mulefunc", DIFFERENT, "See calls_."),
    Entry(
        "mule_msg_dispatcher",
        DIFFERENT,
        "Calls of mule functions come by themselves. For other messages it raises what uWSGI's raises; it "
        "unpickles nothing unless that is allowed.",
    ),
    Entry("mstimer", ADDED, "As in uWSGI 2.1."),
    Entry(
        "farm_loop mule_brain mule_brainloop mulemsg_loop", ABSENT, "use @farm, @mule, @muleloop, @mulemsg"
    ),
    Entry(
        "manage_spool_request spool spool_decorate spooler_functions spoolforever spoolraw",
        ABSENT,
        "there is no spooler; have the function called in a mule by @mulefunc, and keep the call over "
        "restarts by --store sqlite:///path",
    ),
    Entry("rpc", ABSENT, "for a call that gives no result back, use @mulefunc"),
    Entry("erlang", ABSENT, "there is no bridge to Erlang"),
)
"""The names of `uwsgidecorators`."""

VALUES = frozenset({"env", "mode", "pidfile", "spooler", "spoolers"})
"""Names that are no functions, and that uWSGI has only for a while, or if it is told to: never here."""


class Absent:
    """Stands for a function that there is not: it can be imported, and says what to use when it is called."""

    def __init__(self, name: str, instead: str) -> None:
        self.__name__ = name.rpartition(".")[2]
        self.__doc__ = f"zmule has no {name}: {instead} ({PAGE})"

    def __repr__(self) -> str:
        return f"<{self.__doc__}>"

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError(self.__doc__)


def absent(module: str, name: str) -> Absent:
    """Return what stands for a name that the module has not.

    Raises:
        AttributeError: there is no such name in uWSGI either, or it is that of a value.
    """
    entries = (
        DECORATORS if module == "uwsgidecorators" else [one for group in UWSGI.values() for one in group]
    )
    for names, status, instead in entries:
        if status == ABSENT and name in names.split():
            stand_in = Absent(f"{module}.{name}", instead)
            if name in VALUES:
                raise AttributeError(stand_in.__doc__)
            return stand_in
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


def every(*groups: tuple[Entry, ...]) -> list[str]:
    """Return the names in the groups that a program may import."""
    return [name for group in groups for entry in group for name in entry.names.split() if name not in VALUES]
