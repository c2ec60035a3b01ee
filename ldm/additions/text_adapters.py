"""The adapters of a BERT text encoder as an addition; what they compute is in ``ldm.modules.encoders.post_BERT``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ldm.additions.base import Addition, Undo, replace_module
from ldm.modules.encoders.bert import TransformerEmbedder
from ldm.modules.encoders.post_BERT import AdapterBERTEmbedder
from ldm.util import UserError


class TextAdapters(Addition):
    """The adapters that lie in an encoder's path.

    Args:
        encoder: the encoder with them.
    """

    file_name = "adapters"
    own_keys = ("cond_stage_model.text_adapters.",)

    def __init__(self, encoder: AdapterBERTEmbedder) -> None:
        self.encoder = encoder

    @classmethod
    def read(cls, path: str | os.PathLike[str], model: Any) -> TextAdapters:
        """The adapters of a file, for the text encoder that a model has; its weights are shared, not copied.

        Raises:
            UserError: the file holds none, or they are for another text encoder.
        """
        return cls(AdapterBERTEmbedder.around(_bert_of(model, f"the adapters in '{path}'"), path))

    @property
    def rate(self) -> float:  # type: ignore[override]
        """What the encoder's configuration says."""
        return self.encoder.added_rate

    def learned(self) -> Sequence[nn.Parameter]:
        return list(self.encoder.text_adapters.parameters())

    def modules_in_training(self) -> Sequence[nn.Module]:
        return [self.encoder.text_adapters]

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
        self.encoder.save_adapters(path, metadata)

    def attach(self, model: Any, scale: float = 1.0) -> Undo:
        """``scale`` multiplies what they add to the encoder's states.

        Raises:
            UserError: the model's encoder is not the one that they were read for.
        """
        adapted = self.encoder.over(_bert_of(model, "the adapters"), scale)
        return replace_module(model, "cond_stage_model", adapted)


def _bert_of(model: Any, what: str) -> TransformerEmbedder:
    encoder = model.cond_stage_model
    if not isinstance(encoder, TransformerEmbedder):
        raise UserError(f"{what} are for a BERT text encoder, not for this model's {type(encoder).__name__}")
    return encoder
