"""The encoders under the names that configurations use."""

from ldm.modules.encoders.base import AbstractEncoder, IdentityEncoder
from ldm.modules.encoders.bert import BERTEmbedder, BERTTokenizer, TransformerEmbedder
from ldm.modules.encoders.clip import FrozenCLIPEmbedder
from ldm.modules.encoders.clip_image import (
    ClipImageEmbedder,
    FrozenCLIPImageEmbedder,
    FrozenClipImageEmbedder,
    FrozenOpenCLIPImageEmbedder,
)
from ldm.modules.encoders.conditioner import ConcatTimestepEmbedderND, GeneralConditioner
from ldm.modules.encoders.conditions import ClassEmbedder, SpatialRescaler
from ldm.modules.encoders.film import FrozenOpenCLIPImagePredictionEmbedder, VideoPredictionEmbedderWithEncoder
from ldm.modules.encoders.noised import CLIPEmbeddingNoiseAugmentation, LowScaleEncoder
from ldm.modules.encoders.open_clip import FrozenCLIPTextEmbedder, FrozenOpenCLIPEmbedder, FrozenOpenCLIPEmbedder2

__all__ = [
    "AbstractEncoder",
    "BERTEmbedder",
    "BERTTokenizer",
    "CLIPEmbeddingNoiseAugmentation",
    "ClassEmbedder",
    "ClipImageEmbedder",
    "ConcatTimestepEmbedderND",
    "FrozenCLIPEmbedder",
    "FrozenCLIPImageEmbedder",
    "FrozenCLIPTextEmbedder",
    "FrozenClipImageEmbedder",
    "FrozenOpenCLIPEmbedder",
    "FrozenOpenCLIPEmbedder2",
    "FrozenOpenCLIPImageEmbedder",
    "FrozenOpenCLIPImagePredictionEmbedder",
    "GeneralConditioner",
    "IdentityEncoder",
    "LowScaleEncoder",
    "SpatialRescaler",
    "TransformerEmbedder",
    "VideoPredictionEmbedderWithEncoder",
]
