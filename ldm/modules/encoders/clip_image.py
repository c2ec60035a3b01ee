"""Pictures to their place in CLIP's shared space, for models that are conditioned on a picture's content."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ldm.modules.encoders.base import AbstractEncoder
from ldm.modules.encoders.clip_towers import VISION_SIZES, VisionOnly, VisionSizes, sizes_of
from ldm.modules.encoders.needs import Need
from ldm.util import ConfigError

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class ClipImageEmbedder(AbstractEncoder):
    """Pictures [B, 3, H, W] in [-1, 1], of any size, -> embeddings [B, D], with OpenAI's image tower.

    Args:
        model: one of OpenAI's models, such as "ViT-L/14".
        jit, device: accepted for old configurations.
        antialias: smooth a picture before it is made smaller.
        ucg_rate: how often a picture's embedding is replaced by zeros, for classifier-free guidance.
        config: the fields of ``VisionSizes``; ``model`` is then a mere name.

    Raises:
        ConfigError: an unknown ``model``.
    """

    takes = Need("image", "pictures [B, 3, H, W] in [-1, 1]", 3)
    zero_is_empty = False  # whether a context of zeros stands for no picture

    def __init__(
        self,
        model: str,
        jit: bool = False,
        device: str = "cuda",
        antialias: bool = True,
        ucg_rate: float = 0.0,
        config: Mapping[str, Any] | None = None,
        quick_gelu: bool = True,
    ) -> None:
        super().__init__()
        self.antialias = antialias
        self.ucg_rate = ucg_rate
        self.model = VisionOnly(sizes_of(model, VISION_SIZES, VisionSizes, config), quick_gelu)
        self.register_buffer("mean", torch.tensor(MEAN, device="cpu").reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD, device="cpu").reshape(3, 1, 1), persistent=False)

    def preprocess(self, x: Tensor) -> Tensor:
        """Pictures in [-1, 1] as the tower saw them in its own training."""
        from kornia.geometry.transform import resize  # imported here: only models on pictures need it

        size = self.model.visual.image_size
        x = resize(x, (size, size), interpolation="bicubic", align_corners=True, antialias=self.antialias)
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        return ((x + 1) / 2 - mean) / std

    def forward(self, x: Tensor, no_dropout: bool = False) -> Tensor:
        z = self.model(self.preprocess(x))
        if self.ucg_rate > 0 and not no_dropout:
            kept = torch.rand(len(z), 1, device="cpu") >= self.ucg_rate
            z = z * kept.to(z)
        return z


class FrozenClipImageEmbedder(ClipImageEmbedder):
    """``ClipImageEmbedder`` under latent-diffusion's name and default."""

    def __init__(
        self,
        model: str,
        jit: bool = False,
        device: str = "cuda",
        antialias: bool = False,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(model, jit, device, antialias, config=config)
        self.requires_grad_(False)


class FrozenCLIPImageEmbedder(FrozenClipImageEmbedder):
    """Pictures -> a context [B, 1, D] of one token, as the image variations of Stable Diffusion 1 have it.

    Guidance leads away from zeros.
    """

    zero_is_empty = True

    def encode(self, x: Tensor) -> Tensor:
        """As ``forward``, with a dimension for tokens."""
        return self(x)[:, None]


class FrozenOpenCLIPImageEmbedder(ClipImageEmbedder):
    """The same with OpenCLIP's image tower, as the unCLIP variant of Stable Diffusion v2 has it.

    Args:
        arch: which tower, such as "ViT-H-14".
        version: which of OpenCLIP's weights; "openai" stands for the activation that OpenAI's weights need.
        max_length, init_device: accepted for old configurations.
        freeze: no gradients.
        layer: "pooled", the only one.

    Raises:
        ConfigError: an unknown ``arch`` or ``layer``.
    """

    def __init__(
        self,
        arch: str = "ViT-H-14",
        version: str = "laion2b_s32b_b79k",
        device: str = "cuda",
        max_length: int = 77,
        freeze: bool = True,
        layer: str = "pooled",
        antialias: bool = True,
        ucg_rate: float = 0.0,
        config: Mapping[str, Any] | None = None,
        init_device: str | None = None,
    ) -> None:
        if layer != "pooled":
            raise ConfigError(f"FrozenOpenCLIPImageEmbedder has no layer '{layer}'; known: pooled")
        super().__init__(arch, antialias=antialias, ucg_rate=ucg_rate, config=config, quick_gelu=version == "openai")
        if freeze:
            self.requires_grad_(False)
