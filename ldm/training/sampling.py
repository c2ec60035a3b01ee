"""Which item comes when: an order that depends on the seed and the position only, so that a run can go on exactly."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, DistributedSampler

from ldm.data.reading import BatchReader
from ldm.stopping import heed_parent_alone

MAX_SEED = 2**32


@dataclass
class Position:
    """Where a run stands: the seed and how many batches (of one process) have been trained on."""

    seed: int = 23
    batches: int = 0


def derived_seed(*parts: int) -> int:
    """One well-mixed 32-bit seed out of several integers (numpy's SeedSequence)."""
    return int(np.random.SeedSequence([part % MAX_SEED for part in parts]).generate_state(1, np.uint32)[0])


def seed_all(seed: int) -> None:
    """Seed Python's, numpy's and torch's global generators (every device)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class ResumableSampler(DistributedSampler):
    """Keys ``(index, epoch)`` of this process's items, from the current position to the end of the epoch.

    The order of an epoch is a permutation drawn from (seed, epoch). Items are dealt to the processes in turn; the first
    ones are dealt again until all have equally many. It is a DistributedSampler only so that Lightning leaves it alone.

    Args:
        data: anything with a length.
        position: shared with the callback that counts; read whenever an epoch's iterator is made.
        batch_size: of one process; turns the position into a number of items.
        batches_per_epoch: batches after which the trainer calls it an epoch; None is the whole data.
    """

    def __init__(
        self,
        data: Sized,
        position: Position,
        batch_size: int,
        *,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        batches_per_epoch: int | None = None,
    ) -> None:
        super().__init__(data, num_replicas=world_size, rank=rank, shuffle=shuffle)  # type: ignore[arg-type]
        self.position = position
        self.batch_size = batch_size
        full = -(-self.num_samples // batch_size)
        self.batches_per_epoch = full if batches_per_epoch is None else min(full, batches_per_epoch)

    def order(self, epoch: int) -> np.ndarray:
        """The items of this process in the given epoch, as indices [num_samples]."""
        size = len(self.dataset)  # type: ignore[arg-type]
        generator = np.random.default_rng([self.position.seed, epoch])
        indices = generator.permutation(size) if self.shuffle else np.arange(size)
        return np.resize(indices, self.total_size)[self.rank :: self.num_replicas]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, batch = divmod(self.position.batches, max(self.batches_per_epoch, 1))
        for index in self.order(epoch)[batch * self.batch_size :]:
            yield int(index), epoch

    def __len__(self) -> int:
        return self.num_samples


class BucketSampler(ResumableSampler):
    """The same, of a data set whose items have several sizes: the batches of a step are of one size in all processes.

    Each size's items are filled up to whole steps with some of them again; the steps of an epoch come in random order.

    Args:
        buckets: a number for the size of each item.
    """

    def __init__(
        self,
        data: Sized,
        position: Position,
        batch_size: int,
        *,
        buckets: Sequence[int],
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(data, position, batch_size, shuffle=shuffle, rank=rank, world_size=world_size)
        self.buckets = np.asarray(buckets)
        step = batch_size * world_size
        self.batches_per_epoch = sum(-(-int(count) // step) for count in np.unique_counts(self.buckets).counts)
        self.num_samples = self.batches_per_epoch * batch_size
        self.total_size = self.num_samples * world_size

    def order(self, epoch: int) -> np.ndarray:
        """The items of this process in the given epoch, as indices [num_samples]."""
        generator = np.random.default_rng([self.position.seed, epoch])
        size, step = len(self.buckets), self.batch_size * self.num_replicas
        indices = generator.permutation(size) if self.shuffle else np.arange(size)
        steps = []
        for bucket in np.unique(self.buckets):
            own = indices[self.buckets[indices] == bucket]
            steps.append(np.resize(own, (-(-len(own) // step), self.num_replicas, self.batch_size)))
        dealt = np.concatenate(steps)
        dealt = generator.permutation(dealt) if self.shuffle else dealt
        return dealt[:, self.rank].reshape(-1)


class SeededItems(Dataset):
    """A data set read by ``(index, epoch)``: random choices inside an item depend on (seed, epoch, index) alone.

    So flips, crops and random captions are the same whatever the number of workers, and after a restart.
    """

    def __init__(self, data: Any, position: Position) -> None:
        self.data = data
        self.position = position

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        index, epoch = key
        seed_all(derived_seed(self.position.seed, epoch, index))
        return self.data[index]

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[Any]:
        """A batch at once, where the data set can; its draws then depend on the first item of the batch."""
        if not isinstance(self.data, BatchReader):
            return [self[key] for key in keys]
        index, epoch = keys[0]
        seed_all(derived_seed(self.position.seed, epoch, index))
        return self.data.__getitems__([key[0] for key in keys])


def begin_worker(worker_id: int) -> None:
    """In each loader process: numpy and Python get seeds of their own (torch has one already); its parent ends it."""
    heed_parent_alone()
    seed = torch.initial_seed() % MAX_SEED
    random.seed(seed)
    np.random.seed(seed)
