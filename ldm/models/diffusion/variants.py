"""Latent diffusion that is conditioned on a picture as well as on a text.

A mask and what is around it, a small picture, a depth map or an image embedding: each class says how a batch becomes
that part of the condition, and what stands for "no text" beside it in guidance. Configurations name the classes under
``ldm.models.diffusion.ddpm``. Sources: Rombach et al. 2022, sections 4.4 and 4.5 (up-scaling, in-painting); Ramesh et
al. 2022 (image embeddings).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ldm.checkpoint import read_state_dict
from ldm.flat_options import flat
from ldm.models.diffusion.condition import MASK, Condition, Parts, in_rows
from ldm.models.diffusion.guidance import expand_condition
from ldm.models.diffusion.latent import LatentModel
from ldm.models.diffusion.loss import images_to_channels_first
from ldm.models.diffusion.network import Start
from ldm.modules.distributions.distributions import DiagonalGaussianDistribution
from ldm.modules.encoders.needs import Need, Needs
from ldm.util import ConfigError, UserError, instantiate_from_config

UPSCALING_NOISE, EMBEDDING_NOISE = 20, 0  # levels at sampling, as public programs have them
PICTURE_TO_FILL = Need("image", "pictures [B, 3, H, W] in [-1, 1], of which a part is filled", instead="masked_image")
# the convolution that sees the latent, in the network and in its average
FIRST_CONVOLUTION = ("model.diffusion_model.input_blocks.0.0.weight", "model_ema.diffusion_modelinput_blocks00weight")


class PictureConditioned(LatentModel):
    """Latent diffusion whose condition has parts besides the text; subclasses say what they need, and show it."""

    frozen: tuple[str, ...] = ()  # a subclass's models that stay as they are

    @flat(start=Start)
    def __init__(
        self,
        parts: Mapping[str, dict[str, Any] | None] | None = None,
        *,
        start: Start,
        **latent: Any,
    ) -> None:
        """``parts`` are the configurations of the frozen models, built before weights are loaded."""
        super().__init__(**latent)
        for name, config in (parts or {}).items():
            setattr(self, name, None if config is None else instantiate_from_config(config).requires_grad_(False))
        self.train(self.training)
        self.begin(start)

    def train(self, mode: bool = True) -> PictureConditioned:
        super().train(mode)
        for name in self.frozen:
            part = self._modules.get(name)
            if part is not None:
                part.eval()
        return self

    @property
    def needs(self) -> Needs:
        """What :meth:`condition` has to get besides prompts; each subclass says it."""
        raise NotImplementedError

    def picture_parts(self, given: Mapping[str, Any], size: tuple[int, int] | None, rows: int) -> Parts:
        """The parts ``c_concat`` and ``c_adm`` for ``rows`` latents of height and width ``size``, of what was given."""
        raise NotImplementedError

    def pictures_of(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What :meth:`picture_parts` is given for a batch."""
        raise NotImplementedError

    def _parts(self, prompts: Sequence[str] | Tensor, size: tuple[int, int] | None, given: Mapping[str, Any]) -> Parts:
        tensors = {name: v.to(self.device) if isinstance(v, Tensor) else v for name, v in given.items()}
        return {**self.picture_parts(tensors, size, len(prompts)), **super()._parts(prompts, size, {})}

    def given_by(self, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        _entry(batch, self.cond_stage_key)
        return self.get_raw_condition(batch), self.pictures_of(batch)

    def pictures(self, batch: Mapping[str, Any], key: str) -> Tensor:
        """The batch's pictures [B, H, W, C] under ``key`` as [B, C, H, W] on the model's device."""
        return images_to_channels_first(_entry(batch, key)).to(self.device)


class FinetuneModel(PictureConditioned):
    """A text-to-image model with further input channels, which start at zero when that model's weights are loaded.

    Args:
        concat_keys: the batch's keys of what is concatenated to the latent.
        finetune_keys: weights of which only the first ``keep_finetune_dims`` input channels are loaded.
        c_concat_log_start, c_concat_log_end: accepted for old YAMLs.
    """

    @flat(start=Start)
    def __init__(
        self,
        concat_keys: Sequence[str],
        finetune_keys: Sequence[str] | None = FIRST_CONVOLUTION,
        keep_finetune_dims: int = 4,
        c_concat_log_start: int | None = None,
        c_concat_log_end: int | None = None,
        parts: Mapping[str, dict[str, Any] | None] | None = None,
        *,
        start: Start,
        **latent: Any,
    ) -> None:
        super().__init__(parts=parts, **latent)
        self.concat_keys = tuple(concat_keys)
        self.finetune_keys = tuple(finetune_keys or ())
        self.keep_finetune_dims = keep_finetune_dims
        self.begin(start)

    def init_from_ckpt(
        self, weights: str | Mapping[str, Tensor], ignore_keys: Sequence[str] = (), only_model: bool = False
    ) -> None:
        given = dict(read_state_dict(weights) if isinstance(weights, str) else weights)
        own = self.state_dict()
        for key in self.finetune_keys:
            if key in given and key in own:
                given[key] = _widened(given[key], own[key].shape[1], self.keep_finetune_dims)
        super().init_from_ckpt(given, ignore_keys, only_model)


class InpaintModel(FinetuneModel):
    """Fills the masked part of a picture: the UNet sees the mask and the latent of the picture without that part.

    A batch holds ``mask`` [B, H, W, 1], 1 where something new is wanted, and ``masked_image`` [B, H, W, 3] in [-1, 1],
    0 there.
    """

    def __init__(
        self,
        concat_keys: Sequence[str] = ("mask", "masked_image"),
        masked_image_key: str = "masked_image",
        **finetune: Any,
    ) -> None:
        """Raises ConfigError when the masked picture is not among what is concatenated."""
        super().__init__(concat_keys=concat_keys, **finetune)
        if masked_image_key not in self.concat_keys:
            raise ConfigError(f"masked_image_key '{masked_image_key}' must be one of concat_keys {self.concat_keys}")
        self.masked_image_key = masked_image_key

    @property
    def needs(self) -> Needs:
        others = [key for key in self.concat_keys if key not in (MASK.name, self.masked_image_key)]
        return Needs((PICTURE_TO_FILL, MASK, *(Need(key, "channels [B, *, H, W]") for key in others)))

    @torch.no_grad()
    def picture_parts(self, given: Mapping[str, Any], size: tuple[int, int] | None, rows: int) -> Parts:
        size = needed(size)
        masked = given["masked_image"] if "masked_image" in given else given["image"] * (1 - given["mask"])
        shown = [
            self._latent_of(masked) if key == self.masked_image_key else F.interpolate(given[key], size=size)
            for key in self.concat_keys
        ]
        return {"c_concat": [torch.cat(expand_condition(shown, rows), dim=1)]}

    def _latent_of(self, picture: Tensor) -> Tensor:
        """A scaled latent: a random one of the posterior in training, else the mean, so that a request repeats."""
        encoded = self.encode_first_stage(picture)
        if isinstance(encoded, DiagonalGaussianDistribution) and not self.training:
            encoded = encoded.mode()
        return self.get_first_stage_encoding(encoded)

    def pictures_of(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        given = {key: self.pictures(batch, key) for key in self.concat_keys if key != self.masked_image_key}
        return {**given, "masked_image": self.pictures(batch, self.masked_image_key)}


class DepthModel(FinetuneModel):
    """A new picture with the depth of a given one: the UNet sees relative depth in [-1, 1].

    A batch holds ``midas_in`` [B, 3, H, W], what the depth network takes, channels first already.
    """

    frozen = ("depth_model",)
    depth_model: nn.Module

    def __init__(
        self, depth_stage_config: dict[str, Any], concat_keys: Sequence[str] = ("midas_in",), **finetune: Any
    ) -> None:
        super().__init__(concat_keys=concat_keys, parts={"depth_model": depth_stage_config}, **finetune)
        self.depth_stage_key = self.concat_keys[0]

    @property
    def needs(self) -> Needs:
        return Needs((Need("image", "pictures [B, 3, H, W] in [-1, 1], whose depth is kept"),))

    def pictures_of(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return {"image": _entry(batch, self.depth_stage_key)}

    @torch.no_grad()
    def picture_parts(self, given: Mapping[str, Any], size: tuple[int, int] | None, rows: int) -> Parts:
        depth = self.depth_model(given["image"])
        depth = F.interpolate(depth.float(), size=needed(size), mode="bicubic", align_corners=False)
        low, high = depth.amin((1, 2, 3), keepdim=True), depth.amax((1, 2, 3), keepdim=True)
        return {"c_concat": [2 * (depth - low) / (high - low + 1e-3) - 1]}


class UpscaleFinetuneModel(FinetuneModel):
    """Up-scaling on top of a text-to-image model: small pictures are concatenated, with noise if a model adds it.

    Args:
        reshuffle_patch_size: cut the small picture into so many tiles a side and stack them as channels.
        low_scale_config: what adds noise to the small picture and says how much; None: nothing.
        low_scale_key: must be given with ``low_scale_config``, as in old YAMLs.
    """

    frozen = ("low_scale_model",)
    low_scale_model: nn.Module | None

    def __init__(
        self,
        concat_keys: Sequence[str] = ("lr",),
        reshuffle_patch_size: int | None = None,
        low_scale_config: dict[str, Any] | None = None,
        low_scale_key: str | None = None,
        **finetune: Any,
    ) -> None:
        """Raises ConfigError for a ``low_scale_config`` without ``low_scale_key``."""
        if low_scale_config is not None and low_scale_key is None:
            raise ConfigError("UpscaleFinetuneModel with 'low_scale_config' needs 'low_scale_key'")
        super().__init__(concat_keys=concat_keys, parts={"low_scale_model": low_scale_config}, **finetune)
        self.reshuffle_patch_size = reshuffle_patch_size
        self.low_scale_key = low_scale_key

    @property
    def needs(self) -> Needs:
        small = [Need(self._name_of(key), "pictures [B, 3, h, w] in [-1, 1]") for key in self.concat_keys]
        return Needs(tuple(small), () if self.low_scale_model is None else (noise_level(UPSCALING_NOISE),))

    def _name_of(self, key: str) -> str:
        """The keyword for the batch's ``key``: ``low_res`` where it is the only one."""
        return key if len(self.concat_keys) > 1 else "low_res"

    def pictures_of(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        pictures = {self._name_of(key): self.pictures(batch, key) for key in self.concat_keys}
        return pictures if self.low_scale_model is None else {**pictures, "noise_level": None}

    @torch.no_grad()
    def picture_parts(self, given: Mapping[str, Any], size: tuple[int, int] | None, rows: int) -> Parts:
        small = torch.cat([self._patches(given[self._name_of(key)]) for key in self.concat_keys], dim=1)
        if self.low_scale_model is None:
            return {"c_concat": [small]}
        noisy, level = self.low_scale_model(expand_condition(small, rows), level_in(given, UPSCALING_NOISE, rows))
        return {"c_concat": [noisy], "c_adm": level}

    def _patches(self, picture: Tensor) -> Tensor:
        if self.reshuffle_patch_size is None:
            return picture
        tiles = self.reshuffle_patch_size
        return rearrange(picture, "b c (i h) (j w) -> b (i j c) h w", i=tiles, j=tiles)


class UpscaleModel(PictureConditioned):
    """A picture four times as large: the UNet sees the small picture with noise, as large as the latent, and how much.

    A batch holds ``low_scale_key`` [B, h, w, 3] in [-1, 1], and under ``noise_level_key``, when that is given, the
    levels [B] of the noise; otherwise they are random, as in training.
    """

    frozen = ("low_scale_model",)
    low_scale_model: nn.Module

    def __init__(
        self,
        low_scale_config: dict[str, Any],
        low_scale_key: str = "LR",
        noise_level_key: str | None = None,
        **latent: Any,
    ) -> None:
        super().__init__(parts={"low_scale_model": low_scale_config}, **latent)
        self.low_scale_key = low_scale_key
        self.noise_level_key = noise_level_key

    @property
    def needs(self) -> Needs:
        return Needs((Need("low_res", "small pictures [B, 3, h, w] in [-1, 1]"),), (noise_level(UPSCALING_NOISE),))

    def pictures_of(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        level = None if self.noise_level_key is None else _entry(batch, self.noise_level_key)
        return {"low_res": self.pictures(batch, self.low_scale_key), "noise_level": level}

    @torch.no_grad()
    def picture_parts(self, given: Mapping[str, Any], size: tuple[int, int] | None, rows: int) -> Parts:
        small = expand_condition(given["low_res"], rows)
        noisy, level = self.low_scale_model(small, level_in(given, UPSCALING_NOISE, rows))
        return {"c_concat": [noisy], "c_adm": level}


class ImageEmbeddingModel(PictureConditioned):
    """Variations of a picture: its embedding is added to the timestep's, with noise and the noise's level if asked for.

    Args:
        embedder_config: pictures [B, 3, H, W] -> embeddings [B, D].
        embedding_key: the batch's key of the picture [B, H, W, 3].
        embedding_dropout: how often a training picture's embedding becomes zero, so that guidance can work.
        freeze_embedder: must be true; no released model trains it.
        noise_aug_config: embeddings [B, D] -> embeddings with noise, and features of its level [B, D].
    """

    frozen = ("embedder", "noise_augmentor")
    embedder: nn.Module
    noise_augmentor: nn.Module | None

    def __init__(
        self,
        embedder_config: dict[str, Any],
        embedding_key: str = "jpg",
        embedding_dropout: float = 0.5,
        freeze_embedder: bool = True,
        noise_aug_config: dict[str, Any] | None = None,
        **latent: Any,
    ) -> None:
        """Raises ConfigError for ``freeze_embedder: false``."""
        if not freeze_embedder:
            raise ConfigError("freeze_embedder must be true: training the image encoder is not built")
        super().__init__(parts={"embedder": embedder_config, "noise_augmentor": noise_aug_config}, **latent)
        self.embed_key = embedding_key
        self.embedding_dropout = embedding_dropout

    @property
    def needs(self) -> Needs:
        picture = Need("image", "pictures [B, 3, H, W] in [-1, 1], of which variations are made")
        return Needs((picture,), () if self.noise_augmentor is None else (noise_level(EMBEDDING_NOISE),))

    def pictures_of(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        pictures = {"image": self.pictures(batch, self.embed_key)}
        return pictures if self.noise_augmentor is None else {**pictures, "noise_level": None}

    def picture_parts(self, given: Mapping[str, Any], size: tuple[int, int] | None, rows: int) -> Parts:
        embedding = self.embedder(given["image"])
        if self.noise_augmentor is not None:
            embedding = expand_condition(embedding, rows)
            embedding = torch.cat(self.noise_augmentor(embedding, level_in(given, EMBEDDING_NOISE, rows)), dim=1)
        if self.training:
            keep = torch.rand(embedding.shape[0], 1, device=embedding.device) >= self.embedding_dropout
            embedding = embedding * keep
        return {"c_adm": embedding}

    def unconditional(self, condition: Condition, negative_prompt: str = "", **given: Any) -> Parts | None:
        """As elsewhere, and without the picture too."""
        parts = super().unconditional(condition, negative_prompt, **given)
        return None if parts is None else {**parts, "c_adm": torch.zeros_like(parts["c_adm"])}


def needed(size: tuple[int, int] | None) -> tuple[int, int]:
    """Raises UserError when there is no size."""
    if size is None:
        raise UserError("this model's condition needs 'size', the (height, width) of the latents")
    return size


def noise_level(usual: int) -> Need:
    """The keyword ``noise_level`` of an augmented condition."""
    return Need("noise_level", f"how much noise the picture gets: a number or [B], None for any; {usual} if not given")


def level_in(given: Mapping[str, Any], usual: int, rows: int) -> Tensor | None:
    """The levels [B] that are given, or the usual one; None where a level is to be drawn, as in training."""
    level = given.get("noise_level", usual)
    return None if level is None else in_rows(level, rows)


def _widened(weight: Tensor, channels: int, keep: int) -> Tensor:
    """A convolution's weight with the first ``keep`` of its input channels, and zeros up to ``channels``."""
    if weight.shape[1] == channels:
        return weight
    new = weight.new_zeros(weight.shape[0], channels, *weight.shape[2:])
    new[:, :keep] = weight[:, :keep]
    return new


def _entry(batch: Mapping[str, Any], key: str) -> Any:
    if key not in batch:
        raise UserError(f"the batch has no '{key}', which this model is conditioned on; it has: {', '.join(batch)}")
    return batch[key]
