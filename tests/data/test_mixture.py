"""Batches of different kinds: shares, sizes, order, and what a loader makes of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from ldm.data.mixture import Mixture
from ldm.training.datamodule import DataModuleFromConfig
from ldm.util import ConfigError, UserError

RENDERED = {"target": "ldm.world.scenes.SceneWorld", "params": {"split": "train", "size": 64, "length": 50}}
PHOTOS = {
    "target": "ldm.world.photos.BundledPhotos",
    "params": {"size": 32, "length": 50, "captioned": False},
}


def parts(share: float = 1.0) -> list[dict[str, Any]]:
    return [
        {"share": 3.0, "batch_size": 4, "data": RENDERED},
        {"share": share, "batch_size": 2, "data": PHOTOS},
    ]


def test_every_batch_is_of_one_kind_and_the_shares_hold() -> None:
    class Sizes:
        def __init__(self, size: int) -> None:
            self.size = size

        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int) -> int:
            return self.size

    mixture = Mixture(parts(), length=400)
    mixture.parts = [
        type(part)(Sizes(size), part.batch_size, part.share)
        for part, size in zip(mixture.parts, (4, 2), strict=True)
    ]
    kinds: Counter[int] = Counter()
    for i in range(400):
        batch: Any = mixture[i]
        assert len(set(batch.tolist())) == 1 and len(batch) == batch[0]
        kinds[int(batch[0])] += 1
    assert 0.68 < kinds[4] / 400 < 0.82


def test_batches_depend_on_seed_and_index_alone() -> None:
    first, again, other = (Mixture(parts(), length=6, seed=seed) for seed in (1, 1, 2))
    for i in (5, 0, 3):
        assert torch.equal(first[i]["image"], again[i]["image"]) and first[i]["caption"] == again[i]["caption"]
    assert any(first[i]["caption"] != other[i]["caption"] for i in range(6))


def test_a_loader_adds_no_dimension() -> None:
    node = {"target": "ldm.data.mixture.Mixture", "params": {"parts": parts(3.0), "length": 12}}
    data = DataModuleFromConfig(batch_size=1, train=node, num_workers=0)
    data.setup()
    loader = data.train_dataloader()
    assert not isinstance(loader, list)
    shapes = {tuple(batch["image"].shape) for batch in loader}
    assert shapes == {(4, 64, 64, 3), (2, 32, 32, 3)}
    empty = [set(batch["caption"]) == {""} for batch in loader if len(batch["image"]) == 2]
    assert empty and all(empty)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"batch_size": 2}, "batch_size: 1"), ({"cache_latents": True}, "no cache_latents")],
)
def test_options_that_do_not_go_with_whole_batches(change: dict[str, Any], sentence: str) -> None:
    node = {"target": "ldm.data.mixture.Mixture", "params": {"parts": parts(), "length": 2}}
    data = DataModuleFromConfig(**{"batch_size": 1, "train": node, **change})
    with pytest.raises(ConfigError, match=sentence):
        data.setup()


def test_what_is_not_a_mixture_says_so() -> None:
    with pytest.raises(ConfigError, match="at least one part"):
        Mixture([], 3)
    with pytest.raises(ConfigError, match=r"part 0 of a mixture .* no batch_size"):
        Mixture([{"share": 1, "data": RENDERED}], 3)
    with pytest.raises(ConfigError, match="share > 0"):
        Mixture([{"share": 0, "batch_size": 1, "data": RENDERED}], 3)
    with pytest.raises(UserError, match="length >= 1"):
        Mixture(parts(), 0)
    with pytest.raises(IndexError):
        Mixture(parts(), 3)[3]
