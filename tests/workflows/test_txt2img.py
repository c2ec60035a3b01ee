"""txt2img as a function and as a command, on a small model with random weights."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from ldm.checkpoint import read_state_dict, save_state_dict
from ldm.models.diffusion.noise import ImageNoise
from ldm.pictures.images import read_parameters
from ldm.pictures.numbered import save_numbered
from ldm.util import UserError
from ldm.workflows.models import open_model
from ldm.workflows.plan import usual_settings
from ldm.workflows.request import Txt2ImgOptions, read_request
from ldm.workflows.studio import Studio
from ldm.workflows.txt2img import Made, txt2img
from ldm.workflows.watch import Step, Watch
from tests import forked
from tests.helpers import noted
from tests.workflows.small_model import write_small_model


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_small_model(tmp_path_factory.mktemp("small")))


@pytest.fixture(scope="module")
def model(ckpt: str) -> Any:
    return open_model(ckpt, device="cpu")[0]


@pytest.fixture
def options(ckpt: str, tmp_path: Path) -> Txt2ImgOptions:
    return Txt2ImgOptions(
        prompt="a red circle", ckpt=ckpt, outdir=str(tmp_path / "out"), steps=4, guidance_scale=3.0, device="cpu",
        height=32, width=32, progress=False,
    )  # fmt: skip


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=int)


def test_everything_the_command_does(options: Txt2ImgOptions) -> None:
    plain = replace(options, steps=None, guidance_scale=None, height=None, width=None, n_samples=3)
    images = txt2img(plain)
    out = Path(options.outdir)
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.png")) == [
        "grid-0000.png", "samples/00000.png", "samples/00001.png", "samples/00002.png",
    ]  # fmt: skip
    assert [image.size for image in images] == [(32, 32)] * 3
    assert np.array_equal(pixels(Image.open(out / "samples" / "00001.png")), pixels(images[1]))
    about = read_parameters(out / "samples" / "00001.png")
    assert isinstance(about, dict)
    assert (about["prompt"], about["seed"], about["steps"], about["guidance_scale"]) == ("a red circle", 43, 4, 3.0)
    assert (about["sampler"], about["width"], about["height"]) == ("ddim", 32, 32)
    assert str(about["model"]).startswith("small") and about["model"].endswith("/model.safetensors")

    txt2img(replace(plain, n_samples=1))
    names = sorted(p.name for p in out.rglob("*.png"))
    assert names == ["00000.png", "00001.png", "00002.png", "00003.png", "grid-0000.png", "grid-0001.png"]


@pytest.mark.parametrize("sampler", ["ddim", "plms", "euler", "euler_ancestral", "dpm_solver"])
def test_a_picture_is_its_seed(options: Txt2ImgOptions, model: Any, sampler: str) -> None:
    quiet = replace(options, skip_save=True, skip_grid=True, sampler=sampler, seed=5)
    together = txt2img(replace(quiet, n_samples=3), model)
    one_by_one = txt2img(replace(quiet, n_samples=1, n_iter=3), model)
    again = txt2img(replace(quiet, n_samples=1, seed=7), model)
    for a, b in zip([*together, together[2]], [*one_by_one, again[0]], strict=True):
        assert abs(pixels(a) - pixels(b)).max() <= 1
    assert abs(pixels(together[0]) - pixels(together[1])).max() > 8
    assert not Path(options.outdir).exists()


def test_options_change_the_picture(options: Txt2ImgOptions, model: Any) -> None:
    quiet = replace(options, skip_save=True, skip_grid=True, n_samples=1)
    base = pixels(txt2img(quiet, model)[0])
    changes: list[dict[str, Any]] = [
        {"prompt": "a blue square"}, {"negative_prompt": "red"}, {"guidance_scale": 1.0}, {"steps": 5}, {"eta": 1.0},
        {"sampler": "plms"}, {"seed": 1},
    ]  # fmt: skip
    for change in changes:
        assert abs(pixels(txt2img(replace(quiet, **change), model)[0]) - base).max() > 1, change
    assert txt2img(replace(quiet, width=48), model)[0].size == (48, 32)


def test_a_model_for_pictures_that_are_not_square(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "image_size", (4, 6))  # height, width of its latents
    settings = usual_settings(Studio(model, "wide"))
    assert (settings["height"], settings["width"]) == (16, 24)


def test_no_unconditional_half_without_guidance(options: Txt2ImgOptions, model: Any) -> None:
    rows: list[int] = []
    prompts: list[list[str]] = []
    with pytest.MonkeyPatch.context() as patch:
        predict, encode = model.predict, model.get_learned_conditioning
        patch.setattr(model, "predict", lambda x, t, c: noted(rows, len(x)) and predict(x, t, c))
        patch.setattr(model, "get_learned_conditioning", lambda c: noted(prompts, c) and encode(c))
        txt2img(replace(options, skip_save=True, skip_grid=True, n_samples=2, guidance_scale=1.0), model)
    assert set(rows) == {2} and prompts == [["a red circle"]]


def test_batches(tmp_path: Path) -> None:
    two = Txt2ImgOptions(n_iter=2, n_samples=3, seed=10)
    assert [b.seeds for b in read_request(two).batches] == [[10, 11, 12], [13, 14, 15]]
    assert [b.seeds for b in read_request(replace(two, fixed_code=True)).batches] == [[10, 11, 12], [10, 11, 12]]
    (tmp_path / "prompts.txt").write_text("a\nb\nc\nd\n")
    parts = read_request(replace(two, from_file=str(tmp_path / "prompts.txt"), n_iter=1)).batches
    assert [(b.prompts, b.seeds) for b in parts] == [(["a", "b", "c"], [10, 11, 12]), (["d"], [13])]


def test_a_file_of_prompts(options: Txt2ImgOptions, model: Any, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("a red circle\n\n  a blue square \n", encoding="utf-8")
    images = txt2img(replace(options, from_file=str(file)), model)
    assert len(images) == 2
    about = read_parameters(Path(options.outdir) / "samples" / "00001.png")
    assert isinstance(about, dict) and about["prompt"] == "a blue square" and about["seed"] == 43


@pytest.mark.parametrize("precision", ["bf16", "full"])
def test_precision_of_the_weights(options: Txt2ImgOptions, precision: str) -> None:
    model, _ = open_model(options.ckpt, device="cpu", precision=precision)
    wanted = {"bf16": "torch.bfloat16", "full": "torch.float32"}[precision]
    assert {str(p.dtype) for p in model.parameters()} == {wanted}
    assert str(model.alphas_cumprod.dtype) == "torch.float32"
    quiet = replace(options, skip_save=True, skip_grid=True, n_samples=1, precision=precision)
    reference = txt2img(replace(quiet, precision="full"))
    assert abs(pixels(txt2img(quiet, model)[0]) - pixels(reference[0])).mean() < 4


def refusals(ckpt: str, folder: Path) -> list[tuple[dict[str, Any], str]]:
    empty, alone = folder / "empty.txt", folder / "alone.safetensors"
    empty.write_text("\n  \n")
    alone.write_bytes(Path(ckpt).read_bytes())
    wrong, unknown = folder / "wrong.yaml", folder / "unknown.yaml"
    wrong.write_text("model:\n  target: torch.nn.Identity\n")
    document = OmegaConf.load(Path(ckpt).parent / "config.yaml")
    document.model.params.unet_config.params.dropuot = 0.1
    OmegaConf.save(document, unknown)
    return [
        ({"sampler": "hein"}, "unknown sampler 'hein'; known: ddim"),
        ({"sampler": "plms", "eta": 0.5}, "'plms' has no eta"),
        ({"eta": 0.5, "sampler": "euler"}, "'euler' has no eta"),
        ({"height": 30}, "height (H) 30 is not a multiple of 4; 28 or 32"),
        ({"width": 2}, "width (W) must be at least 4, and a multiple of it; got 2"),
        ({"steps": 3}, "divides 1000"),
        ({"steps": 0}, "between 1 and 1000"),
        ({"channels": 8}, "--C 8 does not fit"),
        ({"factor": 8}, "--f 8 does not fit"),
        ({"n_samples": 0}, "--n_samples must be at least 1"),
        ({"from_file": str(empty)}, "is empty"),
        ({"from_file": str(folder / "none.txt")}, "cannot read the prompt file"),
        ({"ckpt": str(folder / "none.ckpt")}, "there is no checkpoint"),
        ({"ckpt": str(alone)}, "needs its configuration"),
        ({"ckpt": None, "config": "some.yaml"}, "add --ckpt"),
        ({"config": str(folder / "none.yaml")}, "no configuration file"),
        ({"config": str(wrong)}, "a LatentDiffusion is needed"),
        ({"config": str(unknown)}, "no parameter 'dropuot'"),
        ({"device": "abacus"}, "no device 'abacus'"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"embedding_path": "words.pt"}, "there is no file 'words.pt'"),
    ]


def test_what_does_not_fit_is_one_sentence_and_writes_nothing(options: Txt2ImgOptions, tmp_path: Path) -> None:
    assert options.ckpt is not None
    for change, message in refusals(options.ckpt, tmp_path):
        with pytest.raises(UserError) as caught:
            txt2img(replace(options, **change))
        assert message in str(caught.value) and "\n" not in str(caught.value), change
        assert not Path(options.outdir).exists(), change


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return forked.run("txt2img.py", *arguments, cwd=cwd)


def test_command(ckpt: str, tmp_path: Path) -> None:
    done = command(
        "--prompt", "a red circle", "--ckpt_path", ckpt, "--plms", "--ddim_steps", "5", "--scale", "2",
        "--n_samples", "2", "--n_rows", "1", "--seed", "9", "--device", "cpu",
        "--H", "32", "--W", "32", "--C", "4", "--f", "4", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    out = tmp_path / "outputs" / "txt2img-samples"
    assert "2 pictures are in outputs/txt2img-samples" in done.stdout
    about = read_parameters(out / "samples" / "00001.png")
    assert isinstance(about, dict) and (about["sampler"], about["seed"], about["steps"]) == ("plms", 10, 5)
    assert Image.open(out / "grid-0000.png").height > 64
    function = txt2img(
        Txt2ImgOptions(
            prompt="a red circle", ckpt=ckpt, sampler="plms", steps=5, guidance_scale=2, n_samples=2, seed=9,
            device="cpu", skip_save=True, skip_grid=True, progress=False,
        )
    )  # fmt: skip
    assert abs(pixels(function[1]) - pixels(Image.open(out / "samples" / "00001.png"))).max() <= 1


def test_command_refuses_with_exit_code_2(tmp_path: Path) -> None:
    done = command("--sampler", "hein", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "error: unknown sampler 'hein'; known: ddim, plms, euler, euler_ancestral, heun, lms, dpm_solver, "
        "dpmpp_2s_ancestral\n"
    )
    assert list(tmp_path.iterdir()) == []


CASES = Path(__file__).parent / "prompts"


@pytest.mark.parametrize(
    ("name", "prompts"),
    [
        ("utf16", ["a red star", "a blue circle"]),
        ("crlf", ["a red star", "a blue circle"]),
        ("cr", ["a red star", "a blue circle"]),
        ("seps", ["a red star\x0bon a blue\u2028background\x85now"]),
    ],
)
def test_prompt_files_as_editors_save_them(name: str, prompts: list[str]) -> None:
    request = read_request(Txt2ImgOptions(from_file=str(CASES / f"{name}.txt")))
    assert request.prompts == prompts


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cp949", r"the prompt file '.*cp949\.txt' is not in UTF-8 \(line 1\): save it as UTF-8"),
        ("latin1", r"the prompt file '.*latin1\.txt' is not in UTF-8 \(line 1\): save it as UTF-8"),
        ("nul", r"the prompt file '.*nul\.txt' is no text: line 1 has a NUL"),
    ],
)
def test_a_prompt_file_in_another_encoding_is_one_sentence(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_request(Txt2ImgOptions(from_file=str(CASES / f"{name}.txt")))
    assert "\n" not in str(error.value)


def test_a_prompt_that_is_not_in_utf_8_is_one_sentence(tmp_path: Path) -> None:
    text = "a red caf\udce9 star"  # the byte E9, as Python hands it on
    done = command("--prompt", text, cwd=tmp_path)
    assert done.returncode == 2
    said = "is not in UTF-8 ('a red caf? star'): set the terminal to UTF-8, or use a file"
    assert done.stderr == f"error: the prompt {said}\n"
    with pytest.raises(UserError) as error:
        read_request(Txt2ImgOptions(negative_prompt=text))
    assert str(error.value) == f"the negative prompt {said}"


def test_seed_minus_one_draws_a_seed_and_says_it(options: Txt2ImgOptions, ckpt: str, tmp_path: Path) -> None:
    given = ["--prompt", "a red circle", "--ckpt", ckpt, "--device", "cpu", "--steps", "4", "--n_samples", "1"]
    done = command(*given, "--seed", "-1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (seed,) = re.findall(r"^the seed is (\d+)$", done.stderr, flags=re.MULTILINE)
    about = read_parameters(tmp_path / "outputs/txt2img-samples/samples/00000.png")
    assert isinstance(about, dict) and about["seed"] == int(seed)
    drawn = {read_request(replace(options, seed=-1)).seed for _ in range(3)}
    assert len(drawn) == 3 and all(0 <= seed < 2**32 for seed in drawn)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_guidance_that_is_no_number_is_said_before_anything_is_made(value: float, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="guidance must be a finite number"):
        txt2img(Txt2ImgOptions(prompt="a star", guidance_scale=value, outdir=str(tmp_path / "out"), progress=False))
    assert not (tmp_path / "out" / "samples").exists()


@pytest.mark.parametrize("seed", [2**64, -2, 2**64 - 3])
def test_a_seed_that_no_generator_takes_is_one_sentence(options: Txt2ImgOptions, seed: int) -> None:
    with pytest.raises(UserError, match=f"^a seed must lie between 0 and {2**64 - 4}, or be -1 .any., got {seed}$"):
        txt2img(replace(options, seed=seed, n_samples=4))


def test_a_negative_prompt_without_guidance_is_said(
    options: Txt2ImgOptions, model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    quiet = replace(options, skip_save=True, skip_grid=True, n_samples=1, negative_prompt="red", steps=1)
    txt2img(quiet, model)
    assert not caplog.records
    txt2img(replace(quiet, guidance_scale=1.0), model)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the negative prompt is not used" in caplog.text


def test_two_commands_into_one_folder_keep_every_picture(tmp_path: Path) -> None:
    """Both look for the next number before either has written: the slower one takes another."""
    folder, threads, each = tmp_path / "out", 4, 12
    start = threading.Barrier(threads)

    def work(number: int) -> None:
        start.wait()
        for shade in range(each):
            save_numbered(Image.new("RGB", (4, 4), (number, shade, 0)), folder)

    running = [threading.Thread(target=work, args=[number]) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    found = {Image.open(path).getpixel((0, 0)) for path in folder.iterdir()}
    assert found == {(number, shade, 0) for number in range(threads) for shade in range(each)}
    assert sorted(path.name for path in folder.iterdir()) == [f"{number:05d}.png" for number in range(threads * each)]


def test_a_picture_that_cannot_be_written_gives_its_number_back(tmp_path: Path) -> None:
    class Broken(Image.Image):
        def save(self, *args: Any, **kwargs: Any) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left"):
        save_numbered(Broken(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_pictures_that_are_deleted_meanwhile_are_not_claimed(options: Txt2ImgOptions, model: Any) -> None:
    gone: list[Path] = []

    def delete(one: Made) -> None:
        if not gone and one.path is not None:
            gone.append(one.path)
            shutil.rmtree(options.outdir)

    with pytest.raises(UserError, match=r"1 of 3 files that were written into '.*samples' are not there any more"):
        txt2img(replace(options, n_samples=1, n_iter=3, skip_grid=True, seed=3), model, Watch(on_result=delete))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "name", ["model.diffusion_model.out.2.weight", "first_stage_model.decoder.conv_in.weight",
             "model.diffusion_model.input_blocks.0.0.bias", "cond_stage_model.transformer.token_emb.weight"],
)  # fmt: skip
def test_one_broken_weight_is_one_sentence_and_nothing_is_saved(
    options: Txt2ImgOptions, ckpt: str, tmp_path: Path, name: str, value: float
) -> None:
    state = dict(read_state_dict(ckpt))
    weight = state[name] = state[name].clone()
    weight.view(-1)[5 * 16 if "token" in name else 3] = value  # of the token "red"
    for file in ("config.yaml", "vocab.txt"):
        (tmp_path / file).write_text((Path(ckpt).parent / file).read_text())
    save_state_dict(state, tmp_path / "model.safetensors")
    broken = replace(options, ckpt=str(tmp_path / "model.safetensors"), n_samples=1)
    message = f"^the weights are damaged: '{re.escape(name)}' holds a value that is not finite .NaN or inf.$"
    with pytest.raises(UserError, match=message):
        txt2img(broken)
    assert not Path(options.outdir).exists()


def test_every_step_and_every_picture_is_told(options: Txt2ImgOptions, model: Any) -> None:
    steps: list[tuple[str, int, int]] = []
    sizes: set[tuple[int, int]] = set()
    results: list[Made] = []

    def on_step(step: Step) -> None:
        steps.append((step.task, step.number, step.total))
        pictures = step.preview()
        assert len(pictures) == 2
        sizes.update(picture.size for picture in pictures)

    images = txt2img(
        replace(options, n_samples=2, n_iter=2, height=32, width=128), model,
        Watch(on_step=on_step, on_result=results.append),
    )  # fmt: skip
    assert steps == [("sampling", number, 4) for number in (1, 2, 3, 4)] * 2
    assert sizes == {(64, 16)}  # 16 cells of the latent on the longer side
    assert [made.image for made in results] == images and [made.seed for made in results] == [42, 43, 44, 45]
    assert all(made.path is not None and made.path.is_file() for made in results)


def test_the_last_preview_is_the_picture_made_small(options: Txt2ImgOptions, model: Any) -> None:
    steps: list[Step] = []
    (image,) = txt2img(
        replace(options, n_samples=1, skip_save=True, skip_grid=True), model, Watch(on_step=steps.append)
    )
    first = steps[0].latent
    assert first is not None
    noise = ImageNoise([options.seed]).draw(first.shape[1:])
    assert (first - noise).abs().max() > 0.1, "what the network expects, not what it was asked about"
    seen = [preview for step in steps for preview in step.preview()]
    far = [abs(pixels(preview) - pixels(image)).max() for preview in seen]  # 8 cells: there is nothing to make smaller
    assert far[-1] <= 2 < far[0] and len(far) == 4  # DDIM ends a little before the clean latent


def test_a_request_can_be_ended_and_what_is_finished_is_kept(options: Txt2ImgOptions, model: Any) -> None:
    stop, told = threading.Event(), []

    def on_step(step: Step) -> None:
        told.append(step.number)
        if len(told) == 6:  # in the second batch
            stop.set()

    images = txt2img(replace(options, n_samples=2, n_iter=3), model, Watch(on_step=on_step, cancelled=stop.is_set))
    assert len(told) == 6 and len(images) == 2
    names = [path.name for path in (Path(options.outdir) / "samples").iterdir()]
    assert sorted(names) == ["00000.png", "00001.png"]
    assert txt2img(options, model, Watch(cancelled=lambda: True)) == []
