"""Measurements: ``python -m benchmarks.NAME``."""

import ldm  # noqa: F401  (before torch: see there)
