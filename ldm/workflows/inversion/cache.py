"""Inversions of pictures: each made once, kept in memory and on the disk, with the features that pairs will need.

Three strategies for features, which give the same pictures: ``memory`` keeps them as long as there is room and makes
them again from the latents when there is not; ``disk`` keeps them in files; ``replay`` keeps latents alone (a few MB
a picture), and features are computed again beside each stylised batch.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ldm.control import CacheError, FeatureStore, Save, SaveResidual, Sites, attention_mode
from ldm.control.seam import Mode
from ldm.finite import check_finite
from ldm.models.diffusion.guidance import expand_condition
from ldm.models.diffusion.loop import Snapshot, ask
from ldm.modules.diffusionmodules.levels import index_among
from ldm.modules.distributions.distributions import DiagonalGaussianDistribution
from ldm.pictures.masks import short_name
from ldm.pictures.sizing import Picture
from ldm.util import UserError
from ldm.workflows.inversion.empty_prompt import context_for
from ldm.workflows.inversion.invert import Inversion, invert_with_features, unet_of
from ldm.workflows.inversion.ways import Way

log = logging.getLogger(__name__)

STRATEGIES = ("memory", "disk", "replay")
LATENTS_IN_MEMORY = 128  # pictures, when their latents are on the disk as well
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Needs:
    """Which features of a picture a run will ask for: attention ("q", "kv", "qkv" or "") and residual branches."""

    attention: str = ""
    residual: bool = False

    def __or__(self, other: Needs) -> Needs:
        letters = "".join(name for name in "qkv" if name in self.attention + other.attention)
        return Needs(letters, self.residual or other.residual)

    @property
    def names(self) -> set[str]:
        """Those that a store has them under: of "q", "k", "v" and "residual"."""
        return {*self.attention, *(["residual"] if self.residual else [])}


@dataclass(frozen=True)
class Capture:
    """Where and when features are taken, and how they are kept."""

    sites: Sites
    detail: Sites
    timesteps: Sequence[float]  # those at which sampling asks for them
    dtype: torch.dtype | None = torch.float16  # None: as they come

    def modes(self, store: FeatureStore, needs: Needs) -> dict[Sites, Mode]:
        """Modes that write what is needed into ``store`` during a walk, by the sites where they act."""
        modes: dict[Sites, Mode] = {}
        if needs.attention:
            modes[self.sites] = Save(store, needs.attention, self.timesteps)
        if needs.residual:
            modes[self.detail] = SaveResidual(store, self.timesteps)
        return modes

    def has_all(self, store: FeatureStore, needs: Needs, told: Mapping[int, float]) -> bool:
        """Whether a store holds all of it, of the levels of a walk, given as what the network is told at each index."""
        wanted = [(self.sites, name) for name in needs.attention] + [(self.detail, "residual")] * needs.residual
        levels = [index_among(store.told, index, t) for index, t in told.items() if t in self.timesteps]
        return all(
            index is not None and (site, index, name) in store
            for index in levels for sites, name in wanted for site in sites
        )  # fmt: skip


def clean_latent(model: Any, image: Tensor) -> Tensor:
    """The scaled latent [B, C, h, w] of pictures [B, 3, H, W]; the mean of the posterior where there is one."""
    encoded = model.encode_first_stage(image.to(model.device))
    z = encoded.mode() if isinstance(encoded, DiagonalGaussianDistribution) else encoded
    return model.scale_factor * z.float()


@dataclass
class InversionCache:
    """Inversions by picture.

    Attributes:
        context: the empty prompt: a condition [1, N, D], or an ``EmptyPrompt`` of each picture's size.
        steps: of the inversion.
        about: what inversions depend on besides the picture, as text fields (model, precision).
        folder: where latents (and, with ``disk``, features) are kept; None: nowhere.
        room: bytes of features that ``memory`` keeps beside those in use.
        batch: how many pictures are inverted together.
        uses: how many results each picture is yet to be used in, where that is known; see ``used``.
        inverted, read: how many pictures were inverted, and how many were found on the disk.
        most: bytes of features that were kept at one time, at most.
    """

    model: Any
    context: Any
    steps: int
    capture: Capture
    needs: Mapping[str, Needs]  # sha256 of a picture -> what the whole run will need of it
    about: Mapping[str, str]
    strategy: str = "memory"
    folder: Path | None = None
    room: int = 0
    batch: int = 1
    way: Way = field(default_factory=Way)
    away: Any = None  # a context that inversions are guided away from, and how strongly
    scale: float = 1.0
    progress: bool = False
    callback: Callable[[Snapshot], None] | None = None  # gets each step of an inversion
    uses: Counter[str] = field(default_factory=Counter)  # by sha256
    inverted: int = 0
    read: int = 0
    most: int = 0
    _latents: OrderedDict[str, Inversion] = field(default_factory=OrderedDict)
    _stores: OrderedDict[str, FeatureStore] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        """Raises UserError for an unknown strategy, or features on the disk without a folder."""
        if self.strategy not in STRATEGIES:
            raise UserError(f"unknown way to keep features '{self.strategy}'; known: {', '.join(STRATEGIES)}")
        if self.strategy == "disk" and self.folder is None:
            raise UserError("features on the disk need a folder: give --precomputed FOLDER")

    @torch.no_grad()
    def get(self, pictures: Sequence[Picture]) -> list[Inversion]:
        """The inversions of some pictures, with the features that the run needs unless they are to be replayed.

        Raises:
            UserError: a picture cannot be read any more, the disk is full, or an inversion came to no numbers.
        """
        self._make_room({p.sha256 for p in pictures})
        missing = {p.sha256: p for p in pictures if not self._find(p)}
        for group in _alike(list(missing.values()), self.batch, self.needs):
            self._invert(group)
        inversions = [self._latents[p.sha256] for p in pictures]
        if self.strategy == "replay":
            return inversions
        whole = [replace(i, store=self._features(p)) for p, i in zip(pictures, inversions, strict=True)]
        self.most = max(self.most, sum(store.nbytes for store in self._stores.values()))
        return whole

    def used(self, pictures: Iterable[Picture]) -> None:
        """Count one use less for each picture that is named, and let go of features that are not needed again."""
        for sha256 in (picture.sha256 for picture in pictures):
            if sha256 in self.uses:
                self.uses[sha256] -= 1
                if self.uses[sha256] <= 0:
                    self._stores.pop(sha256, None)

    def adopt(self, picture: Picture, inversion: Inversion) -> None:
        """Keep an inversion with a store that was made elsewhere, as if it had been made here.

        Raises:
            UserError: the disk is full.
        """
        path = self._path(picture, "latents")
        if path is not None:
            inversion.save(path, self._fields(picture))
        self._latents[picture.sha256] = inversion.without_features()
        if isinstance(inversion.store, FeatureStore):
            self._keep_features(picture, inversion.store)

    def _find(self, picture: Picture) -> bool:
        """Whether a picture's latents are in memory, or can be read from the disk."""
        if picture.sha256 in self._latents:
            self._latents.move_to_end(picture.sha256)
            return True
        path = self._path(picture, "latents")
        if path is None or not path.exists():
            return False
        try:
            inversion = Inversion.load(path, self._fields(picture))
        except CacheError as error:
            log.warning("%s; inverted again", error)
            return False
        self._latents[picture.sha256] = inversion
        self.read += 1
        return True

    def _invert(self, group: Sequence[Picture]) -> None:
        """Invert pictures of one size and need together, and keep what comes of it."""
        needs = self.needs.get(group[0].sha256, Needs())
        z = torch.cat([clean_latent(self.model, picture.tensor()) for picture in group])
        features = self.strategy != "replay"
        whole = invert_with_features(
            self.model, z, context_for(self.context, z), steps=self.steps, way=self.way, away=self.away,
            scale=self.scale,
            timesteps=self.capture.timesteps, dtype=self.capture.dtype,
            sites=self.capture.sites if features and needs.attention else None, what=needs.attention,
            detail=self.capture.detail if features and needs.residual else None,
            callback=self.callback, progress=self.progress,
        )  # fmt: skip
        check_finite(self.model, whole.noise)
        for index, picture in enumerate(group):
            one = whole.picture(index)
            visited = {index: x.to(CPU, copy=True) for index, x in one.visited.items()}
            partners = {index: y.to(CPU, copy=True) for index, y in one.partners.items()}
            inversion = Inversion(visited, one.told, one.noise.to(CPU), partners=partners)
            path = self._path(picture, "latents")
            if path is not None:
                inversion.save(path, self._fields(picture))
            self._latents[picture.sha256] = inversion
            self.inverted += 1
            if isinstance(one.store, FeatureStore):
                self._keep_features(picture, one.store if len(group) == 1 else _own(one.store))

    def _features(self, picture: Picture) -> FeatureStore:
        """A picture's features: from memory, from the disk, or computed from its latents."""
        needs = self.needs.get(picture.sha256, Needs())
        kept = self._stores.get(picture.sha256)
        if kept is not None:
            self._stores.move_to_end(picture.sha256)
            return kept
        store = self._read_features(picture, needs)
        if store is None:
            return self._keep_features(picture, self._replay(picture, needs))
        self._stores[picture.sha256] = store
        return store

    def _read_features(self, picture: Picture, needs: Needs) -> FeatureStore | None:
        path = self._path(picture, "features")
        if self.strategy != "disk" or path is None or not path.exists():
            return None
        try:
            store = FeatureStore.load(path, self._fields(picture))
        except CacheError as error:
            log.warning("%s; computed again", error)
            return None
        if not self.capture.has_all(store, needs, self._latents[picture.sha256].told):
            log.warning("'%s' lacks features of some layers or steps; computed again", path)
            return None
        return store

    def _replay(self, picture: Picture, needs: Needs) -> FeatureStore:
        """Features of the latents that the inversion visited, without inverting again."""
        store = FeatureStore(self.capture.dtype)
        if not needs.names:
            return store
        inversion = self._latents[picture.sha256]
        device = self.model.device
        visits = self.model.schedule.upwards(self.steps)[:-1]
        levels = [level for level in reversed(visits) if level.told in self.capture.timesteps]
        steps = tqdm(levels, desc="features", disable=not self.progress, leave=False)
        with attention_mode(unet_of(self.model), self.capture.modes(store, needs)):
            context = expand_condition(context_for(self.context, inversion.noise), 1)
            for level in steps:
                ask(self.model, inversion.seen(level).to(device), level, context)
        return store

    def _keep_features(self, picture: Picture, store: FeatureStore) -> FeatureStore:
        """Keep features in memory; or write them, and read them from there piece by piece."""
        path = self._path(picture, "features")
        if self.strategy == "disk" and path is not None:
            store.save(path, self._fields(picture))
            store = FeatureStore.load(path)
        self._stores[picture.sha256] = store
        return store

    def _make_room(self, used: set[str]) -> None:
        """Let go of what was not used for the longest time: features until the rest fits into ``room``, and latents.

        Latents that are on the disk as well are kept up to a number.
        """
        spare = len(self._latents) - max(LATENTS_IN_MEMORY, 4 * self.batch) if self.folder is not None else 0
        for key in [key for key in self._latents if key not in used][: max(0, spare)]:
            del self._latents[key]
        others = [key for key in self._stores if key not in used]
        while others and sum(self._stores[key].nbytes for key in others) > self.room:
            del self._stores[others.pop(0)]

    def _path(self, picture: Picture, what: str) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / f"{short_name(picture.path)}_{picture.sha256[:10]}_{what}{self.way.label}.safetensors"

    def _fields(self, picture: Picture) -> dict[str, str]:
        """What a file in the cache must say of itself."""
        return {"picture": picture.sha256, "steps": str(self.steps), **self.about}


def _own(store: FeatureStore) -> FeatureStore:
    """A copy that does not hold on to the batch that the features came from."""
    copy = FeatureStore(dtype=None)
    for site, index, name in store:
        copy.put(site, index, name, store.get(site, index, name), store.told[index])
    return copy


def _alike(pictures: Sequence[Picture], batch: int, needs: Mapping[str, Needs]) -> Iterator[list[Picture]]:
    """Groups of at most ``batch`` pictures that can be inverted together."""
    kinds: dict[Any, list[Picture]] = {}
    for picture in pictures:
        kinds.setdefault((picture.size, needs.get(picture.sha256)), []).append(picture)
    for group in kinds.values():
        for start in range(0, len(group), batch):
            yield group[start : start + batch]
