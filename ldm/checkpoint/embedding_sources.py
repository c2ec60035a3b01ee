"""Several embedding files at once: ``path=<new>`` renames, and clashes of names are found before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ldm.checkpoint.embeddings import OF_LAYERS, EmbeddingFile, read_embedding
from ldm.runs import WORDS, given_or_latest
from ldm.util import UserError

Ask = Callable[[str, str], str]  # placeholder that is taken, file -> another name for it


@dataclass(frozen=True)
class Source:
    """A file, and how its placeholders are to be called: old -> new; the key "" is the only placeholder there is."""

    path: Path
    names: dict[str, str]


def parse_source(text: str) -> Source:
    """``path``, ``path=new`` for a file with one placeholder, or ``path=old:new,old2:new2``.

    The path may be ``latest`` or ``latest:NAME``, see ``ldm.runs``.

    A file whose own name contains ``=`` is recognised by being there.

    Raises:
        UserError: a name is empty, or there is no such run.
    """
    path, equals, names = text.rpartition("=")
    if not equals or Path(text).exists():
        return Source(given_or_latest(text, WORDS), {})
    if ":" in names:
        pairs = {old: new.strip() for old, _, new in (part.partition(":") for part in names.split(","))}
    else:
        pairs = {"": names.strip()}
    if not path or not all(pairs.values()):
        raise UserError(f"'{text}' should be a file, 'file=<new name>' or 'file=<old>:<new>,<old>:<new>'")
    return Source(given_or_latest(path, WORDS), pairs)


def read_source(source: Source) -> EmbeddingFile:
    """The file of a source, renamed.

    Raises:
        UserError: as ``read_embedding``, or a new name for a file with several placeholders without the old one.
    """
    file = read_embedding(source.path)
    if "" in source.names:
        if len(file.vectors) > 1:
            listed = ", ".join(f"'{name}'" for name in file.vectors)
            raise UserError(f"'{source.path}' holds {listed}; say which to rename: '{source.path}=<old>:<new>'")
        return file.renamed({next(iter(file.vectors)): source.names[""]})
    return file.renamed(source.names)


def read_embeddings(sources: Sequence[str], ask: Ask | None = None) -> dict[Path, EmbeddingFile]:
    """Read files that are to be used together.

    Args:
        sources: see ``parse_source``.
        ask: gives another name for a placeholder that is taken; without it a clash is an error.

    Raises:
        UserError: as ``read_source``; a file twice, two widths, or a placeholder in two files.
    """
    found: dict[Path, EmbeddingFile] = {}
    owner: dict[str, Path] = {}
    for source in map(parse_source, sources):
        if source.path in found:
            raise UserError(f"'{source.path}' is given twice")
        file = read_source(source)
        first = next(iter(found), source.path)
        if found and file.width != found[first].width:
            raise UserError(
                f"'{source.path}' was made for {file.made_for} and '{first}' for {found[first].made_for}; "
                "they do not go together"
            )
        file = file.renamed(_answers(file, source.path, owner, ask))
        owner |= dict.fromkeys(file.vectors, source.path)
        found[source.path] = file
    return found


def _answers(file: EmbeddingFile, path: Path, owner: dict[str, Path], ask: Ask | None) -> dict[str, str]:
    """New names for the placeholders of ``file`` that another file has."""
    names: dict[str, str] = {}
    for taken in [name for name in file.vectors if name in owner]:
        if ask is None:
            raise UserError(
                f"'{path}' and '{owner[taken]}' both hold '{taken}'; give it another name in one of them: "
                f"'{path}=<new>'" + (f", with '{taken}:' before the new name" if len(file.vectors) > 1 else "")
            )
        new = ask(taken, str(path))
        while not new or new in owner or new in names.values() or new in file.vectors:
            new = ask(new or taken, str(path))
        names[taken] = new
    return names


def _kind_of(file: EmbeddingFile) -> tuple[str, str] | None:
    """The kind of words for layers and how many these are; None of other words."""
    kind = file.metadata.get("kind", "")
    return (kind, file.metadata.get("layers", "")) if kind in OF_LAYERS else None


def merge_embeddings(files: Sequence[EmbeddingFile]) -> EmbeddingFile:
    """One file with all placeholders; of the metadata what all of them say.

    Raises:
        UserError: nothing to merge, a placeholder twice, two widths, or words for layers and others.
    """
    if not files:
        raise UserError("there is nothing to merge")
    if len(set(map(_kind_of, files))) > 1:
        raise UserError("words for the layers of a network cannot be in one file with others; give both files instead")
    merged = EmbeddingFile({}, {})
    shared = set.intersection(*(set(file.metadata.items()) for file in files))
    merged.metadata = dict(sorted(shared))
    for file in files:
        twice = next((name for name in file.vectors if name in merged.vectors), None)
        if twice is not None:
            raise UserError(f"the placeholder '{twice}' is there twice")
        file.check_width(files[0].width)
        merged.vectors |= file.vectors
        merged.initial |= file.initial
        merged.tokens |= file.tokens
    return merged
