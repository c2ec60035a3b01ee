"""LoRAs in requests: named, called by prompts, in the YAML, several, with words; and nothing of them left behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from ldm.additions.base import applied
from ldm.additions.lora.lora import Lora
from ldm.additions.lora.scales import Scales
from ldm.additions.reading import read_additions
from ldm.checkpoint import read_state_dict, save_state_dict
from ldm.pictures.images import read_parameters
from ldm.util import UserError
from ldm.workflows.lora_calls import Call, calls_in, find_lora, without_calls
from ldm.workflows.models import open_model
from ldm.workflows.request import Txt2ImgOptions
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.styleid import styleid
from ldm.workflows.txt2img import txt2img
from ldm.workflows.watch import Watch
from tests.additions.lora.files import lora_tensors, write_lora
from tests.workflows.restyling import picture
from tests.workflows.small_model import write_small_model


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def model(ckpt: Path) -> Any:
    return open_model(ckpt, device="cpu")[0]


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``one`` and ``deep/two``, and a word in ``word``."""
    folder = tmp_path_factory.mktemp("loras")
    write_lora(folder / "one.safetensors", model, 1)
    write_lora(folder / "deep" / "two.safetensors", model, 2)
    word = {"bundle_emb.<s1>.string_to_param.*": torch.randn(1, 16, generator=torch.Generator().manual_seed(3))}
    write_lora(folder / "word.safetensors", model, 3, **word)
    return folder


@pytest.fixture
def options(tmp_path: Path, folder: Path) -> Txt2ImgOptions:
    return Txt2ImgOptions(
        prompt="a red circle", outdir=str(tmp_path / "out"), steps=2, device="cpu", n_samples=1, progress=False,
        lora_dir=str(folder), skip_grid=True, skip_save=True,
    )  # fmt: skip


def pixels(options: Txt2ImgOptions, model: Any) -> np.ndarray:
    return np.stack([np.asarray(image, dtype=int) for image in txt2img(options, model)])


def state(model: Any) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(before: dict[str, torch.Tensor], model: Any) -> bool:
    return all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_ten_in_a_row_leave_the_model_as_it_was(options: Txt2ImgOptions, model: Any, folder: Path) -> None:
    before, plain = state(model), pixels(options, model)
    seen = []
    for i in range(10):
        seen.append(pixels(replace(options, lora=[f"{folder}/one.safetensors={0.1 * (i + 1)}"]), model))
        assert same(before, model)
    assert all(abs(a - b).max() > 0 for a, b in zip(seen, [plain, *seen[:-1]], strict=True))
    assert np.array_equal(pixels(options, model), plain)
    assert np.array_equal(pixels(replace(options, lora=f"{folder}/one.safetensors=0"), model), plain)


def test_the_picture_is_that_of_a_model_with_the_changes_in_its_weights(
    options: Txt2ImgOptions, model: Any, ckpt: Path, folder: Path, tmp_path: Path
) -> None:
    tensors = lora_tensors(model, 1)
    weights = dict(read_state_dict(ckpt))
    for name in list(weights):
        key = name.replace("model.diffusion_model.", "lora_unet_", 1).replace("cond_stage_model.", "lora_te_", 1)
        key = key.removesuffix(".weight").replace(".", "_")
        if f"{key}.lora_up.weight" in tensors:
            up, down = (tensors[f"{key}.lora_{end}.weight"] for end in ("up", "down"))
            weights[name] = weights[name] + 0.7 * up @ down
    for name in ("config.yaml", "vocab.txt"):
        (tmp_path / name).write_text((ckpt.parent / name).read_text())
    save_state_dict(weights, tmp_path / "model.safetensors")
    merged = pixels(options, open_model(tmp_path / "model.safetensors", device="cpu")[0])
    assert abs(pixels(replace(options, lora=f"{folder}/one.safetensors=0.7"), model) - merged).max() <= 1


def test_a_prompt_calls_by_name(options: Txt2ImgOptions, model: Any, folder: Path, tmp_path: Path) -> None:
    named = pixels(replace(options, lora=[f"{folder}/one.safetensors=0.7", f"{folder}/deep/two.safetensors"]), model)
    written = replace(options, prompt="a red circle <lora:one:0.7><lora:two>", skip_save=False)
    assert np.array_equal(pixels(written, model), named)
    about = read_parameters(tmp_path / "out" / "samples" / "00000.png")
    assert isinstance(about, dict) and about["loras"] == ["one.safetensors=0.7", "two.safetensors=1"]
    assert about["prompt"] == written.prompt
    by_header = replace(options, prompt="a red circle <lora:made-1:0.7> <lora:deep/two:1>")
    assert np.array_equal(pixels(by_header, model), named)
    apart = pixels(replace(options, prompt="a red circle <lora:one:0:0.5>"), model)
    assert np.array_equal(apart, pixels(replace(options, lora=f"{folder}/one.safetensors=0@text,0.5@unet"), model))


def test_prompts_of_a_file_call_each_their_own(options: Txt2ImgOptions, model: Any, tmp_path: Path) -> None:
    prompts = ["a red circle", "a <lora:one:1> red circle", "a blue square <lora:one:1>", "a circle <lora:two:0.5>"]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts))
    before = state(model)
    together = pixels(replace(options, from_file=str(tmp_path / "prompts.txt"), n_samples=4), model)
    for i, prompt in enumerate(prompts):
        alone = pixels(replace(options, prompt=prompt, seed=options.seed + i), model)
        assert abs(alone[0] - together[i]).max() <= 1, prompt
    assert same(before, model)


def test_words_in_a_file_come_with_it(options: Txt2ImgOptions, model: Any, folder: Path) -> None:
    with_word = replace(options, prompt="a <s1> circle", lora=f"{folder}/word.safetensors")
    assert abs(pixels(with_word, model) - pixels(replace(with_word, prompt="a <s2> circle"), model)).max() > 1
    called = replace(options, prompt="a <s1> circle <lora:word:1>")
    assert np.array_equal(pixels(called, model), pixels(with_word, model))
    assert model.embedding_manager is None


def test_the_yaml_may_name_them(options: Txt2ImgOptions, model: Any, ckpt: Path, folder: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "vocab.txt"):
        (tmp_path / name).write_bytes((ckpt.parent / name).read_bytes())
    (tmp_path / "one.safetensors").write_bytes((folder / "one.safetensors").read_bytes())
    document = OmegaConf.load(ckpt.parent / "config.yaml")
    document.inference.lora = ["one.safetensors=0.7"]
    OmegaConf.save(document, tmp_path / "config.yaml")
    opened = open_model(tmp_path / "model.safetensors", device="cpu")[0]
    named = pixels(replace(options, lora=f"{folder}/one.safetensors=0.7"), model)
    assert np.array_equal(pixels(options, opened), named)
    assert np.array_equal(pixels(replace(options, lora=[]), opened), pixels(options, model))


def test_in_python_several_with_scales(model: Any, folder: Path) -> None:
    before = state(model)
    additions = read_additions(model, lora=[f"{folder}/one.safetensors=0.5", f"{folder}/word.safetensors"])
    assert [type(one).__name__ for one in additions] == ["Lora", "Lora", "EmbeddingManager"]
    with applied(model, additions):
        inside = state(model)
        assert model.embedding_manager is not None
    with applied(model, [Lora.read(folder / "one.safetensors", model, Scales.of(0.5))]):
        alone = state(model)
    assert same(before, model)
    changed = [key for key in before if not torch.equal(alone[key], before[key])]
    assert changed and not any(torch.equal(inside[key], alone[key]) for key in changed)


def test_restyling_with_a_lora(model: Any, folder: Path, tmp_path: Path) -> None:
    options = StyleIDOptions(
        cnt=str(picture(tmp_path / "c.png", 1)), sty=str(picture(tmp_path / "s.png", 2)), precomputed="",
        output_path=str(tmp_path / "out"), ddim_inv_steps=5, save_feat_steps=5, device="cpu", progress=False,
        no_sheet=True, longest=32,
    )  # fmt: skip
    before = state(model)
    plain = styleid(options, model)[0].path.read_bytes()
    with_lora = replace(options, lora=[f"{folder}/one.safetensors=0.7"])
    (result,) = styleid(with_lora, model)
    assert not result.skipped and result.path.read_bytes() != plain and same(before, model)
    about = read_parameters(result.path)
    assert isinstance(about, dict) and about["loras"] == "one.safetensors=0.7"
    again = styleid(with_lora, model)[0], styleid(options, model)[0]
    assert all(result.skipped for result in again) and again[0].path != again[1].path


def test_a_request_that_ends_early_takes_them_off(options: Txt2ImgOptions, model: Any, folder: Path) -> None:
    before = state(model)

    class Stop(Watch[Any]):
        def check(self) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        txt2img(replace(options, lora=f"{folder}/one.safetensors"), model, Stop())
    assert same(before, model)


@pytest.mark.parametrize(
    ("prompt", "call"),
    [
        ("<lora:a>", Call("a")),
        ("<lora:a b/c:0.8>", Call("a b/c", 0.8, 0.8)),
        ("x <lora:a:-1:0.5> y", Call("a", -1.0, 0.5)),
        ("<lora:a:unet=0.5>", Call("a", 1.0, 0.5)),
        ("<lyco:a:te=0.2>", Call("a", 0.2, 0.2)),
    ],
)
def test_calls(prompt: str, call: Call) -> None:
    assert calls_in(prompt) == (call,)
    assert "<" not in without_calls(prompt)


def test_other_prompts_stay_as_they_are() -> None:
    assert without_calls(" a <b> (c:1.3) ") == " a <b> (c:1.3) " and not calls_in("a <b> (c:1.3) <lora> lora:x")


def test_two_files_of_one_name(model: Any, tmp_path: Path) -> None:
    for part in ("a", "b"):
        write_lora(tmp_path / part / "x.safetensors", model)
    with pytest.raises(UserError, match=r"means several LoRAs in .*: a/x, b/x"):
        find_lora("x", tmp_path)
    assert find_lora("b/x", tmp_path) == tmp_path / "b" / "x.safetensors"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"prompt": "a <lora:none:1>"}, "there is no LoRA 'none' in"),
    ({"prompt": "a <lora:one:x>"}, "should be as <lora:name:0.8>"),
    ({"prompt": "a <lora::1>"}, "names no LoRA"),
    ({"negative_prompt": "<lora:one:1>"}, "not in the negative one"),
    ({"prompt": "a <lora:one:1>", "lora_dir": "nowhere"}, "there is no folder 'nowhere'; --lora_dir names one"),
    ({"lora": "none.safetensors"}, "there is no file 'none.safetensors'"),
    ({"lora": "none.safetensors=x"}, "is no scale"),
    ({"lora": "FOLDER/one.safetensors", "lora_dora": "mine"}, "unknown rule 'mine'"),
    ({"lora": "FOLDER/one.safetensors=1@attic"}, "changes nothing in 'attic'"),
    ({"lora": "FOLDER"}, "so it holds no LoRA"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_does_not_fit(
    options: Txt2ImgOptions, model: Any, folder: Path, change: dict[str, Any], message: str
) -> None:
    before = state(model)
    change = {key: value.replace("FOLDER", str(folder)) for key, value in change.items()}
    with pytest.raises(UserError) as caught:
        txt2img(replace(options, skip_save=False, **change), model)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not Path(options.outdir).exists() and same(before, model)
