"""Mask files: what is read, what is refused, names, sizes, soft edges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

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
        (np.array([{"a": 1}], dtype=object), "not a whole .npy file"),
    ],
)
def test_bad_values_are_one_sentence(tmp_path: Path, values: np.ndarray, message: str) -> None:
    np.save(tmp_path / "m.npy", values, allow_pickle=True)
    with pytest.raises(UserError, match=message) as error:
        read_mask(tmp_path / "m.npy")
    assert "m.npy" in str(error.value)


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
