"""How words are taken apart by the tokenizers of the models, and what they can be used for.

    python -m scripts.check_word cat "oil painting" "*"
    python -m scripts.check_word sks --clip models/tokenizers/clip-vit-large-patch14
    python -m scripts.check_word "<cat-toy>" --online

The small model's vocabulary is always here. BERT's (LDM text-to-image) and CLIP's (Stable Diffusion) are taken from the
hub's local cache, or from where --bert and --clip say; nothing is downloaded without --online.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/check_word.py

from ldm.arguments import Parser
from ldm.modules.encoders.base import TextTokenizer
from ldm.modules.encoders.bpe import CLIP_MARKERS, load_bpe
from ldm.modules.encoders.subword import SubwordTokenizer
from ldm.modules.encoders.wordpiece import MARKERS, load_wordpiece
from ldm.released import how_to_get_id
from ldm.shipped import TINY
from ldm.util import UserError, run_command

TINY_NAME, BERT, CLIP = "small model", "BERT", "CLIP"
PLACES = {TINY_NAME: str(TINY / "vocab.txt"), BERT: "bert-base-uncased", CLIP: "openai/clip-vit-large-patch14"}


def tokenizer_of(kind: str, source: str | None = None) -> SubwordTokenizer:
    """A tokenizer; ``source`` is a file, a folder or a hub id, the usual one without it.

    Raises:
        UserError: it is not here.
    """
    place = source or PLACES[kind]
    made = (
        SubwordTokenizer(place, load_bpe, CLIP_MARKERS)
        if kind == CLIP
        else SubwordTokenizer(place, load_wordpiece, MARKERS)
    )
    made.pieces("a")
    return made


def find_tokenizer(kind: str, source: str | None = None) -> SubwordTokenizer | None:
    """As ``tokenizer_of``, but None where the usual one is not here."""
    offline = os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by the library when it is first imported
    try:
        return tokenizer_of(kind, source)
    except UserError:
        if source is not None:
            raise
        assert offline
        return None


def report(word: str, tokenizer: TextTokenizer, texts: dict[int, str]) -> str:
    """One line: the pieces, and what the word can be."""
    pieces = tokenizer.pieces(word)
    shown = " ".join(f"{texts[piece]}({piece})" for piece in pieces)
    if not pieces:
        return "no tokens: a placeholder, no init word"
    if tokenizer.unknown in pieces and texts[pieces[0]].startswith("["):
        return f"{shown}: not in the vocabulary: a placeholder, no init word"
    if len(pieces) == 1:
        return f"{shown}: one token; an init word, or a placeholder"
    return f"{shown}: {len(pieces)} tokens; an init word (spread over the vectors, or averaged), or a placeholder"


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("words", nargs="+")
    parser.add_argument("--bert", metavar="SOURCE", help="vocab.txt, tokenizer.json, their folder, or a hub id")
    parser.add_argument("--clip", metavar="SOURCE", help="tokenizer.json, a folder, or a hub id")
    parser.add_argument("--online", action="store_true", help="the hub may be asked for what is not here")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args()
    if options.online:
        os.environ["HF_HUB_OFFLINE"] = "0"
    blank = next((word for word in options.words if not word.strip()), None)
    if blank is not None:
        raise UserError("an empty word has no tokens; give words such as: cat 'oil painting' '*'")
    sources = {TINY_NAME: None, BERT: options.bert, CLIP: options.clip}
    tokenizers = {kind: find_tokenizer(kind, source) for kind, source in sources.items()}
    for word in options.words:
        print(word)
        for kind, tokenizer in tokenizers.items():
            if tokenizer is None:
                known = how_to_get_id(PLACES[kind])
                print(f"  {kind:<12}its tokenizer is not here: {known}, or give --{kind.lower()}, or --online")
            else:
                texts = {piece: str(tokenizer.backend.id_to_token(piece)) for piece in tokenizer.pieces(word)}
                print(f"  {kind:<12}{report(word, tokenizer, texts)}")


if __name__ == "__main__":
    run_command(main)
