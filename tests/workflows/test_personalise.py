"""Learning from a few pictures: squares and captions, recipes and commands, a run that is followed and resumed."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from ldm.checkpoint import EmbeddingFile, read_embeddings, write_embedding
from ldm.checkpoint.lora import read_lora
from ldm.checkpoint.lora.writing import Written, write_lora
from ldm.data.personalized import PersonalizedBase
from ldm.pictures.images import load_image
from ldm.pictures.subjects import square_of, subject_mask
from ldm.training.config import apply_personalization, check_placeholders, read_config
from ldm.training.options import parse
from ldm.util import UserError, instantiate_from_config
from ldm.workflows import training_process
from ldm.workflows.catalogue import Listed, models_at_hand
from ldm.workflows.learned_files import (
    FORMATS,
    formats_of,
    learned_runs,
    options_of,
    prompt_of,
    readers_of,
    write_for_others,
)
from ldm.workflows.personalise import (
    DREAMBOOTH,
    LORA,
    METHODS,
    OF_WIDTH,
    PIVOTAL,
    SMALL,
    WORD,
    Lesson,
    command_of,
    minutes_of,
    recipe_of,
    recipes_of,
    write_pictures,
)
from ldm.workflows.training_process import PROGRESS, Progress, previews_of, progress_of, resume, train
from ldm.workflows.watch import Watch
from tests import forked
from tests.helpers import ROOT
from tests.workflows.small_model import write_small_model

PRETENDED = [sys.executable, "-S", str(Path(__file__).with_name("pretended_training.py"))]


@pytest.fixture(scope="module")
def small() -> Listed:
    return models_at_hand()[0]


def disc(path: Path, size: tuple[int, int] = (200, 120), box: tuple[int, ...] = (120, 20, 180, 80)) -> Path:
    image = Image.new("RGB", size, (40, 70, 200))
    ImageDraw.Draw(image).ellipse(box, fill=(230, 40, 30))
    image.save(path)
    return path


# ---- pictures -------------------------------------------------------------------------------------------------------


def test_the_thing_is_found_and_stands_in_the_middle_of_its_square(tmp_path: Path) -> None:
    image = Image.open(disc(tmp_path / "a.png")).convert("RGB")
    truth = np.asarray(image)[..., 0] > 128
    found = subject_mask(image).numpy() >= 0.5
    assert (truth & found).sum() / (truth | found).sum() > 0.9
    square = square_of(image, "subject")
    assert square.mask is not None and square.mask.shape == square.picture.size[::-1]
    assert square.picture.size == (79, 79)  # 61 pixels, and 15 % of them at each side
    red = np.argwhere(np.asarray(square.picture)[..., 0] > 128).mean(axis=0)
    assert np.allclose(red, 39, atol=1.5)


def test_other_squares_are_the_middle_and_all_of_it(tmp_path: Path) -> None:
    image = Image.open(disc(tmp_path / "a.png")).convert("RGB")
    assert square_of(image).picture.tobytes() == image.crop((40, 0, 160, 120)).tobytes()
    whole = square_of(image, "whole").picture
    assert whole.size == (200, 200) and whole.crop((0, 40, 200, 160)).tobytes() == image.tobytes()
    assert whole.getpixel((100, 5)) == (255, 255, 255)
    assert square_of(Image.new("RGB", (3000, 2500))).picture.size == (1024, 1024)
    with pytest.raises(UserError, match="there are: middle, subject, whole"):
        square_of(image, "left")


@pytest.mark.parametrize("crop", ["middle", "subject", "whole"])
def test_a_mask_is_cut_as_its_picture_is(tmp_path: Path, crop: str) -> None:
    image = Image.open(disc(tmp_path / "a.png", box=(90, 20, 150, 80))).convert("RGB")
    red = np.asarray(image)[..., 0] > 128
    square = square_of(image, crop, torch.from_numpy(red.astype(np.float32)))
    assert square.mask is not None and square.mask.shape == square.picture.size[::-1]
    assert np.array_equal(square.mask.numpy() > 0.5, (np.asarray(square.picture)[..., :3] @ [1, -1, -1]) > 0)
    if crop == "middle":
        with pytest.raises(UserError, match="lies outside"):
            square_of(image, crop, torch.eye(120, 200).roll(160, 1).triu(150))


def test_masks_lie_beside_the_pictures_where_their_data_set_finds_them(tmp_path: Path) -> None:
    paths = [disc(tmp_path / f"{name}.png", box=(90, 20, 150, 80)) for name in "ab"]
    write_pictures(paths, tmp_path / "in", "subject", masks=[None, subject_mask(load_image(paths[1]))])
    assert sorted(p.name for p in (tmp_path / "in/pictures").iterdir()) == ["00.png", "01.png", "01_mask.png"]
    data = PersonalizedBase(str(tmp_path / "in/pictures"), size=32, flip_p=0)
    assert data[0]["loss_mask"].min() == 1 and 0.2 < data[1]["loss_mask"].mean() < 0.6


def test_captions_lie_beside_the_pictures_with_the_word_in_them(tmp_path: Path) -> None:
    paths = [disc(tmp_path / f"{name}.png") for name in "ab"]
    write_pictures(paths, tmp_path / "in", captions=["a red * | * on blue", " "], called="sks dog")
    assert (tmp_path / "in/pictures/00.txt").read_text() == "a red sks dog\nsks dog on blue\n"
    assert sorted(p.name for p in (tmp_path / "in/pictures").iterdir()) == ["00.png", "00.txt", "01.png"]
    with pytest.raises(UserError, match="pictures are missing"):
        write_pictures([], tmp_path / "none")


# ---- recipes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipes", [SMALL, *OF_WIDTH.values()], ids=["small", *map(str, OF_WIDTH)])
def test_recipes_are_yamls_with_steps(recipes: dict[str, Any]) -> None:
    assert set(recipes) <= set(METHODS)
    for recipe in recipes.values():
        assert recipe.steps() > 0


def test_models_without_a_recipe_are_told_so(small: Listed, tmp_path: Path) -> None:
    assert recipes_of(small) == SMALL
    other = Listed("other", write_small_model(tmp_path / "other"), "")
    assert recipes_of(other) == {} == recipes_of(Listed("folder", tmp_path, ""))
    with pytest.raises(UserError, match="no recipe by which 'other' learns so"):
        recipe_of(other, LORA)


def read(arguments: list[str]) -> Any:
    """The configuration that main.py makes of a command line."""
    options, changes = parse(arguments)
    config = read_config(options.base, changes, [])
    apply_personalization(config, options)
    check_placeholders(config)
    return config


def test_a_word_takes_the_steps_that_are_asked_for_and_falls_with_them(small: Listed, tmp_path: Path) -> None:
    lesson = Lesson(WORD, "mine", word="@", start="star", steps=90)
    config = read(command_of(lesson, small, tmp_path))
    assert config.lightning.trainer.max_steps == 90 == config.model.params.scheduler_config.params.cycle_lengths[0]
    words = config.model.params.personalization_config.params
    assert (words.placeholder_strings, words.initializer_words) == (["@"], ["star"])
    assert config.data.params.train.params.placeholder_token == "@" == lesson.called
    assert config.data.params.train.params.data_root == str(tmp_path / "pictures")
    assert config.lightning.callbacks.image_logger.params.batch_frequency == 30
    assert minutes_of(SMALL[WORD], 60) == pytest.approx(SMALL[WORD].seconds)


def test_stages_keep_their_shares(small: Listed, tmp_path: Path) -> None:
    config = read(command_of(Lesson(PIVOTAL, "mine", steps=100), small, tmp_path))
    assert [stage.steps for stage in config.stages] == [50, 50] and config.lightning.trainer.max_steps == 100
    config = read(command_of(Lesson(LORA, "mine"), small, tmp_path))
    assert config.data.params.train.params.placeholder_token == "sks" and config.lightning.trainer.max_steps == 150


def test_dreambooth_of_the_small_model_learns_all_of_it_beside_its_class(small: Listed, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one of"):
        command_of(Lesson(DREAMBOOTH, "mine"), small, tmp_path)
    lesson = Lesson(DREAMBOOTH, "mine", start="triangle")
    config = read(command_of(lesson, small, tmp_path))
    sentences = config.data.params.train.params
    assert sentences.templates[0].format(sentences.placeholder_token) == "photo of a sks triangle"
    assert lesson.called == "sks triangle" and config.data.params.reg.params.placeholder_token == "triangle"
    assert config.data.params.reg.params.reg and "templates" not in config.data.params.reg.params
    config.model.params.pop("ckpt_path")
    with torch.device("meta"):
        model = instantiate_from_config(config.model)
    assert model.prior.reg_weight == 1 and not model.learning.additions_only
    of_class = instantiate_from_config({
        "target": config.data.params.reg.target,
        "params": {**config.data.params.reg.params, "data_root": str(ROOT / "examples/word")},
    })  # fmt: skip
    assert of_class[0]["caption"] == "photo of a triangle"


# ---- runs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs that learn nothing; gives the folder of runs."""
    write_embedding(tmp_path / "word.safetensors", EmbeddingFile({"*": torch.ones(2, 192)}))
    monkeypatch.setenv("PRETENDED_WORD", str(tmp_path / "word.safetensors"))
    monkeypatch.setenv("PRETENDED_PICTURE", str(disc(tmp_path / "picture.png")))
    monkeypatch.setattr(training_process, "command", lambda: PRETENDED)
    monkeypatch.setattr(training_process, "LOOK", 0.02)
    return tmp_path / "logs"


def test_a_run_is_followed_to_its_end(pretended: Path) -> None:
    steps: list[int] = []
    found: list[Path] = []
    watch = Watch(on_step=lambda step: steps.append(step.number), on_result=found.append)
    run = train(["-t"], "mine", watch, pretended)
    assert run is not None and found == [run] and run.name.endswith("_mine")
    assert steps == sorted(steps) and steps[-1] == 40 and progress_of(run) == Progress(40, 40, 1 / 40)
    assert learned_runs(pretended) == [run] and prompt_of(run) == "a *"
    assert [path.name[:18] for path in previews_of(run)] == ["samples_gs-000001_"]
    assert options_of(run)["embedding_path"] == [str(run / "checkpoints/embeddings.safetensors")]


def test_a_run_that_is_stopped_goes_on_where_it_was(pretended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRETENDED_SECONDS", "0.05")
    wanted = threading.Event()
    run = train(["-t"], "mine", Watch(on_step=lambda step: wanted.set(), cancelled=wanted.is_set), pretended)
    assert run is not None and not (run / "checkpoints/embeddings.safetensors").exists()
    with pytest.raises(UserError, match="has left nothing yet"):
        options_of(run)
    steps: list[int] = []
    assert resume(run, Watch(on_step=lambda step: steps.append(step.number))) == run
    assert steps[0] > 1 and steps[-1] == 40 and formats_of(run)


def test_what_main_says_is_the_error(pretended: Path) -> None:
    with pytest.raises(UserError, match=r"^the word 'nonsense' is not in the vocabulary$"):
        train(["-t", "--init_word", "nonsense"], "mine", None, pretended)
    assert not learned_runs(pretended)


def test_a_process_does_not_outlive_its_request(pretended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRETENDED_SECONDS", "0.2")

    def fail(step: Any) -> None:
        raise RuntimeError("the desk is gone")

    with pytest.raises(RuntimeError):
        train(["-t"], "mine", Watch(on_step=fail), pretended)
    (run,) = pretended.iterdir()
    seen = (run / PROGRESS).read_text()
    threading.Event().wait(0.5)
    assert (run / PROGRESS).read_text() == seen


def test_a_real_run_learns_a_word_by_its_command(
    small: Listed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(training_process, "subprocess", forked.as_subprocess(forked.written))
    lesson = Lesson(WORD, "real", start="star", steps=2)
    arguments = command_of(lesson, small, tmp_path)
    write_pictures(sorted((ROOT / "examples/word").glob("*.png"))[:2], tmp_path, called=lesson.called)
    arguments += ["data.params.batch_size=1", "lightning.callbacks.image_logger.params.log_images_kwargs.N=1",
                  "lightning.callbacks.image_logger.params.log_images_kwargs.ddim_steps=2"]  # fmt: skip
    run = train(arguments, "real", None, tmp_path / "logs")
    assert run is not None and progress_of(run) is not None
    assert prompt_of(run) == "a *" and previews_of(run)
    assert formats_of(run) == ["safetensors"] and readers_of(run, "safetensors") == "txt2img.py"
    (words,) = read_embeddings([str(run / "checkpoints/embeddings.safetensors")]).values()
    assert words.vectors["*"].shape == (7 * 40, 192) and words.metadata["steps"] == "2"


# ---- files ----------------------------------------------------------------------------------------------------------


def test_every_format_is_written_of_what_there_is(tmp_path: Path) -> None:
    run = tmp_path / "logs" / "2026-01-01T00-00-00_mine"
    (run / "checkpoints").mkdir(parents=True)
    assert formats_of(run) == [] == learned_runs(tmp_path / "logs")
    write_embedding(run / "checkpoints/embeddings.safetensors", EmbeddingFile({"*": torch.rand(2, 192)}))
    layer = "input_blocks.1.1.transformer_blocks.0.attn2.to_k"
    parts = {"lora_down": torch.rand(2, 192), "lora_up": torch.rand(96, 2), "alpha": torch.tensor(2.0)}
    for name in ("lora", "difference"):
        write_lora(run / f"checkpoints/{name}.safetensors", [Written("unet", layer, parts)])
    assert formats_of(run) == list(FORMATS) and learned_runs(tmp_path / "logs") == [run]
    written = {name: write_for_others(run, name, tmp_path / "files") for name in FORMATS}
    for name, path in written.items():
        if FORMATS[name].file == "embeddings":
            (file,) = read_embeddings([str(path)]).values()
            assert file.format == name and file.width == 192
    families = {name: read_lora(str(written[name])).family for name in ("kohya", "peft", "lycoris")}
    assert "kohya" in families["kohya"] and "peft" in families["peft"] and families["lycoris"] == families["kohya"]
    with pytest.raises(UserError, match="there is no format 'zip'"):
        write_for_others(run, "zip", tmp_path)
    beside = EmbeddingFile({"*": torch.rand(14, 192)}, {"kind": "context", "layers": "7"}, {"*": torch.rand(1, 192)})
    write_embedding(run / "checkpoints/embeddings.safetensors", beside)
    assert formats_of(run) == ["safetensors", "kohya", "peft", "lycoris"]
    assert [readers_of(run, name)[:3] for name in formats_of(run)[:2]] == ["txt", "koh"]
    own = write_for_others(run, "safetensors", tmp_path / "files")
    assert own.read_bytes() == (run / "checkpoints/embeddings.safetensors").read_bytes()
    (again,) = read_embeddings([str(own)]).values()
    assert again.metadata["kind"] == "context" and torch.equal(again.initial["*"], beside.initial["*"])
