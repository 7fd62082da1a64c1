"""Fakes for tests: the real cores in a world without sockets, threads or clocks.

`World` is for tests that say what happens next. `Simulation` lets a seed say it, with every fault there
is, and holds the whole to its promises after every step: see docs/testing.rst.
"""

from zmule.testing.world import Actor, SimClient, SimMule, SimThread, World

__all__ = ["Actor", "SimClient", "SimMule", "SimThread", "World"]
