"""Stable Diffusion v1's CLIP text encoder with a multilingual encoder and an aligner in front of it."""

from __future__ import annotations

from typing import Any

from ldm.languages import check_language
from ldm.modules.encoders.clip import FrozenCLIPEmbedder
from ldm.modules.encoders.multilingual import AUTO, Multilingual


class MultilingualTextEmbedder(Multilingual, FrozenCLIPEmbedder):
    """A ``FrozenCLIPEmbedder`` that reads Korean, Chinese and mixed prompts too; same weights, same keys.

    Args:
        aligner: the file that ``scripts/export_aligner.py`` wrote; None reads English only.
        language: "auto", or the language of all prompts.
        clip: the parameters of ``FrozenCLIPEmbedder``.

    Raises:
        UserError: an unknown language.
    """

    def __init__(self, aligner: str | None = None, language: str = AUTO, **clip: Any) -> None:
        super().__init__(**clip)
        self.aligner = aligner
        self.language = check_language(language, AUTO)
