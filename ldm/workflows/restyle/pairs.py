"""Which contents meet which styles, under which masks, and what the results are called."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ldm.pictures.images import list_images
from ldm.pictures.masks import find_masks, is_mask_of_another, short_name
from ldm.shipped import here_or_shipped
from ldm.util import UserError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Pair:
    """One result: a content, its style or styles, and a mask for each style (or none at all)."""

    content: Path
    styles: tuple[Path, ...]
    masks: tuple[Path, ...]
    name: str  # of the result, without a suffix


def pictures_at(place: str | os.PathLike[str], what: str) -> list[Path]:
    """The picture of a path, or all of a folder but masks of others of them.

    Raises:
        UserError: there is nothing, or a folder without pictures.
    """
    place = Path(place)
    if place.is_dir():
        found = list_images(place)
        return [path for path in found if not is_mask_of_another(path, found)]
    if not place.exists():
        raise UserError(f"there is no {what} '{place}': a picture or a folder of pictures would be right")
    return [place]


def make_pairs(contents: Sequence[Path], styles: Sequence[Path], masks: Sequence[Path] | None) -> list[Pair]:
    """Every content with every style; a content that has one mask for each of several styles gets them all at once.

    The order is style by style, so that contents under one style follow each other.

    Args:
        masks: the masks of every content; None: those beside each; empty: none.

    Raises:
        UserError: a content has more masks than there are styles, or several that are neither one nor all of them.
    """
    wanted: list[tuple[Path, tuple[Path, ...], tuple[Path, ...]]] = []
    own = {content: tuple(find_masks(content) if masks is None else masks) for content in contents}
    for content, its in own.items():
        check_masks(content, its, len(styles))
    single = [content for content in contents if len(own[content]) <= 1]
    wanted += [(content, (style,), own[content]) for style in styles for content in single]
    wanted += [(content, tuple(styles), own[content]) for content in contents if content not in single]
    return _named(wanted)


def read_pairs(path: str | os.PathLike[str], folders: Sequence[Path], masks: Sequence[Path] | None) -> list[Pair]:
    """The pairs of a file: a line has a content and its styles, separated by commas; ``#`` begins a remark.

    A picture is looked for from here, then from the file's folder, then in ``folders``. Lines are kept in their order,
    but those of one style are put together; a line that is there twice counts once.

    Raises:
        UserError: the file is missing or empty, a line has no style, a picture is missing, masks do not fit the styles.
    """
    path = here_or_shipped(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [[cell.strip() for cell in line] for line in csv.reader(file, skipinitialspace=True)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read the pairs in '{path}': {error}") from error
    wanted: dict[tuple[Path, tuple[Path, ...], tuple[Path, ...]], None] = {}
    for number, line in enumerate(lines, start=1):
        if not any(line) or line[0].startswith("#"):
            continue
        where = f"line {number} of '{path}'"
        if len(line) < 2 or not all(line):
            raise UserError(f"{where} needs a content and at least one style: content, style, style, ...")
        content, *styles = (_find(name, [Path(), path.parent, *folders], where) for name in line)
        its = tuple(find_masks(content) if masks is None else masks)
        check_masks(content, its, len(styles), exact=True)
        wanted[content, tuple(styles), its] = None
    if not wanted:
        raise UserError(f"the file '{path}' holds no pairs; a line should be: content, style, style, ...")
    first = {styles: i for i, styles in reversed(list(enumerate(styles for _, styles, _ in wanted)))}
    return _named(sorted(wanted, key=lambda item: first[item[1]]))


def check_masks(content: Path, masks: Sequence[Path], styles: int, exact: bool = False) -> None:
    """Refuse masks that cannot be given to styles: one for all, or one for each.

    Raises:
        UserError: see there.
    """
    named = f"{len(masks)} mask(s) ({', '.join(mask.name for mask in masks)})"
    if len(masks) > styles:
        raise UserError(
            f"more masks than styles: '{content}' has {named} for {styles} style(s); remove those that are not meant, "
            "name those that are with --masks, or leave all out with --no_masks"
        )
    if masks and len(masks) < styles and (exact or len(masks) > 1):
        raise UserError(
            f"'{content}' has {named} for {styles} styles: give each style a mask, say in a file for --pairs which "
            "styles are meant, or leave masks out with --no_masks"
        )


def _find(name: str, folders: Iterable[Path], where: str) -> Path:
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{where} names '{name}', which is no file")


def _named(wanted: Iterable[tuple[Path, tuple[Path, ...], tuple[Path, ...]]]) -> list[Pair]:
    wanted = list(wanted)
    contents = picture_names(content for content, _, _ in wanted)
    styles = picture_names(style for _, group, _ in wanted for style in group)
    return [
        Pair(content, group, masks, f"{contents[content]}_stylized_{'+'.join(styles[style] for style in group)}")
        for content, group, masks in wanted
    ]


def picture_names(paths: Iterable[Path]) -> dict[Path, str]:
    """A name for each picture: up to the first full stop; where several would share it, more of the file's name.

    Raises:
        UserError: two pictures of different folders have the same file name.
    """
    different = list(dict.fromkeys(paths))
    names: dict[Path, str] = {}
    for make in (short_name, lambda path: path.stem, lambda path: path.name):
        open_ones = [path for path in different if path not in names]
        made = {path: make(path) for path in open_ones}
        count = Counter(made.values()) + Counter(names.values())
        names |= {path: name for path, name in made.items() if count[name] == 1}
    twice = [path for path in different if path not in names]
    if twice:
        raise UserError(f"'{twice[0]}' and '{twice[1]}' have the same name, so their results would, too: rename one")
    return names


def shard(pairs: Sequence[Item], environment: Mapping[str, str]) -> list[Item]:
    """The part of one of several processes: of WORLD_SIZE, number RANK takes every WORLD_SIZE-th item (torchrun).

    Raises:
        UserError: the two variables are no numbers that fit.
    """
    try:
        rank, size = int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1))
    except ValueError as error:
        raise UserError("RANK and WORLD_SIZE in the environment must be whole numbers") from error
    if not 0 <= rank < size:
        raise UserError(f"RANK {rank} is not one of the {size} processes that WORLD_SIZE announces")
    return list(pairs[rank::size])
