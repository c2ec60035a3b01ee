"""Latent diffusion: a diffusion model in the latent space of an autoencoder, under a condition.

Source: Rombach et al. 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ldm.additions.base import Addition
from ldm.additions.learning import Learning
from ldm.checkpoint import Origin
from ldm.flat_options import flat
from ldm.models.diffusion.condition import Condition
from ldm.models.diffusion.conditioned import ConditionedModel
from ldm.models.diffusion.loss import images_to_channels_first
from ldm.models.diffusion.network import Start
from ldm.models.diffusion.prior import BASE, REG, SUBJECT, Prior, drift_from_base
from ldm.models.diffusion.sampler_errors import SamplerErrors, loss_of_errors
from ldm.models.diffusion.text_states import TextStates
from ldm.modules.cpu.held import computing_dtype
from ldm.modules.distributions.distributions import DiagonalGaussianDistribution
from ldm.modules.encoders.base import TextEncoder
from ldm.modules.encoders.conditioner import GeneralConditioner
from ldm.util import ConfigError, UserError, instantiate_from_config


class LatentModel(ConditionedModel):
    """Diffusion in the latent space of an autoencoder, under a condition (Rombach et al. 2022, equation 3).

    ``ldm.models.diffusion.ddpm.LatentDiffusion`` is this as a Lightning module.
    """

    cond_stage_name = "cond_stage_model"  # of the encoder in checkpoints
    averages_by_default = True  # what ``use_ema`` is where a YAML does not say it
    origin = Origin()  # where it was opened, and how it is usually asked; set by ``ldm.checkpoint.load_model``

    @flat(prior=Prior, errors=SamplerErrors, start=Start)
    def __init__(
        self,
        first_stage_config: dict[str, Any],
        cond_stage_config: dict[str, Any] | str,  # or '__is_first_stage__', '__is_unconditional__'
        num_timesteps_cond: int | None = None,  # 1: noising the condition, which no released model does, is not built
        cond_stage_key: str = "image",  # the batch's key of the condition
        cond_stage_trainable: bool = False,
        cond_stage_forward: str | None = None,  # the encoder's method to call; None: encode
        concat_mode: bool = True,  # without conditioning_key: concat, else crossattn
        conditioning_key: str | None = None,
        scale_factor: float = 1.0,
        scale_by_std: bool = False,  # take 1 / std of the first batch's latents
        force_null_conditioning: bool = False,
        personalization_config: dict[str, Any] | None = None,  # the EmbeddingManager of textual inversion
        lora_config: dict[str, Any] | None = None,  # the TrainedLora that learns on the model
        embedding_reg_weight: float = 0.0,
        unfreeze_model: bool = False,  # with personalization_config: the network and the encoder learn as well,
        model_lr: float = 0.0,  # at this rate
        *,
        prior: Prior,
        errors: SamplerErrors,
        start: Start,
        **ddpm: Any,
    ) -> None:
        """Raises ConfigError for values that are not known; ``ddpm`` are the parameters of :class:`DiffusionModel`."""
        if num_timesteps_cond not in (None, 1):
            raise ConfigError(f"num_timesteps_cond must be 1 (the condition is not noised), got {num_timesteps_cond}")
        if conditioning_key is None:
            conditioning_key = "concat" if concat_mode else "crossattn"
        if cond_stage_config == "__is_unconditional__" and not force_null_conditioning:
            conditioning_key = None
        super().__init__(conditioning_key=conditioning_key, **ddpm)
        self.cond_stage_key = cond_stage_key
        self.cond_stage_trainable = cond_stage_trainable
        self.cond_stage_forward = cond_stage_forward
        self.scale_by_std = scale_by_std
        self.scale_factor: float | Tensor = scale_factor
        if scale_by_std:
            del self.scale_factor
            self.register_buffer("scale_factor", torch.tensor(float(scale_factor), device="cpu"))

        self.first_stage_model: Any = instantiate_from_config(first_stage_config).requires_grad_(False)
        setattr(self, self.cond_stage_name, self._build_cond_stage(cond_stage_config))
        errors.check(self.num_timesteps)
        self.sampler_errors = errors
        self.embedding_reg_weight = embedding_reg_weight
        self.embedding_manager: Any = None
        self.further_additions: list[Addition] = []  # what learns besides words and adapters of the encoder
        self.prior = prior
        self.unfreeze_model = unfreeze_model
        self.model_lr = model_lr
        films = self.model.conditioning_key == "video"
        prior.check(unfreeze_model, lora_config is not None, films)
        if personalization_config is not None and prior.reg_weight is None:
            self.learn_words(instantiate_from_config(personalization_config, embedder=self.cond_stage_model))
        if lora_config is not None:
            self.learn_lora(instantiate_from_config(lora_config, model=self))
        self.learning.freeze_the_rest(self)
        self.train(self.training)
        self.begin(start)

    @property
    def usual(self) -> Mapping[str, Any]:
        """How it is sampled where nobody says otherwise, by the names of ``inference:``; here nothing."""
        return {}

    def train(self, mode: bool = True) -> LatentModel:
        """As usual, but what is not trained stays in eval mode."""
        super().train(mode)
        self.first_stage_model.eval()
        learning = self.learning
        if self.cond_stage_model is not None and (learning.additions_only or not self.cond_stage_trainable):
            self.cond_stage_model.eval()
            learning.set_modes(mode)
        return self

    @property
    def learning(self) -> Learning:
        """What learns in a run: additions, or the model, or both."""
        return Learning.of(self, self.unfreeze_model, self.model_lr)

    @property
    def fresh_keys(self) -> tuple[str, ...]:
        """As in the base: those of the additions."""
        return self.learning.own_keys

    def learn_words(self, manager: Any) -> None:
        """Have an EmbeddingManager between the encoder's token vectors and its layers; freeze what does not learn."""
        if self.embedding_manager is not None:
            self.embedding_manager.remove()
        self.embedding_manager = manager
        manager.install(self.model.diffusion_model)
        self.learning.freeze_the_rest(self)

    def learn_lora(self, lora: Any) -> None:
        """Have the factors of a LoRA beside the layers, for good; freeze what does not learn."""
        self.lora = lora
        self.further_additions.append(lora)
        lora.attach(self)
        self.learning.freeze_the_rest(self)

    def keep_text_states(self) -> None:
        """From here on, each prompt goes through the encoder once.

        Raises:
            ConfigError: the condition is not that of one text encoder, or something of it learns.
        """
        if not isinstance(self.cond_stage_model, TextEncoder):
            raise ConfigError("lightning.cache_text is for a model with one text encoder, which this one has not")
        learns = any(parameter.requires_grad for parameter in self.cond_stage_model.parameters())
        if learns or any(addition.changes_text for addition in self.learning.additions):
            raise ConfigError("lightning.cache_text needs a text encoder that stays as it is; in this run it learns")
        self.text_states = TextStates()

    def _build_cond_stage(self, config: dict[str, Any] | str) -> Any:
        if config == "__is_unconditional__":
            return None
        if config == "__is_first_stage__":
            return self.first_stage_model
        if isinstance(config, str):
            raise ConfigError(f"unknown cond_stage_config '{config}'")
        return instantiate_from_config(config).requires_grad_(self.cond_stage_trainable)

    # ---- latents --------------------------------------------------------------------------------------------------

    def encode_first_stage(self, x: Tensor) -> Any:
        """What the autoencoder makes of images [B, 3, H, W]: a posterior (KL) or a latent (VQ), not yet scaled."""
        return self.first_stage_model.encode(x.to(computing_dtype(self.first_stage_model)))

    def get_first_stage_encoding(self, encoded: DiagonalGaussianDistribution | Tensor) -> Tensor:
        """A scaled latent [B, C, h, w], float32; a random sample where ``encoded`` is a posterior."""
        z = encoded.sample() if isinstance(encoded, DiagonalGaussianDistribution) else encoded
        return self.scale_factor * z.float()

    def decode_first_stage(self, z: Tensor, force_not_quantize: bool = False) -> Tensor:
        """Images [B, 3, H, W], float32, for scaled latents [B, C, h, w]."""
        z = (z / self.scale_factor).to(computing_dtype(self.first_stage_model))
        options = {"force_not_quantize": True} if force_not_quantize else {}
        return self.first_stage_model.decode(z, **options).float()

    def get_latent(self, batch: Mapping[str, Any]) -> Tensor:
        """Scaled latents [B, C, h, w] of a batch: of its pictures, or of its ``moments`` where they are cached."""
        if "moments" in batch:
            moments = batch["moments"].to(self.device, torch.float32)
            return self.get_first_stage_encoding(DiagonalGaussianDistribution(moments))
        x = images_to_channels_first(batch[self.first_stage_key]).to(self.device)
        return self.get_first_stage_encoding(self.encode_first_stage(x)).detach()

    def get_input(self, batch: Mapping[str, Any]) -> tuple[Tensor, Condition]:
        """What a batch holds: scaled latents [B, C, h, w] and the encoded condition."""
        z = self.get_latent(batch)
        if self.model.conditioning_key is None:
            return z, None
        return z, self.get_condition(batch, (z.shape[-2], z.shape[-1]))

    # ---- training -------------------------------------------------------------------------------------------------

    def shared_step(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch and its parts, as in the base, with two further terms where they are asked for.

        In training, batches of empty prompts or of drawn latents may have the loss of ``loss_of_errors``. Learned words
        add how far they have come from their start (``embedding_reg_weight``), as ``loss_emb_reg``. A batch with class
        pictures (``ldm.data.prior``) adds their loss, with timesteps and noise of its own (Ruiz et al. 2023, equation
        2), as ``loss_reg``; with ``reg_target: base`` it is ``drift_from_base``. How much of it, and how often:
        :class:`Prior`.
        """
        if REG in batch:
            loss, parts = self.shared_step(batch[SUBJECT])
            towards_base = self.prior.reg_target == BASE
            prior = drift_from_base(self, batch[REG]) if towards_base else self.shared_step(batch[REG])[0]
            parts[f"{'train' if self.training else 'val'}/loss_reg"] = prior.detach()
            return loss + self.prior.weight * prior, parts
        found = loss_of_errors(self, batch, self.sampler_errors) if self.training else None
        loss, parts = super().shared_step(batch) if found is None else found
        if self.embedding_manager is not None and self.embedding_reg_weight > 0:
            distance = self.embedding_manager.embedding_to_coarse_loss().mean()
            loss = loss + self.embedding_reg_weight * distance
            stage = "train" if self.training else "val"
            parts |= {f"{stage}/loss_emb_reg": distance.detach(), f"{stage}/loss": loss.detach()}
        return loss, parts

    def set_scale(self, z: Tensor) -> None:
        """Take 1 / std of latents [B, C, h, w], not yet scaled, for the scale factor (``scale_by_std``).

        Raises:
            UserError: the configuration gives a factor as well.
        """
        if self.scale_factor != 1.0:
            raise UserError("scale_by_std takes the factor from the first batch: leave out 'scale_factor'")
        assert isinstance(self.scale_factor, Tensor)
        self.scale_factor.copy_(1.0 / z.std())

    def trained_parameters(self) -> list[Any]:
        parameters: list[Any] = super().trained_parameters()
        if self.cond_stage_trainable and self.cond_stage_model is not None:
            several = isinstance(self.cond_stage_model, GeneralConditioner)  # of which some may be frozen
            # of one encoder all, read or not: the optimiser of a run that is resumed has them all
            parameters += [p for p in self.cond_stage_model.parameters() if p.requires_grad or not several]
        return self.learning.groups(self.learning_rate, parameters)
