"""What lies outside of all masks stays the content, and inside a style reaches its mask's edge."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.pictures.images import image_to_tensor
from ldm.util import UserError
from ldm.workflows.restyle.outside import grown, held, joined, opacity, open_cells
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.styleid import styleid
from tests.workflows.restyling import CLOSE, made, one, only, picture, pixels

FEATHER = 4


def half(height: int = 32, width: int = 32) -> np.ndarray:
    """1 on the left."""
    mask = np.zeros((height, width), np.float32)
    mask[:, : width // 2] = 1
    return mask


@pytest.fixture
def masked(options: StyleIDOptions) -> StyleIDOptions:
    np.save(Path(str(options.cnt)) / "a_mask.npy", half())
    return one(options, feather=FEATHER, no_sheet=True)


def test_outside_is_the_content_to_the_last_level(masked: StyleIDOptions, model: Any) -> None:
    kept = only(masked, model)
    content = pixels(Path(str(masked.cnt)))
    assert np.array_equal(kept[:, 16 + FEATHER :], content[:, 16 + FEATHER :])
    assert abs(kept[:, :16] - content[:, :16]).mean() > 8
    smooth = only(replace(masked, keep_flat=1.0, output_path=f"{masked.output_path}/smooth"), model)
    assert np.array_equal(smooth[:, 16 + FEATHER :], content[:, 16 + FEATHER :])
    assert abs(smooth[:, :16] - kept[:, :16]).max() > 2
    free = only(replace(masked, outside="free", output_path=f"{masked.output_path}/free"), model)
    assert abs(free[:, 16 + FEATHER :] - content[:, 16 + FEATHER :]).mean() > 8
    assert abs(kept[:, :8] - free[:, :8]).mean() < abs(free[:, :8] - content[:, :8]).mean() / 2  # inside as before


def test_the_record_says_it_where_there_are_masks(masked: StyleIDOptions, model: Any) -> None:
    (result,) = styleid(masked, model)
    said = json.loads(result.path.with_suffix(".json").read_text())["parameters"]
    assert (said["outside"], said["feather"]) == ("keep", FEATHER)
    (result,) = styleid(replace(masked, masks=["none"], output_path=f"{masked.output_path}/plain"), model)
    assert not {"outside", "feather"} & set(json.loads(result.path.with_suffix(".json").read_text())["parameters"])


def test_a_batch_is_one_after_the_other(options: StyleIDOptions, model: Any) -> None:
    np.save(Path(str(options.cnt)) / "a_mask.npy", half())
    np.save(Path(str(options.cnt)) / "b_mask.npy", half().T)
    some = replace(options, sty=f"{options.sty}/s.png", no_sheet=True)
    alone = made(some, model)
    together = made(replace(some, batch=2, output_path=f"{options.output_path}/two"), model)
    assert alone.keys() == together.keys() and len(alone) == 2
    assert max(abs(alone[name] - together[name]).max() for name in alone) <= CLOSE


def test_values_that_do_not_fit(options: StyleIDOptions, model: Any) -> None:
    for wrong, sentence in (({"outside": "white"}, "must be keep or free"), ({"feather": -1.0}, "number of pixels")):
        with pytest.raises(UserError, match=sentence):
            styleid(replace(options, **wrong), model)


def test_latents_outside_are_the_contents() -> None:
    cells = open_cells(grown(torch.from_numpy(half())[None], 8), torch.zeros(1, 3, 4, 4))
    assert cells[0, 0].tolist() == [[1, 1, 1, 0]] * 4
    assert open_cells(torch.from_numpy(half())[None], torch.zeros(1, 3, 4, 4))[0, 0].tolist() == [[1, 1, 0, 0]] * 4
    x, content = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    found = held(x, content, cells)
    assert torch.equal(found[..., :3], x[..., :3]) and torch.equal(found[..., 3:], content[..., 3:])


def test_a_mask_grows_only_into_what_no_mask_has() -> None:
    left = torch.zeros(16, 24)
    left[:, 4:10] = 1
    right = torch.zeros(16, 24)
    right[:, 10:16] = 1
    wide = grown(torch.stack([left, right]), 3)
    assert wide[0, 0, 0].nonzero().flatten().tolist() == list(range(1, 10))
    assert wide[0, 1, 0].nonzero().flatten().tolist() == list(range(10, 19))


@pytest.mark.parametrize("feather", [0, 1, 2, 3, 5, 8])
def test_opacity_passes_over_as_many_pixels_inside_the_edge_as_outside(feather: int) -> None:
    along = opacity(torch.from_numpy(half())[None], feather)[3]
    assert (along.diff() <= 1e-6).all() and torch.allclose(along + along.flip(0), torch.ones(32), atol=1e-6)
    assert along[: 16 - feather].min() > 0.9999 and (along[16 + feather :] == 0).all()
    assert feather == 0 or (along[16 - feather] < 0.9999 and 0.3 < along[16] < 0.5)
    assert float(-along.diff().min()) <= 1.001 / (2 * -(-feather // 2) + 1)


def test_a_soft_mask_stays_as_soft_as_it_is() -> None:
    ramp = torch.linspace(0, 1, 33).expand(1, 4, 33)
    seen = opacity(ramp, 2)
    assert torch.equal(seen[:, :14], ramp[0, :, :14]) and seen[:, 18:].min() > 0.9999
    assert (seen >= ramp[0]).all()


def test_what_is_joined_passes_over(tmp_path: Path) -> None:
    one_picture, other = (Image.open(picture(tmp_path / f"{seed}.png", seed)) for seed in (1, 2))
    whole = joined(one_picture, other, torch.from_numpy(half())[None], 3)
    result, content = (np.asarray(image, int) for image in (one_picture, other))
    found = np.asarray(whole, int)
    assert np.array_equal(found[:, :13], result[:, :13]) and np.array_equal(found[:, 19:], content[:, 19:])
    between = found[:, 13:19]
    low, high = (f(result[:, 13:19], content[:, 13:19]) for f in (np.minimum, np.maximum))
    assert ((between >= low - 1) & (between <= high + 1)).all()
    assert image_to_tensor(whole).shape == (3, 32, 32)
