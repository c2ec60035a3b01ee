"""The benchmark of personalising: its concepts, its judge on true and faulty pictures, its commands, its table."""

from __future__ import annotations

import json
import subprocess
from argparse import Namespace
from collections import Counter
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from benchmarks import personalise
from benchmarks.concept_judge import judge_concept
from benchmarks.concepts import (
    ASKED,
    CONCEPTS,
    SHOWN,
    Shown,
    picture_of,
    relatives,
    sentence,
    sprite,
    wishes,
    write_pictures,
)
from benchmarks.others import Count, Other
from benchmarks.personalise import METHODS, Cost, Outcome, judged_before, measure, table, train
from ldm.data.personalized import PersonalizedBase
from ldm.pictures.images import load_folder
from ldm.training.config import apply_personalization, read_config
from ldm.training.options import parse
from ldm.util import UserError, instantiate_from_config
from ldm.world.objects import objects
from ldm.world.paint import paint
from ldm.world.scene import GROUNDS, Scene, Thing


@pytest.mark.parametrize("name", [*CONCEPTS, *relatives()])
def test_a_drawing_is_colours_times_coverage(name: str) -> None:
    drawn = sprite(name, 32)
    assert drawn.shape == (32, 32, 4) and drawn.min() >= 0 and drawn.max() <= 1
    assert (drawn[..., :3] <= drawn[..., 3:] + 1e-5).all() and 0.25 < drawn[..., 3].mean() < 0.85


def test_the_flower_has_five_petals_and_the_windmill_two_tones() -> None:
    turn = 2 * np.pi * np.arange(360) / 360
    row, column = (np.clip(((0.75 * f(turn) + 1) * 64).astype(int), 0, 127) for f in (np.cos, np.sin))
    solid = sprite("flower", 128)[row, column, 3] > 0.5
    assert sum(a != b for a, b in pairwise([*solid, solid[0]])) == 2 * 5
    sails = sprite("windmill", 64)[:24].reshape(-1, 4)
    tones = Counter(tuple(tone) for tone in (255 * sails[sails[:, 3] == 1, :3]).round().astype(int).tolist())
    assert {tone for tone, _ in tones.most_common(2)} == {(215, 45, 45), (250, 240, 215)}


def test_five_pictures_with_sentences_that_say_size_and_background(tmp_path: Path) -> None:
    write_pictures("creature", "*", tmp_path, seed=0)
    assert len({image.tobytes() for _, image in load_folder(tmp_path)}) == 5
    data = PersonalizedBase(str(tmp_path), size=128, captions=True, flip_p=0.0)
    for example, (ground, size) in zip(data.examples, SHOWN, strict=True):
        assert example.captions[0] == sentence(Shown("creature", ground, size), "*") and len(set(example.captions)) == 6
    assert data.examples[1].captions[0] == "a small * on a yellow background"


def test_what_is_asked_for_was_not_shown() -> None:
    grounds = {ground for ground, _ in SHOWN}
    assert not grounds & set(ASKED) and (grounds | set(ASKED)) <= set(GROUNDS)
    asked = wishes("disc", 2 * len(ASKED))
    assert len(set(asked)) == len(asked) and {one.size for one in asked} == {"small", "large"}


@pytest.mark.parametrize("concept", CONCEPTS)
def test_true_pictures_are_right_soft_ones_too(concept: str) -> None:
    for asked, blur in zip(wishes(concept, 2), (0.0, 0.7), strict=True):
        found = judge_concept(gaussian_filter(picture_of(asked, 64), (blur, blur, 0)), asked)
        assert found.name == concept and found.concept and found.ground and found.overlap > 0.85, (asked, found)


@pytest.mark.parametrize(("wrong", "concept"), [(name, c) for c, one in CONCEPTS.items() for name in one.relatives])
def test_what_is_nearly_it_is_noticed(wrong: str, concept: str) -> None:
    found = judge_concept(picture_of(Shown(wrong, "pink", "large"), 64), Shown(concept, "pink", "large"))
    assert found.name == wrong and not found.concept and found.ground


def test_other_things_places_and_backgrounds_are_noticed() -> None:
    asked = Shown("flower", "cyan", "large")
    thing = paint([Scene("cyan", (Thing("sunflower", "large", "middle"),))], 64)[0]
    assert judge_concept(thing, asked).name == "sunflower" in objects()
    shape = paint([Scene("cyan", (Thing("star", "large", "middle", "pink", "plain"),))], 64)[0]
    assert judge_concept(shape, asked).name == "pink plain star"
    elsewhere = judge_concept(picture_of(Shown("flower", "snow", "large"), 64), asked)
    assert elsewhere.concept and not elsewhere.ground
    small = judge_concept(picture_of(Shown("flower", "cyan", "small"), 64), asked)
    shifted = judge_concept(np.roll(picture_of(asked, 64), 12, axis=1), asked)
    assert small.overlap < 0.6 and shifted.overlap < 0.75


def test_what_is_beyond_the_thing_is_measured_apart_from_it() -> None:
    asked = Shown("flower", "cyan", "large")
    true, other = picture_of(asked), picture_of(Shown("windmill", "cyan", "large"))
    thing = np.abs(true - picture_of(Shown("flower", "white", "large"))).max(-1) < 0.01
    assert judge_concept(true, asked).beyond < 1e-3
    assert judge_concept(np.where(thing[..., None], other, true), asked).beyond < 0.1
    lighter = judge_concept(np.where(thing[..., None], true, np.clip(true + 0.2, -1, 1)), asked).beyond
    assert 2 < lighter < 8


def test_a_concept_that_there_is_not() -> None:
    with pytest.raises(UserError, match="no concept 'dragon'; there are: flower"):
        sprite("dragon", 32)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The commands that would train; each leaves the files that it should."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> Any:
        commands.append(command)
        options = parse(command[2:])[0]
        name = next(name for name in METHODS if f"/{name}/" in options.logdir)
        for kind in METHODS[name].files:
            file = Path(options.logdir) / "2026-01-01T00-00-00_run" / "checkpoints" / f"{kind}.safetensors"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x" * 10)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


@pytest.mark.parametrize("name", METHODS)
def test_commands_of_training(name: str, trained: list[list[str]], tmp_path: Path) -> None:
    folder = tmp_path / name / "seed0"
    cost = train("disc", name, folder, 0, tmp_path / "class", ["lightning.trainer.max_steps=3"])
    assert cost.size == 10 * len(METHODS[name].files)
    assert train("disc", name, folder, 0, tmp_path / "class", []) == cost and len(trained) == 1
    options, changes = parse(trained[0][2:])
    config = read_config(options.base, changes)
    apply_personalization(config, options)
    data = config.data.params
    assert data.train.params.data_root == str(folder / "pictures") and config.lightning.trainer.max_steps == 3
    assert all(METHODS[name].word in text for text in PersonalizedBase(**{**data.train.params}).examples[0].captions)
    assert (data.get("reg") is not None) == (name in ("word", "dreambooth", "lora-kept"))
    assert METHODS[name].has_class == (name == "dreambooth")
    if name == "lora-kept":
        assert config.model.params.reg_target == "base" and config.model.params.lora_config.params.rank == 8
        module = instantiate_from_config(config.data)
        module.setup()
        pair = module.datasets["train"][0]
        assert "sks" in pair["train"]["caption"] and "sks" not in pair["reg"]["caption"]
        assert pair["train"]["image"].shape == pair["reg"]["image"].shape == (128, 128, 3)
        others = module.datasets["train"].of_class.__getitems__(range(60))
        assert 3 <= sum(not one["caption"] for one in others) <= 18, "guided pictures are made without a prompt, too"
    words = config.model.params.get("personalization_config")
    assert words is None or list(words.params.initializer_words) == ["circle"]


def test_what_the_judges_saw_is_counted(
    trained: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = wishes("disc", 4)
    nearly = Shown("striped disc", asked[2].ground, asked[2].size)
    drawn = [picture_of(one) for one in (asked[0], asked[1], nearly, asked[0])]
    pictures = [Image.fromarray(((one + 1) * 127.5).round().astype(np.uint8)) for one in drawn]
    rest = [other(right=number < 5, colours=number < 5) for number in range(6)]
    monkeypatch.setattr(personalise, "draw", lambda studio, texts, seed, noise_scale, settle: pictures)
    monkeypatch.setattr(personalise, "read_additions", lambda *_, **__: [])
    monkeypatch.setattr(personalise, "judged_others", lambda studio, options: rest)
    options = Namespace(concept="disc", count=4, others=6, outdir=tmp_path, changes=[], noise_scale=1.0, settle=0)
    outcome = measure(Namespace(model=None), options, "lora", 0, Count())  # type: ignore[arg-type]
    assert (outcome.pictures, outcome.counts) == (4, {"recognised": 3, "background": 3})
    assert 0.7 < outcome.means["silhouette"] < 1 and outcome.after == Count(6, right=5, drawn=6, named=6, plain=6)
    kept = json.loads((tmp_path / "disc" / "lora" / "seed0" / "others.json").read_text())
    assert [one["right"] for one in kept] == [True] * 5 + [False]


def test_others_are_judged_once_for_a_folder_and_how_they_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[float, int]] = []

    def judged(studio: object, options: Namespace) -> list[Other]:
        asked.append((options.noise_scale, options.settle))
        return [other(right=options.noise_scale < 1)] * options.others

    monkeypatch.setattr(personalise, "judged_others", judged)
    for noise_scale, settle, right in ((0.6, 0, 3), (1.0, 0, 0), (1.0, 4, 0), (0.6, 0, 3), (1.0, 4, 0)):
        options = Namespace(others=3, outdir=tmp_path, noise_scale=noise_scale, settle=settle)
        assert judged_before(None, options).right == right  # type: ignore[arg-type]
    assert asked == [(0.6, 0), (1.0, 0), (1.0, 4)]


def other(**verdict: bool) -> Other:
    """What is said of a picture that is right, but for what is given."""
    said: dict[str, Any] = {field.name: True for field in fields(Other)}
    return Other(**{**said, "prompt": "a cat", "ground_error": 0.0, "thing_error": 0.0, **verdict})


def test_the_table() -> None:
    counts, means = {"recognised": 18, "background": 19}, {"silhouette": 0.876}
    before, after = Count(64, 61, 62, 63, 64), Count(64, 60, 62, 61, 63)
    outcome = Outcome("disc", "lora", 1, 20, counts, means, before, after, Cost(300.0, 250.4, 412_345))
    heads, _, row = table([outcome]).splitlines()
    assert row == (
        "| disc | lora | 1 | 18 of 20 (70-97 %) | 19 of 20 (76-99 %) | 0.88 "
        "| 61, 60 of 64 | 62, 62 of 64 | 63, 61 of 64 | 63 of 64 | 250 s | 412 kB |"
    )
    assert heads.split(" | ")[3:6] == ["recognised", "background", "silhouette"] and heads.count("|") == row.count("|")
