"""Small tools, one thin file each: ``python -m scripts.NAME``."""

import sys

import ldm  # noqa: F401  (before torch: see there)
from ldm.stopping import listen

if sys.argv[0] == "-m":  # Python is looking for the module to run, whose imports take a while
    listen()
