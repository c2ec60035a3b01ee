"""Sentences and their English translations, from a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from ldm.languages import LANGUAGES, check_language, what_is_wrong
from ldm.texts import read_text
from ldm.util import UserError

MIXED = "mixed"  # several languages in one sentence
LAYOUTS = "ko,en or zh,en or lang,source,en"


class SentencePairs(Dataset[dict[str, str]]):
    """Pairs of sentences; items are {"source": str, "target": str (English), "language": str}.

    The file is CSV in UTF-8 with a header. Its columns are `ko,en` or `zh,en` (or both: `ko,zh,en`), or
    `lang,source,en`, where lang is en, ko, zh or mixed. An empty cell in a column of a language is left out.

    Args:
        path: the CSV file.
        languages: take only these.

    Raises:
        UserError: no such file, not UTF-8, missing columns, an unknown language, an empty or garbled sentence, or
            nothing left.
    """

    def __init__(self, path: str, languages: Sequence[str] | None = None) -> None:
        for name in languages or ():
            check_language(name, MIXED)
        self.pairs = [pair for pair in read_pairs(Path(path)) if languages is None or pair["language"] in languages]
        if not self.pairs:
            wanted = f" in {', '.join(languages)}" if languages else ""
            raise UserError(f"'{path}' has no pairs of sentences{wanted}")

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, str]:
        return self.pairs[index]


def read_pairs(path: Path) -> list[dict[str, str]]:
    """All pairs of a file, in its order; see `SentencePairs`.

    Raises:
        UserError: the file cannot be read, is not UTF-8, or a column or cell of it does not fit.
    """
    lines = csv.reader(io.StringIO(read_text(path, "table of sentence pairs"), newline=""))
    rows = _rows(lines, path)
    header = [name.strip().lower() for name in next(rows, [])]
    columns = _columns(header, path)
    pairs: list[dict[str, str]] = []
    for row in rows:
        if any(cell.strip() for cell in row):
            pairs += _pairs_of(dict(zip(header, row, strict=False)), columns, f"line {lines.line_num} of '{path}'")
    return pairs


def _rows(lines: Any, path: Path) -> Iterator[list[str]]:
    """The rows of a CSV reader, its own errors as sentences."""
    try:
        yield from lines
    except csv.Error as error:  # a cell of more than 128 kB, most often behind a quotation mark that is never closed
        raise UserError(f"line {lines.line_num} of '{path}' is not CSV: {error}") from error


def _columns(header: Sequence[str], path: Path) -> list[str]:
    """The columns with foreign sentences: 'source', or names of languages."""
    if "en" in header and {"lang", "source"} <= set(header):
        return ["source"]
    found = [name for name in header if name in LANGUAGES and name != "en"]
    if "en" not in header or not found:
        has = ",".join(header) or "none"
        raise UserError(f"'{path}' needs the columns {LAYOUTS} in its first line; it has: {has}")
    return found


def _pairs_of(row: dict[str, str], columns: Sequence[str], where: str) -> Iterator[dict[str, str]]:
    target = _sentence(row, "en", "en", where)
    for column in columns:
        language = column
        if column == "source":
            try:
                language = check_language((row.get("lang") or "").strip(), MIXED)
            except UserError as error:
                raise UserError(f"{where}: {error}") from error
        elif not (row.get(column) or "").strip():
            continue
        yield {"source": _sentence(row, column, language, where), "target": target, "language": language}


def _sentence(row: dict[str, str], column: str, language: str, where: str) -> str:
    text = " ".join((row.get(column) or "").split())
    if not text:
        raise UserError(f"{where} has nothing in column '{column}'")
    problem = what_is_wrong(text, language)
    if problem is not None:
        raise UserError(f"{where}: '{text[:40]}' in column '{column}' {problem}")
    return text
