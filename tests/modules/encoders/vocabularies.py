"""Small vocabularies that the tests of several encoders write."""

from __future__ import annotations

import json
from pathlib import Path

MERGES = ["c a", "ca t</w>", "d o", "do g</w>", "r e", "re d</w>", "p h"]


def write_bpe(folder: Path, letters: str = "acdeghoprst!&<>;") -> Path:
    """A byte-pair vocabulary of a few letters, in CLIP's two files: "!" is 0, the markers are the last two ids."""
    folder.mkdir(parents=True, exist_ok=True)
    singles = ["!", *(letter for letter in letters if letter != "!")]
    tokens = singles + [letter + "</w>" for letter in singles] + [merge.replace(" ", "") for merge in MERGES]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n")
    return folder


def bpe_size(folder: Path) -> int:
    return len(json.loads((folder / "vocab.json").read_text()))
