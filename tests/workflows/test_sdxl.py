"""Stable Diffusion XL by the command's function: sizes, what stands for nothing, the refiner, other autoencoders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ldm.checkpoint import read_state_dict, save_state_dict
from ldm.models.tiles import in_tiles
from ldm.util import UserError
from ldm.workflows import pictures
from ldm.workflows.refiner import Refiner
from ldm.workflows.studio import Studio, open_studio
from ldm.workflows.txt2img import Txt2ImgOptions, txt2img
from tests.workflows.small_model import write_small_model
from tests.workflows.small_xl import write_small_xl

PROMPT = "a cat"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_xl(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def refiner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_xl(tmp_path_factory.mktemp("refiner"), refiner=True)


@pytest.fixture(scope="module")
def studios(base: Path, refiner: Path) -> Iterator[tuple[Studio, Studio]]:
    yield open_studio(base, device="cpu"), open_studio(refiner, device="cpu")


def made(model: Any, **options: Any) -> np.ndarray:
    """Two pictures of a request as numbers."""
    given = {"prompt": PROMPT, "n_samples": 2, "skip_save": True, "skip_grid": True, "progress": False, **options}
    return np.stack([np.asarray(image, dtype=int) for image in txt2img(Txt2ImgOptions(**given), model)])


def differs(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(abs(one - other).max() > 1)


def test_sizes_and_negative_prompts_have_an_effect(studios: tuple[Studio, Studio]) -> None:
    plain = made(studios[0])
    assert plain.shape == (2, 32, 32, 3) and not differs(plain, made(studios[0]))
    usual: dict[str, Any] = {"original_size": [32, 32], "crop": [0, 0], "target_size": [32, 32]}
    assert not differs(plain, made(studios[0], **usual))
    others: list[dict[str, Any]] = [
        {"original_size": [9, 32]}, {"crop": [7, 0]}, {"target_size": [32, 99]}, {"negative_prompt": "a dog"}
    ]
    for other in others:
        assert differs(plain, made(studios[0], **other)), other


def test_pictures_settle_whether_their_size_is_named_or_not_but_no_refined_one(studios: tuple[Studio, Studio]) -> None:
    first, second = studios
    settled = made(first, settle=2)
    assert differs(settled, made(first)) and not differs(settled, made(first, settle=2, target_size=[32, 32]))
    refined: dict[str, Any] = {"refiner": second, "refiner_start": 0.5}
    assert np.array_equal(made(first, **refined), made(first, settle=2, **refined))


@torch.no_grad()
def test_without_a_size_it_is_the_usual_one(studios: tuple[Studio, Studio]) -> None:
    model = studios[0].model
    assert torch.equal(model.condition([PROMPT])["c_adm"], model.condition([PROMPT], size=(8, 8))["c_adm"])
    assert not torch.equal(model.condition([PROMPT])["c_adm"], model.condition([PROMPT], size=(8, 6))["c_adm"])


def test_a_picture_does_not_depend_on_its_batch(studios: tuple[Studio, Studio]) -> None:
    both = made(studios[0], sampler="euler_ancestral")
    second = made(studios[0], sampler="euler_ancestral", n_samples=1, seed=43)
    assert not differs(both[1:], second)


@torch.no_grad()
def test_nothing_is_zeros_for_the_base_and_a_text_for_the_refiner(studios: tuple[Studio, Studio]) -> None:
    first, second = (studio.model for studio in studios)
    condition = first.condition([PROMPT], size=(8, 8))
    away = first.unconditional(condition)
    assert not away["c_crossattn"][0].any() and not away["c_adm"][:, :16].any()
    assert torch.equal(away["c_adm"][:, 16:], condition["c_adm"][:, 16:])
    assert first.unconditional(condition, "a dog")["c_crossattn"][0].any()
    condition = second.condition([PROMPT], size=(8, 8))
    away = second.unconditional(condition)
    assert away["c_crossattn"][0].any()
    scores = [part["c_adm"][:, -8:] for part in (condition, away)]
    assert not torch.equal(*scores)  # 6 against 2.5
    assert torch.equal(second.unconditional(condition, aesthetic_score=6.0)["c_adm"][:, -8:], scores[0])


def test_the_refiner_takes_over_where_it_is_told(studios: tuple[Studio, Studio]) -> None:
    first, second = studios
    plain = made(first)
    never, whole = (made(first, refiner=second, refiner_start=start) for start in (1.0, 0.0))
    assert not differs(plain, never)
    half = made(first, refiner=second, refiner_start=0.5)
    assert differs(plain, half) and differs(whole, half)
    for score in ({"aesthetic_score": 1.0}, {"negative_aesthetic_score": 9.0}):  # little in a random network
        assert not np.array_equal(whole, made(first, refiner=second, refiner_start=0.0, **score))
    again = made(first, refiner=second, refiner_strength=0.4)
    assert differs(plain, again) and differs(half, again)
    assert not differs(plain, made(first, refiner=second, refiner_strength=0.0))


def test_who_takes_how_many_steps() -> None:
    """Of the sigmas and the zero behind them a share, one at least, as the released wrappers count."""
    for start, total, own in ((0.8, 50, 9), (0.8, 5, 0), (0.5, 5, 2), (0.0, 5, 5), (1.0, 5, 0), (0.65, 10, 2)):
        assert Refiner(None, start).own_steps(total) == Refiner(None, start).left_over(total) == own  # type: ignore[arg-type]
    assert Refiner(None, strength=0.15).own_steps(50) == 6  # type: ignore[arg-type]
    assert Refiner(None, strength=0.15).left_over(50) == 0  # type: ignore[arg-type]


def test_the_record_of_a_picture_says_it(studios: tuple[Studio, Studio], tmp_path: Path) -> None:
    options = Txt2ImgOptions(
        prompt=PROMPT, n_samples=1, outdir=str(tmp_path), skip_grid=True, progress=False, crop=[1, 2],
        refiner=studios[1], refiner_start=0.5, aesthetic_score=7.0, sampler="heun_karras:s_churn=2",
    )  # fmt: skip
    txt2img(options, studios[0])
    text = "".join(str(value) for value in Image.open(tmp_path / "samples" / "00000.png").info.values())
    for part in ('"crop": [1, 2]', '"refiner_start": 0.5', '"aesthetic_score": 7.0', "heun_karras:s_churn=2"):
        assert part in text, (part, text)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"original_size": [1, 2, 3]}, r"--original_size needs two numbers, height and width in pixels, got 1 2 3"),
        ({"crop": [4]}, r"--crop needs two numbers, top and left in pixels, got 4"),
        ({"target_size": [0, 5]}, r"--target_size needs two numbers"),
        ({"aesthetic_score": 11.0}, r"--aesthetic_score lies between 0 and 10"),
        ({"aesthetic_score": 6.0}, r"--aesthetic_score is for Stable Diffusion XL's refiner"),
        ({"refiner_start": 1.5}, r"--refiner_start lies between 0 and 1"),
        ({"refiner": "missing.safetensors"}, r"there is no checkpoint 'missing.safetensors'"),
        ({"sampler": "heun:order=3"}, r"sampler 'heun' has no option 'order'; it has: s_churn"),
        ({"sampler": "lms:order=0"}, r"option 'order' of sampler 'lms' needs a number, got '0'"),
        ({"vae": "missing.safetensors", "ckpt": "BASE"}, r"there is no file 'missing.safetensors'"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    options: dict[str, Any], sentence: str, studios: tuple[Studio, Studio], base: Path, tmp_path: Path
) -> None:
    at_hand = None if "ckpt" in options else studios[0]
    options = {**options, "ckpt": str(base)} if "ckpt" in options else options
    with pytest.raises(UserError, match=sentence):
        made(at_hand, outdir=str(tmp_path / "out"), **options)


def test_models_that_do_not_go_together_are_one_sentence(
    studios: tuple[Studio, Studio], tmp_path: Path
) -> None:
    first, second = studios
    with pytest.raises(UserError, match=r"is a refiner, which finishes the pictures of another model"):
        made(second)
    with pytest.raises(UserError, match=r"is no refiner, which would be told an aesthetic score"):
        made(first, refiner=first)
    other = open_studio(write_small_model(tmp_path / "other"), device="cpu")
    with pytest.raises(UserError, match=r"works on other latents than"):
        made(other, refiner=second, prompt="a red circle")
    with pytest.raises(UserError, match=r"--crop is for Stable Diffusion XL"):
        made(other, crop=[0, 0], prompt="a red circle")


def test_another_autoencoder(base: Path, tmp_path: Path) -> None:
    weights = {k: v for k, v in read_state_dict(base).items() if k.startswith("first_stage_model.")}
    alone = {k.removeprefix("first_stage_model."): 0.5 * v for k, v in weights.items()}
    save_state_dict(alone, tmp_path / "vae.safetensors")
    save_state_dict({f"first_stage_model.{k}": v for k, v in alone.items()}, tmp_path / "inside.safetensors")
    plain, own, inside = (
        made(None, ckpt=str(base), vae=None if name is None else str(tmp_path / name))
        for name in (None, "vae.safetensors", "inside.safetensors")
    )
    assert differs(plain, own) and not differs(own, inside)
    save_state_dict({"encoder.conv_in.weight": torch.zeros(1)}, tmp_path / "bad.safetensors")
    with pytest.raises(UserError, match=r"--vae '.*bad.safetensors' is no autoencoder for this model"):
        made(None, ckpt=str(base), vae=str(tmp_path / "bad.safetensors"))


def test_the_autoencoder_keeps_full_precision(base: Path) -> None:
    model = open_studio(base, device="cpu", precision="bf16").model
    kinds = {
        name.split(".")[0]: parameter.dtype for name, parameter in model.named_parameters() if parameter.dim() == 4
    }
    assert kinds["first_stage_model"] == torch.float32
    assert model.model.diffusion_model.dtype == torch.bfloat16


@torch.no_grad()
def test_an_autoencoder_that_overflows_in_half_precision_is_one_sentence(base: Path) -> None:
    model = open_studio(base, device="cpu", precision="full").model
    autoencoder: Any = model.first_stage_model.half()
    autoencoder.post_quant_conv.weight.fill_(6e4)
    with pytest.raises(UserError, match=r"^the model came to values beyond what its precision can hold: --prec"):
        made(model)


@torch.no_grad()
def test_tiles_of_a_local_decoder_are_the_whole() -> None:
    torch.manual_seed(0)
    decode = nn.Sequential(nn.Conv2d(4, 3, 3, padding=1), nn.Upsample(scale_factor=2))
    z = torch.randn(2, 4, 20, 33)
    whole = decode(z)
    tiled = in_tiles(decode, z, 2, tile=12, overlap=6)
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().mean() < 0.02 * whole.std()  # the cells at the seams see no neighbour
    torch.testing.assert_close(in_tiles(lambda t: t.repeat_interleave(2, 2).repeat_interleave(2, 3), z, 2, 12, 6),
                               z.repeat_interleave(2, 2).repeat_interleave(2, 3))  # fmt: skip


def test_short_memory_is_met_with_tiles(
    studios: tuple[Studio, Studio], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, whole = studios[0].model, made(studios[0])
    decode, seen = model.decode_first_stage, []

    def short(z: Tensor) -> Tensor:
        if len(z) > 1:
            raise torch.OutOfMemoryError("no")
        seen.append(tuple(z.shape))
        return decode(z)

    monkeypatch.setattr(model, "decode_first_stage", short)
    assert not differs(made(studios[0]), whole)  # one tile is the whole picture
    assert seen == [(1, 4, 8, 8)] * 2
    assert pictures.log.name == "ldm.workflows.pictures"
