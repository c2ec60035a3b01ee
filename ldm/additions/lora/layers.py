"""Which layers a LoRA learns on: those that diffusers' recipe takes, those that kohya's takes, or patterns of names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from ldm.additions.lora.names import Place, places
from ldm.checkpoint.lora.file import TEXT, UNET
from ldm.modules.encoders.conditioner import text_encoders_of
from ldm.util import ConfigError

DIFFUSERS, KOHYA, NONE = "diffusers", "kohya", "none"

_ATTENTION = r"attentions\.\d+\.transformer_blocks\.\d+\.attn[12]\.to_(?:q|k|v|out\.0)$"
_UNET = {
    DIFFUSERS: _ATTENTION,
    KOHYA: _ATTENTION + r"|attentions\.\d+\.(?:proj_in|proj_out|transformer_blocks\.\d+\.ff\.net\.(?:0\.proj|2))$",
}
_CONVOLUTIONS = r"resnets\.\d+\.(?:conv1|conv2|conv_shortcut|time_emb_proj)$|(?:down|up)samplers\.0\.conv$"
_TEXT = {
    NONE: r"(?!)",
    DIFFUSERS: r"self_attn\.(?:q|k|v|out)_proj$|attn_layers\.layers\.\d+\.1\.to_(?:q|k|v|out)$",
    KOHYA: r"self_attn\.(?:q|k|v|out)_proj$|mlp\.fc[12]$"
    r"|attn_layers\.layers\.\d+\.1\.(?:to_(?:q|k|v|out)|net\.0\.0|net\.2)$",
}


def chosen(
    model: Any, layers: str | Sequence[str], text: str | Sequence[str], convolutions: bool = False
) -> list[Place]:
    """The weights that learn, in the model's order.

    Args:
        layers: of the UNet: ``diffusers`` (q, k, v, out), ``kohya`` (also the gated layers and the projections around
            them), or patterns such as ``*attn2.to_[kv]``, of names as diffusers or CompVis have them.
        text: of the text encoder, or of both: ``none``, ``diffusers`` (q, k, v, out), ``kohya`` (also the two linear
            layers), or patterns.
        convolutions: the residual blocks' layers as well, as kohya's ``conv_dim`` does.

    Raises:
        ConfigError: an unknown recipe, or a pattern that no layer has.
    """
    shapes = dict(model.named_parameters())
    found: dict[Place, None] = {}
    unread = {id(p) for encoder in text_encoders_of(model.cond_stage_model) for p in encoder.unread_parameters()}
    unused = {name for name, parameter in model.named_parameters() if id(parameter) in unread}
    everything = [
        place for place in dict.fromkeys(places(model).values())
        if shapes[place.weight].dim() in (2, 4) and place.weight not in unused
    ]  # fmt: skip
    for network, wish, recipes in ((UNET, layers, _UNET), (TEXT, text, _TEXT)):
        own = [place for place in everything if (place.network == UNET) == (network == UNET)]
        taken = _matching(own, wish, recipes, network)
        if network == UNET and convolutions:
            taken += [place for place in own if re.search(_CONVOLUTIONS, place.name)]
        found |= dict.fromkeys(taken)
    if not found:
        raise ConfigError("lora_config: no layer is chosen, so nothing would learn")
    return [place for place in everything if place in found]


def _matching(own: Sequence[Place], wish: str | Sequence[str], recipes: dict[str, str], network: str) -> list[Place]:
    if isinstance(wish, str) and wish in recipes:
        return [place for place in own if re.search(recipes[wish], place.name)]
    patterns = [wish] if isinstance(wish, str) else list(wish)
    found: list[Place] = []
    for pattern in patterns:
        fitting = [place for place in own if _fits(place, pattern)]
        if not fitting:
            known = ", ".join(recipes)
            raise ConfigError(f"lora_config: no layer of the {network} is called '{pattern}'; {known}, or a pattern")
        found += fitting
    return found


def _fits(place: Place, pattern: str) -> bool:
    own = place.weight.removesuffix(".weight")
    return any(fnmatchcase(name, form) for name in (place.name, own) for form in (pattern, f"*.{pattern}"))
