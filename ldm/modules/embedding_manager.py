"""Textual inversion under the name that configurations know; it is defined in ``ldm.additions.words``."""

from ldm.additions.words import EmbeddingManager

__all__ = ["EmbeddingManager"]
