"""The files that come with the project, wherever it is installed: the small models, YAMLs, sample pictures."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
INSTALLED = PACKAGE / "share"  # where a wheel carries the folders that lie beside ldm/ in a checkout
ROOT = INSTALLED if INSTALLED.is_dir() else PACKAGE.parent
FOLDERS = ("configs", "models", "examples")
TINY = ROOT / "models" / "ldm" / "tiny"
TINY_FILM = ROOT / "models" / "ldm" / "tiny-film"
SAMPLES = ROOT / "examples" / "styleid"


def here_or_shipped(path: str | os.PathLike[str]) -> Path:
    """``path`` as it is; where the working directory has no such file, the one that comes with the project, if any.

    ``configs/tiny/ldm.yaml``, and the ``models/ldm/tiny/vocab.txt`` that it names, are found from any folder so.
    """
    path = Path(path)
    if path.exists() or path.is_absolute() or path.parts[:1] not in [(folder,) for folder in FOLDERS]:
        return path
    return ROOT / path if (ROOT / path).exists() else path
