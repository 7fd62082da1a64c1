"""A name that zmule does not have says so; and the page on it has all names of uWSGI's."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.test_docs import code
from zmule.compat import absent, uwsgi, uwsgidecorators

PAGE = Path(__file__).parents[2] / "docs" / "migrating.rst"

UWSGI = """
    SPOOL_IGNORE SPOOL_OK SPOOL_RETRY SymbolsImporter SymbolsZipImporter ZipImporter accepting add_cron
    add_file_monitor add_ms_timer add_rb_timer add_timer add_var alarm applications async_connect
    async_sleep atexit buffer_size cache_clear cache_dec cache_del cache_div cache_exists cache_get
    cache_inc cache_keys cache_mul cache_num cache_set cache_update call chunked_read chunked_read_nb cl
    close connect connection_fd cores disconnect embedded_data env extract farm_get_msg farm_msg
    get_logvar green_schedule has_threads hostname i_am_the_lord i_am_the_spooler in_farm
    install_mule_msg_hook is_a_reload is_connected is_locked listen_queue lock log log_this_request
    logsize loop lord_scroll magic_table masterpid mem metric_dec metric_div metric_get metric_inc
    metric_mul metric_set metric_set_max metric_set_min micros mode mule_file mule_get_msg mule_id
    mule_msg mule_msg_hook mule_msg_recv_size numproc offload opt parsefile pidfile post_fork_hook
    queue_get queue_last queue_pop queue_pull queue_pull_slot queue_push queue_set queue_slot ready
    ready_fd recv register_rpc register_signal reload request_context request_id route rpc rpc_list
    scrolls send send_to_spooler sendfile set_logvar set_spooler_frequency set_user_harakiri
    set_warning_message setprocname sharedarea_read sharedarea_write signal signal_received
    signal_registered signal_wait snmp_set_counter32 sockets spool spooler spooler_dir spooler_get_task
    spooler_jobs spooler_pid spooler_pids spoolers start_response started_on stop suspend total_requests
    unbit unlock version version_info wait_fd_read wait_fd_write websocket_handshake websocket_recv
    websocket_recv_nb websocket_send websocket_send_binary worker_id workers
"""

DECORATORS = """
    cron erlang farm filemon get_free_signal harakiri lock mstimer mule mule_functions mulefunc muleloop
    mulemsg postfork postfork_chain postfork_chain_hook rbtimer rpc signal spool spoolforever spoolraw
    thread timer
"""

HOOKS = {"atexit", "mule_msg_hook", "post_fork_hook"}
ASKED = {"numproc", "opt"}


@pytest.mark.parametrize("name", UWSGI.split())
def test_a_name_of_uwsgi_is_there_or_says_what_is(name: str) -> None:
    if name in HOOKS | ASKED or name in vars(uwsgi):
        return
    with pytest.raises(AttributeError, match=rf"zmule has no uwsgi\.{name}: .*docs/migrating\.rst"):
        getattr(uwsgi, name)
    assert not hasattr(uwsgi, name)


@pytest.mark.parametrize("name", DECORATORS.split())
def test_a_decorator_is_there_or_says_what_is(name: str) -> None:
    if name not in vars(uwsgidecorators):
        with pytest.raises(AttributeError, match=rf"zmule has no uwsgidecorators\.{name}: "):
            getattr(uwsgidecorators, name)


def test_other_names_are_plainly_missing() -> None:
    with pytest.raises(AttributeError, match="module 'uwsgi' has no attribute 'nonsense'"):
        _ = uwsgi.nonsense


def test_the_page_has_every_name() -> None:
    words = set(code(PAGE).replace("(", " ").replace("@", " ").split())
    patterns = [word for word in words if "*" in word]
    for name in (UWSGI + DECORATORS).split():
        assert name in words or any(fnmatchcase(name, pattern) for pattern in patterns), name
    for names in absent.INSTEAD:
        assert set(names.split()) <= words, names
