"""LDM's BERT text encoder with a multilingual encoder and an aligner in front of it."""

from __future__ import annotations

from typing import Any

from ldm.languages import check_language
from ldm.modules.encoders.bert import BERTEmbedder
from ldm.modules.encoders.multilingual import AUTO, Multilingual


class MultilingualTextEmbedder(Multilingual, BERTEmbedder):
    """A ``BERTEmbedder`` that reads Korean, Chinese and mixed prompts too; same weights, same keys.

    Args:
        aligner: the file that ``scripts/export_aligner.py`` wrote; None reads English only.
        language: "auto", or the language of all prompts.
        bert: the parameters of ``BERTEmbedder``.

    Raises:
        UserError: an unknown language.
    """

    def __init__(self, aligner: str | None = None, language: str = AUTO, **bert: Any) -> None:
        super().__init__(**bert)
        self.aligner = aligner
        self.language = check_language(language, AUTO)
