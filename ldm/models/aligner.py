"""Training an aligner: Korean and Chinese sentences should be, to a diffusion model, what their translations are."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor, nn

from ldm.checkpoint import load_model, load_weights
from ldm.checkpoint.loading import model_node, without_checkpoints
from ldm.checkpoint.unfilled import without_values
from ldm.models.diffusion.latent import LatentModel
from ldm.modules.encoders.base import TextEncoder
from ldm.modules.encoders.multilingual import ForeignReader, MultilingualEncoder, States
from ldm.util import ConfigError, find_beside, instantiate_from_config, read_yaml

log = logging.getLogger(__name__)

COND_STAGE = "params.cond_stage_config"


@dataclass(frozen=True)
class FrozenModel:
    """What the aligner is trained for; no module, so that none of it gets into checkpoints or the optimiser."""

    english: TextEncoder
    diffusion: LatentModel | None  # only where its response is part of the loss

    def to(self, device: torch.device) -> None:
        """Move both models, in place."""
        self.english.to(device)
        if self.diffusion is not None:
            self.diffusion.to(device)


def open_frozen(model_config: str, ckpt: str, whole: bool) -> FrozenModel:
    """The English text encoder of a model, and the whole of it where asked for.

    Raises:
        UserError: a file is missing, or the model's condition is not text.
    """
    document = read_yaml(model_config)
    node: Any = model_node(document)
    for name in ("tokenizer", "aligner"):
        find_beside(document, f"model.{COND_STAGE}.params.{name}", Path(model_config).parent)
    if whole:
        merged: Any = OmegaConf.merge(node, {"params": {"use_ema": False}})
        model: Any = load_model(merged, ckpt)
        english: Any = model.cond_stage_model
    else:
        with without_values():
            english = instantiate_from_config(without_checkpoints(OmegaConf.select(node, COND_STAGE)))
        load_weights(english, ckpt, prefix="cond_stage_model.")
    if not isinstance(english, TextEncoder):
        raise ConfigError(f"the condition of '{model_config}' is not text, so there is nothing to align to")
    english.eval().requires_grad_(False)
    return FrozenModel(english, model.requires_grad_(False) if whole else None)


@dataclass(frozen=True)
class PairReading:
    """B foreign sentences as the aligner reads them, and their translations."""

    vectors: Tensor  # [B, N, D] predicted token vectors
    places: Tensor  # [B, M, N] where each foreign token goes, logits
    tokens: Tensor  # [B, N] of the translations
    is_slot: Tensor  # [S, B, N] bool: which of them are which slot
    slots: Tensor  # [K, 3]: sentence, foreign token and English position of each slot in it


class AlignerTraining(pl.LightningModule):
    """An aligner, and a small multilingual encoder with it where asked for, learns from sentence pairs.

    The loss has a part for the English token vectors, one for the English encoder's output on them (relative to how
    much sentences differ), one for where slots go, and optionally one in the UNet's own response: the mean squared
    difference between what it predicts from random latents at random timesteps under the two contexts.

    Args:
        aligner_config: node of an ``Aligner``.
        encoder: the multilingual encoder, a folder or a hub id.
        model_config: YAML of the model that is to understand foreign prompts.
        ckpt_path: its weights; None builds the aligner alone, which cannot be trained.
        start: an aligner's file, of ``aligner_config``'s sizes, whose weights it begins with.
        train_encoder: the encoder learns as well; otherwise it is frozen, and each sentence's states are computed once.
        slots: words that stand in both sentences for what is learned later; each a token of the English encoder.
        context_weight, place_weight, response_weight: of the parts of the loss; that of the token vectors has 1.
        context_size, response_size: how many sentences of a batch the English encoder and the UNet are asked about.
        scheduler_config: step -> factor of the learning rate.
        monitor: what a checkpoint is judged by.

    Raises:
        UserError: a file is missing, or the aligner's sizes are not those of the encoders or of ``start``.
    """

    encoder: MultilingualEncoder | None

    def __init__(
        self,
        aligner_config: Mapping[str, Any],
        encoder: str,
        model_config: str,
        ckpt_path: str | None = None,
        start: str | None = None,
        train_encoder: bool = False,
        slots: Sequence[str] = ("*", "@"),
        context_weight: float = 1.0,
        place_weight: float = 0.1,
        response_weight: float = 0.0,
        context_size: int = 16,
        response_size: int = 8,
        scheduler_config: Mapping[str, Any] | None = None,
        monitor: str | None = None,
    ) -> None:
        super().__init__()
        self.aligner = instantiate_from_config(aligner_config)
        self.slots = tuple(slots)
        self.context_weight, self.place_weight, self.response_weight = context_weight, place_weight, response_weight
        self.context_size, self.response_size = context_size, min(response_size, context_size)
        self.scheduler_config = scheduler_config
        self.monitor = monitor
        self.learning_rate = 1e-4  # main.py sets it
        self.encoder = None
        if ckpt_path is None:
            return
        self.frozen = open_frozen(model_config, ckpt_path, whole=response_weight > 0)
        reader = MultilingualEncoder(encoder)
        ForeignReader(reader, self.aligner).check(self.frozen.english)
        self.aligner.fit_to(self.frozen.english.token_embedding.weight.float())
        if start is not None:
            load_weights(self.aligner, start, strict=True, dtype=torch.float32)
        if train_encoder:
            self.encoder = reader
        else:
            self.cached = CachedStates(reader.requires_grad_(False))

    # ---- sentences --------------------------------------------------------------------------------------------------

    def read(self, texts: Sequence[str]) -> States:
        """The multilingual encoder's states of sentences."""
        if self.encoder is not None:
            return self.encoder(texts, self.slots)
        return self.cached(texts, self.slots, self.device)

    def read_pairs(self, batch: Mapping[str, Any]) -> PairReading:
        """What the aligner makes of the foreign sentences of a batch, beside what the English ones are."""
        found = self.read(batch["source"])
        vectors, places = self.aligner(found.states, found.mask)
        tokens = self.frozen.english.tokenize(batch["target"]).to(self.device)
        is_slot = torch.stack([tokens == self.frozen.english.token_of(slot) for slot in self.slots])
        slots = []
        for row, names in enumerate(found.slots):
            for foreign, name in names:
                english = is_slot[self.slots.index(name), row].nonzero().flatten().tolist()
                slots += [(row, foreign, english[0])] if english else []
        pairs = torch.tensor(slots, dtype=torch.long, device=self.device).reshape(-1, 3)
        return PairReading(vectors, places, tokens, is_slot, pairs)

    def context_of(self, tokens: Tensor, vectors: Tensor) -> Tensor:
        """The English encoder's output [B, N, D] for token vectors [B, N, D]."""
        return self.frozen.english.encode_tokens(tokens, lambda _, embedded: vectors.to(embedded.dtype))

    # ---- loss -------------------------------------------------------------------------------------------------------

    def losses(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The parts of the loss of a batch of pairs, each a number, unweighted: vectors, context, and what else counts.

        Args:
            batch: ``source`` and ``target``, lists of as many sentences.
        """
        reading = self.read_pairs(batch)
        table = self.frozen.english.token_embedding.weight.float()
        wanted, free = table[reading.tokens], ~reading.is_slot.any(dim=0)
        # the same random words in the slots of both: where they belong, and where the aligner would put them
        words = table[torch.randint(len(table), (len(reading.slots),), device=table.device)]
        rows, foreign, english = reading.slots.unbind(dim=1)
        error = (reading.vectors - wanted)[free].square().mean()
        parts = {"vectors": error / (table - table.mean(dim=0)).square().mean()}
        share = reading.places[rows, foreign].float().softmax(dim=-1)  # a half under autocast
        if len(rows):
            parts["places"] = F.cross_entropy(reading.places[rows, foreign], english)
        wanted = wanted.index_put((rows, english), words)
        nothing = torch.zeros_like(reading.vectors)
        taken = nothing[..., 0].index_add(0, rows, share).clamp(max=1)[..., None]
        filled = reading.vectors * (1 - taken) + nothing.index_add(0, rows, share[..., None] * words[:, None])

        few = slice(self.context_size)
        with torch.no_grad():
            meant = self.context_of(reading.tokens[few], wanted[few])
            spread = (meant - meant.mean(dim=0)).square().mean()
        context = self.context_of(reading.tokens[few], filled[few])
        parts["context"] = (context - meant).square().mean() / spread
        if self.response_weight:
            parts["response"] = self.response(context, meant)
        return parts

    def response(self, context: Tensor, meant: Tensor) -> Tensor:
        """Mean squared difference of the UNet's outputs under two contexts, relative to those under other sentences.

        Shapes: both contexts [B, N, D] -> a number.
        """
        model = self.frozen.diffusion
        assert model is not None
        context, meant = context[: self.response_size], meant[: self.response_size]
        size = model.image_size if isinstance(model.image_size, int) else model.image_size[0]
        x = torch.randn(len(context), model.channels, size, size, device=self.device)
        t = torch.randint(0, model.num_timesteps, (len(context),), device=self.device)
        with torch.no_grad():
            wanted = model.predict(x, t, meant)
            spread = (model.predict(x, t, meant.roll(1, dims=0)) - wanted).square().mean()
        return (model.predict(x, t, context) - wanted).square().mean() / spread.clamp(min=1e-8)

    @torch.no_grad()
    def exact(self, batch: Mapping[str, Any]) -> Tensor:
        """The share of sentences with the right token nearest to every vector, and every slot in its place."""
        reading = self.read_pairs(batch)
        table = self.frozen.english.token_embedding.weight.float()
        nearest = torch.cdist(reading.vectors, table).argmin(dim=-1)
        right = ((nearest == reading.tokens) | reading.is_slot.any(dim=0)).all(dim=1)
        for row, foreign, english in reading.slots.tolist():
            right[row] &= int(reading.places[row, foreign].argmax()) == english
        return right.float().mean()

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of the parts."""
        weights = {
            "vectors": 1.0,
            "context": self.context_weight,
            "places": self.place_weight,
            "response": self.response_weight,
        }
        return torch.stack([weights[name] * part for name, part in parts.items()]).sum()

    def next_command(self, folder: str) -> str:
        """What makes the files that a model's YAML names."""
        return f"python -m scripts.export_aligner {folder} FOLDER_OF_THE_MODEL"

    # ---- Lightning --------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """What is no submodule goes where the aligner is."""
        self.frozen.to(self.device)

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        parts = self.losses(batch)
        parts["loss"] = self.total(parts)
        values = {f"train/{name}": part.detach() for name, part in parts.items()}
        self.log_dict(values, prog_bar=True, batch_size=len(batch["source"]))
        return parts["loss"]

    @torch.no_grad()
    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        parts = self.losses(batch)
        parts |= {"loss": self.total(parts), "exact": self.exact(batch)}
        self.log_dict({f"val/{name}": part for name, part in parts.items()}, batch_size=len(batch["source"]))

    def configure_optimizers(self) -> Any:
        modules: list[nn.Module] = [self.aligner] + ([] if self.encoder is None else [self.encoder])
        parameters = [p for module in modules for p in module.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=self.learning_rate)
        if self.scheduler_config is None:
            return optimizer
        factor = instantiate_from_config(self.scheduler_config).schedule
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_lambda=factor)
        return [optimizer], [{"scheduler": scheduler, "interval": "step", "frequency": 1}]


class CachedStates:
    """A frozen encoder that reads each sentence once; its states are kept in half precision on the CPU."""

    def __init__(self, encoder: MultilingualEncoder) -> None:
        self.encoder = encoder
        self.known: dict[str, tuple[Tensor, list[tuple[int, str]]]] = {}

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], slots: Sequence[str], device: torch.device) -> States:
        """The states of sentences, on ``device``."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            found = self.encoder.to(device)(new, slots)
            for row, text in enumerate(new):
                self.known[text] = (found.states[row][found.mask[row]].half().cpu(), found.slots[row])
        rows = [self.known[text] for text in texts]
        states = nn.utils.rnn.pad_sequence([states for states, _ in rows], batch_first=True).to(device, torch.float32)
        lengths = torch.tensor([len(states) for states, _ in rows], device=device)
        mask = torch.arange(states.shape[1], device=device) < lengths[:, None]
        return States(states, mask, [slots for _, slots in rows])
