"""Latent diffusion: a diffusion model in the latent space of an autoencoder, under a condition.

``ldm.models.diffusion.ddpm.LatentDiffusion`` is this as a Lightning module. Source: Rombach et al. 2022.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ldm.additions.base import Addition
from ldm.additions.learning import Learning
from ldm.checkpoint import Origin
from ldm.models.diffusion.base import DiffusionModel, images_to_channels_first
from ldm.models.diffusion.condition import (
    AS_IT_IS,
    MASK,
    Parts,
    check_size,
    encoded_part,
    encoder_takes,
    in_rows,
    rows_of,
)
from ldm.models.diffusion.guidance import expand_condition
from ldm.models.diffusion.invertible import invertible_loss
from ldm.models.diffusion.preview import latent_previews
from ldm.models.diffusion.wrapper import KINDS, Condition, as_parts
from ldm.modules.distributions.distributions import DiagonalGaussianDistribution
from ldm.modules.encoders.conditions import ClassEmbedder
from ldm.modules.encoders.needs import Need, Needs
from ldm.util import ConfigError, UserError, instantiate_from_config

log = logging.getLogger(__name__)


class LatentModel(DiffusionModel):
    """Diffusion in the latent space of an autoencoder, under a condition (Rombach et al. 2022, equation 3)."""

    origin = Origin()  # where it was opened, and how it is usually asked; set by ``ldm.checkpoint.load_model``

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
        embedding_reg_weight: float = 0.0,
        unfreeze_model: bool = False,  # with personalization_config: the network and the encoder learn as well,
        model_lr: float = 0.0,  # at this rate
        inversion_weight: float = 0.0,  # of the error of DDIM inversion in the loss of batches without any prompt
        inversion_stride: int = 20,  # timesteps of the inversion's step; 20: that of 50 steps
        ckpt_path: str | None = None,
        ignore_keys: Sequence[str] = (),
        load_only_unet: bool = False,
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
        self.cond_stage_model = self._build_cond_stage(cond_stage_config)
        self.inversion_weight, self.inversion_stride = inversion_weight, inversion_stride
        self.embedding_reg_weight = embedding_reg_weight
        self.embedding_manager: Any = None
        self.further_additions: list[Addition] = []  # what learns besides words and adapters of the encoder
        self.unfreeze_model = unfreeze_model
        self.model_lr = model_lr
        if personalization_config is not None:
            self.learn_words(instantiate_from_config(personalization_config, embedder=self.cond_stage_model))
        else:
            self.learning.freeze_the_rest(self)
        self.train(self.training)
        if ckpt_path is not None:
            self.init_from_ckpt(ckpt_path, ignore_keys, load_only_unet)

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

    def learn_words(self, manager: Any) -> None:
        """Have an EmbeddingManager between the encoder's token vectors and its layers; freeze what does not learn."""
        if self.embedding_manager is not None:
            self.embedding_manager.remove()
        self.embedding_manager = manager
        manager.install(self.model.diffusion_model)
        self.learning.freeze_the_rest(self)

    def _build_cond_stage(self, config: dict[str, Any] | str) -> Any:
        if config == "__is_unconditional__":
            return None
        if config == "__is_first_stage__":
            return self.first_stage_model
        if isinstance(config, str):
            raise ConfigError(f"unknown cond_stage_config '{config}'")
        return instantiate_from_config(config).requires_grad_(self.cond_stage_trainable)

    # ---- latents and conditions -----------------------------------------------------------------------------------

    def encode_first_stage(self, x: Tensor) -> Any:
        """What the autoencoder makes of images [B, 3, H, W]: a posterior (KL) or a latent (VQ), not yet scaled."""
        return self.first_stage_model.encode(x.to(module_dtype(self.first_stage_model)))

    def get_first_stage_encoding(self, encoded: DiagonalGaussianDistribution | Tensor) -> Tensor:
        """A scaled latent [B, C, h, w], float32; a random sample where ``encoded`` is a posterior."""
        z = encoded.sample() if isinstance(encoded, DiagonalGaussianDistribution) else encoded
        return self.scale_factor * z.float()

    def decode_first_stage(self, z: Tensor, force_not_quantize: bool = False) -> Tensor:
        """Images [B, 3, H, W], float32, for scaled latents [B, C, h, w]."""
        z = (z / self.scale_factor).to(module_dtype(self.first_stage_model))
        options = {"force_not_quantize": True} if force_not_quantize else {}
        return self.first_stage_model.decode(z, **options).float()

    @property
    def needs(self) -> Needs:
        """What :meth:`condition` has to get besides prompts."""
        if self.cond_stage_model is None:
            return Needs(reads_prompts=False)
        encoded = () if self._takes is None else (self._takes,)
        others = [AS_IT_IS[part] for part in KINDS[self.model.conditioning_key] if part != self._encoded_part]
        mask = (MASK,) if self._sees_mask else ()
        return Needs((*encoded, *mask, *others), reads_prompts=self._takes is None)

    def condition(
        self, prompts: Sequence[str] | Tensor, *, size: tuple[int, int] | None = None, **given: Any
    ) -> Parts:
        """The condition of ``len(prompts)`` pictures, as the parts that the network is fed; {} without one.

        Args:
            prompts: texts, or token ids [B, N]; where :attr:`needs` says that they are not read, their number counts.
            size: (height, width) of the latents, for parts that are as large.
            given: what :attr:`needs` names, with one row or one a prompt.

        Raises:
            UserError: something is missing, not known, or has another size or number of rows.
        """
        prompts = [prompts] if isinstance(prompts, str) else prompts
        self.needs.check(given)
        parts = self._parts(prompts, size, given)
        if size is not None:
            check_size(parts.get("c_concat", ()), size)
        return expand_condition(parts, len(prompts))

    def unconditional(self, condition: Condition, negative_prompt: str = "", **given: Any) -> Parts | None:
        """What guidance leads away from: ``condition`` with another text, or None where the model knows nothing such.

        Args:
            condition: what :meth:`condition` gave.
            negative_prompt: in place of the prompts.
            given: ``class_label``, in place of the last class, for a model of classes.
        """
        parts = as_parts(condition, self.model.conditioning_key)
        empty = self._empty(negative_prompt, **given)
        if empty is None or not parts:
            return None
        encoded = self._as_part(self.get_learned_conditioning(empty))
        return {**parts, **expand_condition(encoded, rows_of(parts))}

    def _parts(self, prompts: Sequence[str] | Tensor, size: tuple[int, int] | None, given: Mapping[str, Any]) -> Parts:
        """The parts of a condition, each with one row or one a prompt."""
        if self.cond_stage_model is None:
            return {}
        others = {name: given[name] for name in AS_IT_IS if name in given}
        others = {name: value if name == "c_adm" else [value] for name, value in others.items()}
        if self._takes is None:  # prompts that are alike are encoded once; in training each row is an example
            alike = not self.training and not isinstance(prompts, Tensor) and len(set(prompts)) == 1
            return self._as_part(self.get_learned_conditioning(prompts[:1] if alike else prompts)) | others
        if self._sees_mask:
            return self._masked_parts(given["image"], given["mask"])
        value = in_rows(given[self._takes.name], len(prompts)).to(self.device)
        return self._as_part(self.get_learned_conditioning(value)) | others

    def _masked_parts(self, image: Tensor, mask: Tensor) -> Parts:
        """The first stage's view of a picture that is black where the mask is 1, and the mask in [-1, 1]."""
        image, mask = image.to(self.device), mask.to(self.device)
        encoded = self.get_learned_conditioning((image + 1) * (1 - mask) - 1)
        return {"c_concat": [encoded, F.interpolate(2 * mask - 1, size=encoded.shape[-2:])]}

    def _as_part(self, encoded: Any) -> Parts:
        part = self._encoded_part
        return {part: encoded if part == "c_adm" else [encoded]}

    def _empty(self, negative_prompt: str, class_label: int | None = None) -> Any:
        """What the encoder gets for nothing: a text, a class, or None where there is no such thing."""
        encoder = self.cond_stage_model
        if isinstance(encoder, ClassEmbedder):
            return torch.tensor([encoder.empty_class if class_label is None else class_label])
        return None if encoder is None or self._takes is not None else [negative_prompt]

    @property
    def _encoded_part(self) -> str:
        return encoded_part(self.model.conditioning_key)

    @property
    def _takes(self) -> Need | None:
        encoder = self.cond_stage_model
        return encoder_takes(encoder, self._encoded_part, encoder is self.first_stage_model)

    @property
    def _sees_mask(self) -> bool:
        """Whether the condition is a masked picture and its mask, as in latent diffusion's own in-painting model."""
        return self.cond_stage_model is self.first_stage_model and self.cond_stage_key == "masked_image"

    def get_learned_conditioning(self, c: Any) -> Any:
        """The condition that the encoder makes of prompts, token ids [B, N], class labels or pictures.

        For old scripts; :meth:`condition` takes what the model needs besides.
        """
        if self.cond_stage_model is None:
            return None
        words = self.embedding_manager
        encoded = self._encode(c) if words is None else words.condition(self._encode, c)
        return encoded.mode() if isinstance(encoded, DiagonalGaussianDistribution) else encoded

    @property
    def _encode(self) -> Any:
        return getattr(self.cond_stage_model, self.cond_stage_forward or "encode", self.cond_stage_model)

    def apply_model(self, x_noisy: Tensor, t: Tensor, cond: Condition = None) -> Tensor:
        parts = as_parts(cond, self.model.conditioning_key)
        words = self.embedding_manager
        if words is not None and "c_crossattn" in parts:
            contexts = [words.at_timestep(self._encode, context, t) for context in parts["c_crossattn"]]
            parts = {**parts, "c_crossattn": contexts}
        return super().apply_model(x_noisy, t, parts)

    def get_unconditional_conditioning(self, batch_size: int, null_label: Any = None) -> Any:
        """The empty prompt (or class), or ``null_label``, encoded ``batch_size`` times; for old scripts."""
        if isinstance(self.cond_stage_model, ClassEmbedder):
            empty = self.cond_stage_model.empty_class if null_label is None else null_label
            return self.get_learned_conditioning(torch.full((batch_size,), int(empty)))
        return self.get_learned_conditioning([null_label or ""] * batch_size)

    def get_latent(self, batch: Mapping[str, Any]) -> Tensor:
        """Scaled latents [B, C, h, w] of a batch: of its pictures, or of its ``moments`` where they are cached."""
        if "moments" in batch:
            moments = batch["moments"].to(self.device, torch.float32)
            return self.get_first_stage_encoding(DiagonalGaussianDistribution(moments))
        x = images_to_channels_first(batch[self.first_stage_key]).to(self.device)
        return self.get_first_stage_encoding(self.encode_first_stage(x)).detach()

    def get_raw_condition(self, batch: Mapping[str, Any]) -> Any:
        """What the condition's encoder takes: prompts, the batch itself (class labels) or pictures [B, C, H, W]."""
        if self.cond_stage_key in ("class_label", "cls"):
            return batch
        value = batch[self.cond_stage_key]
        if isinstance(value, Tensor) and value.dim() == 4:
            return images_to_channels_first(value).to(self.device)
        return value.to(self.device) if isinstance(value, Tensor) else value

    def get_input(self, batch: Mapping[str, Any]) -> tuple[Tensor, Condition]:
        """What a batch holds: scaled latents [B, C, h, w] and the encoded condition."""
        z = self.get_latent(batch)
        if self.model.conditioning_key is None:
            return z, None
        return z, self.get_condition(batch, (z.shape[-2], z.shape[-1]))

    def get_condition(self, batch: Mapping[str, Any], size: tuple[int, int]) -> Parts:
        """The condition of a batch, for latents of height and width ``size``; the batch needs no picture to make.

        Raises:
            UserError: the batch lacks what the model is conditioned on.
        """
        prompts, given = self.given_by(batch)
        return self.condition(prompts, size=size, **given)

    def given_by(self, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """What :meth:`condition` gets for a batch: prompts, and what the model needs besides."""
        if self._takes is None:
            return self.get_raw_condition(batch), {}
        value = self.get_raw_condition(batch)
        if isinstance(self.cond_stage_model, ClassEmbedder):
            value = self.cond_stage_model.labels(value)
        given = {self._takes.name: value}
        if self._sees_mask:
            given["mask"] = images_to_channels_first(batch["mask"]).to(self.device)
        return [""] * len(value), given

    # ---- training -------------------------------------------------------------------------------------------------

    def shared_step(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        if self.training and self.inversion_weight > 0 and not any(batch[self.cond_stage_key]):
            loss, parts = invertible_loss(
                self, *self.get_input(batch), weight=self.inversion_weight, stride=self.inversion_stride
            )
        else:
            loss, parts = super().shared_step(batch)
        if self.embedding_manager is not None and self.embedding_reg_weight > 0:
            distance = self.embedding_manager.embedding_to_coarse_loss().mean()
            loss = loss + self.embedding_reg_weight * distance
            stage = "train" if self.training else "val"
            parts |= {f"{stage}/loss_emb_reg": distance.detach(), f"{stage}/loss": loss.detach()}
        return loss, parts

    @torch.no_grad()
    def on_train_batch_start(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        first = self.global_step == 0 and batch_idx == 0
        if self.scale_by_std and first:
            if self.scale_factor != 1.0:
                raise UserError("scale_by_std takes the factor from the first batch: leave out 'scale_factor'")
            z = self.get_latent(batch)
            assert isinstance(self.scale_factor, Tensor)
            self.scale_factor.copy_(1.0 / z.std())
            log.info("scale_factor set to %.5f", float(self.scale_factor))

    def trained_parameters(self) -> list[Any]:
        parameters: list[Any] = super().trained_parameters()
        if self.cond_stage_trainable and self.cond_stage_model is not None:
            parameters += self.cond_stage_model.parameters()
        return self.learning.groups(self.learning_rate, parameters)

    @torch.no_grad()
    def log_images(
        self, batch: Mapping[str, Any], N: int = 8, sample: bool = True, split: str = "train", **options: Any
    ) -> dict[str, Any]:
        """Pictures to look at during training, the same for every split; see ``ldm.models.diffusion.preview``."""
        with self.ema_scope("sampling"), self._not_counted():
            return latent_previews(self, batch, N, sample, **options)

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        with self._not_counted():
            super().validation_step(batch, batch_idx)

    def _not_counted(self) -> contextlib.AbstractContextManager[Any]:
        """What is encoded in the block does not bring progressive words on."""
        return contextlib.nullcontext() if self.embedding_manager is None else self.embedding_manager.paused()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what learns: a run for a few words does not carry the model along."""
        if self.embedding_manager is not None:
            checkpoint["progressive_counter"] = self.embedding_manager.progressive_counter
        checkpoint["state_dict"] = self.learning.part_to_save(self, checkpoint["state_dict"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.embedding_manager is not None:
            self.embedding_manager.progressive_counter = checkpoint.get("progressive_counter", 0)


def module_dtype(module: nn.Module) -> torch.dtype:
    """The precision of a module's weights; float32 for one without."""
    return next((p.dtype for p in module.parameters()), torch.float32)
