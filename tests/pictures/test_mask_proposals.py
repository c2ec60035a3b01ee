"""Masks proposed from marks: by colours, and by a SAM network with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.pictures.colour import keep_colour
from ldm.pictures.mask_proposals import Marks, propose, propose_with_sam
from ldm.util import UserError


def scene() -> tuple[Image.Image, np.ndarray]:
    """A noisy red disc on noisy green, 96 wide and 80 high, and where the disc is."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:80, :96]
    disc = (x - 55) ** 2 + (y - 40) ** 2 < 22**2
    colours = np.where(disc[..., None], [190, 60, 50], [60, 140, 70]) + rng.normal(0, 18, (80, 96, 3))
    return Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8)), disc


def overlap(mask: torch.Tensor, truth: np.ndarray) -> float:
    """Intersection over union."""
    found = mask.numpy() > 0.5
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.parametrize(
    "marks",
    [
        Marks(box=(28, 12, 84, 70)),
        Marks(inside=[(55, 40)], outside=[(5, 5), (90, 75)]),
        Marks(box=(28, 12, 84, 70), inside=[(50, 45)], outside=[(30, 66)]),
    ],
)
def test_what_marks_mean_is_found(marks: Marks) -> None:
    image, disc = scene()
    mask = propose(image, marks)
    assert mask.shape == (80, 96) and set(mask.unique().tolist()) == {0.0, 1.0}
    assert overlap(mask, disc) > 0.85


def test_strokes_decide() -> None:
    image, disc = scene()
    strokes = np.full((80, 96), np.nan)
    strokes[5:9, 5:90], strokes[38:42, 45:65] = 1, 0  # the green belongs, the disc does not
    assert overlap(propose(image, Marks(strokes=strokes)), ~disc) > 0.85


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        (Marks(), "needs a box, points or strokes"),
        (Marks(outside=[(1, 1)]), "needs a box, points or strokes"),
        (Marks(box=(10, 10, 5, 20)), "does not lie in the picture of 96x80"),
        (Marks(box=(10, 10, 50, 90)), "does not lie in the picture"),
        (Marks(inside=[(96, 5)]), "point 96,5 lies outside"),
        (Marks(inside=[(50, 40)]), "nothing outside"),
        (Marks(box=(0, 0, 96, 80)), "nothing outside"),
        (Marks(strokes=np.zeros((8, 8))), "strokes have 8x8 pixels, the picture 96x80"),
    ],
)
def test_marks_that_do_not_fit(marks: Marks, message: str) -> None:
    with pytest.raises(UserError, match=message):
        propose(scene()[0], marks)


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SAM model with random weights, of the smallest size, as files."""
    from transformers import SamConfig, SamImageProcessor, SamModel, SamProcessor

    folder = tmp_path_factory.mktemp("sam")
    torch.manual_seed(0)
    vision = {
        "hidden_size": 16, "output_channels": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 64,
        "patch_size": 16, "window_size": 2, "global_attn_indexes": [0], "mlp_dim": 16, "num_pos_feats": 4,
    }  # fmt: skip
    prompt = {"hidden_size": 8, "image_size": 64, "patch_size": 16, "mask_input_channels": 4}
    decoder = {
        "hidden_size": 8, "mlp_dim": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "iou_head_hidden_dim": 8,
    }  # fmt: skip
    model = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder))
    model.save_pretrained(folder)
    images = SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    SamProcessor(images).save_pretrained(folder)
    return folder


def test_a_sam_model_from_a_folder(sam: Path) -> None:
    image, _ = scene()
    masks = [
        propose_with_sam(image, marks, sam)
        for marks in (Marks(box=(28, 12, 84, 70)), Marks(inside=[(55, 40)], outside=[(3, 3)]))
    ]
    for mask in masks:
        assert mask.shape == (80, 96) and set(mask.unique().tolist()) <= {0.0, 1.0}
    again = propose_with_sam(image, Marks(box=(28, 12, 84, 70)), sam)
    assert torch.equal(again, masks[0])


def test_what_a_sam_model_cannot_do(sam: Path, tmp_path: Path) -> None:
    image, _ = scene()
    with pytest.raises(UserError, match="no strokes"):
        propose_with_sam(image, Marks(strokes=np.zeros((80, 96))), sam)
    with pytest.raises(UserError, match=r"there is no SAM model in .*scripts.download sam' gets one"):
        propose_with_sam(image, Marks(inside=[(5, 5)]), tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="cannot read a SAM model"):
        propose_with_sam(image, Marks(inside=[(5, 5)]), tmp_path)


def test_kept_colours() -> None:
    image, _ = scene()
    grey = Image.fromarray(np.random.default_rng(1).integers(60, 190, (40, 48, 3), dtype=np.uint8))
    kept = keep_colour(grey, image)
    assert kept.size == grey.size
    result = np.asarray(kept.convert("YCbCr"), int)
    assert abs(result[..., 0] - np.asarray(grey.convert("YCbCr"), int)[..., 0]).mean() < 3
    colours = np.asarray(image.resize(grey.size, Image.Resampling.LANCZOS).convert("YCbCr"), int)
    assert abs(result[..., 1:] - colours[..., 1:]).mean() < 6
