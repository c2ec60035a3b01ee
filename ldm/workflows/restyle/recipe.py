"""How one picture is restyled: every restyling option, once.

A field here is an option of ``StyleIDOptions``, a flag of the commands, and part of what is written beside a result;
``ldm.workflows.restyle.stylise`` is where it means something.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from ldm.util import UserError
from ldm.workflows.inversion.ways import ROUNDS
from ldm.workflows.options import option
from ldm.workflows.restyle.gamma import read_schedule

GAMMA, T_ONE = 0.75, 1.5  # one style without a mask: those of StyleID
GAMMA_MASKED, T_MASKED, DETAIL_MASKED = 0.2, 2.0, 0.3
PI, MIX = 0.9, "mass"
KEEP, FREE = "keep", "free"  # what lies outside all masks; see ldm.workflows.restyle.outside
FEATHER = 2.0
DEVIATION = 1.0  # of AdaIN: the reference's
DDIM = "ddim"  # likewise
EXACT = ("edict", "bdia")
FIXED_POINT = "fixed_point"
INVERSIONS = (DDIM, FIXED_POINT, *EXACT)  # see ldm.workflows.inversion.ways
# what is not written down where it changes nothing
PLAIN = {
    "inversion": DDIM, "fast": False, "adaptive": 0.0, "share": 0.0, "low_frequencies": 1.0, "distill": 0,
    "negative": None, "adain_deviation": DEVIATION, "adain_flat": None, "inversion_rounds": ROUNDS,
    "settle": 0, "keep_flat": 0.0,
}  # fmt: skip
FAST = 3  # of so many levels of a walk --fast asks the network at one


@dataclass
class Recipe:
    """How a result is made. None means what is usual, which depends on whether styles are mixed with the content."""

    gamma: float | None = option(None, "the content's share of the query, 0 to 1 (0.75; with masks 0.2)", type=float)
    T: float | None = option(None, "factor on the attention's logits (1.5; with masks 2)", type=float)
    gamma_schedule: str | tuple[float, ...] | None = option(
        None, "gammas from the first step to the last, such as 0.9,0.5 or cosine:0.75,0.375", metavar="LIST"
    )
    adaptive: float = option(
        0.0, "how far T goes to where injected logits spread as much as the layer's own, 0 to 1 (0)", type=float,
        metavar="SHARE",
    )  # fmt: skip
    share: float = option(
        0.0, "weight of the picture's own keys beside the style's: 0 none, 1 equal (0)", type=float, metavar="WEIGHT"
    )
    low_frequencies: float = option(
        1.0, "factor on the low frequencies of the content's noise; below 1 keeps more of its layout (1)", type=float,
        metavar="FACTOR",
    )  # fmt: skip
    adain_deviation: float | None = option(
        None, "how far AdaIN takes over the deviation of the style's noise besides its mean, 0 to 1 (as the model's "
        "YAML says, else 1)", type=float, metavar="SHARE",
    )  # fmt: skip
    adain_flat: float | None = option(
        None, "that share where the content is flat, such as a clear sky (as the model's YAML says, else as elsewhere)",
        type=float, metavar="SHARE",
    )  # fmt: skip
    distill: int = option(
        0, "times a step that the latent is moved towards the style's own attention (0)", type=int, metavar="N"
    )
    negative: str | None = option(
        None, "what inversions are guided away from, such as what the style shows", metavar="PROMPT"
    )
    negative_scale: float = option(1.5, "of that guidance; 1 is none (1.5)", type=float, metavar="SCALE")
    pi: float | None = option(None, "the styles' share inside the masks (0.9)", type=float)
    mix: str | None = option(None, "how content and styles share attention (mass)", choices=["mass", "competition"])
    sharpen: bool = option(False, "sharpen mixed attention, for each head")
    detail: float | None = option(
        None, "radius of the filter for the content's detail; 0: none (with masks 0.3)", type=float, metavar="R"
    )
    outside: str = option(
        KEEP, "outside all masks: keep the content (default), or leave it free to follow", choices=[KEEP, FREE]
    )
    feather: float = option(
        FEATHER, f"pixels on either side of a mask's edge over which a result passes into the content ({FEATHER:g})",
        type=float, metavar="PIXELS",
    )  # fmt: skip
    attn_layer: str | tuple[int | str, ...] | None = option(
        None,
        "decoder blocks, or patterns of layers (the later half: 6,7,8,9,10,11 in Stable Diffusion)",
        metavar="LIST",
    )
    ddim_inv_steps: int = option(50, "steps of the inversion (50)", type=int, metavar="N")
    inversion: str | None = option(
        None, "how noise is found: ddim; nearly (fixed_point) or exactly (edict, bdia) undone by sampling (as the "
        "model's YAML says, else and with --fast ddim)", choices=INVERSIONS,
    )  # fmt: skip
    inversion_rounds: int | None = option(
        None, f"calls with which fixed_point solves each step (as the model's YAML says, else {ROUNDS})", type=int,
        metavar="N",
    )  # fmt: skip
    fast: bool = option(False, "ask the network at one level of three, and carry its noise on in between")
    save_feat_steps: int = option(50, "steps of the sampling, for which features are kept (50)", type=int, metavar="N")
    start_step: int | None = option(
        None, "run only the last N sampling steps (all but the first: 49)", type=int, metavar="N"
    )
    settle: int = option(
        0, "noises over whose mean a result is settled at the end, which makes it softer (0: not at all)", type=int,
        metavar="N",
    )  # fmt: skip
    ddim_eta: float = option(0.0, "fresh noise in sampling: 0 none (default), 1 as DDPM", type=float, metavar="ETA")
    seed: int | None = option(22, "of the fresh noise of --settle and --ddim_eta; -1 draws one (22)", type=int)
    without_init_adain: bool = option(False, "start from the content's noise as it is")
    without_attn_injection: bool = option(False, "leave attention alone")
    keep_flat: float | None = option(
        None, "how far a result is smooth where the content is flat, such as a clear sky, 0 to 1 (as the model's YAML "
        "says, else 0)", type=float, metavar="SHARE",
    )  # fmt: skip
    keep_color: bool = option(False, "the result's brightness with the content's colours")

    @classmethod
    def of(cls, options: Recipe) -> Recipe:
        """The recipe alone, of options that have more fields."""
        return cls(**{one.name: getattr(options, one.name) for one in fields(cls)})

    @property
    def gammas(self) -> tuple[float, ...] | None:
        """The numbers of ``gamma_schedule``.

        Raises:
            UserError: they are no numbers.
        """
        return read_schedule(self.gamma_schedule) if isinstance(self.gamma_schedule, str) else self.gamma_schedule

    def settled(self, mixed: bool) -> Settled:
        """The recipe with nothing left open but layers and steps, which depend on the model.

        Args:
            mixed: whether attention is shared between content and styles; otherwise it is StyleID's injection.

        Raises:
            UserError: it is shared, and a variation of the injection is asked for.
        """
        wrong = [name for name in ("adaptive", "share", "distill") if mixed and getattr(self, name)]
        if wrong:
            raise UserError(f"--{wrong[0]} is for one style without masks: leave it out, or give --no_masks")
        usual: dict[str, Any] = {
            "gamma": GAMMA_MASKED if mixed else GAMMA,
            "T": T_MASKED if mixed else T_ONE,
            "pi": PI,
            "mix": MIX,
            "inversion": DDIM,
            "inversion_rounds": ROUNDS,
            "adain_deviation": DEVIATION,
            "keep_flat": 0.0,
            "detail": DETAIL_MASKED if mixed else 0.0,
        }
        left = {name: value for name, value in usual.items() if getattr(self, name) is None}
        said = {one.name: getattr(self, one.name) for one in fields(self)}
        drawn = {"gamma_schedule": self.gammas, "seed": self.seed if self.ddim_eta or self.settle else None}
        return Settled(**said | drawn | left)

    def parameters(self) -> dict[str, Any]:
        """What is written beside a result; a record says what is done, not what is left out, and null for no detail."""
        said = asdict(self)
        said["init_adain"] = not said.pop("without_init_adain")
        said["attn_injection"] = not said.pop("without_attn_injection")
        # as it was before there was a choice
        if self.outside == FREE:
            del said["outside"], said["feather"]
        for name, plain in PLAIN.items():
            if said[name] in (plain, None):
                del said[name]
        if self.negative is None:
            del said["negative_scale"]
        return said | {"detail": self.detail or None}


@dataclass
class Settled(Recipe):
    """A recipe with nothing left open."""

    gamma: float = GAMMA
    T: float = T_ONE
    gamma_schedule: tuple[float, ...] | None = None
    pi: float = PI
    mix: str = MIX
    inversion: str = DDIM
    inversion_rounds: int = ROUNDS
    adain_deviation: float = DEVIATION
    keep_flat: float = 0.0
    detail: float = 0.0
