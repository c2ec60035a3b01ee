"""Latent diffusion conditioned on a picture that gets noise: a small one to be made larger, or one to be varied.

Trained with noise of known amounts, the models are told at sampling time how far to trust the picture. Configurations
name the classes under ``ldm.models.diffusion.ddpm``. Sources: Rombach et al. 2022, section 4.4 (up-scaling); Ho et al.
2022, section 4.2 (noise on conditions); Ramesh et al. 2022 (image embeddings).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ldm.models.diffusion.condition import Condition, Parts, in_rows
from ldm.models.diffusion.guidance import expand_condition
from ldm.models.diffusion.variants import FinetuneModel, PictureConditioned, entry_of
from ldm.modules.cpu.held import computing_dtype
from ldm.modules.encoders.needs import Need, Needs
from ldm.util import ConfigError, UserError

UPSCALING_NOISE, EMBEDDING_NOISE = 20, 0  # levels at sampling, as public programs have them


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
        return Needs(tuple(small), () if self.low_scale_model is None else noise_needs(UPSCALING_NOISE))

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
        small = expand_condition(small, rows)
        noisy, level = self.low_scale_model(small, level_in(given, UPSCALING_NOISE, rows), noise_in(given, small))
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
        return Needs((Need("low_res", "small pictures [B, 3, h, w] in [-1, 1]", 3),), noise_needs(UPSCALING_NOISE))

    def pictures_of(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        level = None if self.noise_level_key is None else entry_of(batch, self.noise_level_key)
        return {"low_res": self.pictures(batch, self.low_scale_key), "noise_level": level}

    @torch.no_grad()
    def picture_parts(self, given: Mapping[str, Any], size: tuple[int, int] | None, rows: int) -> Parts:
        small = expand_condition(given["low_res"], rows)
        noisy, level = self.low_scale_model(small, level_in(given, UPSCALING_NOISE, rows), noise_in(given, small))
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
        picture = Need("image", "pictures [B, 3, H, W] in [-1, 1], of which variations are made", 3)
        noise = () if self.noise_augmentor is None else noise_needs(EMBEDDING_NOISE)
        return Needs((picture,), noise, command="scripts/variations.py")

    def pictures_of(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        pictures = {"image": self.pictures(batch, self.embed_key)}
        return pictures if self.noise_augmentor is None else {**pictures, "noise_level": None}

    def picture_parts(self, given: Mapping[str, Any], size: tuple[int, int] | None, rows: int) -> Parts:
        embedding = self.embedder(given["image"].to(computing_dtype(self.embedder))).float()
        if self.noise_augmentor is not None:
            embedding = expand_condition(embedding, rows)
            level, noise = level_in(given, EMBEDDING_NOISE, rows), noise_in(given, embedding)
            embedding = torch.cat(self.noise_augmentor(embedding, level, noise), dim=1)
        if self.training:
            keep = torch.rand(embedding.shape[0], 1, device=embedding.device) >= self.embedding_dropout
            embedding = embedding * keep
        return {"c_adm": embedding}

    def unconditional(self, condition: Condition, negative_prompt: str = "", **given: Any) -> Parts | None:
        """As elsewhere, and without the picture too."""
        parts = super().unconditional(condition, negative_prompt, **given)
        return None if parts is None else {**parts, "c_adm": torch.zeros_like(parts["c_adm"])}


def noise_needs(usual: int) -> tuple[Need, ...]:
    """What may be said of the noise that a picture gets."""
    level = f"how much noise the picture gets: a number or [B], None for any; {usual} if not given"
    return Need("noise_level", level), Need("noise", "that noise, as what it is added to; drawn if not given")


def level_in(given: Mapping[str, Any], usual: int, rows: int) -> Tensor | None:
    """The levels [B] that are given, or the usual one; None where a level is to be drawn, as in training."""
    level = given.get("noise_level", usual)
    return None if level is None else in_rows(level, rows)


def noise_in(given: Mapping[str, Any], like: Tensor) -> Tensor | None:
    """The noise that is given for ``like`` [B, ...], or None where it is to be drawn.

    Raises:
        UserError: it has another shape.
    """
    noise = given.get("noise")
    if noise is None:
        return None
    if noise.shape[1:] != like.shape[1:]:
        raise UserError(f"'noise' must be [B, {', '.join(map(str, like.shape[1:]))}], got {list(noise.shape)}")
    return expand_condition(noise, len(like))
