"""Scenes in files: one a line of JSON, with null for what is left open."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ldm.texts import read_text
from ldm.util import UserError, atomic_write
from ldm.world.scene import Scene, Thing

EXAMPLE = '{"ground": "blue", "things": [{"name": "cat", "place": "left"}]}'


def write_scenes(path: Path, scenes: Sequence[Scene]) -> None:
    """Write scenes as JSON, one a line.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    lines = [json.dumps(asdict(scene), ensure_ascii=False) for scene in scenes]
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_scenes(path: Path) -> list[Scene]:
    """The scenes of a file; a line is {"ground": "blue", "things": [{"name": "cat", "place": "left"}]}.

    Raises:
        UserError: there is no such file, or a line is no scene of this world.
    """
    lines = read_text(path, "file of scenes").split("\n")
    return [_scene(line, f"line {number} of '{path}'") for number, line in enumerate(lines, 1) if line.strip()]


def _scene(line: str, where: str) -> Scene:
    try:
        node: Any = json.loads(line)
        return Scene(node["ground"], tuple(Thing(**thing) for thing in node["things"]))
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{where} is no scene; one is {EXAMPLE}") from error
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
