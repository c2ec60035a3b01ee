"""What somebody asks of Stable Diffusion XL besides a prompt: sizes, crops and scores, and its refiner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ldm.util import UserError
from ldm.workflows.options import option

SCORE = "aesthetic_score"
SIZES = ("original_size", "crop", "target_size")
MOST = 100_000  # pixels of a side, more than which nobody means


@dataclass
class SizeOptions:
    """Sizes and scores; None: as large as the picture that is made, not cropped, with the public programs' scores."""

    original_size: Sequence[int] | None = option(
        None, "height and width that the picture is said to have had (its own)", nargs="+", type=int, metavar="PIXELS"
    )
    crop: Sequence[int] | None = option(
        None, "top and left of the crop that it is said to be (0 0)", nargs="+", type=int, metavar="PIXELS"
    )
    target_size: Sequence[int] | None = option(
        None, "height and width that it is said to be made for (its own)", nargs="+", type=int, metavar="PIXELS"
    )
    aesthetic_score: float | None = option(None, "what the refiner is led to (6)", type=float, metavar="SCORE")
    negative_aesthetic_score: float | None = option(None, "and away from (2.5)", type=float, metavar="SCORE")

    def check_sizes(self) -> None:
        """Raises UserError for sizes that are not two numbers, or scores that are none."""
        for name in SIZES:
            numbers = getattr(self, name)
            least = 0 if name == "crop" else 1
            if numbers is None:
                continue
            if len(numbers) != 2 or not all(least <= number <= MOST for number in numbers):
                what = "top and left" if name == "crop" else "height and width"
                told = " ".join(map(str, numbers))
                raise UserError(f"--{name} needs two numbers, {what} in pixels, got {told}")
        for name in (SCORE, f"negative_{SCORE}"):
            score = getattr(self, name)
            if score is not None and not 0 <= score <= 10:
                raise UserError(f"--{name} lies between 0 and 10, got {score}")

    def told(self, *models: Any) -> dict[str, Any]:
        """What the condition of the first of some models gets, by the names of its ``needs``.

        Raises:
            UserError: something was given that none of the models is told.
        """
        given = {name: getattr(self, name) for name in (*SIZES, SCORE) if getattr(self, name) is not None}
        if self.negative_aesthetic_score is not None:
            given.setdefault(SCORE, None)
        takes = [{need.name for need in model.needs.optional} for model in models]
        foreign = [name for name in given if not any(name in names for names in takes)]
        if foreign:
            others = "Stable Diffusion XL's refiner" if foreign[0] == SCORE else "Stable Diffusion XL"
            raise UserError(f"--{foreign[0]} is for {others}; this model is not told any")
        return {name: value for name, value in given.items() if name in takes[0] and value is not None}

    def told_away(self, model: Any) -> dict[str, Any]:
        """What guidance leads away from, by the names of a model's ``needs``."""
        told = any(need.name == SCORE for need in model.needs.optional)
        return {SCORE: self.negative_aesthetic_score} if told and self.negative_aesthetic_score is not None else {}


@dataclass
class RefinerOptions:
    """The refiner and when it is asked; without one the first network goes to the end."""

    refiner: Any = option(  # noqa: RUF009 a field
        None, "weights of SDXL's refiner, which finishes the pictures", metavar="FILE"
    )
    refiner_start: float = option(
        0.8, "the share of the steps after which it takes over, without new noise (0.8)", type=float, metavar="SHARE"
    )
    refiner_strength: float | None = option(
        None, "instead: it begins from finished pictures with new noise of this strength, 0.15 to 0.3", type=float,
        metavar="SHARE",
    )  # fmt: skip

    def check_refiner(self) -> None:
        """Raises UserError for shares that are none."""
        for name in ("refiner_start", "refiner_strength"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise UserError(f"--{name} lies between 0 and 1, got {share}")
