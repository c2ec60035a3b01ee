"""Parts of pictures made anew, by models that were trained for it and by others; pictures beyond their frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.models.diffusion.loop import Level
from ldm.models.diffusion.sampling import sample
from ldm.models.diffusion.soft_mask import PaintWhere
from ldm.pictures.frame import Frame, parse_frame
from ldm.pictures.images import image_to_tensor, read_parameters, tensor_to_image
from ldm.pictures.region import box_around
from ldm.util import UserError
from ldm.workflows.inpaint import InpaintOptions, inpaint
from ldm.workflows.inversion.cache import clean_latent
from ldm.workflows.models import open_model
from tests.helpers import noted
from tests.workflows.test_img2img import picture, pixels
from tests.workflows.test_needs import saved


@pytest.fixture
def options(tmp_path: Path) -> InpaintOptions:
    return InpaintOptions(
        prompt="a red circle", init_img=picture(32, 32), mask=half(32, 32), n_samples=2, steps=5, guidance_scale=3.0,
        seed=7, skip_grid=True, skip_save=True, outdir=str(tmp_path / "out"), progress=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def filler(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model that was made for in-painting."""
    return open_model(saved("in-painting", tmp_path_factory.mktemp("filler")), device="cpu")[0]


def half(width: int, height: int) -> torch.Tensor:
    """The right half is to be made anew."""
    mask = torch.zeros(height, width)
    mask[:, width // 2 :] = 1
    return mask


@pytest.mark.parametrize("kind", ["plain", "filler"])
@pytest.mark.parametrize("size", [(32, 32), (50, 37), (200, 150)])
def test_outside_the_mask_each_pixel_is_the_originals(
    request: pytest.FixtureRequest, options: InpaintOptions, kind: str, size: tuple[int, int]
) -> None:
    model = request.getfixturevalue("model" if kind == "plain" else "filler")
    original = picture(*size)
    made = inpaint(replace(options, init_img=original, mask=half(*size)), model)
    for one in made:
        assert one.size == size
        assert np.array_equal(pixels(one)[:, : size[0] // 2], pixels(original)[:, : size[0] // 2])
        assert abs(pixels(one) - pixels(original))[:, size[0] // 2 :].mean() > 5
    assert not np.array_equal(pixels(made[0]), pixels(made[1]))


def test_a_plain_model_is_held_at_the_picture_step_by_step(model: Any, options: InpaintOptions) -> None:
    """As ``sample`` with a mask and x0, which is compared with an implementation of others elsewhere."""
    (made,) = inpaint(replace(options, n_samples=1), model)
    z = clean_latent(model, image_to_tensor(picture(32, 32))[None])
    noise = torch.Generator("cpu").manual_seed(7)
    draw = lambda: torch.randn(z.shape[1:], generator=noise)[None]  # noqa: E731
    with torch.no_grad():
        condition = model.condition(["a red circle"])
        kept = torch.zeros(1, 1, 8, 8)
        kept[..., :4] = 1
        x = sample(model, draw(), condition, steps=5, guidance_scale=3.0, uncond=model.unconditional(condition),
                   noise=draw, mask=kept, x0=z)  # fmt: skip
        expected = tensor_to_image(model.decode_first_stage(kept * z + (1 - kept) * x)[0])
    assert abs(pixels(made) - pixels(expected))[:, 16:].max() <= 1


@pytest.mark.parametrize("kind", ["plain", "filler"])
def test_only_the_masked_part_is_worked_on(request: pytest.FixtureRequest, options: InpaintOptions, kind: str) -> None:
    """The box around the mask at the size of the training, put back; the same as that box alone, by hand."""
    model = request.getfixturevalue("model" if kind == "plain" else "filler")
    original, mask = picture(200, 150), torch.zeros(150, 200)
    mask[100:108, 180:190] = 1
    one = replace(options, n_samples=1, only_masked=3)
    (made,) = inpaint(replace(one, init_img=original, mask=mask), model)
    away = abs(pixels(made) - pixels(original)).mean(axis=2)
    assert made.size == (200, 150) and not away[mask == 0].any() and away[mask == 1].mean() > 5
    box = (177, 96, 193, 112)  # 16 pixels each way: the mask, and 3 around it at least
    part = original.crop(box).resize((32, 32), Image.Resampling.LANCZOS)
    small = torch.zeros(32, 32)
    small[8:24, 6:26] = 1
    (alone,) = inpaint(replace(one, init_img=part, mask=small, only_masked=None), model)
    back = pixels(alone.resize((16, 16), Image.Resampling.LANCZOS))
    near = abs(back - pixels(made.crop(box)))[5:11, 4:12]  # both are scaled, and at the edge beside other pixels
    assert near.mean() < 2 < away[mask == 1].mean() / 2


def test_boxes_around_masks() -> None:
    mask = torch.zeros(100, 200)
    mask[10:20, 50:90] = 1
    assert box_around(mask, 0, 4.0) == (50, 10, 90, 20)
    assert box_around(mask, 5, 1.0) == (45, 0, 95, 50), "the upper border is near"
    assert box_around(mask, 0, 8.0) == (30, 10, 110, 20)
    assert box_around(mask, 500, 1.0) == (0, 0, 200, 100), "no more than there is"
    assert box_around(mask / 300, 0, 4.0) == (50, 10, 90, 20), "a mask of hardly anything is one"
    mask[:] = 1
    assert box_around(mask, 32, 1.0) == (0, 0, 200, 100)


def test_what_is_written_of_a_masked_part(model: Any, options: InpaintOptions, tmp_path: Path) -> None:
    inpaint(replace(options, init_img=picture(64, 64), mask=half(64, 64), only_masked=0, skip_save=False), model)
    about = read_parameters(tmp_path / "out" / "samples" / "00000.png")
    assert isinstance(about, dict) and about["only_masked"] == 0 and "mask_blur" not in about


def test_a_trained_model_sees_the_picture_without_the_part_and_the_mask(filler: Any, options: InpaintOptions) -> None:
    seen: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        condition = filler.condition
        patch.setattr(filler, "condition", lambda prompts, **given: noted(seen, given) and condition(prompts, **given))
        inpaint(options, filler)
    assert torch.equal(seen[0]["mask"][0, 0], half(32, 32))
    assert torch.equal(seen[0]["image"], image_to_tensor(picture(32, 32))[None])


def test_soft_masks_are_strengths(model: Any) -> None:
    """Where a mask is v the last v of the steps are taken; 0 keeps the clean latent, 1 takes them all."""
    mask = torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0]).reshape(1, 1, 1, 5)
    x0, x = torch.zeros(1, 1, 1, 5), torch.ones(1, 1, 1, 5)
    paint = PaintWhere(mask, x0, lambda: torch.zeros_like(x), first=2, steps=10)
    levels = [Level(told=0, signal=0.5, noise=0.5, index=2 + i) for i in range(10)]
    painted = torch.stack([paint(x, level).flatten() for level in levels]).sum(dim=0)
    assert painted.tolist() == [0, 2, 5, 8, 10]
    assert paint.finish(x).flatten().tolist() == [0, 1, 1, 1, 1]


def test_a_soft_edge_goes_over_from_the_original(model: Any, options: InpaintOptions) -> None:
    original = picture(32, 32)
    (made,) = inpaint(replace(options, n_samples=1, mask_blur=2.0), model)
    away = abs(pixels(made) - pixels(original)).mean(axis=(0, 2))
    assert not away[:7].any() and 0 < away[11:15].mean() < away[20:].mean()


def test_where_masks_come_from(
    model: Any, options: InpaintOptions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    white = Image.fromarray((half(32, 32) * 255).byte().numpy())
    over_white = Image.composite(Image.new("RGB", (32, 32), "white"), picture(32, 32), white)
    reference = {name: inpaint(replace(options, init_img=init), model)
                 for name, init in (("photo", picture(32, 32)), ("layer", over_white))}  # fmt: skip
    white.save(tmp_path / "mask.png")
    picture(32, 32).save(tmp_path / "photo.png")
    layer = picture(32, 32).convert("RGBA")
    layer.putalpha(Image.fromarray(255 - np.asarray(white)))
    layer.save(tmp_path / "layer.png")
    plain = {"init_img": tmp_path / "photo.png"}
    for name, change in (
        ("photo", {"mask": white}), ("photo", {**plain, "mask": tmp_path / "mask.png"}),
        ("photo", {"mask": 1 - half(32, 32), "invert_mask": True}), ("layer", {"init_img": layer, "mask": None}),
        ("layer", {"init_img": tmp_path / "layer.png", "mask": None}),
    ):  # fmt: skip
        made = inpaint(replace(options, **change), model)
        assert all(np.array_equal(pixels(a), pixels(b)) for a, b in zip(made, reference[name], strict=True)), change
    white.save(tmp_path / "photo_mask.png")
    (tmp_path / "mask.png").rename(tmp_path / "alone.png")
    caplog.set_level("INFO")
    beside = inpaint(replace(options, init_img=tmp_path, mask=None), model)
    assert caplog.text.count("photo.png' is filled by the mask beside it, 'photo_mask.png'") == 1
    assert len(beside) == 2 * 2 and "left out: '" in caplog.text and "alone.png' has no mask" in caplog.text


def test_a_picture_beyond_its_frame(model: Any, options: InpaintOptions, tmp_path: Path) -> None:
    original = picture(32, 32)
    saving = replace(options, mask=None, outpaint="left=16,bottom=8", skip_save=False, n_samples=1)
    (made,) = inpaint(saving, model)
    assert made.size == (48, 40)
    assert np.array_equal(pixels(made)[:32, 16:], pixels(original))
    assert pixels(made)[:, :16].std() > 5
    about = read_parameters(tmp_path / "out" / "samples" / "00000.png")
    assert isinstance(about, dict) and about["outpaint"] == "left=16,bottom=8" and about["strength"] == 1


@pytest.mark.parametrize("text", ["0", "-5", "left", "left=a", "up=3", "left=1,=2", "99999999", ""])
def test_a_frame_that_is_none(text: str) -> None:
    with pytest.raises(UserError, match=r"^--outpaint '.*' should be pixels"):
        parse_frame(text)


def test_frames() -> None:
    assert parse_frame("64") == Frame(64, 64, 64, 64) and parse_frame(" top = 3 ") == Frame(top=3)
    frame = Frame(left=1, bottom=2)
    assert frame.around(Image.new("RGB", (3, 4))).size == (4, 6)
    assert frame.mask((3, 4)).sum() == 4 * 6 - 3 * 4


def test_what_does_not_fit_is_one_sentence(model: Any, filler: Any, options: InpaintOptions, tmp_path: Path) -> None:
    Image.new("L", (16, 16), 255).save(tmp_path / "small.png")
    Image.new("L", (32, 32), 0).save(tmp_path / "black.png")
    picture(32, 32).save(tmp_path / "photo.png")
    for change, message in (
        ({"mask": None}, "'a picture' has no mask: --mask FILE (white where something new is wanted)"),
        ({"mask": torch.ones(16, 16)}, "the mask is [16, 16], its picture needs [32, 32]"),
        ({"mask": tmp_path / "small.png"}, "has 16x16 pixels, its content needs 32x32"),
        ({"mask": tmp_path / "black.png"}, "is empty: no value is above 0"),
        ({"mask": tmp_path / "none.png"}, "there is no mask file"),
        ({"mask_blur": -1.0}, "--mask_blur must not be negative"),
        ({"only_masked": -1}, "--only_masked must not be negative"),
        ({"only_masked": 1, "longest": 64}, "--only_masked works at --H and --W"),
        ({"strength": 2.0}, "--strength must lie between 0"),
        ({"mask": torch.zeros(32, 32)}, "the mask is empty"),
    ):
        for one in (model, filler):
            with pytest.raises(UserError) as caught:
                inpaint(replace(options, **change), one)
            assert message in str(caught.value) and "\n" not in str(caught.value), change


def test_the_shipped_model_fills_a_half() -> None:
    shipped, _ = open_model(device="cpu")
    init = Image.new("RGB", (128, 128), (20, 30, 220))
    (made,) = inpaint(
        InpaintOptions(prompt="a large red circle on a blue background", init_img=init, mask=half(128, 128), steps=10,
                       n_samples=1, skip_grid=True, skip_save=True, progress=False), shipped,
    )  # fmt: skip
    assert np.array_equal(pixels(made)[:, :64], pixels(init)[:, :64])
    red, _, blue = pixels(made)[56:72, 68:80].mean(axis=(0, 1))
    assert red > blue + 100, "half a red circle, to the right of the middle"
