"""Texts to ids by the two tokenizers of Stable Diffusion XL, against ids of the released ones.

``golden/clip_tokens`` is what of CLIP's vocabulary (49,408 entries) these texts need, under its own ids.
"""

from __future__ import annotations

import pytest

from ldm.modules.encoders.modules import FrozenCLIPEmbedder, FrozenOpenCLIPEmbedder2
from tests.helpers import GOLDEN, golden_case

VOCABULARY, ENTRIES = str(GOLDEN / "clip_tokens"), 49408
CLIP = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
OPEN_CLIP = {"embed_dim": 8, "width": 8, "heads": 1, "layers": 1}


def test_both_tokenizers() -> None:
    case = golden_case("sdxl_tokens")
    clip = FrozenCLIPEmbedder("small", config={**CLIP, "vocab_size": ENTRIES}, tokenizer=VOCABULARY)
    open_clip = FrozenOpenCLIPEmbedder2("small", config={**OPEN_CLIP, "vocab_size": ENTRIES}, tokenizer=VOCABULARY)
    for name, encoder in (("clip_ids", clip), ("openclip_ids", open_clip)):
        for text, expected in zip(case.args["texts"], case.expected[name], strict=True):
            assert encoder.tokenize(text)[0].tolist() == expected.tolist(), (name, text)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("\u2018a\u2019 \u201ccat\u201d", "'a' \"cat\""),
        ("\uff41\u3000\uff43\uff41\uff54", "a cat"),
        ("o\ufb03ce", "office"),
    ],
)
def test_text_is_mended_before_it_is_taken_apart(written: str, read: str) -> None:
    encoder = FrozenCLIPEmbedder("small", config={**CLIP, "vocab_size": ENTRIES}, tokenizer=VOCABULARY)
    assert encoder.tokenize(written).tolist() == encoder.tokenize(read).tolist()
