"""Small tools, one thin file each: ``python -m scripts.NAME``."""

import ldm  # noqa: F401  (before torch: see there)
