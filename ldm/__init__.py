"""Latent diffusion: generate, personalise, restyle, look inside."""

import os

# Set before torch is imported, whose GNU OpenMP reads it once. As it comes, a thread that waits for the others spins
# for milliseconds; where any other process wants the processor, that keeps the very threads from it that are waited
# for, and a small model becomes many times slower: docs/speed.md has the times, of larger layers as well.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
