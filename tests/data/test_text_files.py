"""Every text file that people write is read by one rule: byte-order marks are obeyed, and only line ends end a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.data.captioned import read_captions
from ldm.data.personalized import captions_beside
from ldm.data.sentence_pairs import read_pairs
from ldm.data.templates import read_templates
from ldm.util import UserError
from ldm.world.scene_files import read_scenes
from scripts.evaluate_concept import prompts_of

ODD = "\x0bon a blue\u2028background\x85now"  # in one line: VT, LINE SEPARATOR, NEXT LINE
SCENE = json.dumps({"ground": "blue", "things": [{"name": "cat", "place": "left"}]})


def picture(folder: Path) -> Path:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "a.png")
    return folder / "a.png"


def captions(folder: Path) -> list[str]:
    return list(read_captions(folder).values())


# name: (file, its text, what reads it, what is read)
READERS: dict[str, tuple[str, str, Callable[[Path], object], object]] = {
    "caption": ("a.txt", f"a star{ODD}", captions, ["a star on a blue background now"]),
    "listing": (
        "captions.jsonl", json.dumps({"file": "a.png", "caption": f"star{ODD}"}, ensure_ascii=False), captions,
        [f"star{ODD}"],
    ),
    "sentences": (
        "a.txt", f"a *{ODD}\na second *", lambda f: captions_beside(f / "a.png", "*"),
        ("a * on a blue background now", "a second *"),
    ),
    "templates": (
        "t.txt", f"a {{}}{ODD}\n\nthe {{}}", lambda f: read_templates(f / "t.txt"), (f"a {{}}{ODD}", "the {}"),
    ),
    "pairs": (
        "p.csv", f"ko,en\n별{ODD},star\n원,circle", lambda f: [pair["target"] for pair in read_pairs(f / "p.csv")],
        ["star", "circle"],
    ),
    "prompts": (
        "p.txt", f"a star{ODD}\na circle", lambda f: prompts_of([], f / "p.txt"), [f"a star{ODD}", "a circle"],
    ),
    "scenes": ("s.jsonl", f"{SCENE}\n{SCENE}", lambda f: len(read_scenes(f / "s.jsonl")), 2),
}  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("kind", READERS)
def test_encodings_and_line_ends(kind: str, encoding: str, tmp_path: Path) -> None:
    name, text, read, expected = READERS[kind]
    picture(tmp_path)
    for end in ("\n", "\r\n"):
        (tmp_path / name).write_bytes(text.replace("\n", end).encode(encoding))
        assert read(tmp_path) == expected


@pytest.mark.parametrize("kind", READERS)
def test_another_encoding_is_one_sentence_with_its_cure(kind: str, tmp_path: Path) -> None:
    name, text, read, _ = READERS[kind]
    picture(tmp_path)
    ascii_part = text.encode("ascii", "ignore")
    (tmp_path / name).write_bytes(ascii_part[:1] + "é".encode("latin-1") + ascii_part[1:])
    with pytest.raises(UserError, match=r"is not in UTF-8 \(line 1\): save it as UTF-8, or as UTF-16"):
        read(tmp_path)
