"""A model under a condition: which condition it is, and the two ways to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ldm.models.diffusion.condition import (
    AS_IT_IS,
    KINDS,
    MASK,
    Condition,
    Parts,
    as_parts,
    check_size,
    encoded_part,
    encoder_takes,
    in_rows,
)
from ldm.models.diffusion.guidance import expand_condition, rows_of
from ldm.models.diffusion.loss import DiffusionModel, images_to_channels_first
from ldm.models.diffusion.text_states import TextStates
from ldm.modules.distributions.distributions import DiagonalGaussianDistribution
from ldm.modules.encoders.clip_image import ClipImageEmbedder
from ldm.modules.encoders.conditions import ClassEmbedder
from ldm.modules.encoders.needs import Need, Needs


class ConditionedModel(DiffusionModel):
    """Diffusion under a condition; :meth:`condition` and :meth:`unconditional` are the only ways to one.

    A condition is a dictionary of the parts that the network is fed, with one row a picture: ``c_crossattn`` (a list of
    contexts [B, N, D]), ``c_concat`` (a list of channels [B, *, h, w]) and ``c_adm`` (vectors [B, D] or classes [B]).

    Attributes:
        cond_stage_model: the encoder, None for a model without a condition.
        cond_stage_key: the key of what it encodes in a training batch.
        cond_stage_forward: its method; None for ``encode``.
        embedding_manager: learned words, or None.
        text_states: the states of prompts that were encoded before, for a run whose encoder stays as it is; or None.
    """

    first_stage_model: Any
    cond_stage_model: Any
    cond_stage_key: str
    cond_stage_forward: str | None
    embedding_manager: Any
    text_states: TextStates | None = None

    @property
    def needs(self) -> Needs:
        """What :meth:`condition` has to get besides prompts."""
        if self.cond_stage_model is None:
            return Needs(reads_prompts=False)
        encoded = () if self._takes is None else (self._takes,)
        others = [AS_IT_IS[part] for part in KINDS[self.model.conditioning_key] if part != self._encoded_part]
        mask = (MASK,) if self._sees_mask else ()
        varies = isinstance(self.cond_stage_model, ClipImageEmbedder)
        command = "scripts/variations.py" if varies else None
        return Needs((*encoded, *mask, *others), reads_prompts=self._takes is None, command=command)

    def condition(self, prompts: Sequence[str] | Tensor, *, size: tuple[int, int] | None = None, **given: Any) -> Parts:
        """The condition of ``len(prompts)`` pictures, as the parts that the network is fed; {} without one.

        Args:
            prompts: texts, or token ids [B, N]; where :attr:`needs` says that they are not read, their number counts.
            size: (height, width) of the latents, for parts that are as large.
            given: what :attr:`needs` names, with one row or one a prompt.

        Raises:
            UserError: something is missing, not known, or has another size or number of rows.
        """
        prompts = [prompts] if isinstance(prompts, str) else prompts
        self.needs.check(given)
        parts = self._parts(prompts, size, given)
        if size is not None:
            check_size(parts.get("c_concat", ()), size)
        return expand_condition(parts, len(prompts))

    def unconditional(self, condition: Condition, negative_prompt: str = "", **given: Any) -> Parts | None:
        """What guidance leads away from: ``condition`` with another text, or None where the model knows nothing such.

        Args:
            condition: what :meth:`condition` gave.
            negative_prompt: in place of the prompts.
            given: ``class_label``, in place of the last class, for a model of classes.
        """
        parts = as_parts(condition, self.model.conditioning_key)
        encoder = self.cond_stage_model
        if isinstance(encoder, ClipImageEmbedder) and encoder.zero_is_empty and "c_crossattn" in parts:
            return {**parts, "c_crossattn": [torch.zeros_like(context) for context in parts["c_crossattn"]]}
        empty = self._empty(negative_prompt, **given)
        if empty is None or not parts:
            return None
        encoded = self._as_part(self.get_learned_conditioning(empty))
        return {**parts, **expand_condition(encoded, rows_of(parts))}

    def _parts(self, prompts: Sequence[str] | Tensor, size: tuple[int, int] | None, given: Mapping[str, Any]) -> Parts:
        """The parts of a condition, each with one row or one a prompt."""
        if self.cond_stage_model is None:
            return {}
        others = {name: given[name] for name in AS_IT_IS if name in given}
        others = {name: value if name == "c_adm" else [value] for name, value in others.items()}
        if self._takes is None:  # prompts that are alike are encoded once; in training each row is an example
            alike = not self.training and not isinstance(prompts, Tensor) and len(set(prompts)) == 1
            return self._as_part(self.get_learned_conditioning(prompts[:1] if alike else prompts)) | others
        if self._sees_mask:
            return self._masked_parts(given["image"], given["mask"])
        value = in_rows(given[self._takes.name], len(prompts)).to(self.device)
        return self._as_part(self.get_learned_conditioning(value)) | others

    def _masked_parts(self, image: Tensor, mask: Tensor) -> Parts:
        """The first stage's view of a picture that is black where the mask is 1, and the mask in [-1, 1]."""
        image, mask = image.to(self.device), mask.to(self.device)
        check_size([mask], (image.shape[-2], image.shape[-1]), "the mask has", "a picture of")
        encoded = self.get_learned_conditioning((image + 1) * (1 - mask) - 1)
        return {"c_concat": [encoded, F.interpolate(2 * mask - 1, size=encoded.shape[-2:])]}

    def _as_part(self, encoded: Any) -> Parts:
        part = self._encoded_part
        return {part: encoded if part == "c_adm" else [encoded]}

    def _empty(self, negative_prompt: str, class_label: int | None = None) -> Any:
        """What the encoder gets for nothing: a text, a class, or None where there is no such thing."""
        encoder = self.cond_stage_model
        if isinstance(encoder, ClassEmbedder):
            return torch.tensor([encoder.empty_class if class_label is None else class_label])
        return None if encoder is None or self._takes is not None else [negative_prompt]

    @property
    def _encoded_part(self) -> str:
        return encoded_part(self.model.conditioning_key)

    @property
    def _takes(self) -> Need | None:
        encoder = self.cond_stage_model
        return encoder_takes(encoder, self._encoded_part, encoder is self.first_stage_model)

    @property
    def _sees_mask(self) -> bool:
        """Whether the condition is a masked picture and its mask, as in latent diffusion's own in-painting model."""
        return self.cond_stage_model is self.first_stage_model and self.cond_stage_key == "masked_image"

    def get_learned_conditioning(self, c: Any) -> Any:
        """The condition that the encoder makes of prompts, token ids [B, N], class labels or pictures.

        For old scripts; :meth:`condition` takes what the model needs besides.
        """
        if self.cond_stage_model is None:
            return None
        words = self.embedding_manager
        if words is not None:
            encoded = words.condition(self._encode, c)
        elif self.text_states is not None and not isinstance(c, Tensor):
            encoded = self.text_states(self._encode, c)
        else:
            encoded = self._encode(c)
        return encoded.mode() if isinstance(encoded, DiagonalGaussianDistribution) else encoded

    @property
    def _encode(self) -> Any:
        return getattr(self.cond_stage_model, self.cond_stage_forward or "encode", self.cond_stage_model)

    def apply_model(self, x_noisy: Tensor, t: Tensor, cond: Condition = None) -> Tensor:
        parts = as_parts(cond, self.model.conditioning_key)
        words = self.embedding_manager
        if words is not None and "c_crossattn" in parts:
            contexts = [words.at_timestep(self._encode, context, t) for context in parts["c_crossattn"]]
            parts = {**parts, "c_crossattn": contexts}
        return super().apply_model(x_noisy, t, parts)

    def get_unconditional_conditioning(self, batch_size: int, null_label: Any = None) -> Any:
        """The empty prompt (or class), or ``null_label``, encoded ``batch_size`` times; for old scripts."""
        if isinstance(self.cond_stage_model, ClassEmbedder):
            empty = self.cond_stage_model.empty_class if null_label is None else null_label
            return self.get_learned_conditioning(torch.full((batch_size,), int(empty)))
        return self.get_learned_conditioning([null_label or ""] * batch_size)

    def get_raw_condition(self, batch: Mapping[str, Any]) -> Any:
        """What the condition's encoder takes: prompts, the batch itself (class labels) or pictures [B, C, H, W]."""
        if self.cond_stage_key in ("class_label", "cls"):
            return batch
        value = batch[self.cond_stage_key]
        if isinstance(value, Tensor) and value.dim() == 4:
            return images_to_channels_first(value).to(self.device)
        return value.to(self.device) if isinstance(value, Tensor) else value

    def get_condition(self, batch: Mapping[str, Any], size: tuple[int, int]) -> Parts:
        """The condition of a batch, for latents of height and width ``size``; the batch needs no picture to make.

        Raises:
            UserError: the batch lacks what the model is conditioned on.
        """
        prompts, given = self.given_by(batch)
        return self.condition(prompts, size=size, **given)

    def given_by(self, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """What :meth:`condition` gets for a batch: prompts, and what the model needs besides."""
        if self._takes is None:
            return self.get_raw_condition(batch), {}
        value = self.get_raw_condition(batch)
        if isinstance(self.cond_stage_model, ClassEmbedder):
            value = self.cond_stage_model.labels(value)
        given = {self._takes.name: value}
        if self._sees_mask:
            given["mask"] = images_to_channels_first(batch["mask"]).to(self.device)
        return [""] * len(value), given
