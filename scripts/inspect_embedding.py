"""What a file of learned words holds: placeholders, vectors, lengths, nearest words, and how far it went in training.

    python -m scripts.inspect_embedding cat.safetensors
    python -m scripts.inspect_embedding latest:NAME --nearest 3
    python -m scripts.inspect_embedding embeddings.pt --init_word cat --ckpt model.ckpt --config v1-inference.yaml

Nearest words need the text encoder of the model that the words were made for; of a checkpoint only that is read.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/inspect_embedding.py

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from ldm.additions.placeholders import spread
from ldm.arguments import Parser
from ldm.checkpoint import EmbeddingFile, read_embedding
from ldm.checkpoint.embeddings import IN_CONTEXT
from ldm.modules.encoders.base import TextEncoder
from ldm.modules.encoders.bert import BERTTokenizer
from ldm.modules.encoders.subword import SubwordTokenizer
from ldm.runs import WORDS, given_or_latest
from ldm.util import UserError, printable, run_command
from ldm.workflows.text_encoder import open_text_encoder

STILL = 1e-6  # a distance below this share of the length is rounding


def nearest(encoder: TextEncoder, vector: Tensor, count: int) -> list[tuple[str, float]]:
    """The vocabulary's words whose vectors point most nearly the same way, with the cosine."""
    table = encoder.token_embedding.weight.detach().float()[: words_in(encoder)]
    cosines = F.cosine_similarity(table, vector.float()[None], dim=-1)
    best = torch.topk(cosines, min(count, len(cosines)))
    return [(word_of(encoder, int(token)), float(cosine)) for cosine, token in zip(*best, strict=True)]


def words_in(encoder: TextEncoder) -> int | None:
    """How many tokens the vocabulary has: a table may have more vectors than there are words."""
    tokenizer = backend_of(encoder)
    return None if tokenizer is None else tokenizer.get_vocab_size()


def backend_of(encoder: TextEncoder) -> Tokenizer | None:
    """The library's tokenizer; None where the vocabulary is not here."""
    tokenizer = encoder.tokenizer.words if isinstance(encoder.tokenizer, BERTTokenizer) else encoder.tokenizer
    with contextlib.suppress(UserError):
        return tokenizer.backend if isinstance(tokenizer, SubwordTokenizer) else None
    return None


def word_of(encoder: TextEncoder, token: int) -> str:
    """The text of a token; its number where the vocabulary is not here."""
    tokenizer = backend_of(encoder)
    return str(token) if tokenizer is None else str(tokenizer.id_to_token(token))


def moved(vectors: Tensor, start: Tensor | None) -> str:
    """How far vectors [n, D] are from where they began."""
    if start is None:
        return "where it began is not known (--init_word)"
    if start.shape != vectors.shape:
        return f"it began with {len(start)} vectors"
    distance = float((vectors - start).norm())
    share = distance / max(float(start.norm()), 1e-12)
    if share < STILL:
        return "has not moved from its start"
    cosine = float(F.cosine_similarity(vectors.flatten(), start.flatten(), dim=0))
    return f"moved by {distance:.3f} from its start ({share:.0%} of its length), cosine {cosine:.3f}"


def describe(path: Path, file: EmbeddingFile, encoder: TextEncoder | None, count: int, init_word: str | None) -> None:
    """Print what is known about one file."""
    print(printable(f"{path}: {file.format}, {len(file.vectors)} placeholders, for {file.made_for}"))
    for key in ("name", "steps", "family", "init_words"):
        if key in file.metadata:
            print(printable(f"  {key}: {file.metadata[key]}"))
    if file.metadata.get("kind") == IN_CONTEXT:  # nothing to compare with: these are no vectors of tokens
        described = f"x {file.width}, beside the context of {file.metadata.get('layers')} layers"
        print(printable("\n".join(f"  '{name}': {len(v)} {described}" for name, v in file.vectors.items())))
        return
    for name, vectors in file.vectors.items():
        start = file.initial.get(name)
        if init_word is not None and encoder is not None:
            start = spread(torch.stack([encoder.initial_vector(t) for t in encoder.pieces_of(init_word)]), len(vectors))
        print(printable(f"  '{name}': {len(vectors)} x {file.width}; {moved(vectors, start)}"))
        for vector in vectors:
            near = "" if encoder is None else ", ".join(f"{w} {c:.2f}" for w, c in nearest(encoder, vector, count))
            print(f"    length {float(vector.norm()):8.4f}" + (f"; nearest: {near}" if near else ""))


def encoder_for(file: EmbeddingFile, ckpt: str | None, config: str | None) -> TextEncoder | None:
    """The text encoder to compare with: the given model's, or the small model's where the width is its own.

    Raises:
        UserError: the given model has another width.
    """
    encoder = open_text_encoder(ckpt, config)
    if ckpt is not None:
        file.check_width(encoder.width)
    return encoder if encoder.width == file.width else None


def main() -> None:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("files", nargs="+", type=Path)
    add("--ckpt", help="the model that the words belong to (the small model)")
    add("--config", help="its YAML (config.yaml beside the checkpoint)")
    add("--nearest", type=int, default=5, metavar="N", help="how many words to name for each vector (5)")
    add("--init_word", help="the word that training began from, where the file does not say")
    add("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args()
    if options.nearest < 1:
        raise UserError(f"--nearest must be at least 1, got {options.nearest}")
    for path in (given_or_latest(one, WORDS) for one in options.files):
        file = read_embedding(path)
        encoder = encoder_for(file, options.ckpt, options.config)
        if encoder is None and options.init_word is not None:
            raise UserError(f"--init_word needs the model that '{path}' was made for, {file.made_for}: give --ckpt")
        describe(path, file, encoder, options.nearest, options.init_word)
        if encoder is None:
            print(f"  nearest words need the model itself: --ckpt and --config of {file.made_for}")


if __name__ == "__main__":
    run_command(main)
