"""Latent diffusion: generate, personalise, restyle, look inside."""

import os

# Set before torch is imported, whose GNU OpenMP reads them once. As it comes, a thread that waits for the others spins
# for milliseconds; where any other process wants the processor, that keeps the very threads from it that are waited
# for, and a small model becomes many times slower. To spin for a moment costs little there, and on an idle machine
# saves most of the waking: docs/speed.md has the times, of larger layers as well.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
