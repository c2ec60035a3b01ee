"""A model with its settings, name and lock: the same picture whichever way a model comes to a workflow."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ldm.checkpoint import load_model
from ldm.pictures.images import read_parameters
from ldm.util import ConfigError, read_yaml
from ldm.workflows.models import open_model
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.styleid import styleid
from ldm.workflows.studio import Studio, open_studio
from ldm.workflows.txt2img import Txt2ImgOptions, txt2img
from ldm.workflows.watch import Step, Watch
from tests.workflows.small_model import CONFIG, write_small_model


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("small"))


@pytest.fixture
def options(ckpt: Path, tmp_path: Path) -> Txt2ImgOptions:
    return Txt2ImgOptions(
        prompt="a red circle", ckpt=str(ckpt), outdir=str(tmp_path / "out"), n_samples=1, device="cpu", progress=False
    )


def loaded(ckpt: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model as somebody loads it who knows its two files."""
    monkeypatch.chdir(ckpt.parent)  # for vocab.txt
    return load_model(read_yaml(ckpt.parent / "config.yaml"), ckpt)


def test_a_model_at_hand_is_asked_as_its_yaml_says(
    options: Txt2ImgOptions, ckpt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (command,) = txt2img(options)
    about = read_parameters(Path(options.outdir) / "samples" / "00000.png")
    assert isinstance(about, dict) and about["guidance_scale"] == CONFIG["inference"]["guidance_scale"] == 3.0
    ways: list[Any] = [
        open_model(ckpt, device="cpu")[0], open_studio(ckpt, device="cpu"), loaded(ckpt, monkeypatch),
        Studio.of(open_model(ckpt, device="cpu")[0]),
    ]  # fmt: skip
    for number, model in enumerate(ways, start=1):
        (image,) = txt2img(options, model)
        assert np.abs(np.asarray(image, int) - np.asarray(command, int)).max() <= 1  # packed layers round differently
        assert read_parameters(Path(options.outdir) / "samples" / f"{number:05d}.png") == about


def test_restyling_with_a_model_at_hand_is_that_of_the_command(tmp_path: Path, ckpt: Path) -> None:
    """The longest side is 512, or what the YAML says if that is more."""
    config = read_yaml(ckpt.parent / "config.yaml")
    config.inference.width = 520
    large = write_small_model(tmp_path / "large")
    (large.parent / "config.yaml").write_text("")
    from omegaconf import OmegaConf

    OmegaConf.save(config, large.parent / "config.yaml")
    for name in ("cnt", "sty"):
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 255, (4, 600, 3), dtype=np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    options = StyleIDOptions(
        cnt=str(tmp_path / "cnt.png"), sty=str(tmp_path / "sty.png"), ckpt=str(large), device="cpu", precomputed="",
        output_path=str(tmp_path / "out"), ddim_inv_steps=1, save_feat_steps=1, progress=False, no_sheet=True,
    )  # fmt: skip
    (result,) = styleid(options)
    assert Image.open(result.path).width == 520
    (again,) = styleid(options, open_model(large, device="cpu")[0])
    assert again.skipped  # the same parameters


def test_a_node_without_a_document_is_asked_as_is_usual(ckpt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ckpt.parent)
    model = load_model(CONFIG["model"], ckpt)
    assert Studio.of(model).inference == {} and Studio.of(model).name.endswith("/model.safetensors")
    with pytest.raises(ConfigError, match="the section 'inference' must hold settings"):
        load_model({**CONFIG, "inference": [3]}, ckpt)


def test_all_studios_of_a_model_share_a_lock(ckpt: Path) -> None:
    one, other = (open_model(ckpt, device="cpu")[0] for _ in range(2))
    assert Studio.of(one).lock is Studio.of(one, "full").lock is not Studio.of(other).lock
    assert Studio.of(Studio.of(one)).model is one


def test_a_fingerprint_follows_the_weights(ckpt: Path) -> None:
    studio = open_studio(ckpt, device="cpu")
    before = studio.fingerprint
    studio.model.first_stage_model.decoder.conv_out.bias.data += 1
    assert studio.fingerprint != before


@pytest.mark.parametrize("bare", [False, True])
def test_two_threads_take_turns(ckpt: Path, options: Txt2ImgOptions, bare: bool) -> None:
    """Steps of two requests do not mix, and each gets the picture that it gets alone."""
    studio = open_studio(ckpt, device="cpu")
    alone = {prompt: drawn(options, studio, prompt) for prompt in ("a red circle", "a blue square")}
    order: list[str] = []
    pictures: dict[str, np.ndarray] = {}

    def work(prompt: str) -> None:
        def note(step: Step) -> None:
            order.append(prompt)
            time.sleep(0.01)  # the other one would come in between

        model = studio.model if bare else studio
        pictures[prompt] = drawn(options, model, prompt, Watch(on_step=note))

    threads = [threading.Thread(target=work, args=[prompt]) for prompt in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order in ([*["a red circle"] * 4, *["a blue square"] * 4], [*["a blue square"] * 4, *["a red circle"] * 4])
    assert all(np.array_equal(alone[prompt], pictures[prompt]) for prompt in alone)


def drawn(options: Txt2ImgOptions, model: Any, prompt: str, watch: Watch[Any] | None = None) -> np.ndarray:
    from dataclasses import replace

    return np.asarray(txt2img(replace(options, prompt=prompt, skip_save=True, skip_grid=True), model, watch)[0])
