"""What a request may ask for besides: prompts of choices, small variations of a picture, a second pass, tiles."""

from __future__ import annotations

from dataclasses import dataclass

from ldm.util import UserError
from ldm.workflows.options import option

VARIATION = 0.1  # of the way to another picture, where nobody says how much


@dataclass
class ExtraOptions:
    """Without any of these a request is a plain one. See docs/sampling.md."""

    prompt_matrix: bool = option(False, "of --prompt 'a | b | c': the first part with every choice of the others")
    wildcards: str | None = option(
        None, "where __name__ in a prompt looks for name.txt, one of whose lines it is (wildcards)", metavar="FOLDER"
    )
    expand: str | None = option(
        None, "a causal language model of transformers, which goes on where a prompt ends", metavar="FOLDER"
    )
    variation_seed: int | None = option(
        None, "of other noise, towards which that of --seed goes a little; each picture has the next", type=int,
        metavar="SEED",
    )  # fmt: skip
    variation_strength: float | None = option(
        None, f"how far: 0 not at all, 1 the whole way ({VARIATION})", type=float, metavar="SHARE"
    )
    hires: float | None = option(
        None, "then make each picture so many times as large, and paint over it", type=float, metavar="FACTOR"
    )
    hires_strength: float = option(0.6, "how much that is: 0 nothing, 1 a new picture (0.6)", type=float, metavar="S")
    hires_steps: int | None = option(None, "steps of it, if others (as the first)", type=int, metavar="N")
    tiling: bool = option(False, "pictures whose opposite borders fit together")

    @property
    def is_varied(self) -> bool:
        """Whether pictures are variations of the one of the seed."""
        return self.variation_seed is not None


def check_extras(options: ExtraOptions) -> None:
    """Refuse values that mean nothing.

    Raises:
        UserError: there is one.
    """
    strength = options.variation_strength
    if strength is not None and options.variation_seed is None:
        raise UserError("--variation_strength needs the seed of what is varied towards: --variation_seed")
    for name, value in (("variation_strength", strength), ("hires_strength", options.hires_strength)):
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"--{name} must lie between 0 and 1, got {value}")
    if options.hires is not None and not 1 <= options.hires <= 8:
        raise UserError(f"--hires must be a factor from 1 to 8, got {options.hires}")
    if options.hires_steps is not None and options.hires is None:
        raise UserError("--hires_steps needs --hires, the factor of the second pass")
