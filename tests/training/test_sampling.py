"""Which item comes when."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch

from ldm.training.datamodule import DataModuleFromConfig
from ldm.training.sampling import BucketSampler, Position, ResumableSampler, SeededItems
from ldm.util import UserError

TOY = {"target": "tests.training.toy.ToyPictures"}


def indices(sampler: ResumableSampler) -> list[int]:
    return [index for index, _ in sampler]


def test_an_epoch_is_a_permutation_and_the_next_is_another() -> None:
    epochs = [indices(ResumableSampler(range(10), Position(1, batches), 4)) for batches in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_from_the_middle_comes_the_rest() -> None:
    whole = indices(ResumableSampler(range(10), Position(1, 3), 4))
    assert indices(ResumableSampler(range(10), Position(1, 4), 4)) == whole[4:]
    assert indices(ResumableSampler(range(10), Position(1, 5), 4)) == whole[8:]


def test_processes_share_every_item_and_have_equally_many() -> None:
    parts = [indices(ResumableSampler(range(10), Position(1), 2, rank=rank, world_size=3)) for rank in range(3)]
    assert [len(part) for part in parts] == [4, 4, 4]
    assert set().union(*parts) == set(range(10))


def test_an_epoch_cut_short_is_counted_as_the_trainer_counts() -> None:
    sampler = ResumableSampler(range(10), Position(1, 2), 2, batches_per_epoch=2)
    assert indices(sampler) == indices(ResumableSampler(range(10), Position(1, 5), 2))
    longer = ResumableSampler(range(10), Position(1, 6), 2, batches_per_epoch=99)  # more than there are
    assert indices(longer) == indices(ResumableSampler(range(10), Position(1, 6), 2))


def test_the_batches_of_a_step_are_of_one_size_in_all_processes() -> None:
    buckets = [0, 1, 0, 2, 0, 1, 0, 0, 1, 0, 0]  # seven, three and one

    def dealt(batches: int, rank: int) -> list[list[int]]:
        sampler = BucketSampler(
            range(11), Position(1, batches), 2, buckets=buckets, rank=rank, world_size=2
        )
        assert sampler.batches_per_epoch == 2 + 1 + 1 and len(sampler) == 8
        flat = [index for index, _ in sampler]
        return [flat[start : start + 2] for start in range(0, len(flat), 2)]

    both = [dealt(0, rank) for rank in range(2)]
    for step in zip(*both, strict=True):
        assert len({buckets[index] for batch in step for index in batch}) == 1, step
    assert {index for batches in both for batch in batches for index in batch} == set(range(11))
    assert dealt(2, 1) == both[1][2:], "a resumed run goes on in the middle"
    assert dealt(4, 0) != both[0] and sorted(map(sorted, dealt(4, 0))) != sorted(map(sorted, both[0]))


def test_without_shuffling_the_order_stays() -> None:
    assert indices(ResumableSampler(range(5), Position(1), 2, shuffle=False)) == list(range(5))


class Drawing:
    """Items that are nothing but draws, from all three generators."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))


class DrawingBatches(Drawing):
    def __getitems__(self, indices: list[int]) -> list[tuple[float, float, float]]:
        return [super(DrawingBatches, self).__getitem__(index) for index in indices]


def test_an_item_s_draws_depend_on_seed_epoch_and_index_alone() -> None:
    items = SeededItems(Drawing(), Position(1))
    first = items[(2, 0)]
    torch.rand(7)
    items[(1, 0)]
    assert items[(2, 0)] == first
    assert items.__getitems__([(1, 0), (2, 0)])[1] == first
    others = [items[(2, 1)], items[(3, 0)], SeededItems(Drawing(), Position(2))[(2, 0)]]
    assert all(a != b for other in others for a, b in zip(first, other, strict=True))


def test_a_data_set_that_reads_batches_is_asked_for_batches() -> None:
    items = SeededItems(DrawingBatches(), Position(1))
    batch = items.__getitems__([(1, 0), (2, 0)])
    assert batch == items.__getitems__([(1, 0), (2, 0)])
    assert batch[0] != batch[1]


def shown(loader: Iterable[Any]) -> list[torch.Tensor]:
    """Which items each batch holds."""
    return [batch["index"] for batch in loader]


def test_the_data_module_builds_what_is_there() -> None:
    data = DataModuleFromConfig(4, train=TOY, test=TOY, num_workers=0)
    data.setup()
    assert len(data.train_dataloader()) == 6
    assert data.val_dataloader() == [] == data.predict_dataloader()
    test = torch.cat(shown(data.test_dataloader()))
    assert test.tolist() == list(range(22))


def test_the_data_module_shuffles_validation_when_asked() -> None:
    data = DataModuleFromConfig(4, validation=TOY, num_workers=0, shuffle_val_dataloader=True, wrap=True)
    data.setup()
    order = torch.cat(shown(data.val_dataloader())).tolist()
    assert order != list(range(22)) and sorted(order) == list(range(22))
    assert order == torch.cat(shown(data.val_dataloader())).tolist()


def test_wrong_data_is_one_sentence() -> None:
    with pytest.raises(UserError, match="names no data set"):
        DataModuleFromConfig(4)
    with pytest.raises(UserError, match="batch_size is 0"):
        DataModuleFromConfig(0, train=TOY)
    empty = DataModuleFromConfig(4, train={**TOY, "params": {"size": 0}})
    with pytest.raises(UserError, match="is empty"):
        empty.setup()
