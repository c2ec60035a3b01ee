"""Which result belongs to which content and which style; and contents and styles copied once for each result."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ldm.pictures.images import list_images
from ldm.pictures.masks import is_mask_of_another
from ldm.util import UserError, atomic_write
from ldm.workflows.restyle.pairs import picture_names

BETWEEN = "_stylized_"  # a result's name: <content>_stylized_<style>
COPIES = "_eval"  # what the folder of copies is called behind the original's name


@dataclass(frozen=True)
class Trio:
    """A result with the content and the style that it was made of."""

    name: str
    result: Path
    content: Path
    style: Path


def match(tar: str | os.PathLike[str], cnt: str | os.PathLike[str], sty: str | os.PathLike[str]) -> list[Trio]:
    """The results of a folder with their contents and styles.

    Where results are called ``<content>_stylized_<style>`` and the other folders hold pictures of these names, they are
    matched by name. Otherwise, as in StyleID's evaluation, three folders of equally many pictures by sorted names.

    Raises:
        UserError: a folder is missing or empty, or its pictures match in neither way.
    """
    results, contents, styles = (_pictures(folder) for folder in (tar, cnt, sty))
    named = [path for path in results if BETWEEN in path.stem]
    if named:
        by_name = _by_name(named, contents, styles)
        if len(by_name) == len(named):
            return by_name
        results = named  # a sheet lies beside them
    if not len(results) == len(contents) == len(styles):
        raise UserError(
            f"'{tar}' holds {len(results)} results, '{cnt}' {len(contents)} contents and '{sty}' {len(styles)} styles: "
            f"they need equally many (scripts.copy_inputs), or names like <content>{BETWEEN}<style>.png"
        )
    rows = zip(*(sorted(paths, key=lambda path: path.name) for paths in (results, contents, styles)), strict=True)
    return [Trio(result.stem, result, content, style) for result, content, style in rows]


def _pictures(folder: str | os.PathLike[str]) -> list[Path]:
    found = list_images(folder)
    return [path for path in found if not is_mask_of_another(path, found)]


def _by_name(results: Sequence[Path], contents: Sequence[Path], styles: Sequence[Path]) -> list[Trio]:
    """Those of which both names are there."""
    content_of, style_of = ({name: path for path, name in picture_names(paths).items()} for paths in (contents, styles))
    trios = []
    for path in results:
        content, style = path.stem.split(BETWEEN, 1)
        if content in content_of and style in style_of:
            trios.append(Trio(path.stem, path, content_of[content], style_of[style]))
    return trios


def copy_inputs(cnt: str | os.PathLike[str], sty: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Every content and every style once for each pair, in ``<cnt>_eval`` and ``<sty>_eval``, under the result's name.

    That is what evaluations need which match by sorted names.

    Returns:
        the two folders.

    Raises:
        UserError: a folder is missing or empty, or cannot be written.
    """
    folders = tuple(Path(f"{os.fspath(folder).rstrip('/')}{COPIES}") for folder in (cnt, sty))
    contents, styles = (picture_names(_pictures(folder)) for folder in (cnt, sty))
    for content, its_name in contents.items():
        for style, style_name in styles.items():
            for source, folder in zip((content, style), folders, strict=True):
                copy = folder / f"{its_name}{BETWEEN}{style_name}{source.suffix}"
                with atomic_write(copy) as temporary:
                    shutil.copyfile(source, temporary)
    return folders[0], folders[1]
