"""Sentences around a placeholder: what training says about a picture whose subject or style is to be learned."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ldm.texts import read_lines
from ldm.util import UserError

PER_IMAGE_WORDS = tuple("אבגדהוזחטיכלמנסעפצקרשת")  # one for each training picture, as the original has them

OBJECT = (
    "a picture of {}",
    "a photograph of {}",
    "a photo showing {}",
    "here is {}",
    "this is {}",
    "{} in a photograph",
    "{} in the picture",
    "a close photo of {}",
    "a photo of {} from nearby",
    "{} seen from close up",
    "a photo of {} from far away",
    "a bright photo of {}",
    "a dark photo of {}",
    "a sharp photo of {}",
    "a blurry photo of {}",
    "a quick snapshot of {}",
    "a professional photograph of {}",
    "a detailed photograph of {}",
    "an old photograph of {}",
    "my photo of {}",
    "our {} on a photo",
    "one {} in a photo",
    "look at {}",
    "a photo with {} in the middle",
    "{} alone in the frame",
    "an image that shows {}",
    "a drawing of {}",
    "a rendered picture of {}",
)
OBJECT_AND_IMAGE = tuple(sentence + " with {}" for sentence in OBJECT)
STYLE = (
    "a picture in the style of {}",
    "a painting in the style of {}",
    "a drawing in the style of {}",
    "painted the way of {}",
    "an artwork by {}",
    "art in the manner of {}",
    "a rendering in the style of {}",
    "a sketch in the style of {}",
    "a bright painting in the style of {}",
    "a dark painting in the style of {}",
    "a small painting in the style of {}",
    "a large painting in the style of {}",
    "a detailed painting in the style of {}",
    "a simple painting in the style of {}",
    "part of a painting in the style of {}",
    "a print in the style of {}",
    "a poster in the style of {}",
    "an illustration in the style of {}",
    "everything here is in the style of {}",
    "a scene as {} would show it",
)
STYLE_AND_IMAGE = tuple(sentence + " with {}" for sentence in STYLE)
KINDS = {"object": (OBJECT, OBJECT_AND_IMAGE), "style": (STYLE, STYLE_AND_IMAGE)}


def read_templates(source: str | os.PathLike[str] | Sequence[str]) -> tuple[str, ...]:
    """Sentences of one's own: a list, or a text file with one a line. ``{}`` is where the placeholder goes.

    Raises:
        UserError: there are none, one has no place for the placeholder, or the file cannot be read.
    """
    where = "the templates"
    if isinstance(source, (str, os.PathLike)):
        where = f"the template file '{source}'"
        sentences = tuple(read_lines(source, "template file"))
    else:
        sentences = tuple(source)
    if not sentences:
        raise UserError(f"{where} are empty; there should be sentences such as 'a photo of {{}}'")
    for sentence in sentences:
        check_template(sentence, where)
    return sentences


def check_template(sentence: str, where: str) -> None:
    """Raises UserError for a sentence without exactly one ``{}``."""
    if sentence.count("{}") != 1 or sentence.replace("{}", "").count("{") or sentence.replace("{}", "").count("}"):
        raise UserError(
            f"in {where}, '{sentence}' must have the placeholder's place {{}} once, as 'a photo of {{}}' has it"
        )
