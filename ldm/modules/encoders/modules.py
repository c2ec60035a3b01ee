"""The encoders under the names that configurations use."""

from ldm.modules.encoders.base import AbstractEncoder, IdentityEncoder
from ldm.modules.encoders.bert import BERTEmbedder, BERTTokenizer, TransformerEmbedder

__all__ = [
    "AbstractEncoder",
    "BERTEmbedder",
    "BERTTokenizer",
    "IdentityEncoder",
    "TransformerEmbedder",
]
