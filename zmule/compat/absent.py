"""What uWSGI's modules have and the drop-in has not, and what to use instead.

One declaration for the error that a program gets, and for the table in docs/migrating.rst.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

_SERVERS = (
    "accepting add_var applications buffer_size cores env get_logvar is_a_reload log_this_request mode "
    "pidfile request_context route set_logvar set_warning_message sockets start_response unbit"
)
_CONNECTION = (
    "async_* chunked_read* cl close connect connection_fd disconnect green_schedule is_connected loop "
    "offload ready_fd recv send sendfile suspend wait_fd_*"
)
_SPOOLER = "SPOOL_* parsefile send_to_spooler set_spooler_frequency spool*"
_COUNTS = "listen_queue logsize metric_* request_id snmp_* total_requests workers"

INSTEAD: dict[str, str] = {
    _SPOOLER: "there is no spooler; send the task to a mule, by mule_msg or @mulefunc",
    "cache_*": "use Redis, memcached or your framework's cache",
    "queue_* sharedarea_*": "use Redis, or multiprocessing.shared_memory",
    "call register_rpc rpc rpc_list": "for a call that gives no result back, use @mulefunc",
    _COUNTS: "ask the web server; zmule status has what the broker counts",
    _CONNECTION: "the web server has the connection; answer, and send the work to a mule",
    "websocket_*": "use an ASGI framework",
    _SERVERS: "that is the web server's business",
    "alarm": "use logging",
    "i_am_the_lord lord_scroll scrolls": "there are no legions; one broker serves several hosts by tcp",
    "Symbols* ZipImporter embedded_data extract magic_table": "use importlib.resources",
    "erlang*": "there is no bridge to Erlang",
}
"""What to use instead, by the patterns of the names that are missing."""


def error(module: str, name: str) -> AttributeError:
    """Return the error for a name that the module has not."""
    for patterns, instead in INSTEAD.items():
        if any(fnmatchcase(name, pattern) for pattern in patterns.split()):
            return AttributeError(f"zmule has no {module}.{name}: {instead} (see docs/migrating.rst)")
    return AttributeError(f"module {module!r} has no attribute {name!r}")
