"""Put the learned words of several files into one: the original command's place; see scripts/merge_embeddings.py."""

from __future__ import annotations

from ldm.util import run_command
from scripts.merge_embeddings import main

if __name__ == "__main__":
    run_command(main)
