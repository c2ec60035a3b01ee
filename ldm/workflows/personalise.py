"""Learning something from a few pictures: the recipe that a model has for each method, and the command that it is.

The recipes are the YAMLs of ``configs``; what a lesson changes in one is written beside its pictures, as a second YAML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from ldm.pictures.images import load_image, save_image
from ldm.pictures.subjects import MIDDLE, square_of
from ldm.shipped import ROOT, TINY
from ldm.util import UserError, atomic_write, read_yaml
from ldm.workflows.catalogue import Listed
from ldm.workflows.files import CONFIG, WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

WORD, LORA, PIVOTAL, DREAMBOOTH = METHODS = ("word", "lora", "pivotal", "dreambooth")
FILES = {  # what a method leaves in the run's checkpoints
    WORD: ("embeddings.safetensors",),
    LORA: ("lora.safetensors",),
    PIVOTAL: ("embeddings.safetensors", "lora.safetensors"),
    DREAMBOOTH: ("difference.safetensors",),
}
SUBJECT = "sks"  # what a LoRA and DreamBooth call the subject, as their public programs do
PREVIEWS, SHOWN = 3, 2  # how often a run draws, besides the first step, and how many pictures
PERSONAL = "ldm.data.personalized.PersonalizedBase"
STANDS_FOR = "*"  # in captions: whatever the method calls the thing


@dataclass(frozen=True)
class Recipe:
    """How a model learns by a method.

    Attributes:
        yaml: below ``configs``.
        scaled: whether its learning rate is for one picture, as main.py's ``--scale_lr`` has it.
        seconds: of a step on two slow cores, previews included, roughly; 0: not known.
        class_pictures: that DreamBooth makes.
    """

    yaml: str
    scaled: bool = False
    seconds: float = 0.0
    class_pictures: int = 100

    def document(self) -> DictConfig:
        """The YAML."""
        return read_yaml(ROOT / "configs" / self.yaml, False)

    def steps(self) -> int:
        """How many steps it takes if nobody says otherwise."""
        return steps_of(self.document())


SMALL = {
    WORD: Recipe("tiny/textual-inversion.yaml", True, 0.5),
    LORA: Recipe("tiny/lora.yaml", False, 1.0),
    PIVOTAL: Recipe("tiny/pivotal.yaml", False, 1.0),
    DREAMBOOTH: Recipe("tiny/dreambooth.yaml", class_pictures=20),
}
OF_WIDTH: dict[Any, dict[str, Recipe]] = {  # by the width of the context that the network reads
    768: {
        WORD: Recipe("stable-diffusion/v1-finetune.yaml", True),
        LORA: Recipe("stable-diffusion/lora.yaml"),
        PIVOTAL: Recipe("stable-diffusion/pivotal.yaml"),
        DREAMBOOTH: Recipe("stable-diffusion/v1-finetune_unfrozen.yaml", True),
    },
    1024: {
        WORD: Recipe("stable-diffusion/v2-finetune.yaml", True),
        LORA: Recipe("stable-diffusion/v2-lora.yaml"),
    },
    1280: {
        WORD: Recipe("latent-diffusion/txt2img-1p4B-finetune.yaml", True),
        LORA: Recipe("latent-diffusion/lora.yaml"),
    },
    2048: {
        WORD: Recipe("sdxl/textual-inversion.yaml", True),
        LORA: Recipe("sdxl/lora.yaml"),
        PIVOTAL: Recipe("sdxl/pivotal.yaml"),
        DREAMBOOTH: Recipe("sdxl/dreambooth.yaml"),
    },
}
NETWORKS = ("unet_config", "network_config")


@dataclass(frozen=True)
class Lesson:
    """What is to be learned, and how.

    Attributes:
        name: of the run; see ``folder_name``.
        word: what prompts call it; empty: ``*``, or ``sks`` where a LoRA or the model learns.
        start: the word that a new one starts from; for DreamBooth the class, such as dog.
        steps: 0: as the recipe says.
    """

    method: str
    name: str
    word: str = ""
    start: str = ""
    steps: int = 0

    @property
    def called(self) -> str:
        """What stands in a prompt for what was learned."""
        word = self.word or (STANDS_FOR if self.method in (WORD, PIVOTAL) else SUBJECT)
        return f"{word} {self.start}".strip() if self.method == DREAMBOOTH else word


def folder_name(text: str) -> str:
    """A name as that of a folder; ``mine`` where nothing is left of it."""
    return "".join(letter if letter.isalnum() else "-" for letter in text.strip()).strip("-") or "mine"


def recipes_of(model: Listed) -> dict[str, Recipe]:
    """The recipes of a model, by method; none for kinds that nobody here has tried."""
    if model.ckpt.resolve() == (TINY / WEIGHTS).resolve():
        return SMALL
    if model.ckpt.is_dir():
        return {}
    document = read_yaml(model.ckpt.parent / CONFIG, False)
    networks = (OmegaConf.select(document, f"model.params.{name}.params") for name in NETWORKS)
    network: Any = next((node for node in networks if node is not None), {})
    paints_over = network.get("in_channels") != network.get("out_channels")  # in-painting, depth, films
    return {} if paints_over else OF_WIDTH.get(network.get("context_dim"), {})


def recipe_of(model: Listed, method: str) -> Recipe:
    """The recipe of a model for a method.

    Raises:
        UserError: there is none.
    """
    recipes = recipes_of(model)
    if method not in recipes:
        known = f"; there are: {', '.join(recipes)}" if recipes else ""
        raise UserError(f"there is no recipe by which '{model.name}' learns so ({method}){known}")
    return recipes[method]


def minutes_of(recipe: Recipe, steps: int = 0) -> float:
    """How long it will take on two cores; 0 where that is not known."""
    return (steps or recipe.steps()) * recipe.seconds / 60


def command_of(lesson: Lesson, model: Listed, folder: Path) -> list[str]:
    """The arguments of main.py for a lesson whose pictures are in ``folder / "pictures"``; writes its YAML beside them.

    Raises:
        UserError: there is no such recipe, or DreamBooth is not told the class.
    """
    recipe = recipe_of(model, lesson.method)
    if lesson.method == DREAMBOOTH and not lesson.start:
        raise UserError("DreamBooth needs to be told what the thing is one of, such as 'dog'")
    changes = folder / "changes.yaml"
    with atomic_write(changes) as temporary:
        OmegaConf.save(changes_for(lesson, recipe.document()), temporary)
    given = ["-t", "-b", str(ROOT / "configs" / recipe.yaml), str(changes), "--data_root", str(folder / "pictures"),
             "--datadir_in_name", "false", "--scale_lr", str(recipe.scaled).lower()]  # fmt: skip
    if model.ckpt.resolve() != (TINY / WEIGHTS).resolve():
        given += ["--actual_resume", str(model.ckpt)]
    if lesson.method == DREAMBOOTH:
        classes = folder.parent / "classes" / model.ckpt.parent.name / folder_name(lesson.start)
        return [*given, "--reg_data_root", str(classes), "--class_word", lesson.start, "--subject_word",
                lesson.word or SUBJECT, "--num_class_images", str(recipe.class_pictures)]  # fmt: skip
    given += ["--placeholder_string", lesson.called]
    return [*given, "--init_word", lesson.start] if lesson.start and lesson.method != LORA else given


def changes_for(lesson: Lesson, document: DictConfig) -> DictConfig:
    """What a lesson changes in its recipe: steps, previews, a file that says how far it is."""
    usual = steps_of(document)
    steps = lesson.steps or usual
    changes: dict[str, Any] = {
        "lightning": {
            "callbacks": {
                "progress_file": {"target": "ldm.training.progress.ProgressFile"},
                "image_logger": {"params": {
                    "batch_frequency": max(1, -(-steps // PREVIEWS)), "log_images_kwargs": {"N": SHOWN},
                }},
            },
        }
    }  # fmt: skip
    stages = document.get("stages")
    if stages:
        changes["stages"] = [{**stage, "steps": max(1, round(stage.steps * steps / usual))} for stage in stages]
        steps = sum(stage["steps"] for stage in changes["stages"])
    changes["lightning"]["trainer"] = {"max_steps": steps}
    falls = "model.params.scheduler_config.params.cycle_lengths"
    if OmegaConf.select(document, falls) == [usual]:
        OmegaConf.update(document, falls, [steps])
        changes["model"] = {"params": {"scheduler_config": {"params": {"cycle_lengths": [steps]}}}}
    if lesson.method == DREAMBOOTH:
        changes["lightning"]["save"] = "diff"
        changes |= _about_class(document)
    return OmegaConf.create(changes)


def _about_class(document: DictConfig) -> dict[str, Any]:
    """Pictures of the class in the place of captioned ones, where a recipe of DreamBooth has those."""
    if str(OmegaConf.select(document, "data.params.reg.target")) == PERSONAL:
        return {}
    of_class = {"target": PERSONAL, "params": {"set": "train", "reg": True, "flip_p": 0.0}}
    return {"data": {"params": {"train": {"params": {"templates": None}}, "reg": of_class}}}


def steps_of(document: DictConfig) -> int:
    """The optimizer steps that a training YAML asks for."""
    steps = OmegaConf.select(document, "lightning.trainer.max_steps")
    return int(steps or sum(stage.steps for stage in document.get("stages") or []))


def write_pictures(
    paths: Sequence[str | Path],
    folder: Path,
    crop: str = MIDDLE,
    captions: Sequence[str] = (),
    called: str = STANDS_FOR,
    masks: Sequence[Tensor | None] = (),
) -> None:
    """Write the squares that are learned into ``folder / "pictures"``, each with its caption and mask, if it has them.

    Args:
        captions: of the pictures in their order, several sentences parted by ``|``; ``*`` stands for ``called``.
        masks: [H, W] of what is learned of each picture, of its size; None: all of it.

    Raises:
        UserError: there are none, one cannot be read, or a square has nothing of its mask.
    """
    if not paths:
        raise UserError("pictures are missing: drop a few of what is to be learned")
    place = folder / "pictures"
    place.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        mask = masks[number] if number < len(masks) else None
        square = square_of(load_image(path), crop, mask)
        save_image(square.picture, place / f"{number:02}.png")
        if mask is not None and square.mask is not None:
            _write_mask(square.mask, place / f"{number:02}.png")
        sentences = [part.strip() for part in captions[number].split("|")] if number < len(captions) else []
        lines = [sentence.replace(STANDS_FOR, called) for sentence in sentences if sentence]
        if lines:
            (place / f"{number:02}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_mask(mask: Tensor, picture: Path) -> None:
    """Beside its picture, where the data set finds it."""
    from ldm.pictures.masks import mask_path, write_mask  # brings torch

    write_mask(mask, mask_path(picture, suffix=".png"))
