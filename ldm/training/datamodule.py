"""The data of a run as its YAML describes it: one node each for train, validation, test, predict."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, IterableDataset

from ldm.building.kinds import DATA
from ldm.data.buckets import Bucketed
from ldm.data.mixture import Mixture
from ldm.data.prior import WithPrior
from ldm.training.latents import CachedItems, LatentFile, Unfinished, cache_latents, latent_file
from ldm.training.sampling import BucketSampler, Position, ResumableSampler, SeededItems, begin_worker
from ldm.util import ConfigError, UserError, instantiate_from_config

log = logging.getLogger(__name__)


class DataModuleFromConfig(pl.LightningDataModule):
    """Loaders for the data sets that ``{target, params}`` nodes name.

    Args:
        batch_size: items per process and step.
        train, validation, test, predict: nodes of map-style (or iterable) data sets; each may be absent.
        reg: DreamBooth's class pictures; batches then have ``train`` and ``reg``, see ``ldm.data.prior``.
        wrap: accepted from old YAMLs; every data set is wrapped anyway.
        num_workers: loader processes, at most as many as there are CPUs; None is twice the batch size.
        shuffle_test_loader, shuffle_val_dataloader: draw those in random order (the same one in every run).
        use_worker_init_fn: accepted from old YAMLs; every item has a seed of its own here, whatever worker reads it.
        cache_latents: encode every training image once, when it is first needed, and train on the stored moments; for
            data sets whose items are always the same picture (see :mod:`ldm.training.latents`).
        cache_file: keep the moments in this safetensors file, too, for later runs.
        cache_precision: fp32 or bf16, for the autoencoder while it encodes.
        num_val_workers: loader processes of the validation's data; None is as many.

    Raises:
        ConfigError: no data set at all, or a ``batch_size`` below 1.
    """

    def __init__(
        self,
        batch_size: int,
        train: Mapping[str, Any] | None = None,
        validation: Mapping[str, Any] | None = None,
        test: Mapping[str, Any] | None = None,
        predict: Mapping[str, Any] | None = None,
        reg: Mapping[str, Any] | None = None,
        wrap: bool = False,
        num_workers: int | None = None,
        shuffle_test_loader: bool = False,
        use_worker_init_fn: bool = False,
        shuffle_val_dataloader: bool = False,
        cache_latents: bool = False,
        cache_file: str | None = None,
        cache_precision: str = "fp32",
        num_val_workers: int | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ConfigError(f"data.params.batch_size is {batch_size}; it must be at least 1")
        self.batch_size = batch_size
        nodes = {"train": train, "validation": validation, "test": test, "predict": predict, "reg": reg}
        self.dataset_configs = {name: node for name, node in nodes.items() if node is not None}
        if not self.dataset_configs:
            raise ConfigError("data.params names no data set; it needs one of train, validation, test, predict")
        if reg is not None and (train is None or cache_latents):
            raise ConfigError("data.params.reg goes with data.params.train, and without cache_latents")
        cpus = os.cpu_count() or 1  # a YAML for a large machine would fill a small one with idle processes
        self.num_workers = min(2 * batch_size if num_workers is None else num_workers, cpus)
        self.shuffled = {"train": True, "validation": shuffle_val_dataloader, "test": shuffle_test_loader}
        self.num_val_workers = self.num_workers if num_val_workers is None else min(num_val_workers, cpus)
        self.cache_latents = cache_latents
        self.cache_file, self.cache_precision = cache_file, cache_precision
        self.latent_file: LatentFile | None = None
        self.position = Position()
        self.datasets: dict[str, Any] = {}

    def setup(self, stage: str | None = None) -> None:
        """Build the data sets, once.

        Raises:
            UserError: the training data set is empty.
            ConfigError: a Mixture goes with other options than its own.
        """
        if self.datasets:
            return
        self.datasets = {name: instantiate_from_config(node, DATA) for name, node in self.dataset_configs.items()}
        for name, data in self.datasets.items():
            if isinstance(data, Mixture) and (self.batch_size != 1 or self.cache_latents):
                raise ConfigError(
                    f"data.params.{name} gives whole batches: a mixture needs batch_size: 1 and no cache_latents"
                )
        train = self.datasets.get("train")
        if train is not None and not isinstance(train, IterableDataset) and len(train) == 0:
            raise UserError(f"the training data set '{self.dataset_configs['train']['target']}' is empty")
        if buckets_of(train) is not None and ("reg" in self.datasets or self.cache_file is not None):
            raise ConfigError("pictures of several sizes (bucket_step) go without data.params.reg and cache_file")
        if "reg" in self.datasets:
            self.datasets["train"] = WithPrior(train, self.datasets["reg"])

    def train_dataloader(self) -> DataLoader | list[DataLoader]:
        train = self.datasets.get("train")
        if self.cache_latents and train is not None and not isinstance(train, CachedItems):
            self.datasets["train"] = self._cached(train)
        return self.loader("train", self.position, self._batches_per_epoch)

    def _cached(self, data: Any) -> CachedItems:
        trainer = self.trainer
        assert trainer is not None
        cache = cache_latents(data, trainer, self.position.seed, self.cache_precision)
        if self.cache_file is not None:
            self.latent_file = latent_file(cache, self.cache_file, trainer)
        log.info("%d of %d training pictures are encoded; others are when they are first needed",
                 int(cache.known.sum()), len(cache))  # fmt: skip
        return cache

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """What is new in a batch of cached latents is encoded here, where the model is."""
        if not isinstance(batch, Unfinished):
            return batch
        assert self.trainer is not None
        finished = self.datasets["train"].finish(batch, self.trainer.strategy.root_device)
        if self.latent_file is not None:
            self.latent_file.write_if_due()
        return finished

    def teardown(self, stage: str) -> None:
        """What this run has encoded is kept for the next one."""
        if self.latent_file is not None:
            self.latent_file.write()

    def on_exception(self, exception: BaseException) -> None:
        self.teardown("fit")

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        return self.loader("validation", Position(self.position.seed))

    def test_dataloader(self) -> DataLoader | list[DataLoader]:
        return self.loader("test", Position(self.position.seed))

    def predict_dataloader(self) -> DataLoader | list[DataLoader]:
        return self.loader("predict", Position(self.position.seed))

    def loader(
        self, name: str, position: Position, batches_per_epoch: Callable[[int], int | None] = lambda full: None
    ) -> DataLoader | list[DataLoader]:
        """The loader of one data set, for this process; an empty list where the YAML gives none."""
        if name not in self.datasets:
            return []
        data = self.datasets[name]
        workers = self.num_val_workers if name == "validation" else self.num_workers
        options: dict[str, Any] = {
            "batch_size": self.batch_size,
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "worker_init_fn": begin_worker,
        }
        if isinstance(data, Mixture):
            options["collate_fn"] = only
        if isinstance(data, IterableDataset):
            return DataLoader(data, **options)
        shuffle = self.shuffled.get(name, False) and not self._overfits
        rank, world_size = self._rank_and_world_size
        buckets = buckets_of(data)
        dealt: dict[str, Any] = {"shuffle": shuffle, "rank": rank, "world_size": world_size}
        sampler = ResumableSampler(data, position, self.batch_size, **dealt) if buckets is None else BucketSampler(
            data, position, self.batch_size, buckets=buckets, **dealt
        )  # fmt: skip
        limit = batches_per_epoch(sampler.batches_per_epoch)
        sampler.batches_per_epoch = min(sampler.batches_per_epoch, limit or sampler.batches_per_epoch)
        if isinstance(data, CachedItems):
            return DataLoader(data.items(position), sampler=sampler, collate_fn=Unfinished, **options)
        return DataLoader(SeededItems(data, position), sampler=sampler, **options)

    @property
    def _rank_and_world_size(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    @property
    def _overfits(self) -> bool:
        trainer: Any = self.trainer
        return trainer is not None and trainer.overfit_batches > 0

    def _batches_per_epoch(self, full: int) -> int | None:
        """Lightning's ``limit_train_batches`` ends an epoch early; the sampler must count epochs the same way."""
        limit = 1.0 if self.trainer is None else self.trainer.limit_train_batches
        if limit is None:
            return None
        return int(full * limit) if isinstance(limit, float) else limit


def buckets_of(data: Any) -> Sequence[int] | None:
    """Which size each item of a data set has, where there are several."""
    data = data.data if isinstance(data, CachedItems) else data
    return data.buckets if isinstance(data, Bucketed) else None


def only(items: Sequence[Any]) -> Any:
    """The one item of a batch of one, which is a batch itself."""
    (item,) = items
    return item
