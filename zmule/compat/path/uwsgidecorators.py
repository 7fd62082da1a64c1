"""Stands aside for zmule's `uwsgidecorators`."""

import sys

from zmule.compat import install

del sys.modules["uwsgidecorators"]
install()
