"""A LoRA that learns: factors beside the layers of a frozen model, and their files."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ldm.additions.base import Addition, Undo
from ldm.additions.lora.factors import STARTS, Factors, put_beside, put_beside_rows
from ldm.additions.lora.layers import DIFFUSERS, NONE, chosen
from ldm.additions.lora.lora import matched
from ldm.additions.lora.names import UNET_PREFIX, Place, places
from ldm.checkpoint.lora import UNET, read_lora
from ldm.checkpoint.lora.writing import KOHYA_SGM, SPELLINGS, Written, write_lora
from ldm.runs import LORAS, given_or_latest
from ldm.util import ConfigError, UserError

ARCHITECTURES = {
    768: "stable-diffusion-v1",
    1024: "stable-diffusion-v2-512",
    1280: "latent-diffusion",
    2048: "stable-diffusion-xl-v1-base",
}
PREDICTIONS = {"eps": "epsilon", "v": "v", "x0": "sample"}


class TrainedLora(nn.Module, Addition):
    """LoRA on chosen layers of a model; ``lora_config`` of a LatentDiffusion names it.

    State dict: ``factors.<network>-<path with underscores>.lora_down`` and ``.lora_up``, ``.dora_scale`` with DoRA.

    Args:
        model: a LatentDiffusion, whose layers these are for.
        rank, alpha: r, and the number that is divided by it (r where not given): the change is (alpha / r) B A.
        conv_rank, conv_alpha: of 3x3 convolutions; with a rank the layers of residual blocks learn, too.
        layers, text_layers: which layers of the UNet and of the text encoder, see ``ldm.additions.lora.layers``.
        rate, text_rate: the UNet's learning rate and the text encoder's, as multiples of the run's.
        dropout: share of a layer's input that the factors do not see, at random, in training.
        dora: learn the lengths of rows apart from their directions (DoRA).
        start: how factors begin: ``kohya`` (Kaiming uniform) or ``diffusers`` (normal, spread 1 / r); B begins at 0.
        format: whose spelling files have: ``kohya``, ``kohya_sgm`` (the UNet's paths as kohya's SDXL files have them)
            or ``peft`` (which is diffusers').
        lora_ckpt: a file to go on with; its ranks must be these. ``latest`` is the newest run's.

    Raises:
        ConfigError: a value that is not known, or no layer is chosen.
        UserError: ``lora_ckpt`` does not fit.
    """

    file_name = "lora"
    own_keys = ("lora.",)

    def __init__(
        self,
        model: Any,
        rank: int = 4,
        alpha: float | None = None,
        conv_rank: int = 0,
        conv_alpha: float | None = None,
        layers: str | Sequence[str] = DIFFUSERS,
        text_layers: str | Sequence[str] = NONE,
        rate: float = 1.0,
        text_rate: float = 1.0,
        dropout: float = 0.0,
        dora: bool = False,
        start: str = "kohya",
        format: str = "kohya",
        lora_ckpt: str | None = None,
    ) -> None:
        super().__init__()
        if rank < 1 or conv_rank < 0 or not 0 <= dropout < 1:
            raise ConfigError(
                f"lora_config needs rank >= 1, conv_rank >= 0 and 0 <= dropout < 1, got {rank}, {conv_rank}, {dropout}"
            )
        for name, value, known in (("start", start, STARTS), ("format", format, SPELLINGS)):
            if value not in known:
                raise ConfigError(f"lora_config: '{name}' is '{value}'; known: {', '.join(known)}")
        self._model = (model,)  # in a tuple, so that its weights are not part of this module's state
        self.rate, self.text_rate, self.spelling = rate, text_rate, format
        self.places = {_name(place): place for place in chosen(model, layers, text_layers, conv_rank > 0)}
        shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
        self.factors = nn.ModuleDict()
        for name, place in self.places.items():
            shape = _shape(shapes[place.weight], place)
            large = len(shape) == 4 and shape[2:] != (1, 1)
            r = conv_rank or rank if large else rank
            a = (conv_alpha if large and conv_rank else alpha) or r
            with_lengths = dora and place.rows is None
            self.factors[name] = Factors(shape, min(r, *shape[:2]), float(a) * min(r, *shape[:2]) / r, start, dropout,
                                         with_lengths)  # fmt: skip
        self.register_load_state_dict_post_hook(_take_lengths_anew)
        self.take_lengths()
        if lora_ckpt:
            self.load(given_or_latest(lora_ckpt, LORAS))

    @property
    def model(self) -> Any:
        return self._model[0]

    @property
    def changes_text(self) -> bool:  # type: ignore[override]
        return any(place.network != UNET for place in self.places.values())

    # ---- what learns ----------------------------------------------------------------------------------------------

    def learned(self) -> Sequence[nn.Parameter]:
        return list(self.parameters())

    def modules_in_training(self) -> Sequence[nn.Module]:
        return [self]

    def parameter_groups(self, rate: float) -> list[dict[str, Any]]:
        """The UNet's factors, and the text encoder's, each at its rate."""
        groups = []
        for is_text in (False, True):
            own = [p for name, place in self.places.items() if (place.network != UNET) == is_text
                   for p in self.factors[name].parameters()]  # fmt: skip
            if own:
                share = self.text_rate if is_text else self.rate
                groups.append({"params": own} | ({} if share == 1 else {"lr": share * rate}))
        return groups

    def attach(self, model: Any, scale: float = 1.0) -> Undo:
        modules = dict(model.named_modules())
        rows: dict[str, dict[int, Factors]] = defaultdict(dict)
        with contextlib.ExitStack() as undone:
            for name, place in self.places.items():
                factors: Any = self.factors[name]
                path = place.weight.removesuffix(".weight")
                if place.rows is not None:
                    rows[place.weight.rpartition(".")[0]][place.rows[0] // (place.rows[1] - place.rows[0])] = factors
                elif path in modules:
                    undone.callback(put_beside(modules[path], factors, scale))
                else:
                    raise UserError(f"the model has no layer '{path}' that this LoRA learns on")
            for path, own in rows.items():
                undone.callback(put_beside_rows(modules[path], own, scale))
            return undone.pop_all().close

    @contextlib.contextmanager
    def left_out(self) -> Iterator[None]:
        """Within the block the model that this was put on is as it is without."""
        factors: list[Any] = list(self.factors.values())
        for one in factors:
            one.left_out = True
        try:
            yield
        finally:
            for one in factors:
                one.left_out = False

    def take_lengths(self) -> None:
        """Begin DoRA's lengths from the model's weights as they are now."""
        weights = dict(self.model.named_parameters())
        for name, place in self.places.items():
            factors: Any = self.factors[name]
            factors.take_lengths(weights[place.weight])

    # ---- files ----------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
        """Write it in the spelling that was chosen, with what other programs show of a file in its header."""
        path = Path(path)
        modules = []
        for name, place in self.places.items():
            factors: Any = self.factors[name]
            path_inside = place.weight.removeprefix(UNET_PREFIX).removesuffix(".weight")
            own = self.spelling == KOHYA_SGM and place.network == UNET
            modules.append(Written(place.network, path_inside if own else place.name, factors.parts))
        write_lora(path, modules, self.spelling, self._about(path.stem) | said_as_others_do(metadata or {}))

    def _about(self, title: str) -> dict[str, str]:
        model = self.model
        width = next((p.shape[1] for n, p in model.named_parameters() if n.endswith("attn2.to_k.weight")), 0)
        about = {
            "ss_output_name": title,
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.title": title,
            "modelspec.architecture": f"{ARCHITECTURES.get(width, 'latent-diffusion')}/lora",
            "modelspec.prediction_type": PREDICTIONS.get(model.parameterization, model.parameterization),
        }
        words = () if model.embedding_manager is None else model.embedding_manager.placeholders
        return about | ({"modelspec.trigger_phrase": ", ".join(words)} if words else {})

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on with a file.

        Raises:
            UserError: it has no such layers, or other ranks.
        """
        file = read_lora(path)
        modules, _ = matched(file, places(self.model))
        there = {_name(module.place): module for module in modules}
        for name in self.places:
            factors: Any = self.factors[name]
            if name not in there:
                raise UserError(f"'{path}' has nothing for the layer '{name}'; take the layers that it was learned on")
            factors.load_parts(there[name].parts, f"'{path}': '{name}'")


def said_as_others_do(metadata: Mapping[str, str]) -> dict[str, str]:
    """A run's notes under the names that kohya's programs give them, besides our own."""
    names = {"steps": "ss_steps", "base_model": "ss_sd_model_name"}
    return {**metadata, **{names[key]: value for key, value in metadata.items() if key in names}}


def _name(place: Place) -> str:
    return f"{place.network}-{place.name.replace('.', '_')}"


def _shape(shape: tuple[int, ...], place: Place) -> tuple[int, ...]:
    return shape if place.rows is None else (place.rows[1] - place.rows[0], *shape[1:])


def _take_lengths_anew(lora: nn.Module, incompatible: Any) -> None:
    """After weights without a LoRA were loaded: rows may have other lengths now."""
    assert isinstance(lora, TrainedLora)
    if any("dora_scale" in key for key in incompatible.missing_keys):
        lora.take_lengths()
