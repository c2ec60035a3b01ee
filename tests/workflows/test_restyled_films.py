"""Films restyled: every frame, at any batch, from where a run stopped; what stands still is steadier."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.commands import styleid as command
from ldm.models.diffusion.loop import Level
from ldm.pictures.film import Film, read_film, write_film
from ldm.pictures.images import list_images
from ldm.util import UserError
from ldm.workflows import film_files
from ldm.workflows.restyle.draft import SO_FAR
from ldm.workflows.restyle.pairs import Pair
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.results import Result
from ldm.workflows.restyle.steady import Steady
from ldm.workflows.restyle.styleid import styleid
from ldm.workflows.watch import Watch
from tests.helpers import noted
from tests.workflows.restyling import CLOSE

FRAMES, STEPS = 3, 2


@pytest.fixture
def shot() -> Film:
    """Something else every frame on the left, and on the right what stays."""
    draw = np.random.default_rng(0)
    still, frames = draw.integers(0, 255, (16, 24, 3), np.uint8), []
    for _ in range(FRAMES):
        frames.append(Image.fromarray(np.concatenate([draw.integers(0, 255, (16, 8, 3), np.uint8), still], axis=1)))
    return Film(frames, 5.0)


@pytest.fixture
def film(options: StyleIDOptions, shot: Film, tmp_path: Path) -> StyleIDOptions:
    """Options that restyle the frames of a folder with one style, into a GIF."""
    (tmp_path / "film").mkdir()
    for i, frame in enumerate(shot.frames):
        frame.save(tmp_path / "film" / f"{i}.png")
    return replace(options, cnt=str(tmp_path / "film"), sty=f"{options.sty}/s.png", film=True, formats=["gif"],
                   ddim_inv_steps=STEPS, save_feat_steps=STEPS)  # fmt: skip


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The frames of each film that is written, before a format changes them."""
    seen: list[np.ndarray] = []
    write = film_files.write_film

    def note(film: Film, path: Path) -> None:
        seen.append(np.stack([np.asarray(frame, int) for frame in film.frames]))
        write(film, path)

    monkeypatch.setattr(film_files, "write_film", note)
    return seen


def test_a_film_becomes_a_film(film: StyleIDOptions, shot: Film, model: Any, tmp_path: Path) -> None:
    write_film(shot, tmp_path / "shot.mp4")
    film = replace(film, cnt=str(tmp_path / "shot.mp4"), film=False, formats=["mp4", "gif", "webp", "sheet"])
    (made,) = styleid(film, model)
    out = Path(film.output_path)
    assert sorted(path.name for path in out.iterdir()) == [
        f"shot_stylized_s{end}" for end in (".gif", ".json", ".mp4", ".webp", "_sheet.png")
    ]
    again = read_film(made.path)
    assert len(again.frames) == FRAMES and again.fps == pytest.approx(5) and again.size == (16, 32)
    record = json.loads((out / "shot_stylized_s.json").read_text())
    assert record["parameters"]["frames"] == FRAMES and record["parameters"]["steady"] == 1
    assert styleid(film, model)[0].skipped and not made.skipped
    (other,) = styleid(replace(film, num_frames=2, fps=3.0, formats=["gif"]), model)
    assert other.path.name == "shot_stylized_s-2.gif", "a film of other parameters stays"
    assert len(read_film(other.path).frames) == 2 and read_film(other.path).fps == pytest.approx(3, abs=0.1)


def test_frame_by_frame_is_what_pictures_are(
    film: StyleIDOptions, model: Any, written: list[np.ndarray], tmp_path: Path
) -> None:
    """A folder is one of pictures, unless it is asked for as a film."""
    apart = replace(film, film=False, output_path=str(tmp_path / "apart"))
    pictures = np.stack([np.asarray(Image.open(result.path), int) for result in styleid(apart, model)])
    styleid(replace(film, steady=0.0), model)
    assert np.abs(pictures - written[0]).max() <= CLOSE < np.abs(np.diff(pictures, axis=0)).max()


def test_the_batch_does_not_matter_and_a_run_goes_on(
    film: StyleIDOptions, model: Any, written: list[np.ndarray], tmp_path: Path
) -> None:
    styleid(replace(film, batch=FRAMES), model)
    styleid(replace(film, output_path=str(tmp_path / "one")), model)
    begun = replace(film, output_path=str(tmp_path / "begun"), batch=FRAMES - 1)
    part = Path(begun.output_path) / "film_stylized_s.part"
    watch = Watch[Result](cancelled=lambda: (part / SO_FAR).is_file())
    assert styleid(begun, model, watch) == [] and len(list_images(part)) == FRAMES - 1
    steps: list[str] = []
    styleid(begun, model, Watch[Result](on_step=lambda step: steps.append(step.task)))
    assert steps.count("sampling") == STEPS - 1 and not part.exists(), "one frame is left, and one is walked"
    whole, one_by_one, gone_on = written
    for others in (one_by_one, gone_on):
        assert np.abs(whole - others).max() <= CLOSE
    assert np.abs(np.diff(whole, axis=0))[:, :, :8].max() > CLOSE


def test_frames_of_another_film_are_not_gone_on_with(
    film: StyleIDOptions, model: Any, written: list[np.ndarray]
) -> None:
    part = Path(film.output_path) / "film_stylized_s.part"
    watch = Watch[Result](cancelled=lambda: (part / SO_FAR).is_file())
    styleid(film, model, watch)
    styleid(replace(film, gamma=0.1), model)
    styleid(replace(film, gamma=0.1, output_path=f"{film.output_path}2"), model)
    assert np.abs(written[0] - written[1]).max() <= CLOSE


def test_what_stands_still_is_steadier(film: StyleIDOptions, model: Any, written: list[np.ndarray]) -> None:
    film = replace(film, ddim_inv_steps=4, save_feat_steps=4)
    for share in (0.0, 1.0):
        styleid(replace(film, steady=share, output_path=f"{film.output_path}{share}"), model)
    free, steady = (np.abs(np.diff(frames, axis=0)) for frames in written)
    assert steady[:, :, 24:].mean() < 0.5 * free[:, :, 24:].mean()
    assert steady[:, :, :8].mean() > 0.5 * free[:, :, :8].mean()


def test_cells_that_stay_take_over_the_frame_before() -> None:
    """One that moves and those around it do not; and three frames and one are as four."""
    torch.manual_seed(0)
    clean = torch.randn(1, 4, 3, 6).repeat(4, 1, 1, 1)
    clean[1:, :, :, 0] += 9
    latents, level = torch.randn(4, 4, 3, 6), Level(1.0, 0.0, 1.0, 0)
    made = Steady(1.0).portion(clean)(latents, level)
    assert torch.equal(made[0], latents[0]) and torch.equal(made[1][..., :2], latents[1][..., :2])
    assert torch.allclose(made[1][..., 2:], latents[0][..., 2:]) and torch.allclose(made[3], made[2])
    assert torch.equal(Steady(1.0).portion(clean).arrived(latents), made)
    half = Steady(0.5).portion(clean)(latents, level)
    assert torch.allclose(half[1][..., 2:], latents[:2, ..., 2:].mean(0))
    parted = Steady(1.0)
    first = parted.portion(clean[:3])(latents[:3], level)
    again = Steady.of(1.0, parted.tensors()).portion(clean[3:])(latents[3:], level)
    assert torch.allclose(torch.cat([first, again]), made)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cnt": "nowhere.mp4", "film": False}, "no film 'nowhere.mp4'"),
        ({"cnt": "none.mp4", "film": False}, "no film that can be read"),
        ({"cnt": "one.mp4", "film": False}, "has one frame"),
        ({"cnt": "mixed"}, "different sizes"),
        ({"cnt": "empty"}, "no pictures"),
        ({"cnt": None, "sty": None}, "--film is for films"),
        ({"cnt": "still.gif", "film": False, "steady": 1.0}, "--steady is for films"),
        ({"steady": 1.5}, "between 0 and 1"),
        ({"num_frames": 1}, "2 or more"),
        ({"fps": 0.0}, "--fps"),
        ({"formats": ["avi"]}, "avi"),
        ({"masks": ["mask.png"]}, "--masks is for contents that are pictures"),
        ({"sty": None}, "belong together"),
        ({"sty": "nothing.png"}, "there is no style"),
    ],
)
def test_bad_input_is_named(
    change: dict[str, Any], words: str, film: StyleIDOptions, shot: Film, model: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("none.mp4").write_bytes(b"no film at all" * 50)
    write_film(Film(shot.frames[:1]), "one.mp4")
    shot.frames[0].save("still.gif")
    for folder in ("mixed", "empty"):
        Path(folder).mkdir()
    for side in (8, 9):
        Image.new("RGB", (8, side)).save(f"mixed/{side}.png")
    with pytest.raises(UserError, match=words):
        styleid(replace(film, **change), model)
    assert not list(Path(film.output_path).glob("*"))


def test_a_film_that_cannot_be_read_leaves_the_others_and_a_full_disk_keeps_them(
    film: StyleIDOptions, shot: Film, model: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    for name in ("a.gif", "b.gif"):
        write_film(Film(shot.frames[:2]), folder / name)
    (folder / "c.mp4").write_bytes(b"no film")
    film, out = replace(film, cnt=str(folder)), Path(film.output_path)
    write = film_files.write_film

    def full(made: Film, path: Path) -> None:
        if path.name.startswith("b"):
            raise UserError(f"cannot write '{path}': No space left on device; nothing was changed there")
        write(made, path)

    monkeypatch.setattr(film_files, "write_film", full)
    with pytest.raises(UserError, match="No space left"):
        styleid(film, model)
    assert (out / "a_stylized_s.gif").is_file() and not (out / "b_stylized_s.gif").exists()
    monkeypatch.undo()
    results: list[Result] = []
    with pytest.raises(UserError, match=r"c\.mp4.*no film"):
        styleid(film, model, Watch(on_result=results.append))
    assert [result.skipped for result in results] == [True, False] and (out / "b_stylized_s.gif").is_file()


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    seen: list[StyleIDOptions] = []
    made = [Result(Pair(Path("f.mp4"), (Path("s.png"),), (), "f_stylized_s"), Path("out/f_stylized_s.mp4"), False)]
    monkeypatch.setattr("ldm.workflows.restyle.styleid.styleid", lambda options: noted(seen, options) and made)
    given = ["--cnt", "f.mp4", "--sty", "s.png", "--steady", "0.5", "--num_frames", "9", "--fps", "12", "--formats",
             "gif", "sheet", "--film"]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["run_styleid.py", *given])
    command.main()
    assert seen == [StyleIDOptions(cnt="f.mp4", sty="s.png", steady=0.5, num_frames=9, fps=12.0,
                                   formats=["gif", "sheet"], film=True)]  # fmt: skip
    assert "the film is out/f_stylized_s.mp4" in capsys.readouterr().out
