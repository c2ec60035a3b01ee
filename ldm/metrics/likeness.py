"""How alike pictures are, and how well they show a text: by CLIP (Gal et al. 2022), or by the small model's scorer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.modules.encoders.bpe import CLIP_MARKERS, load_bpe
from ldm.modules.encoders.clip_image import MEAN, STD
from ldm.modules.encoders.hub import hub_folder
from ldm.modules.encoders.subword import SubwordTokenizer
from ldm.modules.scorer import AttributeScorer
from ldm.util import UserError
from ldm.world.labels import classes
from ldm.world.scene import GROUNDS, SIZES, Thing
from ldm.world.sentences import speak
from ldm.world.sentences.voice import Named, Wish

CONCEPT = {"thing": "first", "colour": "first colour", "texture": "first texture"}  # as the scorer calls them
AGREED = 0.6  # share of the references that must show one value for it to be part of the concept


class Judge(Protocol):
    """Something that sees pictures [B, 3, H, W] in [-1, 1]."""

    def image_similarity(self, references: Tensor, pictures: Tensor) -> Tensor:
        """How alike each picture is to the references, on average: [B]."""
        ...

    def measures(self, references: Tensor, pictures: Tensor, prompts: Sequence[str], word: str) -> dict[str, Tensor]:
        """Name of a measure -> its value for each picture [B]; NaN where it says nothing about a picture.

        ``prompts`` has one for each picture, in which ``word`` is the learned word.
        """
        ...


def mean_cosine(references: Tensor, pictures: Tensor) -> Tensor:
    """The mean cosine of each row of ``pictures`` [B, D] with the rows of ``references`` [R, D]: [B]."""
    return (F.normalize(pictures, dim=-1) @ F.normalize(references, dim=-1).T).mean(dim=1)


def among_themselves(judge: Judge, references: Tensor) -> Tensor:
    """Each reference against the others, [R]: what a perfect likeness would reach; NaN for a single one."""
    if len(references) < 2:
        return torch.full((1,), float("nan"))
    rest = [torch.cat([references[:i], references[i + 1 :]]) for i in range(len(references))]
    return torch.cat([judge.image_similarity(others, references[i : i + 1]) for i, others in enumerate(rest)])


class ClipJudge:
    """CLIP's two towers: cosines between pictures, and between a picture and its prompt without the learned word.

    Args:
        source: a folder that transformers saved a CLIPModel in, with its tokenizer, or a hub id.

    Raises:
        UserError: there is no such model, or its tokenizer is missing.
    """

    def __init__(self, source: str) -> None:
        from transformers import CLIPModel  # imported here: the scorer needs none of it

        files = [["config.json", "model.safetensors"], ["config.json", "pytorch_model.bin"]]
        folder = Path(source)
        if not folder.is_dir():
            folder = hub_folder(source, files, "give a folder with config.json, its weights and the tokenizer's files")
        if not (folder / "config.json").is_file():
            raise UserError(f"folder '{folder}' holds no CLIP model: there is no config.json")
        try:
            self.model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
        except (OSError, ValueError) as error:
            raise UserError(f"folder '{folder}' holds no CLIP model that transformers can read: {error}") from error
        length = self.model.config.text_config.max_position_embeddings
        local = Path(source).is_dir()
        self.tokenizer = SubwordTokenizer(str(folder) if local else source, load_bpe, CLIP_MARKERS, max_length=length)
        self.size: int = self.model.config.vision_config.image_size

    @torch.no_grad()
    def see(self, pictures: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in [-1, 1] -> embeddings [B, D]: the shorter side to CLIP's size, the middle of it."""
        height, width = pictures.shape[-2:]
        scale = self.size / min(height, width)
        sides = (max(self.size, round(height * scale)), max(self.size, round(width * scale)))
        x = F.interpolate(pictures, sides, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)
        top, left = (sides[0] - self.size) // 2, (sides[1] - self.size) // 2
        x = x[:, :, top : top + self.size, left : left + self.size]
        mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
        vision = self.model.vision_model(pixel_values=((x + 1) / 2 - mean) / std)
        return self.model.visual_projection(vision.pooler_output)

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> Tensor:
        """Texts -> embeddings [B, D]."""
        tokens = self.tokenizer(texts)
        return self.model.text_projection(self.model.text_model(input_ids=tokens).pooler_output)

    def image_similarity(self, references: Tensor, pictures: Tensor) -> Tensor:
        return mean_cosine(self.see(references), self.see(pictures))

    def measures(self, references: Tensor, pictures: Tensor, prompts: Sequence[str], word: str) -> dict[str, Tensor]:
        """``image to image`` and ``text to image``."""
        seen = self.see(pictures)
        said = self.read([" ".join(prompt.replace(word, " ").split()) for prompt in prompts])
        return {
            "image to image": mean_cosine(self.see(references), seen),
            "text to image": F.cosine_similarity(seen, said, dim=-1),
        }


class ScorerJudge:
    """The small model's scorer: what it sees of the object, compared between pictures, and of what was asked.

    The concept is what most references show: which thing, in which colour and texture. A prompt asks for background and
    size.
    """

    def __init__(self, scorer: AttributeScorer) -> None:
        self.scorer = scorer.eval()

    @torch.no_grad()
    def features(self, pictures: Tensor) -> Tensor:
        """How probable each thing, colour and texture is: [B, D], whatever is around it."""
        logits = self.scorer(pictures)
        return torch.cat([logits[name].float().softmax(dim=-1) for name in CONCEPT.values()], dim=-1)

    def seen(self, pictures: Tensor) -> list[dict[str, str]]:
        """The thing, colour, texture, background and size on each picture of [B, 3, H, W]."""
        judged, names = self.scorer.judge(pictures), classes()
        shown = [{a: names[a][int(values[i])] for a, (values, _) in judged.items()} for i in range(len(pictures))]
        return [
            {**{name: one[head] for name, head in CONCEPT.items()}, "background": one["background"],
             "size": one["layout"].split(" ")[0]}
            for one in shown
        ]  # fmt: skip

    def image_similarity(self, references: Tensor, pictures: Tensor) -> Tensor:
        return mean_cosine(self.features(references), self.features(pictures))

    def concept(self, references: Tensor) -> dict[str, str]:
        """The thing, colour and texture that most references show.

        Raises:
            UserError: they have nothing in common.
        """
        shown = self.seen(references)
        common = {name: Counter(values[name] for values in shown).most_common(1)[0] for name in CONCEPT}
        found = {name: value for name, (value, count) in common.items() if count >= AGREED * len(shown)}
        if not found:
            raise UserError("the reference pictures show no common thing, colour or texture of the rendered world")
        return found

    def measures(self, references: Tensor, pictures: Tensor, prompts: Sequence[str], word: str) -> dict[str, Tensor]:
        """``image to image``, the share that shows each part of the concept and all of it, and what prompts ask.

        Raises:
            UserError: as ``concept``.
        """
        concept, seen = self.concept(references), self.seen(pictures)
        asked = [asked_around(prompt, word) for prompt in prompts]
        right = {name: torch.tensor([float(shown[name] == value) for shown in seen]) for name, value in concept.items()}
        found = {"image to image": self.image_similarity(references, pictures), **right}
        found["concept"] = torch.stack(list(right.values())).amin(dim=0)
        for name in ("background", "size"):
            answers = [float(shown[name] == want[name]) if name in want else float("nan")
                       for shown, want in zip(seen, asked, strict=True)]  # fmt: skip
            if any(name in want for want in asked):
                found[name] = torch.tensor(answers)
        return found


def asked_around(prompt: str, word: str) -> Mapping[str, str]:
    """The background and the size that a prompt asks for in plain words; what it does not ask for is left out."""
    text = " ".join(prompt.replace(word, " ").lower().split())
    grounds = [ground for phrase, ground in _ground_phrases().items() if phrase in text]
    sizes = [size for size in SIZES if size in text.split()]
    return {name: found[0] for name, found in (("background", grounds), ("size", sizes)) if found}


@cache
def _ground_phrases() -> dict[str, str]:
    """What plain sentences call each background -> its name: 'a blue background' -> 'blue'."""
    return {
        speak(Wish((Named(Thing("circle")),), ground), "en").removeprefix("a circle ").removeprefix("on "): ground
        for ground in GROUNDS
    }
