"""BERT's WordPiece tokenizer from a local vocabulary file, a folder, or a hub id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from ldm.modules.encoders.hub import hub_folder
from ldm.modules.encoders.subword import Markers, local_path, tokenizer_from_json
from ldm.util import UserError, parse_json_object

PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
MARKERS = Markers(start=CLS, end=SEP, pad=PAD, unknown=UNK)
ADVICE = "download its vocab.txt and give the path as 'tokenizer:' in the configuration of the text encoder"
HANGUL_SYLLABLES = range(0xAC00, 0xD7A4)


def load_wordpiece(source: str) -> Tokenizer:
    """The tokenizer that ``source`` names: a vocab.txt, a tokenizer.json, a folder with one of them, or a hub id.

    Raises:
        UserError: there is no such file, it is not a vocabulary, or the hub does not give it.
    """
    path = local_path(source, (".txt", ".json"))
    if path is None:
        path = hub_folder(source, [["tokenizer.json"], ["vocab.txt"]], ADVICE)
    if path.is_dir():
        return _from_folder(path)
    return tokenizer_from_json(path) if path.suffix == ".json" else wordpiece_from_vocab(path)


def wordpiece_from_vocab(
    path: Path, lowercase: bool = True, strip_accents: bool | None = None, chinese_chars: bool = True
) -> Tokenizer:
    """A WordPiece tokenizer from a file with one token a line; a token's id is its line number, from 0.

    Text is treated as BERT's uncased models treat it: lower case, accents removed, each Chinese character a word.
    Removing accents takes Hangul syllables apart into letters. A vocabulary that holds whole syllables could
    then never match, so for such a vocabulary they are put together again.

    Raises:
        UserError: a line that is not UTF-8, or one of [PAD] [UNK] [CLS] [SEP] is missing.
    """
    vocab = _read_vocab(path)
    steps: list[Any] = [
        normalizers.BertNormalizer(
            clean_text=True, handle_chinese_chars=chinese_chars, strip_accents=strip_accents, lowercase=lowercase
        )
    ]
    if any(ord(char) in HANGUL_SYLLABLES for token in vocab for char in token):
        steps.append(normalizers.NFC())
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=UNK))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens([token for token in (PAD, UNK, CLS, SEP, MASK) if token in vocab])
    return tokenizer


def _read_vocab(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"vocabulary '{path}' is not UTF-8 text with one token a line") from error
    if lines[-1] == "":
        lines.pop()
    vocab = {line: index for index, line in enumerate(lines)}
    missing = [token for token in (PAD, UNK, CLS, SEP) if token not in vocab]
    if missing:
        raise UserError(f"vocabulary '{path}' needs the line {missing[0]}, as every BERT vocabulary has")
    return vocab


def _from_folder(folder: Path) -> Tokenizer:
    if (folder / "tokenizer.json").is_file():
        return tokenizer_from_json(folder / "tokenizer.json")
    if not (folder / "vocab.txt").is_file():
        raise UserError(f"folder '{folder}' has neither tokenizer.json nor vocab.txt; a tokenizer needs one of them")
    settings: dict[str, Any] = {}
    if (folder / "tokenizer_config.json").is_file():
        file = folder / "tokenizer_config.json"
        settings = parse_json_object(file.read_bytes(), f"'{file}'")
    return wordpiece_from_vocab(
        folder / "vocab.txt",
        lowercase=settings.get("do_lower_case", True),
        strip_accents=settings.get("strip_accents"),
        chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
