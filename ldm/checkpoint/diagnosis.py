"""What a set of weights looks like, in words: the likely cause when a file does not fit a configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]

_MARKS: tuple[tuple[str, str], ...] = (
    (r"(^|\.)double_blocks\.", "a Flux model"),
    (r"(^|\.)joint_blocks\.", "a Stable Diffusion 3 model"),
    (r"^control_model\.", "a ControlNet with its model"),
    (r"^(control_|input_hint|controlnet_)", "a ControlNet"),
    (r"lora_(up|down|A|B)\.", "a LoRA, which changes a model and is none itself"),
    (r"^(string_to_param|emb_params)", "a textual-inversion embedding"),
    (r"^down_blocks\..*(attentions|resnets)\.", "a UNet in diffusers' layout, of which the whole folder can be given"),
    (r"^encoder\.down_blocks\.", "an autoencoder in diffusers' layout, of which the whole folder can be given"),
)
_CONTEXTS = {768: "SD v1", 1024: "SD v2", 1280: "LDM text-to-image", 2048: "SDXL"}
_INPUTS = {9: "in-painting", 8: "image editing", 7: "upscaling", 5: "depth"}


def describe_weights(shapes: Shapes) -> str:
    """For example ``SD v2 (context width 1024)``; empty if nothing is recognised."""
    for pattern, words in _MARKS:
        if any(re.search(pattern, key) for key in shapes):
            return words
    first = next((shape for key, shape in shapes.items() if key.endswith("input_blocks.0.0.weight")), None)
    if first is None:
        return _describe_part(shapes)
    width = next((shape[1] for key, shape in shapes.items() if key.endswith("attn2.to_k.weight")), None)
    name = _CONTEXTS.get(width or 0, "a diffusion model")
    details = [f"context width {width}" if width else "no text context", f"base width {first[0]}"]
    if len(first) > 1 and first[1] in _INPUTS:
        details.append(f"{first[1]} input channels, as for {_INPUTS[first[1]]}")
    return f"{name} ({', '.join(details)})"


def _describe_part(shapes: Shapes) -> str:
    if "encoder.conv_in.weight" in shapes:
        return "an autoencoder alone" + (" (VQ)" if "quantize.embedding.weight" in shapes else " (KL)")
    if any("text_model.encoder.layers" in key or "resblocks" in key for key in shapes):
        return "a text encoder alone"
    return ""
