"""Latent diffusion in levels of sigma, with a condition of several encoders: Stable Diffusion XL and its relatives.

It is the latent diffusion model of this house with another noise process, another conditioner and another loss; its
configuration is that of the code which was released with Stable Diffusion XL (``sgm``). Sources: Podell et al. 2023
(SDXL), Karras et al. 2022 (levels and preconditioning).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldm.additions.paired_words import PairedWords
from ldm.additions.vocabulary import Words
from ldm.flat_options import flat
from ldm.models.diffusion import film_condition
from ldm.models.diffusion.condition import Condition, Parts, as_parts
from ldm.models.diffusion.engine_condition import (
    AESTHETIC_SCORE,
    KEYS,
    NEEDS,
    NEGATIVE_AESTHETIC_SCORE,
    as_fed,
    as_made,
    as_numbers,
)
from ldm.models.diffusion.engine_options import (
    NO_CONDITION,
    EngineOptions,
    TrainingOptions,
    conditioning_of,
    entries_of,
    makes_films,
    network_parameters,
)
from ldm.models.diffusion.gaussian import ScheduleOptions
from ldm.models.diffusion.guidance import expand_condition, repeat_condition, rows_of
from ldm.models.diffusion.latent import LatentModel
from ldm.models.diffusion.loss import refuse_mask
from ldm.models.diffusion.network import Start
from ldm.models.diffusion.samplers.edm import EulerEDMSampler, SigmaSampler
from ldm.models.portions import in_portions
from ldm.modules.diffusionmodules.denoiser import Denoiser, DiscreteDenoiser
from ldm.modules.diffusionmodules.discretizer import Discretization, EDMDiscretization
from ldm.modules.diffusionmodules.sigma_schedule import SigmaSchedule
from ldm.modules.diffusionmodules.video_model import is_temporal
from ldm.modules.encoders.conditioner import TEXT, GeneralConditioner
from ldm.modules.encoders.needs import Need, Needs
from ldm.util import ConfigError, UserError, class_from_str, instantiate_from_config

SIZE, SIZE_OF_XL = 64, 128  # of latents


class EngineModel(LatentModel):
    """A latent diffusion model whose levels are sigmas and whose condition comes from a ``GeneralConditioner``.

    ``ldm.models.diffusion.ddpm.DiffusionEngine`` is this as a Lightning module.

    Attributes:
        denoiser: the preconditioning of the network.
        conditioner: the encoders; ``cond_stage_model`` is another name of it.
    """

    cond_stage_name = "conditioner"
    averages_by_default = False
    conditioner: GeneralConditioner
    schedule: SigmaSchedule  # type: ignore[assignment]

    @flat(engine=EngineOptions, training=TrainingOptions, start=Start)
    def __init__(
        self,
        network_config: dict[str, Any],
        denoiser_config: dict[str, Any],
        first_stage_config: dict[str, Any],
        conditioner_config: dict[str, Any] | None = None,
        use_ema: bool = False,
        *,
        engine: EngineOptions,
        training: TrainingOptions,
        start: Start,
    ) -> None:
        """Raises ConfigError: values that are not known, or parts that are none."""
        network = network_parameters(network_config)
        channels = int(network["params"].get("out_channels", 4))
        conditioner_config = conditioner_config or NO_CONDITION
        super().__init__(
            unet_config=network,
            first_stage_config=first_stage_config,
            cond_stage_config=conditioner_config,
            conditioning_key="video" if makes_films(network) else conditioning_of(network["params"], channels),
            cond_stage_key=engine.caption_key,
            cond_stage_trainable=any(node.get("is_trainable") for node in entries_of(conditioner_config)),
            first_stage_key=engine.input_key,
            channels=channels,
            use_ema=use_ema,
            ema_decay=engine.ema_decay_rate,
            **vars(training),
        )
        self.engine = engine
        self.denoiser: Denoiser = instantiate_from_config(denoiser_config)
        if not isinstance(self.denoiser, Denoiser):
            raise ConfigError(f"denoiser_config: '{denoiser_config.get('target')}' is no denoiser")
        self.parameterization = self.denoiser.scaling.predicts
        self.loss_fn = None if engine.loss_fn_config is None else instantiate_from_config(engine.loss_fn_config)
        self.image_size = engine.sampling_size or (SIZE_OF_XL if self.reads_sizes else SIZE)
        self.schedule = SigmaSchedule(self.denoiser, self._discretization())
        self.makes_films = self.model.conditioning_key == "video"
        self.frames = film_condition.frames_of(engine.sampler_config)
        if engine.spatial == "frozen":
            for name, parameter in self.model.diffusion_model.named_parameters():
                parameter.requires_grad_(is_temporal(name))
        self.begin(start)

    @property
    def cond_stage_model(self) -> GeneralConditioner:
        return self.conditioner

    def register_schedule(self, options: ScheduleOptions) -> None:
        """The levels are the denoiser's; of a table of betas there is only how long it would be."""
        self.num_timesteps = options.timesteps

    def _discretization(self) -> Discretization:
        """The sigmas of a walk: the sampler's, or those of the denoiser's table, or EDM's own."""
        params = (self.engine.sampler_config or {}).get("params") or {}
        if "discretization_config" in params:
            return instantiate_from_config(params["discretization_config"])
        return self.denoiser.discretization if isinstance(self.denoiser, DiscreteDenoiser) else EDMDiscretization()

    def _build_cond_stage(self, config: dict[str, Any] | str) -> Any:
        conditioner = instantiate_from_config(config) if isinstance(config, dict) else None
        if not isinstance(conditioner, GeneralConditioner):
            raise ConfigError("conditioner_config must be a GeneralConditioner with its encoders ('emb_models')")
        return conditioner

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    # ---- the condition --------------------------------------------------------------------------------------------

    @property
    def needs(self) -> Needs:
        if self.makes_films:
            return film_condition.NEEDS
        keys = self.conditioner.input_keys
        own = {name: need for name, need in NEEDS.items() if KEYS[name] in keys}
        label = own.pop("class_label", None)
        known = {TEXT, *KEYS.values()}
        others = [Need(key, f"the entry '{key}' of the conditioner") for key in keys if key not in known]
        required = [*([] if label is None else [label]), *others]
        return Needs(tuple(required), tuple(own.values()), reads_prompts=TEXT in keys)

    def condition(self, prompts: Sequence[str] | Tensor, *, size: tuple[int, int] | None = None, **given: Any) -> Parts:
        """As in the base; of films with a row for each frame, see ``ldm.models.diffusion.film_condition``."""
        made = super().condition(prompts, size=size, **given)
        if not self.makes_films:
            return made
        return film_condition.film_rows(made, given.get("frames", self.frames), given.get("stills"))

    def _parts(self, prompts: Sequence[str] | Tensor, size: tuple[int, int] | None, given: Mapping[str, Any]) -> Parts:
        """The parts of a condition; sizes that are not given are those of the picture that is made, uncropped."""
        if self.makes_films:
            keys = self.conditioner.input_keys
            batch = film_condition.film_batch(prompts, given, keys, self.device)
            return as_fed(self.conditioner(batch, drop=self.training))
        alike = not self.training and not isinstance(prompts, Tensor) and len(set(prompts)) == 1
        batch = {TEXT: prompts[:1] if alike else prompts, **self._numbers(size, given)}
        return as_fed(self.conditioner(batch, words=self._words, drop=self.training))

    @property
    def _words(self) -> dict[int, Words] | None:
        """The learned words of each encoder, by its place in the conditioner.

        Raises:
            UserError: they are of a kind that one encoder has.
        """
        words = self.embedding_manager
        if words is None or isinstance(words, PairedWords):
            return None if words is None else words.by_place
        raise UserError("words for layers or timesteps are for models with one text encoder")

    def _numbers(self, size: tuple[int, int] | None, given: Mapping[str, Any]) -> dict[str, Any]:
        """What the conditioner gets besides texts: the numbers as tensors [1 or B, n], the rest as it is."""
        keys = self.conditioner.input_keys
        usual_size = (self.image_size,) * 2 if isinstance(self.image_size, int) else tuple(self.image_size)
        picture = tuple(int(side) * self.first_stage_model.factor for side in size or usual_size)
        usual = {"original_size": picture, "crop": (0, 0), "target_size": picture, "aesthetic_score": AESTHETIC_SCORE}
        found: dict[str, Any] = {name: value for name, value in given.items() if name not in KEYS}
        for name in (name for name, key in KEYS.items() if key in keys):
            value = given.get(name, usual.get(name))
            if value is None:
                raise UserError(f"the condition needs '{name}', {NEEDS[name].what}")
            found[KEYS[name]] = as_numbers(name, value).to(self.device)
        return found

    def unconditional(self, condition: Condition, negative_prompt: str = "", **given: Any) -> Parts | None:
        """What guidance leads away from: another text under the same sizes.

        Without a negative prompt all that comes of the text is 0 for a model that was trained so (``zeroes_text``), as
        the public programs have it; with one, that is encoded.

        Args:
            given: ``aesthetic_score``, in place of 2.5, and sizes in place of the condition's.
        """
        parts = as_parts(condition, self.model.conditioning_key)
        if self.makes_films:
            made = self.conditioner.changed(as_made(parts), {}, film_condition.PICTURES)
            return {**parts, **as_fed(made)}
        if not parts:
            return None
        if TEXT not in self.conditioner.input_keys:
            return as_fed(self.conditioner.changed(as_made(parts), {}, self.conditioner.dropped_keys))
        batch: dict[str, Any] = {TEXT: [negative_prompt]}
        if KEYS["aesthetic_score"] in self.conditioner.input_keys:
            given = {"aesthetic_score": NEGATIVE_AESTHETIC_SCORE, **given}
        batch |= {KEYS[name]: as_numbers(name, value).to(self.device) for name, value in given.items()}
        zero = (TEXT,) if self.zeroes_text and not negative_prompt else ()
        changed = self.conditioner.changed(as_made(parts), batch, zero, self._words)
        return expand_condition(as_fed(changed), rows_of(parts))

    @property
    def zeroes_text(self) -> bool:
        """Whether the text of nothing is 0: for SDXL itself, not for its refiner, nor for a model of one context.

        A configuration may say it as ``zero_empty_text``.
        """
        if self.engine.zero_empty_text is not None:
            return self.engine.zero_empty_text
        return self.reads_sizes and KEYS["aesthetic_score"] not in self.conditioner.input_keys

    @property
    def reads_sizes(self) -> bool:
        """Whether the condition is of SDXL's kind: a vector of the text, and the sizes of the picture."""
        pooled = any(encoder.returns_pooled for encoder in self.conditioner.text_encoders)
        return pooled and KEYS["original_size"] in self.conditioner.input_keys

    @property
    def usual(self) -> dict[str, Any]:
        """As its configuration's sampler says, else as the public demo has it."""
        sampler = self.engine.sampler_config or {}
        params = sampler.get("params") or {}
        guider = (params.get("guider_config") or {}).get("params") or {}
        kind = class_from_str(sampler["target"]) if "target" in sampler else EulerEDMSampler
        if not issubclass(kind, SigmaSampler):
            raise ConfigError(f"sampler_config: '{sampler['target']}' is no sampler of this kind")
        scale = guider.get("scale", guider.get("max_scale"))
        if scale is None:
            scale = 5.0 if not params or "guider_config" in params else 1.0
        return {"sampler": kind.name, "steps": params.get("num_steps") or 50, "guidance_scale": scale}

    def get_learned_conditioning(self, c: Any) -> Any:
        """The parts of prompts, or of a batch of the conditioner's entries; for old scripts."""
        return as_fed(self.conditioner(c)) if isinstance(c, Mapping) else self.condition(c, size=(128, 128))

    def given_by(self, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        if self.makes_films:
            return film_condition.films_of(batch, self.first_stage_key, self.training, self.device)
        known = {key: name for name, key in KEYS.items()}
        keys = [key for key in self.conditioner.input_keys if key != TEXT and key in batch]
        given = {known.get(key, key): batch[key] for key in keys}
        if TEXT not in self.conditioner.input_keys:
            return [""] * len(batch[self.first_stage_key]), given
        return self.get_raw_condition(batch), given

    # ---- latents and loss -----------------------------------------------------------------------------------------

    def get_latent(self, batch: Mapping[str, Any]) -> Tensor:
        """As in the base; of clips [B, T, H, W, 3] a row for each frame."""
        if not self.makes_films:
            return super().get_latent(batch)
        return super().get_latent({self.first_stage_key: batch[self.first_stage_key].flatten(0, 1)})

    def encode_first_stage(self, x: Tensor) -> Any:
        """As in the base, a few pictures at once and without autocast where the configuration says so."""
        with self._first_stage_precision():
            return in_portions(super().encode_first_stage, x, self.engine.en_and_decode_n_samples_a_time)

    def decode_first_stage(self, z: Tensor, force_not_quantize: bool = False) -> Tensor:
        with self._first_stage_precision():
            return in_portions(super().decode_first_stage, z, self.engine.en_and_decode_n_samples_a_time)

    @property
    def precise_parts(self) -> tuple[str, ...]:
        """The autoencoder keeps float32 where half precision overflows in it."""
        return ("first_stage_model.",) if self.engine.disable_first_stage_autocast else ()

    def _first_stage_precision(self) -> torch.autocast:
        kind = self.device.type
        return torch.autocast(
            kind, enabled=torch.is_autocast_enabled(kind) and not self.engine.disable_first_stage_autocast
        )

    def q_sample(self, x_start: Tensor, t: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents [B, C, h, w] with noise at entries t [B] of a thousand, the least noisy first, at variance 1."""
        noise = torch.randn_like(x_start) if noise is None else noise
        table = np.ascontiguousarray(self.schedule.discretization.sigmas(self.num_timesteps)[::-1])
        sigma = torch.from_numpy(table).to(x_start)[t.to(x_start.device)].reshape(-1, *[1] * (x_start.dim() - 1))
        return (x_start + sigma * noise) * (1 + sigma**2).rsqrt()

    def forward(
        self, x: Tensor, cond: Condition = None, mask: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss for clean latents [B, C, h, w] at random sigmas, and its parts; ``draws`` of them in training."""
        refuse_mask(mask)
        if self.training and self.draws > 1:
            cond = repeat_condition(cond, x.shape[0], self.draws)
            x = x.repeat(self.draws, *[1] * (x.dim() - 1))
        if self.loss_fn is None:
            raise UserError("this model's configuration has no 'loss_fn_config', which training needs")
        loss = self.loss_fn(self.denoiser, self.apply_model, x, cond).mean()
        stage = "train" if self.training else "val"
        return loss, {f"{stage}/loss_simple": loss.detach(), f"{stage}/loss": loss.detach()}
