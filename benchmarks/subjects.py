"""What ``benchmarks.personalise`` has learned: concepts and manners, with their pictures, sentences and judges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks import concept_judge, concepts, manner_judge, manners

Array = NDArray[np.float32]


class Finding(Protocol):
    """What a judge found on a picture: a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def noted(self) -> dict[str, bool | float]:
        """By the names of a table's columns: what is so or not, and what is measured."""


@dataclass(frozen=True)
class Kind:
    """How one kind of thing is taught and judged; a wish is a ``Shown`` or a ``Styled``."""

    write_pictures: Callable[[str, str, Path, int], None]  # its name, the word for it, a folder, a seed
    wishes: Callable[[str, int], list[Any]]  # its name, how many
    sentence: Callable[[Any, str], str]  # a wish, the word
    picture_of: Callable[[Any], Array]
    judge: Callable[[Array, Any], Finding]
    like: Callable[[str], str]  # its name -> the word of the world that is nearest


CONCEPT = Kind(
    concepts.write_pictures, concepts.wishes, concepts.sentence, concepts.picture_of, concept_judge.judge_concept,
    lambda name: concepts.CONCEPTS[name].like,
)  # fmt: skip
MANNER = Kind(
    manners.write_pictures, manners.wishes, manners.sentence, manners.picture_of, manner_judge.judge_manner,
    lambda name: "nice",
)  # fmt: skip
SUBJECTS = {**dict.fromkeys(concepts.CONCEPTS, CONCEPT), **dict.fromkeys(manners.MANNERS, MANNER)}


def kind_of(name: str) -> Kind:
    """The kind of a concept or a manner."""
    return SUBJECTS[name]
