"""Drop-in modules for programs written for uWSGI's mules."""

from __future__ import annotations

import sys


def install() -> None:
    """Make `import uwsgi` give zmule's drop-in, unless the process has a `uwsgi` already.

    Mules that `zmuled` or `zmule run` starts have it from the beginning. A web server's worker calls this
    once, before the application is imported.
    """
    from zmule.compat import uwsgi

    sys.modules.setdefault("uwsgi", uwsgi)
