"""How a model is inverted, and AdaIN done, when nobody says: as its YAML does, wherever it is restyled."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from ldm.building.inference import inference_defaults
from ldm.commands import styleid as command
from ldm.pictures.film import read_film
from ldm.util import ConfigError, UserError
from ldm.web.page.restyle import restyling
from ldm.workflows.look.questions import histograms
from ldm.workflows.models import open_model
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.styleid import styleid
from ldm.workflows.restyle.usual import as_usual
from ldm.workflows.studio import Studio
from ldm.workflows.watch import Watch
from scripts import attention_histogram, inversion_quality, invert
from tests.workflows.restyling import STEPS, one, only, picture, pixels
from tests.workflows.small_model import CONFIG, write_small_model

SAYS: dict[str, Any] = {"inversion": "fixed_point"}
ONCE: dict[str, Any] = {**SAYS, "inversion_rounds": 1}
HALF: dict[str, Any] = {"adain_deviation": 0.5}
SETTLED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {}, "ddim"), ({"steps": 25}, {}, "ddim"), (SAYS, {}, "fixed_point"), ({"inversion": "bdia"}, {}, "bdia"),
    (SAYS, {"inversion": "ddim"}, "ddim"), ({}, {"inversion": "edict"}, "edict"), (SAYS, {"fast": True}, "ddim"),
    (SAYS, {"distill": 1}, "fixed_point"), (SAYS, {"ddim_eta": 1.0}, "fixed_point"),
    (SAYS, {"cnt_prompt": "a dog"}, "fixed_point"), (SAYS, {"save_feat_steps": 25}, "fixed_point"),
    ({"inversion": "edict"}, {"distill": 1}, "ddim"), ({"inversion": "bdia"}, {"ddim_eta": 1.0}, "ddim"),
    ({"inversion": "edict"}, {"cnt_prompt": "a dog"}, "ddim"), ({"inversion": "bdia"}, {"save_feat_steps": 25}, "ddim"),
]  # fmt: skip


@pytest.mark.parametrize(("inference", "asked", "found"), SETTLED)
def test_what_is_asked_for_then_the_yaml_then_ddim(
    inference: dict[str, Any], asked: dict[str, Any], found: str
) -> None:
    assert as_usual(StyleIDOptions(**asked), inference).inversion == found


def test_values_that_a_yaml_cannot_have() -> None:
    with pytest.raises(ConfigError, match=r"'inference\.inversion' in the model's YAML must be text, got '3'"):
        inference_defaults({"inference": {"inversion": 3}})
    with pytest.raises(ConfigError, match=r"must be ddim or fixed_point or edict or bdia, got 'null_text'"):
        as_usual(StyleIDOptions(), {"inversion": "null_text"})
    with pytest.raises(ConfigError, match=r"'inference\.adain_deviation' .* must be a number, got 'a'"):
        inference_defaults({"inference": {"adain_deviation": "a"}})
    with pytest.raises(ConfigError, match=r"'inference\.adain_deviation' .* must lie between 0 and 1, got 1\.5"):
        as_usual(StyleIDOptions(), {"adain_deviation": 1.5})


@pytest.mark.parametrize(
    ("inference", "asked", "found"),
    [
        ({}, {}, 1.0), (HALF, {}, 0.5), ({"adain_deviation": 0}, {}, 0.0), (HALF, {"adain_deviation": 1.0}, 1.0),
        ({}, {"adain_deviation": 0.0}, 0.0), (HALF, {"fast": True, "cnt_prompt": "a dog"}, 0.5),
        (HALF, {"without_init_adain": True}, None),
    ],
)  # fmt: skip
def test_the_deviation_that_is_asked_for_then_the_yamls_then_all_of_it(
    inference: dict[str, Any], asked: dict[str, Any], found: float | None
) -> None:
    assert as_usual(StyleIDOptions(**asked), inference).adain_deviation == found


@pytest.mark.parametrize(
    ("inference", "asked", "found"),
    [
        ({}, {}, None), ({"adain_flat": 0}, {}, 0.0), ({"adain_flat": 0}, {"adain_flat": 1.0}, 1.0),
        ({}, {"adain_flat": 0.5}, 0.5), ({"adain_flat": 0}, {"without_init_adain": True}, None),
    ],
)  # fmt: skip
def test_the_deviation_of_what_is_flat_is_the_yamls_or_as_elsewhere(
    inference: dict[str, Any], asked: dict[str, Any], found: float | None
) -> None:
    assert as_usual(StyleIDOptions(**asked), inference).adain_flat == found
    with pytest.raises(ConfigError, match=r"'inference\.adain_flat' .* must lie between 0 and 1, got -1"):
        as_usual(StyleIDOptions(), {"adain_flat": -1})


@pytest.mark.parametrize(
    ("inference", "asked", "found"),
    [
        (SAYS, {}, 3), (ONCE, {}, 1), (ONCE, {"inversion_rounds": 2}, 2), (ONCE, {"inversion": "edict"}, None),
        ({}, {"inversion": "fixed_point"}, 3), ({}, {}, None), (ONCE, {"fast": True}, None),
    ],
)  # fmt: skip
def test_rounds_are_those_asked_for_then_the_yamls_then_three(
    inference: dict[str, Any], asked: dict[str, Any], found: int | None
) -> None:
    assert as_usual(StyleIDOptions(**asked), inference).inversion_rounds == found


@pytest.mark.parametrize(
    ("inference", "asked", "found"),
    [({}, {}, 0.0), ({"keep_flat": 1}, {}, 1.0), ({"keep_flat": 1}, {"keep_flat": 0.0}, 0.0),
     ({}, {"keep_flat": 0.5}, 0.5), ({"keep_flat": 1}, {"cnt_prompt": ["a cat"]}, 1.0)],
)  # fmt: skip
def test_flat_places_are_kept_as_asked_then_as_the_yaml_says(
    inference: dict[str, Any], asked: dict[str, Any], found: float
) -> None:
    assert as_usual(StyleIDOptions(**asked), inference).keep_flat == found
    with pytest.raises(ConfigError, match=r"'inference\.keep_flat' .* must lie between 0 and 1, got 2"):
        as_usual(StyleIDOptions(), {"keep_flat": 2})


def test_rounds_that_cannot_be() -> None:
    with pytest.raises(UserError, match="--inversion_rounds is for --inversion fixed_point; this is --inversion ddim"):
        as_usual(StyleIDOptions(inversion_rounds=1), {})
    with pytest.raises(ConfigError, match=r"'inference\.inversion_rounds' .* must not be negative, got -1"):
        as_usual(StyleIDOptions(), {**SAYS, "inversion_rounds": -1})


def test_so_many_rounds_are_run(options: StyleIDOptions, model: Any) -> None:
    made = {}
    for rounds in (1, 3, None):
        how = changed(options, f"rounds_{rounds}", inversion="fixed_point", inversion_rounds=rounds)
        made[rounds] = only(how, model)
        assert record(how).get("inversion_rounds") == (1 if rounds == 1 else None)
    assert np.array_equal(made[3], made[None]) and not np.array_equal(made[1], made[3])
    assert len(list(Path(str(options.precomputed)).glob("*_latents_1_mixed.safetensors"))) == 2


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model, whose YAML says how it is inverted."""
    weights = write_small_model(tmp_path_factory.mktemp("says"))
    said = {**CONFIG, "inference": {**CONFIG["inference"], **SAYS, **HALF}}
    OmegaConf.save(OmegaConf.create(said), weights.parent / "config.yaml")
    return weights


@pytest.fixture(scope="module")
def says(ckpt: Path) -> Any:
    return open_model(ckpt, device="cpu")[0]


def changed(options: StyleIDOptions, name: str, **changes: Any) -> StyleIDOptions:
    """One pair, into a folder of its own."""
    return one(options, no_sheet=True, output_path=f"{options.output_path}/{name}", **changes)


def record(options: StyleIDOptions) -> dict[str, Any]:
    (path,) = Path(options.output_path).glob("*.json")
    return dict(json.loads(path.read_text())["parameters"])


def run(monkeypatch: pytest.MonkeyPatch, main: Any, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    main()


def test_the_picture_and_its_record_are_of_what_the_yaml_says(options: StyleIDOptions, model: Any, says: Any) -> None:
    named, usual = changed(options, "named", inversion="fixed_point", **HALF), changed(options, "usual")
    reference = changed(options, "reference", inversion="ddim", adain_deviation=1.0)
    plain = only(changed(options, "plain"), model)
    assert np.array_equal(only(usual, says), only(named, model)) and not np.array_equal(only(usual, says), plain)
    assert record(usual) == record(named) and record(usual)["inversion"] == "fixed_point"
    assert record(usual)["adain_deviation"] == 0.5
    assert np.array_equal(only(reference, says), plain)
    assert not {"inversion", "adain_deviation"} & set(record(reference))


@pytest.mark.parametrize("how", [{"inversion": "fixed_point", "adain_deviation": 1.0}, {"inversion": "ddim"}])
def test_each_of_the_two_changes_the_picture(options: StyleIDOptions, model: Any, says: Any, how: Any) -> None:
    """Else a test that has both from a YAML would not notice that one of them is lost."""
    assert not np.array_equal(only(changed(options, "one", **how), says), only(changed(options, "none"), model))


def test_without_adain_there_is_no_deviation(options: StyleIDOptions, model: Any, says: Any) -> None:
    bare: dict[str, Any] = {"inversion": "ddim", "without_init_adain": True}
    one_, other = changed(options, "yaml", **bare), changed(options, "none", **bare)
    assert np.array_equal(only(one_, says), only(other, model)) and record(one_) == record(other)


def test_what_takes_no_other_is_as_it_was(options: StyleIDOptions, model: Any, says: Any) -> None:
    fast, before = changed(options, "fast", fast=True), changed(options, "before", fast=True, **HALF)
    assert np.array_equal(only(fast, says), only(before, model))
    assert record(fast) == record(before)


def test_films_are_made_as_the_yaml_says(options: StyleIDOptions, model: Any, says: Any) -> None:
    frames, both = {}, {**SAYS, **HALF}
    runs: list[tuple[str, Any, dict[str, Any]]] = [("usual", says, {}), ("named", model, both), ("plain", model, {})]
    for name, studio, how in runs:
        one_style = replace(options, sty=f"{options.sty}/s.png", output_path=f"{options.output_path}/{name}", **how)
        (film,) = styleid(replace(one_style, film=True, formats=["gif"]), studio)
        frames[name] = [np.asarray(frame) for frame in read_film(film.path).frames]
    assert len(frames["usual"]) > 1 and np.array_equal(frames["usual"], frames["named"])
    assert not np.array_equal(frames["usual"], frames["plain"])


def flags(options: StyleIDOptions) -> Sequence[object]:
    return ("--cnt", options.cnt, "--sty", options.sty, "--outdir", options.output_path, "--no_sheet", "--precision",
            "full", "--ddim_inv_steps", STEPS, "--save_feat_steps", STEPS)  # fmt: skip


GIVEN: list[dict[str, Any]] = [{}, {"inversion": "ddim"}, {"adain_deviation": 1.0}]


@pytest.mark.parametrize("given", GIVEN)
def test_command_python_and_page_agree(
    options: StyleIDOptions, ckpt: Path, says: Any, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    python = only(changed(options, "python", **given), says)
    typed = changed(options, "command", precomputed=f"{options.precomputed}/command")
    kept = ("--precomputed", typed.precomputed, "--ckpt", ckpt, "--device", "cpu")
    how = [part for name, value in given.items() for part in (f"--{name}", value)]
    run(monkeypatch, command.main, *flags(typed), *kept, *how)
    (made,) = Path(typed.output_path).glob("*.png")
    assert np.array_equal(python, pixels(made))
    paged: list[Path] = []
    asks = {"ddim_inv_steps": STEPS, "save_feat_steps": STEPS, **given}
    task = restyling(Path(options.output_path) / "page", Path(str(typed.cnt)), [str(typed.sty)], [], asks)
    task(Studio.of(says, "full"), Watch(on_result=lambda result: paged.append(result.path)))
    # features are replayed there, which is the same but for rounding
    assert abs(pixels(paged[0]) - python).max() <= 1


@pytest.mark.parametrize("given", [[], ["--inversion", "ddim"]])
def test_inversions_made_beforehand_are_found(
    options: StyleIDOptions, ckpt: Path, says: Any, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, given: list[str],
) -> None:  # fmt: skip
    pair = changed(options, "found", inversion=given[1] if given else None, features="replay")
    run(monkeypatch, invert.main, "--cnt", pair.cnt, "--sty", pair.sty, "--precomputed", pair.precomputed,
        "--ckpt", ckpt, "--device", "cpu", "--precision", "full", "--ddim_inv_steps", STEPS, *given)  # fmt: skip
    rounds = len(list(Path(pair.precomputed).glob("*_latents_3_mixed.safetensors")))
    assert rounds == (0 if given else 2)
    with caplog.at_level("INFO"):
        only(pair, says)
    assert "inverted: 0, read from inversions that were kept: 2" in caplog.text


def test_an_old_file_is_of_the_reference(monkeypatch: pytest.MonkeyPatch, ckpt: Path, tmp_path: Path) -> None:
    given = ("--cnt", picture(tmp_path / "a.png", 0), "--import", "old.pkl", "--inversion", "fixed_point")
    with pytest.raises(UserError, match="an old file is of --inversion ddim; leave out --inversion fixed_point"):
        run(monkeypatch, invert.main, *given, "--ckpt", ckpt)
    monkeypatch.setattr(sys, "argv", ["command", *map(str, given[:4])])
    assert invert.styleid_options(invert.parse()).inversion == "ddim"


def test_how_well_it_does_is_measured_as_it_is_used(
    monkeypatch: pytest.MonkeyPatch, ckpt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "pictures" / "a.png", 0)
    given = (tmp_path / "pictures", "--size", 32, "--steps", STEPS, "--ckpt", ckpt)
    said = {}
    for name in (None, "fixed_point", "ddim"):
        run(monkeypatch, inversion_quality.main, *given, *([] if name is None else ["--inversion", name]))
        said[name] = capsys.readouterr().out
    assert said[None] == said["fixed_point"] != said["ddim"]


def test_what_is_looked_at_is_what_is_made(
    options: StyleIDOptions, ckpt: Path, says: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The histograms of the page and of the command."""
    asked = changed(options, "look", precomputed="")
    drawn = [
        np.asarray(histograms(Studio.of(says, "full"), replace(asked, inversion=name), "5,5", None))
        for name in (None, "fixed_point", "ddim")
    ]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])
    asks = ("--cnt", asked.cnt, "--sty", asked.sty, "--xy", "5,5", "--steps", STEPS, "--ckpt", ckpt, "--device", "cpu")
    seen = []
    for name in (None, "fixed_point", "ddim"):
        out = ("--outdir", tmp_path / str(name), *([] if name is None else ["--inversion", name]))
        run(monkeypatch, attention_histogram.main, *asks, *out)
        seen.append(pixels(next((tmp_path / str(name)).glob("*.png"))))
    assert np.array_equal(seen[0], seen[1]) and not np.array_equal(seen[0], seen[2])
