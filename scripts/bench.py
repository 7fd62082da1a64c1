"""Measures zmule beside its peers: `benchmarks` tells how."""

import sys

from benchmarks.main import main

sys.exit(main())
