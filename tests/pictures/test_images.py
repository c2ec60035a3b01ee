"""Reading, writing and sizing pictures."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.pictures import images
from ldm.pictures.numbered import next_numbered_path
from ldm.util import UserError


def gradient(width: int = 24, height: int = 16) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 10, y * 15, 255 - x * 10], -1).astype(np.uint8))


def assert_similar(image: Image.Image, expected: Image.Image, tolerance: float) -> None:
    assert image.mode == "RGB" and image.size == expected.size
    difference = np.asarray(image, float) - np.asarray(expected.convert("RGB"), float)
    assert abs(difference).mean() <= tolerance


@pytest.mark.parametrize(
    ("suffix", "tolerance"),
    [("png", 0), ("bmp", 0), ("tiff", 0), ("ppm", 0), ("gif", 12), ("jpg", 8), ("webp", 8), ("avif", 8)],
)
def test_every_format_is_read(tmp_path: Path, suffix: str, tolerance: float) -> None:
    path = tmp_path / f"a.{suffix}"
    images.save_image(gradient(), path)
    assert_similar(images.load_image(path), gradient(), tolerance)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = gradient()
    stored = {  # how a camera lays the upright picture down for each orientation
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    (upright if stored is None else upright.transpose(stored)).save(tmp_path / "a.png", exif=exif)
    assert_similar(images.load_image(tmp_path / "a.png"), upright, 0)


def test_sixteen_bits_keep_their_range(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    dim = (ramp // 400).astype(np.uint16)  # a dark picture stays dark, however small its numbers
    for suffix in ("png", "tiff"):
        for values in (ramp, dim):
            Image.fromarray(values).save(tmp_path / f"a.{suffix}")
            found = np.asarray(images.load_image(tmp_path / f"a.{suffix}"))[..., 0]
            np.testing.assert_allclose(found, values / 257.0, atol=0.51)


def test_floats_keep_their_range(tmp_path: Path) -> None:
    for top in (1.0, 255.0):
        Image.fromarray(np.linspace(0, top, 64, dtype=np.float32)[None].repeat(4, 0)).save(tmp_path / "a.tiff")
        found = np.asarray(images.load_image(tmp_path / "a.tiff"))[0, :, 0]
        np.testing.assert_allclose(found, np.linspace(0, 255, 64), atol=0.51)


def test_other_modes(tmp_path: Path) -> None:
    for mode, path in (("L", "l.png"), ("1", "1.png"), ("P", "p.png"), ("CMYK", "c.jpg"), ("LA", "la.png")):
        picture = gradient().convert("L").convert(mode) if mode in ("LA", "1") else gradient().convert(mode)
        picture.save(tmp_path / path)
        assert_similar(images.load_image(tmp_path / path), picture.convert("RGB"), 8)


def test_what_is_transparent_becomes_white(tmp_path: Path) -> None:
    layer = gradient().convert("RGBA")
    layer.putalpha(Image.linear_gradient("L").resize(layer.size).point(lambda v: 255 * (v > 128)))
    layer.save(tmp_path / "a.png")
    found = np.asarray(images.load_image(tmp_path / "a.png"))
    assert (found[0] == 255).all() and (found[-1] == np.asarray(gradient())[-1]).all()
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 10, 10])
    palette.save(tmp_path / "b.png", transparency=1)
    assert (np.asarray(images.load_image(tmp_path / "b.png")) == 255).all()


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no image file '.*missing\.png'"):
        images.load_image(tmp_path / "missing.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(UserError, match=r"text\.png': not a picture"):
        images.load_image(tmp_path / "text.png")
    gradient(200, 200).save(tmp_path / "whole.jpg")
    for name in ("whole.jpg", "whole.png"):
        gradient(200, 200).save(tmp_path / name)
        (tmp_path / f"cut_{name}").write_bytes((tmp_path / name).read_bytes()[:-400])
        with pytest.raises(UserError, match=f"cut_{name}"):
            images.load_image(tmp_path / f"cut_{name}")


def test_a_folder_skips_what_it_cannot_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("10.png", "2.png", "1.jpg"):
        gradient().save(tmp_path / name)
    (tmp_path / "3.png").write_text("broken")
    (tmp_path / "notes.txt").write_text("no picture")
    with caplog.at_level(logging.WARNING):
        found = images.load_folder(tmp_path)
    assert [path.name for path, _ in found] == ["1.jpg", "2.png", "10.png"]
    assert "3.png" in caplog.text and "skipped 1 of 4" in caplog.text


def test_a_folder_with_nothing_readable_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        images.load_folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no pictures"):
        images.load_folder(tmp_path)
    (tmp_path / "a.png").write_text("broken")
    with pytest.raises(UserError, match="none of the 1 pictures"):
        images.load_folder(tmp_path)


def test_tensors_and_pictures_are_inverse() -> None:
    tensor = images.image_to_tensor(gradient())
    assert tensor.shape == (3, 16, 24) and tensor.dtype == torch.float32
    assert tensor.min() >= -1 and tensor.max() <= 1 and tensor[0, 0, 0] == -1 and tensor[2, 0, 0] == 1
    assert_similar(images.tensor_to_image(tensor), gradient(), 0)
    assert images.tensor_to_image(torch.full((3, 2, 2), 7.0)).getpixel((0, 0)) == (255, 255, 255)
    assert images.tensor_to_image(torch.full((3, 2, 2), float("nan"))).getpixel((0, 0)) == (128, 128, 128)
    with pytest.raises(ValueError, match=r"\[3, H, W\]"):
        images.tensor_to_image(torch.zeros(1, 3, 4, 4))


def test_sizes() -> None:
    images.check_size(64, 128, 8)
    with pytest.raises(UserError, match=r"width \(W\) 100 is not a multiple of 8; 96 or 104"):
        images.check_size(100, 64, 8)
    with pytest.raises(UserError, match=r"height \(H\) must be at least 8, and a multiple of it; got 3"):
        images.check_size(64, 3, 8)
    assert images.fit_size(640, 427, 8) == (640, 424)
    assert images.fit_size(1000, 500, 64, longest=512) == (512, 256)
    assert images.fit_size(3, 3, 8) == (8, 8)
    assert max(images.fit_size(1000, 999, 64, longest=500)) <= 500
    assert images.fit_image(gradient(640, 427), 8).size == (640, 424)
    assert images.centre_crop(gradient(640, 427), 64, 64).size == (64, 64)


def test_parameters_travel_in_a_png(tmp_path: Path) -> None:
    parameters = {"prompt": "파란 배경 위의 별 <b> “蓝色”", "seed": 42, "scale": 3.0}
    images.save_image(gradient(), tmp_path / "a.png", parameters)
    assert images.read_parameters(tmp_path / "a.png") == parameters
    images.save_image(gradient(), tmp_path / "b.png", "a star\nSteps: 20")
    assert images.read_parameters(tmp_path / "b.png") == "a star\nSteps: 20"
    images.save_image(gradient(), tmp_path / "c.png")
    assert images.read_parameters(tmp_path / "c.png") is None
    with pytest.raises(UserError, match="no picture format"):
        images.save_image(gradient(), tmp_path / "a.xyz")
    with pytest.raises(UserError, match=r"nothing\.png"):
        images.read_parameters(tmp_path / "nothing.png")


def test_numbering_never_overwrites(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert next_numbered_path(folder).name == "00000.png"
    for _ in range(3):
        images.save_image(gradient(), next_numbered_path(folder))
    (folder / "00007.jpg").write_text("somebody's")
    (folder / "grid-0010.png").write_text("a sheet")
    assert next_numbered_path(folder).name == "00008.png"
    assert next_numbered_path(folder, prefix="grid-", digits=4).name == "grid-0011.png"
    assert len(list(folder.iterdir())) == 5


def test_a_sheet_holds_all_pictures_and_labels() -> None:
    pictures = [gradient(), gradient(12, 12), gradient(), gradient()]
    plain = images.make_grid(pictures, 3)
    assert plain.size == (3 * 26 + 2, 2 * 18 + 2)
    assert np.array_equal(np.asarray(plain)[2:18, 2:26], np.asarray(gradient()))
    big = [gradient(96, 64)] * 2
    labelled = images.make_grid(big, 2, ["a small red star on a blue background", "b"])
    assert labelled.height > images.make_grid(big, 2).height
    assert (np.asarray(labelled)[68:, 2:98] < 128).any()  # ink under the first picture
    with pytest.raises(UserError, match="as many labels"):
        images.make_grid(pictures, 2, ["one"])
    with pytest.raises(UserError, match="at least one picture"):
        images.make_grid([], 2)
