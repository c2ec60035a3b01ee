"""How a condition enters the UNet."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ldm.util import ConfigError, instantiate_from_config

Condition: TypeAlias = Tensor | dict[str, Any] | list[Tensor] | None

# which parts of a condition each kind uses: channels beside the latent, a context, a vector
KINDS: dict[str | None, tuple[str, ...]] = {
    None: (),
    "concat": ("c_concat",),
    "crossattn": ("c_crossattn",),
    "hybrid": ("c_concat", "c_crossattn"),
    "adm": ("c_adm",),
    "hybrid-adm": ("c_concat", "c_crossattn", "c_adm"),
    "crossattn-adm": ("c_crossattn", "c_adm"),
}


def as_parts(condition: Condition, kind: str | None) -> dict[str, Any]:
    """A condition as a dictionary of parts; a bare tensor or list becomes the one part that ``kind`` uses."""
    if isinstance(condition, dict):
        return condition
    if condition is None or kind is None:
        return {}
    part = KINDS[kind][0]
    if part == "c_adm":
        return {part: condition}
    return {part: condition if isinstance(condition, list) else [condition]}


class DiffusionWrapper(nn.Module):
    """The network under ``diffusion_model``, fed with the parts of a condition.

    Shapes: x [B, C, h, w], t [B], c_concat list of [B, *, h, w], c_crossattn list of [B, N, D], c_adm [B] or [B, D]
    -> [B, C, h, w].
    """

    def __init__(self, diff_model_config: dict[str, Any], conditioning_key: str | None) -> None:
        """Raises ConfigError for an unknown ``conditioning_key``."""
        super().__init__()
        if conditioning_key not in KINDS:
            known = ", ".join(str(kind) for kind in KINDS)
            raise ConfigError(f"unknown conditioning_key '{conditioning_key}'; known: {known}")
        self.diffusion_model = instantiate_from_config(diff_model_config)
        self.conditioning_key = conditioning_key

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        c_concat: list[Tensor] | None = None,
        c_crossattn: list[Tensor] | None = None,
        c_adm: Tensor | None = None,
    ) -> Tensor:
        parts = KINDS[self.conditioning_key]
        inputs: dict[str, Any] = {}
        if "c_concat" in parts and c_concat is not None:
            x = torch.cat([x, *c_concat], dim=1)
        if "c_crossattn" in parts and c_crossattn is not None:
            inputs["context"] = c_crossattn[0] if len(c_crossattn) == 1 else torch.cat(c_crossattn, dim=1)
        if "c_adm" in parts:
            inputs["y"] = c_adm
        return self.diffusion_model(x, t, **inputs)
