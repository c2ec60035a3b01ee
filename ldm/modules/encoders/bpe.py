"""CLIP's byte-pair tokenizer from local files, a folder, or a hub id."""

from __future__ import annotations

import html
import json
import unicodedata
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ldm.modules.encoders.hub import hub_folder
from ldm.modules.encoders.subword import Markers, local_path, tokenizer_from_json
from ldm.util import UserError

START, END = "<|startoftext|>", "<|endoftext|>"
CLIP_MARKERS = Markers(start=START, end=END, pad=END, unknown=END)
OPEN_CLIP_MARKERS = Markers(start=START, end=END, pad=0, unknown=END)
CLIP_VOCABULARY = "openai/clip-vit-large-patch14"
_QUOTES = {**dict.fromkeys((0x2BC, *range(0x2018, 0x201C)), "'"), **dict.fromkeys(range(0x201C, 0x2020), '"')}
_FORMS = (*range(0xFB00, 0xFB07), 0x3000, *range(0xFF01, 0xFF5F))  # ligatures of Latin letters; full-width signs
_STRAIGHT = {**_QUOTES, **{code: unicodedata.normalize("NFKC", chr(code)) for code in _FORMS}}
ADVICE = (
    "download its tokenizer.json, or vocab.json and merges.txt, and give their folder as 'tokenizer:' "
    "in the configuration of the text encoder"
)


def load_bpe(source: str) -> Tokenizer:
    """The tokenizer that ``source`` names: a tokenizer.json, a folder, or a hub id.

    A folder holds tokenizer.json, or vocab.json and merges.txt, itself or in a folder ``tokenizer`` inside it or beside
    it, where diffusers' pipelines have theirs.

    Raises:
        UserError: there is no such file, it is not a vocabulary, or the hub does not give it.
    """
    path = local_path(source, (".json",))
    if path is None:
        path = hub_folder(source, [["tokenizer.json"], ["vocab.json", "merges.txt"]], ADVICE)
    if path.is_file():
        return tokenizer_from_json(path)
    for folder in (path, path / "tokenizer", path.parent / "tokenizer"):
        if (folder / "tokenizer.json").is_file():
            return tokenizer_from_json(folder / "tokenizer.json")
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            return _from_merges(folder)
    raise UserError(
        f"folder '{path}' has neither tokenizer.json nor vocab.json with merges.txt; CLIP's tokenizer needs one of them"
    )


def straightened(text: str) -> str:
    """Text with straight quotation marks, single letters for ligatures and plain forms for full-width ones.

    So both of the released tokenizers read it, by a library that mends text before it is taken apart (ftfy).
    """
    return text.translate(_STRAIGHT)


def unescape(text: str) -> str:
    """Text without HTML entities, also where they were escaped twice, and straightened, as OpenCLIP reads it."""
    return straightened(html.unescape(html.unescape(text)))


def _from_merges(folder: Path) -> Tokenizer:
    from transformers import CLIPTokenizer  # imported here: a tokenizer.json does not need transformers

    try:
        vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
        merges: list[Any] = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
        return CLIPTokenizer(vocab=vocab, merges=merges).backend_tokenizer
    except Exception as error:  # the library raises plain Exception for merges that do not fit the vocabulary
        raise UserError(f"vocab.json and merges.txt in '{folder}' are not a byte-pair vocabulary: {error}") from error
