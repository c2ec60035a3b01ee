"""Colours of one picture on the brightness of another."""

from __future__ import annotations

from PIL import Image


def keep_colour(result: Image.Image, content: Image.Image) -> Image.Image:
    """The luminance (Y of YCbCr, ITU-R BT.601) of a result with the two colour channels of the content.

    The content is scaled to the result's size, where they differ.
    """
    luminance = result.convert("YCbCr").getchannel("Y")
    _, blue, red = content.convert("RGB").resize(result.size, Image.Resampling.LANCZOS).convert("YCbCr").split()
    return Image.merge("YCbCr", (luminance, blue, red)).convert("RGB")
