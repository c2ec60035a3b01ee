"""Latent diffusion that is conditioned on a picture as well as on a text: a mask and what is around it, or a depth map.

Each class says what it needs, what a batch holds of that, and how the network is shown it. Configurations name the
classes under ``ldm.models.diffusion.ddpm``. Source: Rombach et al. 2022, section 4.5 (in-painting).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ldm.checkpoint import read_state_dict
from ldm.flat_options import flat
from ldm.models.diffusion.condition import MASK, Parts, check_size
from ldm.models.diffusion.guidance import expand_condition
from ldm.models.diffusion.latent import LatentModel
from ldm.models.diffusion.loss import images_to_channels_first
from ldm.models.diffusion.network import Start
from ldm.modules.cpu.held import computing_dtype
from ldm.modules.distributions.distributions import DiagonalGaussianDistribution
from ldm.modules.encoders.needs import Need, Needs
from ldm.util import ConfigError, UserError, instantiate_from_config

PICTURE_TO_FILL = Need(
    "image", "pictures [B, 3, H, W] in [-1, 1] to fill a part of", 3, instead="masked_image"
)
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
        """The parts ``c_concat`` and ``c_adm`` for ``rows`` latents of height and width ``size``, of what was given.

        Args:
            given: what ``needs`` names, as tensors on the model's device, [rows, ...] or [1, ...].

        Raises:
            UserError: ``size`` is None where it counts, or what was given does not fit the latents.
        """
        raise NotImplementedError

    def pictures_of(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What :meth:`picture_parts` is given for a batch: by the names of ``needs``, pictures [B, C, H, W].

        Raises:
            UserError: the batch lacks an entry.
        """
        raise NotImplementedError

    def _parts(self, prompts: Sequence[str] | Tensor, size: tuple[int, int] | None, given: Mapping[str, Any]) -> Parts:
        tensors = {name: v.to(self.device) if isinstance(v, Tensor) else v for name, v in given.items()}
        return {**self.picture_parts(tensors, size, len(prompts)), **super()._parts(prompts, size, {})}

    def given_by(self, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        entry_of(batch, self.cond_stage_key)
        return self.get_raw_condition(batch), self.pictures_of(batch)

    def pictures(self, batch: Mapping[str, Any], key: str) -> Tensor:
        """The batch's pictures [B, H, W, C] under ``key`` as [B, C, H, W] on the model's device."""
        return images_to_channels_first(entry_of(batch, key)).to(self.device)


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
        masked = given["masked_image"] if "masked_image" in given else masked_picture(given["image"], given["mask"])
        shown = [
            self._latent_of(masked) if key == self.masked_image_key else F.interpolate(given[key], size=size)
            for key in self.concat_keys
        ]
        check_size(shown, size)
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
        picture = Need("image", "pictures [B, 3, H, W] in [-1, 1], whose depth is kept", 3)
        return Needs((picture,), command="scripts/depth2img.py")

    def pictures_of(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return {"image": entry_of(batch, self.depth_stage_key)}

    @torch.no_grad()
    def picture_parts(self, given: Mapping[str, Any], size: tuple[int, int] | None, rows: int) -> Parts:
        depth = self.depth_model(given["image"].to(computing_dtype(self.depth_model)))
        depth = F.interpolate(depth.float(), size=needed(size), mode="bicubic", align_corners=False)
        low, high = depth.amin((1, 2, 3), keepdim=True), depth.amax((1, 2, 3), keepdim=True)
        return {"c_concat": [2 * (depth - low) / (high - low + 1e-3) - 1]}


def masked_picture(image: Tensor, mask: Tensor) -> Tensor:
    """``image`` [B, 3, H, W] with 0 where ``mask`` [B, 1, H, W] is 1.

    Raises:
        UserError: they have different sizes.
    """
    check_size([mask], (image.shape[-2], image.shape[-1]), "the mask has", "a picture of")
    return image * (1 - mask)


def needed(size: tuple[int, int] | None) -> tuple[int, int]:
    """Raises UserError when there is no size."""
    if size is None:
        raise UserError("this model's condition needs 'size', the (height, width) of the latents")
    return size


def _widened(weight: Tensor, channels: int, keep: int) -> Tensor:
    """A convolution's weight with the first ``keep`` of its input channels, and zeros up to ``channels``."""
    if weight.shape[1] == channels:
        return weight
    new = weight.new_zeros(weight.shape[0], channels, *weight.shape[2:])
    new[:, :keep] = weight[:, :keep]
    return new


def entry_of(batch: Mapping[str, Any], key: str) -> Any:
    """What a batch holds under ``key``.

    Raises:
        UserError: it has no such key.
    """
    if key not in batch:
        raise UserError(f"the batch has no '{key}', which this model is conditioned on; it has: {', '.join(batch)}")
    return batch[key]
