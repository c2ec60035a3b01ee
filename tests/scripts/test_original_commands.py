"""The originals' commands as their users type them, in this process: what they make, and what they say."""

from __future__ import annotations

import importlib
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.checkpoint import EmbeddingFile, read_embedding, write_embedding
from ldm.commands.originals import settled
from ldm.models.diffusion.noise import ImageNoise
from ldm.pictures.images import read_parameters, tensor_to_image
from ldm.util import run_command
from ldm.workflows.models import open_model
from ldm.workflows.sample_diffusion import SampleDiffusionOptions, sample_diffusion
from ldm.workflows.studio import Studio
from tests.helpers import ROOT
from tests.workflows import test_needs
from tests.workflows.small_model import write_small_model
from tests.workflows.test_img2img import picture, pixels


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of every kind, pictures, masks and prompts."""
    folder = tmp_path_factory.mktemp("originals")
    write_small_model(folder / "plain")
    for kind in test_needs.KINDS:
        test_needs.saved(kind, folder / kind.replace(" ", "_"))
    for name in ("photo.jpg", "many/a.png", "many/b.png", "indir/a.png", "indir/b.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        picture(32, 32).save(folder / name)
    mask = Image.fromarray(np.repeat([[0] * 16 + [255] * 16], 32, axis=0).astype(np.uint8))
    for name in ("mask.png", "indir/a_mask.png", "indir/b_mask.png"):
        mask.save(folder / name)
    (folder / "prompts.txt").write_text("a red circle\na blue square\n")
    for name in "ab":
        write_embedding(folder / f"{name}.pt", EmbeddingFile({name: torch.ones(1, 16)}))
    return folder


def run(monkeypatch: pytest.MonkeyPatch, files: Path, line: str, here: Path) -> int | None:
    """Run a line as it is typed, in the folder ``here``; the exit code, None for a good end."""
    program, *arguments = line.replace("FILES", str(files)).split()
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    monkeypatch.chdir(here)
    module = importlib.import_module(program.removesuffix(".py").replace("/", "."))
    try:
        run_command(module.main, debug=False)
    except SystemExit as ended:
        return int(ended.code or 0)
    return None


QUICK = "--ddim_steps 2 --scale 2"
PLAIN = f"{QUICK} --ckpt FILES/plain/model.safetensors"
# what is typed -> how many pictures there are, and of what size
MADE: dict[str, tuple[int, tuple[int, int]]] = {
    f"scripts/txt2img.py {PLAIN} --plms": (6, (32, 32)),
    f"scripts/txt2img.py {PLAIN} --from-file FILES/prompts.txt --repeat 2 --n_iter 1": (4, (32, 32)),
    f"scripts/txt2img.py {PLAIN} --bf16 --torchscript --ipex --n_iter 1 --n_samples 1 --dpm": (1, (32, 32)),
    f"scripts/txt2img.py {QUICK} --n_iter 1 --n_samples 1": (1, (128, 128)),
    f"scripts/stable_txt2img.py {PLAIN} --ddim_eta 0.0 --n_iter 1 --embedding_path FILES/a.pt": (3, (32, 32)),
    f"scripts/img2img.py {PLAIN} --init-img FILES/photo.jpg --strength 0.5": (2, (32, 32)),
    f"scripts/img2img.py {PLAIN} --init-img FILES/many --n_samples 1": (2, (32, 32)),
    f"scripts/inpaint.py {PLAIN} --init-img FILES/photo.jpg --mask FILES/mask.png": (2, (32, 32)),
    f"scripts/inpaint.py {PLAIN} --init-img FILES/photo.jpg --outpaint right=16": (2, (48, 32)),
    f"scripts/inpaint.py {PLAIN} --init-img FILES/photo.jpg --mask FILES/mask.png --only_masked --n_samples 1": (
        1, (32, 32)),
    f"scripts/inpaint.py {QUICK} --init-img FILES/photo.jpg --mask FILES/mask.png "
    "--ckpt FILES/in-painting/model.safetensors": (2, (32, 32)),
    f"scripts/depth2img.py {QUICK} --init-img FILES/photo.jpg --ckpt FILES/depth/model.safetensors "
    "--n_samples 1 --config FILES/depth/config.yaml": (1, (32, 32)),
    f"scripts/superresolution.py {QUICK} --init-img FILES/photo.jpg --ckpt FILES/up-scaling/model.safetensors "
    "--longest 8": (1, (32, 32)),
    f"scripts/variations.py {QUICK} --init-img FILES/photo.jpg --ckpt FILES/image_embedding/model.safetensors "
    "--n_samples 1": (1, (32, 32)),
    f"scripts/class2img.py {QUICK} --classes 1 2 --ckpt FILES/class/model.safetensors --n_samples 2": (4, (32, 32)),
}  # fmt: skip


@pytest.mark.parametrize("line", MADE)
def test_a_line_makes_its_pictures(
    monkeypatch: pytest.MonkeyPatch, files: Path, tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    count, size = MADE[line]
    assert run(monkeypatch, files, line, tmp_path) is None
    made = sorted((tmp_path / "outputs").glob("*/samples/*.png"))
    assert len(made) == count and {Image.open(path).size for path in made} == {size}
    assert f"{count} picture" in capsys.readouterr().out
    assert all(np.asarray(Image.open(path)).std() > 1 for path in made)


def test_latent_diffusions_inpainting_keeps_the_names(
    monkeypatch: pytest.MonkeyPatch, files: Path, tmp_path: Path
) -> None:
    line = "scripts/inpaint.py --indir FILES/indir --outdir out --steps 2 --ckpt FILES/plain/model.safetensors"
    for names in (["a.png", "b.png"], ["a-2.png", "a.png", "b-2.png", "b.png"]):
        assert run(monkeypatch, files, line, tmp_path) is None
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    made = pixels(Image.open(tmp_path / "out" / "a.png"))
    assert np.array_equal(made[:, :16], pixels(picture(32, 32))[:, :16])


def test_sample_diffusion(monkeypatch: pytest.MonkeyPatch, files: Path, tmp_path: Path) -> None:
    line = "scripts/sample_diffusion.py -r FILES/no_condition -n 5 --batch_size 2 -c 2 -e 0.5 -l out --seed 3"
    assert run(monkeypatch, files, line, tmp_path) is None
    (folder,) = (tmp_path / "out" / "samples").iterdir()
    paths = sorted((folder / "img").iterdir())
    assert [path.name for path in paths] == [f"sample_{i:06}.png" for i in range(5)]
    array = np.load(folder / "numpy" / "5x32x32x3-samples.npz")["arr_0"]
    assert np.array_equal(array[4], np.asarray(Image.open(paths[4])))
    about = read_parameters(paths[4])
    assert isinstance(about, dict) and (about["seed"], about["eta"], about["guidance_scale"]) == (7, 0.5, 1.0)
    again = sample_diffusion(
        SampleDiffusionOptions(str(files / "no_condition"), n_samples=1, steps=2, eta=0.5, seed=7,
                               logdir=str(tmp_path / "alone"), progress=False)
    )  # fmt: skip
    assert abs(pixels(Image.open(again / "img" / "sample_000000.png")) - array[4]).max() <= 1
    assert run(monkeypatch, files, "scripts/sample_diffusion.py -n 1 -c 2 -l small", tmp_path) is None
    assert Image.open(next((tmp_path / "small").rglob("*.png"))).size == (128, 128), "the small model, no prompt"


def test_samples_do_not_settle(files: Path, tmp_path: Path) -> None:
    model, _ = open_model(files / "no_condition" / "model.safetensors", device="cpu")
    made: list[np.ndarray] = []
    for settle in (0, 2):
        options = SampleDiffusionOptions(n_samples=1, steps=5, logdir=str(tmp_path / str(settle)), progress=False)
        folder = sample_diffusion(options, Studio(model, "small", {**model.origin.inference, "settle": settle}))
        made.append(pixels(Image.open(folder / "img" / "sample_000000.png")))
    assert np.array_equal(made[0], made[1])


def test_vanilla_sampling_is_ddpm(files: Path, tmp_path: Path) -> None:
    """Ho et al. 2020, equations 6 and 7 at every timestep, with the noise of the picture's own generator."""
    model, _ = open_model(files / "no_condition" / "model.safetensors", device="cpu")
    told: list[int] = []
    eps = torch.sin(torch.arange(4 * 8 * 8.0)).reshape(1, 4, 8, 8)

    def predict(x: torch.Tensor, t: torch.Tensor, c: Any) -> torch.Tensor:
        told.append(int(t[0]))
        return 0.5 * x + 0.1 * eps

    options = SampleDiffusionOptions(vanilla=True, n_samples=1, seed=3, logdir=str(tmp_path), progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "predict", predict)
        folder = sample_diffusion(options, model)
    assert told == list(range(999, -1, -1))
    noise, abar = ImageNoise([3]), model.alphas_cumprod.double()
    x = noise.draw((4, 8, 8)).double()
    for t in range(999, -1, -1):
        before = abar[t - 1] if t else torch.tensor(1.0, dtype=torch.float64)
        beta = 1 - abar[t] / before
        x0 = (x - (1 - abar[t]).sqrt() * (0.5 * x + 0.1 * eps)) / abar[t].sqrt()
        mean = before.sqrt() * beta / (1 - abar[t]) * x0 + (1 - beta).sqrt() * (1 - before) / (1 - abar[t]) * x
        x = mean + (beta * (1 - before) / (1 - abar[t])).sqrt() * (noise.draw((4, 8, 8)) if t else 0)
    with torch.no_grad():
        expected = tensor_to_image(model.decode_first_stage(x.float())[0])
    made = Image.open(folder / "img" / "sample_000000.png")
    assert abs(pixels(made) - pixels(expected)).max() <= 1


def test_laion400m_is_the_model_of_that_name(
    monkeypatch: pytest.MonkeyPatch, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, files, "scripts/txt2img.py --laion400m", tmp_path) == 2
    assert "there is no checkpoint 'models/ldm/text2img-large/model.ckpt'" in capsys.readouterr().err


def test_the_originals_own_place_of_a_model_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, files: Path, tmp_path: Path
) -> None:
    (tmp_path / "models/ldm").mkdir(parents=True)
    (tmp_path / "models/ldm/stable-diffusion-v1").symlink_to(files / "plain")
    (files / "plain" / "model.ckpt").unlink(missing_ok=True)
    (files / "plain" / "model.ckpt").symlink_to(files / "plain" / "model.safetensors")
    line = f"scripts/txt2img.py {QUICK} --n_iter 1 --config FILES/plain/config.yaml"
    assert run(monkeypatch, files, line, tmp_path) is None
    about = read_parameters(tmp_path / "outputs/txt2img-samples/samples/00000.png")
    assert isinstance(about, dict) and about["prompt"] == "a painting of a virus monster playing guitar"
    assert about["width"] == 32


REFUSED = {
    "scripts/txt2img.py --ckpt FILES/in-painting/model.safetensors": "python scripts/inpaint.py",
    "scripts/txt2img.py --repeat 0": "--repeat must be at least 1",
    "scripts/img2img.py": "--init-img FILE",
    "scripts/img2img.py --init-img none.png": "there is no image file 'none.png'",
    "scripts/img2img.py --init-img FILES/photo.jpg --strength 1.5": "--strength must lie between 0",
    "scripts/inpaint.py --init-img FILES/photo.jpg": "has no mask: --mask FILE",
    "scripts/inpaint.py --indir FILES/many --outdir out": "no picture in '",
    "scripts/depth2img.py --init-img FILES/photo.jpg --ckpt FILES/plain/model.safetensors": "python txt2img.py",
    "scripts/superresolution.py --init-img FILES/photo.jpg --ckpt FILES/plain/model.safetensors": "python txt2img.py",
    "scripts/sample_diffusion.py -r FILES/many": "there is no checkpoint in '",
    "scripts/sample_diffusion.py -n 0": "--n_samples must be at least 1",
    "scripts/sample_diffusion.py -r FILES/class -l out": "python scripts/class2img.py",
}


@pytest.mark.parametrize("line", REFUSED)
def test_a_line_that_does_not_fit_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, files: Path, tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, files, line, tmp_path) == 2
    error = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(error) == 1 and REFUSED[line] in error[0]
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("scripts/gradio/depth2img.py", "python scripts/depth2img.py --config A.yaml --ckpt B.ckpt --init-img"),
        ("scripts/gradio/inpainting.py", "python scripts/inpaint.py --config A.yaml --ckpt B.ckpt"),
        ("scripts/gradio/superresolution.py", "python scripts/superresolution.py --config A.yaml"),
        ("scripts/streamlit/depth2img.py", "python scripts/depth2img.py --config"),
        ("scripts/streamlit/inpainting.py", "python scripts/inpaint.py --config"),
        ("scripts/streamlit/superresolution.py", "python scripts/superresolution.py --config"),
        ("scripts/streamlit/stableunclip.py", "python scripts/variations.py --config"),
        ("scripts/inpaint_st.py", "python scripts/inpaint.py --init-img"),
        ("scripts/knn2img.py", "retrieval-augmented models are not built here"),
        ("scripts/train_searcher.py", "are not built here"),
    ],
)
def test_what_is_something_else_here_says_what(
    monkeypatch: pytest.MonkeyPatch, path: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [path, "A.yaml", "B.ckpt"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / path), run_name="__main__")
    error = capsys.readouterr().err
    assert ended.value.code == 2 and sentence in error and error.startswith("error: ") and error.count("\n") == 1


def test_from_another_folder_by_its_path(files: Path, tmp_path: Path) -> None:
    """The one place where a script is started as a program: by its path, and in the root."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "img2img.py"), "--init-img", "none.png"], cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr == "error: there is no image file 'none.png'\n"


def test_merge_embeddings_in_the_root(monkeypatch: pytest.MonkeyPatch, files: Path, tmp_path: Path) -> None:
    line = "merge_embeddings.py --manager_ckpts FILES/a.pt FILES/b.pt --output_path both.pt"
    assert run(monkeypatch, files, line, tmp_path) is None
    assert set(read_embedding(tmp_path / "both.pt").vectors) == {"a", "b"}


def test_what_the_originals_flags_come_to() -> None:
    given: dict[str, Any] = settled({"bf16": True, "repeat": 3, "ckpt": "x", "debug": True}, {"prompt": "y"})
    assert given == {"prompt": "y", "precision": "bf16", "repeat": 3, "ckpt": "x"}
    small = settled({}, {"prompt": "y", "guidance_scale": 5.0, "steps": 50, "n_samples": 3})
    assert small == {"n_samples": 3}, "the small model is asked as its own YAML says"
