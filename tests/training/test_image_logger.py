"""When pictures are logged, and what becomes of the model meanwhile."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn

from ldm.pictures.images import label_font
from ldm.training.image_logger import READABLE, ImageLogger, evaluating, labels_of, legible, pictures_of


def test_the_steps_at_which_pictures_are_due() -> None:
    logger = ImageLogger(batch_frequency=10, max_images=4)
    assert [step for step in range(31) if logger.is_due(step)] == [1, 2, 4, 8, 10, 20, 30]
    logger = ImageLogger(batch_frequency=10, max_images=4, increase_log_steps=False, log_first_step=True)
    assert [step for step in range(31) if logger.is_due(step)] == [0, 10, 20, 30]


def test_every_submodule_gets_its_mode_back() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    model[1].eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == [True, True, False, False]
    assert torch.is_grad_enabled()


def test_prompts_stand_below_the_pictures_that_they_belong_to() -> None:
    samples = torch.zeros(3, 3, 8, 8)
    drawn = {"conditioning": ["a star", "a moon", "a heart"], "samples": samples}
    assert labels_of(drawn, samples, 2) == ["a star", "a moon"]
    assert labels_of(drawn, torch.zeros(12, 3, 8, 8), 12) is None
    assert labels_of({"conditioning": torch.zeros(3, 3, 8, 8)}, samples, 3) is None


def test_pictures_are_wide_enough_for_whole_words() -> None:
    small, large = Image.new("RGB", (64, 48), "red"), Image.new("RGB", (256, 256))
    (picture,) = legible([small])
    assert picture.size == (128, 96) and legible([large])[0].size == (256, 256)
    assert label_font().getlength("background") <= READABLE


def test_values_become_pixels() -> None:
    values = torch.tensor([-2.0, -1.0, 0.0, 1.0]).view(1, 1, 2, 2)
    (picture,) = pictures_of(values)
    assert np.asarray(picture)[..., 0].tolist() == [[0, 0], [128, 255]]
    (picture,) = pictures_of((values + 1) / 2, rescale=False)
    assert np.asarray(picture)[..., 2].tolist() == [[0, 0], [128, 255]]
    assert len(pictures_of(torch.zeros(3, 2, 2))) == 1
    assert len(pictures_of(torch.zeros(5, 4, 2, 2))) == 5
