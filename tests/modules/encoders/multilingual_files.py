"""A small multilingual encoder and aligner, written as files by the tests that read them."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModel, PreTrainedConfig

from ldm.modules.encoders.aligner import Aligner, save_aligner
from scripts.make_multilingual_encoder import learn_tokenizer, untrained_encoder

SENTENCES = ["파란 배경 위의 빨간 별", "蓝色背景上有一颗红色星星", "a red star on a blue background", "* @"] * 3


def write_encoder(folder: Path, width: int = 16) -> Path:
    """An untrained BERT with a vocabulary of a few words."""
    tokenizer = learn_tokenizer(SENTENCES, 120)
    tokenizer.model_max_length = 24
    tokenizer.save_pretrained(folder)
    untrained_encoder(len(tokenizer), width, layers=1, heads=2, length=24, seed=0).save_pretrained(folder)
    return folder


def write_other_kind(folder: Path, config: PreTrainedConfig) -> Path:
    """An untrained encoder of another family, with the same tokenizer."""
    tokenizer = learn_tokenizer(SENTENCES, 120)
    tokenizer.save_pretrained(folder)
    config.update({"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id})
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


def write_aligner(path: Path, width: int = 16, target_width: int = 16, length: int = 8, encoder: str = "") -> Aligner:
    """An untrained aligner for the encoder in the folder ``multilingual`` beside it."""
    torch.manual_seed(1)
    aligner = Aligner(width, target_width, length, dim=16, depth=2, heads=2).eval()
    save_aligner(aligner, path, encoder or "multilingual", {})
    return aligner
