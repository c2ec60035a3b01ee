"""The benchmark of personalising: its manners, their judge on true and faulty pictures, their training and counting."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from benchmarks import others, personalise
from benchmarks.manner_judge import judge_manner, manner_distances
from benchmarks.manners import (
    ALL,
    GROUNDS,
    MANNERS,
    PLAIN,
    RELATIVES,
    SHOWN,
    Styled,
    in_manner,
    picture_of,
    sentence,
    wishes,
    write_pictures,
)
from benchmarks.others import Count, is_plain
from benchmarks.personalise import Cost, measure
from benchmarks.subjects import MANNER
from ldm.data.personalized import PersonalizedBase
from ldm.pictures.images import load_folder
from ldm.util import UserError
from ldm.world import scene
from ldm.world.paint import paint
from ldm.world.scene import Scene, Thing


def plain(asked: Styled) -> Styled:
    return replace(asked, manner=PLAIN)


def test_three_pictures_with_sentences_that_say_the_rest(tmp_path: Path) -> None:
    write_pictures("sepia", "sks", tmp_path, seed=0)
    assert len({image.tobytes() for _, image in load_folder(tmp_path)}) == 3
    data = PersonalizedBase(str(tmp_path), size=128, captions=True, flip_p=0.0, placeholder_token="sks")
    for example, (thing, ground) in zip(data.examples, SHOWN, strict=True):
        assert example.captions[0] == sentence(Styled("sepia", thing, ground), "sks")
        assert len(set(example.captions)) == 6 and all(text.endswith(" in sks style") for text in example.captions)
    assert data.examples[0].captions[0] == "a large cat in the middle on a yellow background in sks style"


def test_what_is_asked_for_was_not_shown() -> None:
    asked = wishes("chalk", 20)
    assert len({(one.thing.name, one.thing.colour) for one in asked}) == 20
    assert {one.ground for one in asked} == set(GROUNDS) <= set(scene.GROUNDS)
    assert not {one.thing.name for one in asked} & {thing.name for thing, _ in SHOWN}
    assert not set(GROUNDS) & {ground for _, ground in SHOWN}
    assert {one.thing.size for one in asked} == {"small", "large"} and sum(one.thing.is_shape for one in asked) == 4


def test_sepia_is_brown_ink_and_chalk_white_lines_on_a_board() -> None:
    tile = paint([Scene("cyan", (Thing("square", "large", "middle", "red", "plain"),))], 128)[0]
    sepia, chalk = (in_manner(name, tile) for name in ("sepia", "chalk"))
    rows = sepia.reshape(-1, 3)
    assert (np.diff(rows, axis=1) <= 1e-6).all(), "red over green over blue in every pixel"
    assert chalk[0, 0].max() < 0 < tile[0, 0].max(), "the ground is dark"
    across = chalk[64].min(-1)
    assert (across > 0.8).sum() == 4 and (across[27:101] < 0).all(), "two lines, none within"


@pytest.mark.parametrize("manner", MANNERS)
def test_true_pictures_are_right_soft_ones_too(manner: str) -> None:
    asked = wishes(manner, 4)[3]
    for blur in (0.0, 0.7):
        found = judge_manner(gaussian_filter(picture_of(asked), (blur, blur, 0)), asked)
        assert found.in_manner and found.thing and found.ground and found.distance < 0.2, (asked, found)


@pytest.mark.parametrize("name", ALL)
def test_every_manner_is_the_nearest_to_its_own_pictures(name: str) -> None:
    for asked in wishes("sepia", 20)[1::9]:
        picture = gaussian_filter(picture_of(replace(asked, manner=name)), (0.4, 0.4, 0))
        distances = manner_distances(picture, asked.scene)
        assert min(distances, key=lambda one: distances[one]) == name, (asked, distances)
        assert is_plain(picture, asked.scene) == (name == PLAIN)


def test_a_thing_drawn_wrongly_is_no_other_manner() -> None:
    asked = wishes("chalk", 1)[0]
    other = picture_of(replace(asked, thing=Thing("snail", "large", "middle")))
    found = judge_manner(np.roll(other, 9, axis=1), asked)
    assert found.in_manner and not found.thing and found.ground and found.distance < 0.3


def test_what_is_no_more_than_near_is_noticed() -> None:
    asked = wishes("sepia", 2)[1]
    for wrong in (PLAIN, "sepia without outlines", "blue print"):
        found = judge_manner(picture_of(replace(asked, manner=wrong)), asked)
        assert wrong in RELATIVES and found.manner == wrong and not found.in_manner


def test_a_weak_manner_another_thing_and_another_background_are_noticed() -> None:
    asked = wishes("sepia", 5)[4]
    weak = 0.4 * picture_of(asked) + 0.6 * picture_of(plain(asked))
    found = judge_manner(weak.astype(np.float32), asked)
    assert not found.in_manner and found.distance > 0.5
    square = replace(asked, thing=replace(asked.thing, name="square"))
    assert judge_manner(picture_of(square), asked).thing_seen.endswith("square")
    elsewhere = judge_manner(picture_of(replace(asked, ground="meadow")), asked)
    assert elsewhere.ground_seen == "meadow" and not elsewhere.ground and elsewhere.in_manner
    pale = judge_manner(picture_of(replace(asked, thing=replace(asked.thing, colour="white"))), asked)
    assert not pale.thing and pale.ground, "a white heart is another in brown ink too"
    alike = judge_manner(picture_of(replace(asked, ground="striped red")), asked)
    assert alike.ground, "red and blue stripes are the same in brown ink"


def test_a_manner_that_there_is_not() -> None:
    with pytest.raises(UserError, match="no manner 'oil'; there are: sepia, chalk"):
        in_manner("oil", np.zeros((128, 128, 3), np.float32))


def test_what_the_judges_saw_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [wishes("sepia", 2)[1]] * 2
    drawn = [picture_of(asked[0]), picture_of(plain(asked[1]))]
    monkeypatch.setattr(personalise, "kind_of", lambda _: replace(MANNER, wishes=lambda *_: asked))
    pictures = [Image.fromarray(((one + 1) * 127.5).round().astype(np.uint8)) for one in drawn]
    told: list[str] = []

    def draw(studio: object, texts: list[str], seed: int, noise_scale: float, settle: int) -> list[Image.Image]:
        told.extend(texts)
        return pictures

    monkeypatch.setattr(personalise, "draw", draw)
    monkeypatch.setattr(personalise, "read_additions", lambda *_, **__: [])
    monkeypatch.setattr(personalise, "files_of", lambda *_: {"lora": tmp_path})
    monkeypatch.setattr(personalise, "train", lambda *_: Cost(1.0, 1.0, 1))
    monkeypatch.setattr(personalise, "judged_others", lambda studio, options: [])
    (tmp_path / "sepia" / "lora" / "seed0").mkdir(parents=True)
    options = Namespace(concept="sepia", count=2, others=0, outdir=tmp_path, changes=[], noise_scale=1.0, settle=0)
    outcome = measure(Namespace(model=None), options, "lora", 0, Count())  # type: ignore[arg-type]
    assert outcome.counts["in the manner"] == 1 and outcome.means["distance"] == pytest.approx(0.5, abs=0.02)
    assert told == [sentence(one, "sks") for one in asked]


def test_others_are_judged_right_and_plain(tmp_path: Path) -> None:
    """True pictures, one in another manner, one whose thing is another: by both judges, written, read and counted."""
    _, scenes = others.prompts(4, seed=others.PROMPTS_SEED)
    wanted = [others.judge(np.zeros((64, 64, 3), np.float32), one).true for one in scenes]
    first = wanted[3].things[0]
    wanted[3] = replace(wanted[3], things=(Thing("pizza", first.size, first.place), *wanted[3].things[1:]))
    true = paint(wanted, 128)
    true[2] = in_manner("chalk", true[2])
    pictures = [Image.fromarray(((one + 1) * 127.5).round().astype(np.uint8)) for one in true]
    found = others.judged(lambda texts, seed: pictures, 4)
    assert [(one.right, one.named, one.plain) for one in found][:2] == [(True, True, True)] * 2
    assert (found[2].right, found[2].named, found[2].plain) == (False, False, False)
    assert not found[3].right and not found[3].named and found[3].ground
    others.write(found, tmp_path / "new" / "others.json")
    kept = others.read(tmp_path / "new" / "others.json")
    assert kept == found and Count.of(kept) == Count(4, 2, 2, 2, 2)
    assert not others.judged(lambda texts, seed: [], 0)
