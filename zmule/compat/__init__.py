"""Drop-in modules for programs written for uWSGI's mules."""

from __future__ import annotations

import sys
from importlib.util import LazyLoader, find_spec, module_from_spec


def install() -> None:
    """Make `import uwsgi` and `import uwsgidecorators` give zmule's, unless there is a `uwsgi` already.

    Mules that `zmuled` or `zmule run` starts have them from the beginning. A web server's worker calls this
    once, before the application is imported.
    """
    if "uwsgi" in sys.modules:
        return
    from zmule.compat import uwsgi
    from zmule.mules.serving import here

    sys.modules["uwsgi"] = uwsgi
    _install_decorators()
    here.hooks.append(_forked)


def post_fork() -> bool:
    """Run what the program has set as `uwsgi.post_fork_hook`, which is what `@postfork` is made of.

    It is run in signal-only mules, and in workers that are forked after the application was loaded. A server
    that loads it in each worker calls this afterwards, if it is wanted: gunicorn in `post_worker_init`.

    Returns:
        Whether there was anything to run.
    """
    hook = vars(sys.modules.get("uwsgi", sys)).get("post_fork_hook")
    if not callable(hook):
        return False
    hook()
    return True


def _forked() -> bool:
    from zmule import current

    return current.current_mule() is None and post_fork()


def _install_decorators() -> None:
    """Have the decorators loaded when they are first used: like uWSGI's, they set a hook in `uwsgi` then."""
    name = "zmule.compat.uwsgidecorators"
    spec = find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    spec.loader = LazyLoader(spec.loader)
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["uwsgidecorators"] = module
