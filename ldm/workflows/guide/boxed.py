"""A picture with what was wanted where drawn over it."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from ldm.pictures.images import label_font
from ldm.workflows.guide.wishes import Wish

SMALLEST = 384  # pixels of the longer side; a label would cover a smaller picture
COLOURS = ((230, 30, 60), (30, 110, 230), (20, 150, 60), (200, 110, 0), (140, 40, 180), (0, 140, 150))


def with_boxes(image: Image.Image, wishes: Sequence[Wish]) -> Image.Image:
    """A copy of a picture, enlarged where it is small, with the boxes of words (or the outlines of masks) over it."""
    scale = max(1, -(-SMALLEST // max(image.size)))
    shown = image.convert("RGB").resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(shown)
    font = label_font()
    for wish, colour in zip(wishes, COLOURS * len(wishes), strict=False):
        for left, top, right, bottom in _rectangles(wish, shown):
            draw.rectangle((left, top, right, bottom), outline=(255, 255, 255), width=4)
            draw.rectangle((left + 1, top + 1, right - 1, bottom - 1), outline=colour, width=2)
            box = draw.textbbox((left + 4, top + 3), wish.word, font=font)
            draw.rectangle((box[0] - 2, box[1] - 1, box[2] + 2, box[3] + 1), fill=colour)
            draw.text((left + 4, top + 3), wish.word, fill=(255, 255, 255), font=font)
    return shown


def _rectangles(wish: Wish, shown: Image.Image) -> list[tuple[int, int, int, int]]:
    """The boxes in pixels; of a mask the one around all of it."""
    width, height = shown.width - 1, shown.height - 1
    sides = [part.frame.sides for part in wish.region.parts]
    return [(int(a * width), int(b * height), int(c * width), int(d * height)) for a, b, c, d in sides]
