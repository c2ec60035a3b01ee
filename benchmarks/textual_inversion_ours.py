"""This project's side of ``benchmarks.textual_inversion``: one vector is trained, on cached moments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from benchmarks.textual_inversion_common import DECAY, DEVICE, DTYPE, PLACEHOLDER, RATE, SCALE, Draws, Parts, Side, Size
from ldm.additions.words import EmbeddingManager
from ldm.checkpoint.diffusers_keys import autoencoder_weights, unet_weights
from ldm.util import instantiate_from_config

ROOT = Path(__file__).resolve().parents[1]


class Words:
    """A vocabulary with one word: the benchmark has token ids and needs no tokenizer."""

    family = "clip"
    max_length = 77

    def __init__(self, encoder: Any) -> None:
        self.encoder, self.width = encoder, encoder.width

    def tokenize(self, text: str | Sequence[str], placeholders: Sequence[str] = ()) -> Tensor:
        raise NotImplementedError

    def placeholder_id(self, word: str) -> int:
        return PLACEHOLDER

    def token_of(self, word: str) -> int:
        return PLACEHOLDER

    def pieces_of(self, words: str) -> list[int]:
        return [PLACEHOLDER]

    def vector_of(self, token: int) -> Tensor:
        return self.encoder.vector_of(token)

    initial_vector = vector_of


def our_config(size: Size) -> DictConfig:
    """The model of the shipped YAML; smaller ones are for the benchmark's own test."""
    node = OmegaConf.load(ROOT / size.config).model
    node.params.pop("personalization_config")
    node.params.unet_config.params.update(
        {"use_checkpoint": False, "model_channels": size.widths[0], "context_dim": size.context}
    )
    node.params.first_stage_config.params.ddconfig.ch = size.widths[1]
    text = node.params.cond_stage_config
    if size.text == "bert":
        text.params = {"n_embed": size.context, "n_layer": size.layers, "vocab_size": size.vocabulary}
    else:
        text.params = {"config": {**size.clip, "hidden_act": "quick_gelu"}}
    return node


def bert_weights(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """LDMBert's keys as this project's encoder has them."""
    names = {"self_attn.q_proj": "1.to_q", "self_attn.k_proj": "1.to_k", "self_attn.v_proj": "1.to_v",
             "self_attn.out_proj": "1.to_out", "self_attn_layer_norm": "0",
             "fc1": "1.net.0.0", "fc2": "1.net.2", "final_layer_norm": "0"}  # fmt: skip
    found = {}
    for key, value in theirs.items():
        if key.startswith("model.layers."):
            number, _, rest = key.removeprefix("model.layers.").partition(".")
            part, _, kind = rest.rpartition(".")
            index = 2 * int(number) + (0 if part.startswith("self_attn") else 1)
            found[f"transformer.attn_layers.layers.{index}.{names[part]}.{kind}"] = value
    return found | {
        "transformer.token_emb.weight": theirs["model.embed_tokens.weight"],
        "transformer.pos_emb.emb.weight": theirs["model.embed_positions.weight"],
        "transformer.norm.weight": theirs["model.layer_norm.weight"],
        "transformer.norm.bias": theirs["model.layer_norm.bias"],
    }


def clip_weights(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers' keys as this project's encoder has them."""
    return {f"transformer.{key}": value for key, value in theirs.items()}


class Model(Side):
    """``LatentDiffusion``, all of it frozen, on cached moments."""

    def build(self, weights: Parts) -> None:
        with torch.device("meta"):
            self.model = instantiate_from_config(our_config(self.size))
        text = bert_weights if self.size.text == "bert" else clip_weights
        parts: dict[nn.Module, dict[str, Tensor]] = {
            self.model.model.diffusion_model: unet_weights(weights["unet"], [2] * 4),
            self.model.first_stage_model: autoencoder_weights(weights["vae"]),
            self.model.cond_stage_model: text(weights["text"]),
        }
        for module, given in parts.items():
            load_part(module, given, self.dtype)
        self.model.requires_grad_(False).to(DEVICE)
        with torch.no_grad():
            picture = Draws.of_step(0, self.size).picture
            self.moments = self.model.encode_first_stage(picture).parameters.half()

    def loss(self, draws: Draws) -> Tensor:
        """Of a step, as the model computes it."""
        mean, log_variance = self.moments.float().chunk(2, dim=1)
        latents = (mean + (log_variance / 2).exp() * draws.posterior) * SCALE
        loss, _ = self.model.p_losses(latents, self.model.condition(draws.tokens), draws.t, draws.noise)
        return loss


class Ours(Model):
    """One vector of an ``EmbeddingManager`` learns."""

    def build(self, weights: Parts) -> None:
        super().build(weights)
        manager = EmbeddingManager(Words(self.model.cond_stage_model))
        manager.add_vectors({"*": self.model.cond_stage_model.vector_of(PLACEHOLDER)[None].float()})
        self.model.learn_words(manager.to(DEVICE))
        self.vector = manager.vectors("*")
        self.optimizer = torch.optim.AdamW([self.vector], lr=RATE, weight_decay=DECAY)

    def step(self, draws: Draws) -> tuple[Tensor, Tensor]:
        loss = self.loss(draws)
        loss.backward()
        assert self.vector.grad is not None
        gradient = self.vector.grad[0].clone()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach(), gradient


def load_part(module: nn.Module, weights: dict[str, Tensor], dtype: torch.dtype = DTYPE) -> None:
    """Assign weights to a module on the meta device; every parameter must get one.

    LDM's text encoder carries a head that nothing uses and diffusers leaves out: zeros.
    """
    head = {name: torch.zeros(p.shape, dtype=dtype) for name, p in module.named_parameters() if "to_logits" in name}
    module.load_state_dict({**head, **weights}, strict=False, assign=True)
    empty = [name for name, parameter in module.named_parameters() if parameter.is_meta]
    if empty:
        raise ValueError(f"no weights for {empty[:3]}")
