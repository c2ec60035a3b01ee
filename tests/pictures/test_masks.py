"""Mask files: what is read, what is refused, names, sizes, soft edges."""

from __future__ import annotations

import contextlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.pictures.mask_values import read_strokes
from ldm.pictures.masks import feather, find_masks, fit_mask, is_mask_of_another, mask_path, read_mask, write_mask
from ldm.util import UserError


def half(height: int = 6, width: int = 8) -> np.ndarray:
    values = np.zeros((height, width), np.float32)
    values[:, width // 2 :] = 1
    return values


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.float64])
def test_arrays_of_any_kind_of_number(tmp_path: Path, dtype: type) -> None:
    np.save(tmp_path / "m.npy", half().astype(dtype)[None, ..., None])
    mask = read_mask(tmp_path / "m.npy")
    assert mask.dtype is torch.float32
    assert torch.equal(mask, torch.from_numpy(half()))


def test_soft_values_and_those_up_to_255(tmp_path: Path) -> None:
    np.save(tmp_path / "soft.npy", half() * 0.25)
    assert read_mask(tmp_path / "soft.npy").max() == 0.25
    np.save(tmp_path / "bytes.npy", (half() * 51).astype(np.uint8))
    assert read_mask(tmp_path / "bytes.npy").max() == pytest.approx(0.2)
    Image.fromarray((half() * 102).astype(np.uint8)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").max() == pytest.approx(0.4)


def changed(**values: float) -> np.ndarray:
    mask = half()
    mask[0, 0] = values["value"]
    return mask


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (half() * 0, "empty"),
        (changed(value=float("nan")), "not finite"),
        (changed(value=float("inf")), "not finite"),
        (changed(value=-0.5), "holds values from -0.5 to 1"),
        (half() * 7.5, "holds values from 0 to 7.5"),
        ((half() * 300).astype(np.int32), "holds values from 0 to 300"),
        (np.ones((2, 6, 8), np.float32), r"shape \[2, 6, 8\]"),
        (np.array(["a", "b"]), "holds no numbers"),
        (np.zeros((4, 4), [("mask", "f4")]), "holds no numbers"),
        (np.array([{"a": 1}], dtype=object), "not a whole .npy file"),
    ],
)
def test_bad_values_are_one_sentence(tmp_path: Path, values: np.ndarray, message: str) -> None:
    np.save(tmp_path / "m.npy", values, allow_pickle=True)
    with pytest.raises(UserError, match=message) as error:
        read_mask(tmp_path / "m.npy")
    assert "m.npy" in str(error.value)


CASES = Path(__file__).parent / "cases"


def left_and_right(path: Path) -> tuple[float, float]:
    mask = read_mask(path)
    middle = mask.shape[1] // 2
    left, right = mask[:, :middle], mask[:, middle:]
    assert left.min() == left.max() and right.min() == right.max()
    return float(left[0, 0]), float(right[0, 0])


@pytest.mark.parametrize("name", ["white_on_transparent", "red_on_transparent", "labels_0_1", "gray16", "bit1"])
def test_other_programs_masks_of_the_left_half(name: str) -> None:
    assert left_and_right(CASES / f"{name}.png") == (1, 0)


def layer(colour: tuple[int, int, int], mode: str = "RGBA") -> Image.Image:
    """The left half painted, the right half transparent."""
    made = Image.new("RGBA", (8, 6), (*colour, 255))
    made.paste((*colour, 0), (4, 0, 8, 6))
    return made.convert(mode)


def test_alpha_is_the_mask_wherever_it_varies(tmp_path: Path) -> None:
    for colour in ((0, 0, 0), (255, 255, 255), (10, 200, 30)):
        for mode, suffix in (("RGBA", "png"), ("LA", "png"), ("RGBA", "webp"), ("RGBA", "tif"), ("RGBA", "avif")):
            layer(colour, mode).save(tmp_path / f"a.{suffix}", lossless=True)
            assert left_and_right(tmp_path / f"a.{suffix}") == (1, 0), (colour, mode, suffix)
    cut_out = Image.effect_noise((8, 6), 90).convert("RGB")
    cut_out.putalpha(layer((0, 0, 0)).getchannel("A").point(lambda value: value // 2))
    cut_out.save(tmp_path / "a.png")
    assert left_and_right(tmp_path / "a.png") == (pytest.approx(127 / 255), 0)
    palette = Image.new("P", (8, 6), 0)
    palette.putpalette([9, 9, 9, 200, 10, 10])
    palette.paste(1, (4, 0, 8, 6))
    palette.save(tmp_path / "p.png", transparency=1)
    assert left_and_right(tmp_path / "p.png") == (1, 0)


def test_alpha_that_says_nothing_leaves_it_to_the_colours(tmp_path: Path) -> None:
    Image.fromarray((half() * 255).astype(np.uint8)).convert("RGBA").save(tmp_path / "a.png")
    assert left_and_right(tmp_path / "a.png") == (0, 1)
    Image.new("RGBA", (8, 6), (255, 255, 255, 0)).save(tmp_path / "b.png")
    with pytest.raises(UserError, match="is empty"):
        read_mask(tmp_path / "b.png")


def strips(*values: int) -> np.ndarray:
    return np.repeat(np.array([values], np.uint8), 6, 0)


def palette(values: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    made = Image.fromarray(values).convert("P")
    made.putdata(values.flatten().tolist())
    made.putpalette([part for colour in colours for part in colour])
    return made


def test_one_label_beside_0_is_a_mask_however_it_is_written(tmp_path: Path) -> None:
    labels = strips(1, 1, 0, 0)
    for number in (1, 7, 31):
        for dtype in (np.uint8, np.int64):
            np.save(tmp_path / "m.npy", labels.astype(dtype) * number)
            assert left_and_right(tmp_path / "m.npy") == (1, 0)
        Image.fromarray(labels * np.uint8(number)).save(tmp_path / "m.png")
        assert left_and_right(tmp_path / "m.png") == (1, 0)
        Image.fromarray(labels.astype(np.uint16) * np.uint16(number)).save(tmp_path / "m16.png")
        assert left_and_right(tmp_path / "m16.png") == (1, 0)
        Image.fromarray(labels.astype(np.int32) * number).save(tmp_path / "m.tif")
        assert left_and_right(tmp_path / "m.tif") == (1, 0)
    palette(labels, (0, 0, 0), (128, 0, 0)).save(tmp_path / "p.png")
    assert left_and_right(tmp_path / "p.png") == (1, 0)
    Image.fromarray(labels[..., None] * np.array([255, 0, 0], np.uint8)).save(tmp_path / "c.png")
    assert left_and_right(tmp_path / "c.png") == (1, 0)
    Image.fromarray(strips(255, 255, 0, 0).astype(np.uint16)).save(tmp_path / "eight_in_sixteen.png")
    assert left_and_right(tmp_path / "eight_in_sixteen.png") == (1, 0)


def test_several_labels_are_named_and_one_can_be_chosen(tmp_path: Path) -> None:
    labels = strips(0, 1, 2, 5)
    np.save(tmp_path / "m.npy", labels)
    Image.fromarray(labels).save(tmp_path / "m.png")
    Image.fromarray(labels.astype(np.uint16)).save(tmp_path / "m16.png")
    palette(labels, *((n * 40, 200 - n, n) for n in range(6))).save(tmp_path / "p.png")
    for name in ("m.npy", "m.png", "m16.png", "p.png"):
        with pytest.raises(UserError, match=rf"{name}' is a label image with the labels 0, 1, 2, 5, .*--label 1 "):
            read_mask(tmp_path / name)
        assert torch.equal(read_mask(tmp_path / name, label=5), torch.from_numpy(strips(0, 0, 0, 1)).float())
        with pytest.raises(UserError, match="has no label 3; it has 0, 1, 2, 5"):
            read_mask(tmp_path / name, label=3)
    Image.fromarray(strips(0, 1, 2, 255)).save(tmp_path / "unknown.png")
    with pytest.raises(UserError, match=r"the labels 0, 1, 2, 255"):
        read_mask(tmp_path / "unknown.png")
    colours = np.zeros((6, 4, 3), np.uint8)
    colours[:, 1, 0] = colours[:, 2, 1] = 255
    Image.fromarray(colours).save(tmp_path / "c.png")
    with pytest.raises(UserError, match=r"labels 0x000000, 0x00ff00, 0xff0000, .*--label 0x00ff00 "):
        read_mask(tmp_path / "c.png")
    assert torch.equal(read_mask(tmp_path / "c.png", label=0xFF0000), torch.from_numpy(strips(0, 1, 0, 0)).float())


def test_grey_that_is_meant_stays_grey(tmp_path: Path) -> None:
    soft = np.linspace(0, 255, 64).astype(np.uint8)[None].repeat(6, 0)
    for image in (Image.fromarray(soft), Image.fromarray(soft).convert("RGB"), Image.fromarray(soft).convert("P")):
        image.save(tmp_path / "a.png")
        assert np.allclose(read_mask(tmp_path / "a.png"), soft / 255.0)
    Image.fromarray(soft.astype(np.uint16) * np.uint16(257)).save(tmp_path / "b.png")
    assert np.allclose(read_mask(tmp_path / "b.png"), soft / 255.0)
    for scale in (1.0, 255.0):
        Image.fromarray(soft.astype(np.float32) / np.float32(255) * np.float32(scale)).save(tmp_path / "c.tif")
        assert np.allclose(read_mask(tmp_path / "c.tif"), soft / 255.0)
    Image.fromarray(np.full((6, 8), np.nan, np.float32)).save(tmp_path / "d.tif")
    with pytest.raises(UserError, match="not finite"):
        read_mask(tmp_path / "d.tif")


def header(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "data",
    [
        header("(1000000, 1000000)"),
        header("(2, -2)") + b"\0" * 16,
        header("(0, 1" + "0" * 30 + ")"),
        header("(" * 40),
        header("('a', 2)"),
        header("(2, 2)", "'<f4"),
        header("(2, 2)", "'|O'") + b"\0" * 32,
        header("(2, 2)", "[('a', '<f4')]")[:60],
        b"\x93NUMPY\x03\x00" + b"\0" * 40,
        b"\x93NUMPY",
        b"\x80\x04K\x01.",
    ],
)
def test_an_array_whose_header_lies_takes_no_memory(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.npy").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"m\.npy': not a whole \.npy file of numbers"):
        read_mask(tmp_path / "m.npy")
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_headers_with_flipped_bits(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", half())
    whole = (tmp_path / "m.npy").read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole)
        data[int(generator.integers(128))] ^= 1 << int(generator.integers(8))
        (tmp_path / "m.npy").write_bytes(data)
        with contextlib.suppress(UserError):
            read_mask(tmp_path / "m.npy")


def test_strokes_are_open_where_nothing_is_painted(tmp_path: Path) -> None:
    strokes = read_strokes(CASES / "strokes_on_transparent.png")
    alpha = np.asarray(Image.open(CASES / "strokes_on_transparent.png"))[..., 3]
    assert np.isnan(strokes[alpha == 0]).all() and (alpha == 0).mean() > 0.9
    painted = np.asarray(Image.open(CASES / "strokes_on_transparent.png"))[..., 0][alpha > 0]
    assert np.array_equal(strokes[alpha > 0], painted / 255.0)
    Image.fromarray(strips(0, 128, 255)).save(tmp_path / "a.png")
    assert np.array_equal(read_strokes(tmp_path / "a.png")[0], [0, np.nan, 1], equal_nan=True)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no mask file"):
        read_mask(tmp_path / "m.npy")
    np.save(tmp_path / "m.npy", half())
    (tmp_path / "cut.npy").write_bytes((tmp_path / "m.npy").read_bytes()[:-9])
    with pytest.raises(UserError, match=r"not a whole \.npy file"):
        read_mask(tmp_path / "cut.npy")
    with pytest.raises(UserError, match="has 8x6 pixels, its content needs 6x8 or 16x12"):
        read_mask(tmp_path / "m.npy", [(8, 6), (12, 16)])
    assert read_mask(tmp_path / "m.npy", [(6, 8)]).shape == (6, 8)


def test_names(tmp_path: Path) -> None:
    for name in ("a.jpg", "a_mask.npy", "a_mask.png", "a_mask1.png", "a_mask11.npy", "a_mask2.npy", "a_masked.png",
                 "ab.jpg", "c.d.jpg", "c_mask0.npy", "e.f.jpg", "e.f_mask.npy", "e_mask.npy"):  # fmt: skip
        (tmp_path / name).touch()

    def found(name: str) -> list[str]:
        return [path.name for path in find_masks(tmp_path / name)]

    assert found("a.jpg") == ["a_mask.npy", "a_mask1.png", "a_mask2.npy", "a_mask11.npy"]
    assert found("ab.jpg") == []
    assert found("c.d.jpg") == ["c_mask0.npy"]
    assert found("e.f.jpg") == ["e.f_mask.npy"]
    others = [tmp_path / "a.jpg", tmp_path / "a_mask.png", tmp_path / "a_masked.png"]
    assert [is_mask_of_another(path, others) for path in others] == [False, True, False]
    assert mask_path("f/c.d.jpg").as_posix() == "f/c_mask.npy"
    assert mask_path("f/c.d.jpg", 3).as_posix() == "f/c_mask3.npy"


def test_fitting_follows_the_content() -> None:
    mask = torch.from_numpy(half(8, 16))
    assert torch.equal(fit_mask(mask, (4, 8)), torch.from_numpy(half(4, 8)))
    square = fit_mask(mask, (4, 4), centre_crop=True)
    assert torch.equal(square, torch.from_numpy(half(4, 4)))
    left_edge = torch.zeros(8, 16)
    left_edge[:, :4] = 1
    with pytest.raises(UserError, match="outside the part of the picture that is kept"):
        fit_mask(left_edge, (4, 4), centre_crop=True)
    assert fit_mask(left_edge, (3, 5)).mean() == pytest.approx(0.25, abs=0.01)


def test_a_feather_keeps_the_border_and_softens_the_edge() -> None:
    mask = torch.from_numpy(half(20, 40))
    soft = feather(mask, 2.0)
    assert soft.shape == mask.shape
    assert soft[:, 0].max() < 1e-3 and soft[:, -1].min() > 1 - 1e-3
    assert soft[10, 18] < soft[10, 19] < soft[10, 20] < soft[10, 21]
    assert soft[10, 19] + soft[10, 20] == pytest.approx(1, abs=1e-3)
    assert feather(mask, 0) is mask
    with pytest.raises(UserError, match="feather"):
        feather(mask, -1)


def test_written_and_read_again(tmp_path: Path) -> None:
    mask = torch.rand(5, 7).clamp(min=0.1)
    write_mask(mask, tmp_path / "m.npy")
    assert torch.equal(read_mask(tmp_path / "m.npy"), mask)
    write_mask(mask, tmp_path / "m.png")
    assert (read_mask(tmp_path / "m.png") - mask).abs().max() <= 0.5 / 255 + 1e-6
    with pytest.raises(UserError, match="cannot write the mask"):
        write_mask(mask, tmp_path / "m.txt")
