"""Put the learned words of several files into one.

    python -m scripts.merge_embeddings --manager_ckpts cat.pt style.safetensors='<monet>' --out both.safetensors
    python -m scripts.merge_embeddings --manager_ckpts a.pt b.pt=@ --out both.pt
    python -m scripts.merge_embeddings --manager_ckpts a.pt b.pt=@ --out both.safetensors -sd      # CLIP's words

A word that two files have needs another name in one of them: with ``file=<new>`` (``file=<old>:<new>`` where a file has
several), or by answering when asked. A new name should be one token for the model; ``scripts.check_word`` tells.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/merge_embeddings.py

from ldm.arguments import Parser
from ldm.checkpoint import EmbeddingFile, merge_embeddings, read_embeddings, write_embedding
from ldm.checkpoint.embeddings import FORMATS
from ldm.modules.encoders.base import TextTokenizer
from ldm.util import UserError, run_command
from ldm.workflows.options import old_spellings
from scripts.check_word import BERT, CLIP, find_tokenizer


def ask(taken: str, path: str) -> str:
    """Another name for a placeholder, from whoever sits before the terminal."""
    return input(f"'{taken}' of '{path}' is taken; another name for it: ").strip()


def token_ids(words: Mapping[str, object], tokenizer: TextTokenizer) -> dict[str, int]:
    """The id of each placeholder.

    Raises:
        UserError: one of them is not exactly one token.
    """
    found = {}
    for word in words:
        pieces = tokenizer.pieces(word)
        if len(pieces) != 1 or pieces[0] == tokenizer.unknown:
            raise UserError(f"the placeholder '{word}' is {len(pieces)} tokens or unknown to this tokenizer; rename it")
        found[word] = pieces[0]
    return found


def merged(sources: list[str], tokenizer: TextTokenizer | None, interactive: bool) -> EmbeddingFile:
    """The words of all files; their token ids where the tokenizer is at hand."""
    files = read_embeddings(sources, ask if interactive else None)
    result = merge_embeddings(list(files.values()))
    if tokenizer is not None:
        result.tokens = token_ids(result.vectors, tokenizer)
    return result


def main() -> None:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--manager_ckpts", nargs="+", required=True, metavar="FILE[=NAME]", help="the files to put together")
    old_spellings(add("--out", "--output_path", dest="output_path", type=Path, required=True, metavar="FILE",
                      help="the suffix chooses the format: .safetensors, .pt (CompVis)"))  # fmt: skip
    add("--format", choices=FORMATS, help="a format that the suffix alone does not say")
    add("-sd", "--stable_diffusion", action="store_true", help="the words are CLIP's, not BERT's")
    add("--tokenizer", help="vocab.txt or tokenizer.json, their folder or a hub id, to check the words with")
    add("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args()
    kind = CLIP if options.stable_diffusion else BERT
    tokenizer = find_tokenizer(kind, options.tokenizer)
    result = merged(options.manager_ckpts, tokenizer, interactive=sys.stdin.isatty())
    write_embedding(options.output_path, result, options.format)
    counts = ", ".join(f"'{name}' ({len(vectors)})" for name, vectors in result.vectors.items())
    print(f"{options.output_path}: {counts}, width {result.width}")
    if tokenizer is None:
        print(f"no {kind} tokenizer is here, so nobody checked that each word is one token (--tokenizer)")


if __name__ == "__main__":
    run_command(main)
