"""Films from first frames, from the command line to the files."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.checkpoint import Origin
from ldm.models.diffusion.sampling import sample, step_rule
from ldm.models.portions import in_blended_chunks
from ldm.pictures.film import read_film
from ldm.pictures.images import image_to_tensor
from ldm.util import UserError, instantiate_from_config
from ldm.workflows import film_files
from ldm.workflows import video as workflow
from ldm.workflows.film_options import VideoOptions, check_options
from ldm.workflows.inversion.cache import clean_latent
from ldm.workflows.measure import films as measure
from ldm.workflows.studio import Studio
from ldm.workflows.video import VideoResult, make_film, make_plan, record_of, video
from ldm.workflows.watch import Watch
from ldm.world.film import FilmWorld, paint_film
from ldm.world.film_judge import FilmVerdict, judge_film
from scripts import simple_video_sample
from tests.engines import engine
from tests.helpers import golden_case, noted
from tests.models.test_variants import config, randomise
from tests.models.test_video import build


@pytest.fixture(scope="module")
def svd() -> Studio:
    model = engine(golden_case("svd_sampling"))
    model.origin = Origin("small/svd.safetensors", {"height": 32, "width": 32, "steps": 2, "sampler": "euler"})
    return Studio.of(model)


@pytest.fixture(scope="module")
def small() -> Studio:
    model: Any = build(2)
    model.eval()
    randomise(model)
    model.first_stage_model.factor = 2
    model.origin = Origin("small/film.safetensors", {"height": 16, "width": 16, "steps": 2})
    return Studio.of(model)


@pytest.fixture(scope="module")
def led() -> Studio:
    """A film model that sees its first frame moved."""
    model: Any = build(2, concat_keys=["first", "moved"])
    model.eval()
    randomise(model)
    model.first_stage_model.factor = 2
    model.origin = Origin("small/led.safetensors", {"height": 32, "width": 32, "steps": 2})
    return Studio.of(model)


def picture(folder: Path, name: str = "a.png", width: int = 40, height: int = 30, seed: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(folder / name)
    return folder / name


def options(path: Path, out: Path, **more: Any) -> VideoOptions:
    return VideoOptions(str(path), output_folder=str(out), num_frames=3, progress=False, **more)


def test_every_file_is_there_and_made_once(svd: Studio, tmp_path: Path) -> None:
    path = picture(tmp_path)
    (first,) = video(options(path, tmp_path / "out", decoding_t=2), svd)
    assert {file.name for file in first.files} == {"a.mp4", "a.gif", "a.webp", "a_sheet.png"}
    film = read_film(tmp_path / "out" / "a.mp4")
    assert len(film.frames) == 3 and film.fps == pytest.approx(7) and film.size == (24, 32)  # the aspect is kept
    (again,) = video(options(path, tmp_path / "out", decoding_t=2), svd)
    assert again.kept and not first.kept
    (other,) = video(options(path, tmp_path / "out", decoding_t=2, motion_bucket_id=5), svd)
    picture(tmp_path, seed=1)
    (changed,) = video(options(path, tmp_path / "out", decoding_t=2, motion_bucket_id=5), svd)
    assert not other.kept and not changed.kept


def test_a_film_is_the_seeds_whatever_else_is_made(small: Studio, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for i in range(2):
        picture(folder, f"{i}.png", seed=i)
    both = video(options(folder, tmp_path / "both", formats=["gif"], seed=4), small)
    (alone,) = video(options(folder / "1.png", tmp_path / "alone", formats=["gif"], seed=5), small)
    assert both[1].film is not None and alone.film is not None
    for together, apart in zip(both[1].film.frames, alone.film.frames, strict=True):
        assert np.array_equal(np.asarray(together), np.asarray(apart))
    assert [result.seed for result in both] == [4, 5]


def test_sizes_last_frames_and_guidance_change_the_film(small: Studio, tmp_path: Path) -> None:
    path, end = picture(tmp_path), picture(tmp_path, "end.png", 50, 20, seed=9)
    asked: dict[str, dict[str, Any]] = {
        "plain": {}, "last": {"last_path": str(end)}, "crop": {"crop": True, "height": 8, "width": 24},
        "guided": {"max_scale": 3.0}, "triangle": {"max_scale": 3.0, "guider": "triangle"},
    }  # fmt: skip
    made = {
        name: video(options(path, tmp_path / name, formats=["gif"], **more), small)[0].film
        for name, more in asked.items()
    }
    assert made["crop"] is not None and made["crop"].size == (8, 24)
    arrays = {name: np.stack(list(map(np.asarray, film.frames))) for name, film in made.items() if film}
    same = [name for name in ("last", "guided", "triangle") if np.array_equal(arrays[name], arrays["plain"])]
    assert same == [] and not np.array_equal(arrays["guided"], arrays["triangle"])


def test_a_request_can_be_watched_and_ended(small: Studio, tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / "in", f"{i}.png")
    results: list[VideoResult] = []
    steps: list[int] = []
    watch = Watch(lambda step: steps.append(step.number), results.append, lambda: len(results) == 1 and len(steps) > 2)
    made = video(options(tmp_path / "in", tmp_path / "out", formats=["gif"], seed=1), small, watch)
    assert made == results and len(made) == 1 and (tmp_path / "out" / "0.gif").is_file()


def test_a_full_disk_keeps_finished_films(small: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(2):
        picture(tmp_path / "in", f"{i}.png")
    write = film_files.write_film

    def full(film: Any, path: Path) -> None:
        if path.name == "1.gif":
            raise UserError(f"cannot write '{path}': No space left on device; nothing was changed there")
        write(film, path)

    monkeypatch.setattr(film_files, "write_film", full)
    with pytest.raises(UserError, match="No space left"):
        video(options(tmp_path / "in", tmp_path / "out", formats=["gif"]), small)
    assert (tmp_path / "out" / "0.gif").is_file() and not (tmp_path / "out" / "1.gif").exists()
    monkeypatch.undo()
    assert [r.kept for r in video(options(tmp_path / "in", tmp_path / "out", formats=["gif"]), small)] == [True, False]


def test_chunks_that_overlap_have_no_seams() -> None:
    """A decoder that adds a number to each chunk makes steps; going over from one to the other makes them smaller."""
    offsets = iter(range(100))

    def decode(frames: torch.Tensor) -> torch.Tensor:
        return frames + float(next(offsets) % 2)

    film = torch.zeros(11, 1, 1, 1)
    apart = in_blended_chunks(decode, film, 4).flatten()
    assert apart.tolist() == [0] * 4 + [1] * 4 + [0] * 3
    offsets = iter(range(100))
    blended = in_blended_chunks(decode, film, 4, overlap=2).flatten()
    assert blended.shape == (11,) and blended.diff().abs().max() < 0.5 < apart.diff().abs().max()
    whole = in_blended_chunks(lambda frames: frames, torch.arange(11.0)[:, None], 4, 3)
    assert torch.allclose(whole.flatten(), torch.arange(11.0))
    for wrong in ((0, 0), (4, 4), (4, -1)):
        with pytest.raises(UserError, match="overlap"):
            in_blended_chunks(decode, film, *wrong)


def test_frames_beside_python_and_the_command(svd: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = picture(tmp_path)
    seen: list[VideoOptions] = []
    monkeypatch.setattr(simple_video_sample, "video", lambda asked: noted(seen, asked) and video(asked, svd))
    arguments = ["--input_path", str(path), "--num_frames", "3", "--num_steps", "2", "--fps_id", "9", "--seed", "7",
                 "--motion_bucket_id", "80", "--decoding_t", "2", "--decoding_overlap", "1", "--formats", "gif",
                 "--output_folder", str(tmp_path / "out")]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["simple_video_sample", *arguments])
    simple_video_sample.main()
    by_command = read_film(tmp_path / "out" / "a.gif")
    plan = make_plan(seen[0], svd)
    image = workflow.sized(Image.open(path).convert("RGB"), seen[0], svd)
    film = make_film(svd, plan, image, 7)
    assert by_command.fps == pytest.approx(10) and len(film.frames) == 3
    for before, after in zip(film.frames, by_command.frames, strict=True):
        assert np.abs(np.asarray(before, float) - np.asarray(after, float)).mean() < 20  # a GIF has 256 colours


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input_path": ""}, "--input_path"),
        ({"input_path": "nowhere.png"}, "nowhere.png"),
        ({"input_path": __file__}, "test_video_requests.py"),  # no picture
        ({"motion_bucket_id": -1}, "between 0"),
        ({"motion_bucket_id": 256}, "between 0"),
        ({"num_frames": 1}, "2 or more"),
        ({"decoding_t": 0}, "--decoding_t"),
        ({"decoding_t": 3, "decoding_overlap": 3}, "--decoding_overlap"),
        ({"version": "sv3d_u"}, "not here"),
        ({"version": "svd_xl"}, "there is no version"),
        ({"version": "svd"}, "--ckpt svd.safetensors"),
        ({"guider": "square"}, "linear or triangle"),
        ({"formats": ["avi"]}, "avi"),
        ({"sampler": "none"}, "sampler"),
        ({"fps_id": -1}, "--fps_id"),
        ({"last_path": "nowhere.png"}, "no last frame"),
        ({"height": 15}, "15"),
        ({"heading": 400.0}, "--heading is in degrees"),
        ({"heading": float("nan")}, "--heading is in degrees"),
        ({"manner": "jump"}, "move, turn, turn-left, grow, shrink"),
        ({"heading": 0.0}, "'small/film.safetensors' is not told where things go"),
        ({"version": "svd", "ckpt": "nowhere.safetensors", "manner": "move"}, "'svd' is not told where things go"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], words: str, small: Studio, tmp_path: Path) -> None:
    given = {"input_path": str(picture(tmp_path)), "output_folder": str(tmp_path / "out"), "progress": False, **change}
    with pytest.raises(UserError, match=words):
        video(VideoOptions(**given), small)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no pictures"):
        video(VideoOptions(str(tmp_path / "empty"), output_folder=str(tmp_path / "out")), small)


def test_a_film_goes_where_it_is_sent_and_its_record_says_so(led: Studio, tmp_path: Path) -> None:
    picture(tmp_path, "a.png", 32, 32)
    picture(tmp_path, "b.png", 32, 32, seed=1)

    def made(path: str, **more: Any) -> tuple[list[Any], dict[str, Any]]:
        asked = options(tmp_path / path, tmp_path / "out", formats=["gif"], motion_bucket_id=250, **more)
        result = video(asked, led)[0]
        record = json.loads((tmp_path / "out" / "a.json").read_text())["parameters"]
        return [] if result.film is None else [np.asarray(frame) for frame in result.film.frames], record

    right, record = made("a.png", heading=0.0, manner="move")
    assert record["heading"] == 0 and record["path"][2][0] > record["path"][0][0] + 0.05
    assert made("a.png", heading=0.0, manner="move") == ([], record), "made once"
    left, record = made("a.png", heading=180.0, manner="move")
    assert record["path"][2][0] < record["path"][0][0] - 0.05 and not np.array_equal(left, right)
    chance, record = made("a.png")
    assert "heading" not in record and made("a.png")[0] == [], "chance is the seed's"
    other, moved = made("a.png", seed=99)
    assert moved["path"] != record["path"] and not np.array_equal(chance, other)
    again = video(options(tmp_path / "a.png", tmp_path / "alone", formats=["gif"], motion_bucket_id=250), led)
    assert np.array_equal(chance, [np.asarray(frame) for frame in again[0].film.frames])  # type: ignore[union-attr]


@pytest.mark.parametrize("start", ["noise", "first"])
def test_a_film_does_not_depend_on_those_beside_it(led: Studio, start: str) -> None:
    plan = replace(make_plan(VideoOptions(num_frames=3, num_steps=2, start_from=start), led), fps=measure.FPS)
    films = measure.held_out_films(3, 1, 32, 3)
    together = measure.made_by(led, films, plan, 5)
    alone = [measure.made_by(led, [film], plan, 5 + i)[0] for i, film in enumerate(films)]
    np.testing.assert_allclose(together, alone, atol=2e-3)


def test_a_model_without_films_is_named(svd: Studio, tmp_path: Path) -> None:
    pictures = instantiate_from_config(config("LatentDiffusion", 4, "crossattn"))
    with pytest.raises(UserError, match="makes pictures, not films"):
        video(options(picture(tmp_path), tmp_path / "out"), Studio.of(pictures))
    with pytest.raises(UserError, match="first frame only"):
        video(options(picture(tmp_path), tmp_path / "out", last_path=str(tmp_path / "a.png")), svd)


def test_start_noise_and_first_scale_are_as_asked_or_as_the_yaml_says(small: Studio, tmp_path: Path) -> None:
    path = picture(tmp_path)
    assert make_plan(options(path, tmp_path), small).noise_scale == 1
    quiet = replace(small, inference={**small.inference, "noise_scale": 0.5})
    assert make_plan(options(path, tmp_path), quiet).noise_scale == 0.5
    assert make_plan(options(path, tmp_path, noise_scale=0.7), quiet).noise_scale == 0.7
    loud = replace(small, inference={**small.inference, "guidance_scale": 3.0, "min_guidance_scale": 2.0})
    assert make_plan(options(path, tmp_path), loud).min_scale == 2
    assert make_plan(options(path, tmp_path, min_scale=1.5), loud).min_scale == 1.5
    assert make_plan(options(path, tmp_path, max_scale=1.0), loud).min_scale == 1, "guidance that nobody asked for"
    assert "noise_scale" not in record_of(make_plan(options(path, tmp_path), small)), "older films stay finished"
    assert record_of(make_plan(options(path, tmp_path), quiet))["noise_scale"] == 0.5
    with pytest.raises(UserError, match="start noise"):
        make_plan(options(path, tmp_path, noise_scale=-1), small)
    image = Image.open(path).convert("RGB").resize((16, 16))
    films = [make_film(s, make_plan(options(path, tmp_path, noise_scale=n), s), image, 3)
             for s, n in ((small, None), (small, 1.0), (quiet, None), (small, 0.5))]  # fmt: skip
    plain, one, half, asked = (np.stack(list(map(np.asarray, film.frames))) for film in films)
    assert np.array_equal(plain, one) and np.array_equal(half, asked) and not np.array_equal(one, half)


def test_a_film_can_start_from_its_first_frame(small: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = picture(tmp_path)
    plain = make_plan(options(path, tmp_path), small)
    assert plain.start_from == "noise" and "start_from" not in record_of(plain), "older films stay finished"
    begun = make_plan(options(path, tmp_path), replace(small, inference={**small.inference, "start_from": "first"}))
    assert record_of(begun)["start_from"] == "first"
    assert make_plan(options(path, tmp_path, start_from="first"), small) == begun
    with pytest.raises(UserError, match=r"start from noise or first .*, not 'last'"):
        check_options(options(path, tmp_path, start_from="last"))
    with pytest.raises(UserError, match=r"start from noise or first .*, not 'last'"):
        make_plan(options(path, tmp_path), replace(small, inference={**small.inference, "start_from": "last"}))
    walks: list[tuple[torch.Tensor, dict[str, Any]]] = []

    def kept(model: Any, x: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        walks.append((x, more))
        return sample(model, x, *rest, **more)

    monkeypatch.setattr(workflow, "sample", kept)
    image = Image.open(path).convert("RGB").resize((16, 16))
    films = [make_film(small, plan, image, 3) for plan in (plain, begun)]
    (noise, alone), (x, with_first) = walks
    level = step_rule(plain.sampler).levels(small.model.schedule, plain.steps)[0]
    with torch.no_grad():
        still = clean_latent(small.model, image_to_tensor(image)[None])
    assert torch.allclose(x, level.signal * still + level.noise * noise) and still.std() > 0.05
    assert alone["start"] is None and with_first["start"] == plain.steps, "all steps are taken"
    plainly, firstly = (np.stack(list(map(np.asarray, film.frames))) for film in films)
    assert not np.array_equal(plainly, firstly)
    make_film(small, replace(begun, sampler="ddim", steps=7), image, 3)
    levels = step_rule("ddim").levels(small.model.schedule, 7)
    assert walks[-1][1]["start"] == len(levels) - 1 == 8, "it starts where a film from noise does"


def test_sigma_levels_start_from_the_first_frame_too(
    svd: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there beside so much noise changes nothing that one sees."""
    plan = make_plan(options(picture(tmp_path), tmp_path), svd)
    image = Image.open(tmp_path / "a.png").convert("RGB").resize((32, 32))
    starts: list[torch.Tensor] = []

    def kept(model: Any, x: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        starts.append(x)
        return sample(model, x, *rest, **more)

    monkeypatch.setattr(workflow, "sample", kept)
    plain, begun = (make_film(svd, replace(plan, start_from=name), image, 3).frames for name in ("noise", "first"))
    level = step_rule(plan.sampler).levels(svd.model.schedule, plan.steps)[0]
    with torch.no_grad():
        still = clean_latent(svd.model, image_to_tensor(image)[None])
    put_in = starts[1] - level.noise * starts[0]
    assert level.signal == 1 and torch.allclose(put_in, still.expand_as(put_in), atol=1e-3)
    for one, other in zip(plain, begun, strict=True):
        assert np.abs(np.asarray(one, float) - np.asarray(other, float)).max() <= 3


def test_a_configuration_wants_its_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--ckpt FILE"):
        video(options(picture(tmp_path), tmp_path / "out", config="configs/svd/svd.yaml"))


def test_without_a_checkpoint_it_is_the_small_film_model(tmp_path: Path) -> None:
    """A film from the weights that ship: it begins with the picture, and more moves where more is asked for."""
    path = tmp_path / "first.png"
    world = FilmWorld("heldout", frames=2, size=128, seed=3, shapes=1.0)
    Image.fromarray(((paint_film(world.films([0])[0], 2, 128)[0] + 1) * 127.5).astype(np.uint8)).save(path)
    moved = []
    for motion in (0, 255):
        asked = VideoOptions(str(path), output_folder=str(tmp_path / str(motion)), formats=["gif"], num_steps=4,
                             motion_bucket_id=motion, progress=False)  # fmt: skip
        (made,) = video(asked)
        assert made.film is not None
        frames = np.stack([np.asarray(frame, np.float32) for frame in made.film.frames])
        assert frames.shape == (8, 128, 128, 3)
        assert np.abs(frames[0] - np.asarray(Image.open(path), np.float32)).mean() < 12
        moved.append(np.abs(frames[-1] - frames[0]).mean())
    assert moved[1] > 1.5 * moved[0]


def test_the_table_of_films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows are what they are called, and the files beside it are there."""
    model: Any = build()
    model.eval()
    model.first_stage_model.factor = 2
    model.origin = Origin("small/film.safetensors", {"height": 32})
    seen: list[Any] = []

    def verdict(frames: Any, film: Any) -> FilmVerdict:
        seen.append(frames)
        step = float(np.abs(np.diff(frames, axis=0)).mean())
        return FilmVerdict((True, True, len(seen) != 6), 1.0, step, 0.0, 0.0, None)  # one of the model's is wrong

    monkeypatch.setattr(measure, "judge_film", verdict)
    settings = VideoOptions(num_frames=3, num_steps=1)
    table = measure.film_table(Studio.of(model), 2, settings, folder=tmp_path, examples=1)
    assert tuple(table) == measure.KINDS and all(row.films == 2 for row in table.values())
    true, made, alone, still = (seen[i : i + 2] for i in range(2, 10, 2))  # before them the choice of films
    assert all(np.array_equal(film[0], film[2]) for film in still)
    assert all(np.array_equal(film[0], other[0]) for film, other in zip(true, still, strict=True))
    assert made[0].shape == (3, 32, 32, 3) and not np.array_equal(made[0], made[1])
    assert np.allclose(made[0], alone[0], atol=1e-4), "before training the temporal layers say nothing"
    assert {path.suffix for path in tmp_path.iterdir()} == {".gif", ".png", ".json"}
    shown = measure.as_markdown(table)
    assert "| true films | 2 | 100.0 % |" in shown and "| the film model | 2 | 83.3 % |" in shown
    assert "| the film model | 100 % | 100 % | 50 % |" in shown
    assert "| frame by frame | 100 % | 100 % | 100 % |" in shown
    assert "Right in every frame: 1 of 2 films; in less than half of them: 0." in shown
    assert "83.3 % is 66.7 to 100.0 % (95 %)" in shown
    record = json.loads((tmp_path / "films.json").read_text())
    assert record["table"]["the film model"]["right_of_films"] == pytest.approx([1, 2 / 3])
    assert [film["ground"] for film in record["films"]] == [film.ground for film in measure.held_out_films(2, 0, 32, 3)]
    with pytest.raises(UserError, match="2 films"):
        measure.film_table(Studio.of(model), count=1)


def test_a_model_that_is_shown_the_first_frame_moved_has_that_beside_it() -> None:
    model: Any = build(2, concat_keys=["first", "moved"])
    model.eval()
    model.first_stage_model.factor = 2
    model.origin = Origin("small/film.safetensors", {"height": 32})
    settings = VideoOptions(num_frames=3, num_steps=1)
    table = measure.film_table(Studio.of(model), 2, settings)
    assert tuple(table) == (*measure.KINDS, measure.MOVED) and table[measure.MOVED].films == 2
    films = measure.held_out_films(2, 0, 32, 3)
    moved = measure.moved_firsts(Studio.of(model), films, 3)
    for film, frames in zip(films, moved, strict=True):
        assert np.allclose(frames[0], paint_film(film, 1, 32)[0], atol=1e-4)
        assert not np.allclose(frames[0], frames[1], atol=0.1)


def test_films_that_the_judge_misreads_are_passed_over() -> None:
    films = measure.held_out_films(4, seed=2, size=64, frames=2)
    assert all(judge_film(paint_film(film, 2, 64), film).right == 1 for film in films)
    every = FilmWorld("heldout", frames=2, size=64, length=16, seed=2).films(range(6))
    things = [film.thing for film in films]
    assert things == [every[i].thing for i in (1, 2, 4, 5)], "the first and the fourth are misread"
