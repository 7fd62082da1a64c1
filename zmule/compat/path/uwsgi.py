"""Stands aside for zmule's `uwsgi`."""

import sys

from zmule.compat import install

del sys.modules["uwsgi"]
install()
