"""The aligner that is in the repository: what it makes of Korean, Chinese and mixed prompts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ldm.additions.words import EmbeddingManager
from ldm.shipped import TINY
from ldm.workflows.text_encoder import open_text_encoder
from ldm.world.scene_pairs import scene_pairs
from scripts.scene_prompts import prompts

UNFINISHED = pytest.mark.xfail(reason="the aligner of the world of things is not trained to its end", strict=True)
FILES = [TINY / "aligner.safetensors", *sorted((TINY / "multilingual").iterdir())]


@pytest.fixture(scope="module")
def encoder() -> Any:
    return open_text_encoder()


def test_files_are_small() -> None:
    assert sum(path.stat().st_size for path in FILES) < 8 * 2**20


@pytest.mark.parametrize(
    ("prompt", "english"),
    [
        ("파란 배경 위의 빨간 별", "a red star on a blue background"),
        ("파란 배경에 작은 빨간 줄무늬 별", "a small red striped star on a blue background"),
        ("노란 배경 위의 펭귄", "a penguin on a yellow background"),
        ("초록색 하트가 있는 노란색 배경", "a green heart on a yellow background"),
        ("蓝色背景上的红色星星", "a red star on a blue background"),
        ("黄色背景上的企鹅", "a penguin on a yellow background"),
        ("藍色背景上的紅色星星", "a red star on a blue background"),
        ("黑色背景上有一个大的青色圆点圆形", "a large cyan dotted circle on a black background"),
        ("黑色背景上有一個大的青色圓點圓形", "a large cyan dotted circle on a black background"),
        ("노란 별 옆에 파란 원을 그려줘", "a yellow star and a blue circle"),
        ("흰색 배경에 보라색 정사각형과 노란색 원", "a purple square and a yellow circle on a white background"),
        ("请画一个黄色星星旁边有蓝色圆圈", "a yellow star and a blue circle"),
        ("白色背景上的紫色方块和黄色圆", "a purple square and a yellow circle on a white background"),
        ("blue 배경 위의 red star", "a red star on a blue background"),
        ("고양이 왼쪽에 빨간 별", "a red star to the left of a cat"),
        ("초록색 배경 위의 작은 *", "a small * on a green background"),
        ("绿色背景上的一个小的*", "a small * on a green background"),
        ("綠色背景上的一個小的*", "a small * on a green background"),
    ],
)
def test_what_prompts_are_read_as(encoder: Any, prompt: str, english: str) -> None:
    (read,) = encoder.translate([prompt], ["*", "@"])
    assert read == english


def test_traditional_characters_are_read_as_simplified_ones(encoder: Any) -> None:
    learned = ["*", "紅龍"]  # a learned word stays as it is written
    pairs = [("藍色背景上的紅色星星", "蓝色背景上的红色星星"), ("綠色背景上的一個小的*", "绿色背景上的一个小的*")]
    for traditional, plain in pairs:
        one, other = (encoder.reading([text], learned) for text in (traditional, plain))
        assert torch.equal(one.vectors, other.vectors) and torch.equal(one.tokens, other.tokens)
    assert "紅龍" in encoder.translate(["綠色背景上的一個小的紅龍"], learned)[0]


@pytest.mark.parametrize("prompt", ["초록색 배경 위의 작은 *", "绿色背景上的一个小的*"])
def test_a_learned_word_means_in_korean_and_chinese_what_it_means_in_english(encoder: Any, prompt: str) -> None:
    manager = EmbeddingManager(encoder, ["*"])
    manager.set_vectors({"*": torch.randn(3, encoder.width, generator=torch.Generator().manual_seed(0)) * 0.03})
    with torch.no_grad():
        english = encoder.encode("a small * on a green background", embedding_manager=manager)
        other = encoder.encode("a small circle on a red background")
        foreign = encoder.encode(prompt, embedding_manager=manager)
    assert (foreign - english).square().mean() < 0.05 * (other - english).square().mean()


@UNFINISHED
@pytest.mark.parametrize("language", ["ko", "zh"])
def test_the_context_is_that_of_the_translation(encoder: Any, language: str) -> None:
    with torch.no_grad():
        foreign = encoder.encode(prompts(32, seed=5, language=language)[0])
        english = encoder.encode(prompts(32, seed=5)[0])
    spread = (english - english.mean(dim=0)).square().mean()
    assert ((foreign - english).square().mean() / spread) < 0.02


@UNFINISHED
def test_held_out_sentences_are_read_token_for_token(encoder: Any) -> None:
    pairs = [pair for pair in scene_pairs(400, "heldout", seed=7) if "photo" not in pair.english]
    read = encoder.translate([pair.source for pair in pairs], ["*", "@"])
    wanted = encoder.tokenizer.decode(encoder.tokenize([pair.english for pair in pairs]))
    assert sum(a == b for a, b in zip(read, wanted, strict=True)) > 0.97 * len(pairs)
