"""Stores, maps and gammas by the level of the walk: fractions, and levels that tell the network the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ldm.checkpoint import read_metadata
from ldm.control import AttentionMaps, CacheError, FeatureStore, Inject, Observe, Save, attention_mode, sites
from ldm.models.diffusion.loop import CLEAN, Level, ask
from ldm.models.diffusion.sampling import sample
from ldm.modules.diffusionmodules.levels import at_level, numbered
from ldm.modules.diffusionmodules.schedule import BetaSchedule, make_beta_schedule
from ldm.util import UserError
from tests.control.networks import network
from tests.models.diffusion.sigma_world import SigmaSchedule

STEPS = 4


@dataclass(frozen=True)
class Coarse(SigmaSchedule):
    """Tells the network halves: of four levels the first two are told the same."""

    def levels(self, steps: int, spacing: Any = "leading") -> list[Level]:
        told = [1.5, 1.5, -0.25, -0.5][:steps]
        return numbered([*(Level(t, 1.0, 8.0 / 2**i) for i, t in enumerate(told)), CLEAN])


class Network:
    """A small UNet as a denoiser."""

    device: ClassVar[torch.device] = torch.device("cpu")

    def __init__(self, schedule: Any) -> None:
        self.unet, case = network("unet_sd1")
        self.schedule, self.context = schedule, case.inputs["context"][:1]
        self.sites = sites(self.unet, "output_blocks", resolution=2)
        self.x = case.inputs["x"][:1]

    def predict(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        return self.unet(x, t, context=self.context)

    def walk(self, mode: Callable[..., Tensor], steps: int = STEPS, **options: Any) -> Tensor:
        with attention_mode(self.unet, {self.sites: mode}):
            return sample(self, self.x, None, steps=steps, **options)


def test_levels_that_tell_the_same_are_kept_apart(tmp_path: Path) -> None:
    model, store, maps = Network(Coarse()), FeatureStore(dtype=None), AttentionMaps()
    model.walk(Save(store))
    model.walk(Observe(maps))
    site = model.sites.names[0]
    assert store.told == maps.told == {0: 1.5, 1: 1.5, 2: -0.25, 3: -0.5}
    assert not torch.equal(store.get(site, 0, "q"), store.get(site, 1, "q"))
    assert not torch.equal(maps.probs[site, 0], maps.probs[site, 1])
    torch.testing.assert_close(
        maps.heat(0, timesteps=[1.5]), (maps.heat(0, timesteps=[1.5, -0.25]) * 3 - maps.heat(0, timesteps=[-0.25])) / 2
    )

    store.save(tmp_path / "features.safetensors")
    loaded = FeatureStore.load(tmp_path / "features.safetensors")
    assert loaded.told == store.told and set(loaded) == set(store)
    assert all(torch.equal(loaded.get(*key), store.get(*key)) for key in store)
    assert {name.split("/")[1] for name in load_file(tmp_path / "features.safetensors")} == {
        "1.5#0", "1.5#1", "-0.25", "-0.5"
    }  # fmt: skip
    assert json.loads(read_metadata(tmp_path / "features.safetensors")["timesteps"]) == [-0.5, -0.25, 1.5]

    plain = model.walk(Save(FeatureStore(), timesteps=()))
    torch.testing.assert_close(model.walk(Inject(loaded, loaded, T=1.0)), plain, rtol=1e-3, atol=1e-4)
    wrong = FeatureStore(dtype=None)
    for site, index, name in store:
        wrong.put(site, index, name, store.get(site, {0: 1, 1: 0}.get(index, index), name), store.told[index])
    assert not torch.allclose(model.walk(Inject(wrong, wrong, T=1.0)), plain, rtol=1e-3, atol=1e-4)


def test_a_gamma_for_each_of_them() -> None:
    model, store = Network(Coarse()), FeatureStore(dtype=None)
    model.walk(Save(store))
    by_level: list[float] = []

    class Told(Inject):
        def attend(self, batch: Any) -> Tensor:
            by_level.append(self.gamma[batch.call.index])  # type: ignore[index]
            return super().attend(batch)

    model.walk(Told(store, store, gamma={0: 0.1, 1: 0.9, 2: 0.5, 3: 0.5}))
    assert by_level[:: len(model.sites)] == [0.1, 0.9, 0.5, 0.5]


def test_a_walk_in_other_steps_finds_what_is_told_the_same() -> None:
    """Features of 4 steps for a walk in 2: levels are matched by what they tell, where just one tells it."""

    class Fine(Coarse):
        def levels(self, steps: int, spacing: Any = "leading") -> list[Level]:
            told = {4: [2.5, 1.5, 0.5, -0.5], 2: [1.5, -0.5]}[steps]
            return numbered([*(Level(t, 1.0, 2.0 ** (2 * t)) for t in told), CLEAN])

    model, store = Network(Fine()), FeatureStore(dtype=None)
    model.walk(Save(store))
    read: list[tuple[int, Tensor]] = []

    class Reading(FeatureStore):
        def read(self, call: Any, name: str, own: Tensor) -> Tensor:
            read.append((call.index, store.read(call, name, own)))
            return read[-1][1]

    model.walk(Inject(Reading(), gamma=1.0), steps=2)
    site = model.sites.names[0]
    assert [index for index, _ in read[:: len(model.sites)]] == [0, 1]
    assert torch.equal(read[0][1], store.get(site, 1, "q"))
    assert torch.equal(read[-1][1], store.get(model.sites.names[-1], 3, "q"))
    coarse, kept = Network(Coarse()), FeatureStore(dtype=None)
    coarse.walk(Save(kept))
    with pytest.raises(UserError, match=r"told 1\.5 at 2 levels"):
        kept.at(site, 1.5, "q")
    assert torch.equal(kept.at(site, -0.5, "q"), kept.get(site, 3, "q"))
    with pytest.raises(UserError, match=r"at timestep 9.5 was saved: the timesteps are -0.5, -0.25, 1.5"):
        kept.at(site, 9.5, "q")


@torch.no_grad()
def test_the_level_is_said_outside_of_a_walk() -> None:
    model, store = Network(Coarse()), FeatureStore(dtype=None)
    level = model.schedule.levels(STEPS)[2]
    with attention_mode(model.unet, {model.sites: Save(store)}):
        with pytest.raises(UserError, match=r"is told -0.25, from which its level cannot be known"):
            model.predict(model.x, torch.tensor([-0.25]), None)
        ask(model, model.x, level, None)
        assert store.told == {2: -0.25}
        model.predict(model.x, torch.tensor([7]), None)  # a table's timestep says enough
        with at_level(level):
            model.predict(model.x, torch.tensor([8]), None)  # and so it does where the level that is said is another
    assert store.told == {2: -0.25, 7: 7, 8: 8}
    only = FeatureStore()
    model.walk(Save(only, "q", timesteps=[-0.25]))
    assert only.told == {2: -0.25}


def test_files_of_earlier_versions_have_no_indices(tmp_path: Path) -> None:
    """The timestep is the index then, and a walk finds them all the same."""
    path = tmp_path / "old.safetensors"
    tensors = {f"a/{t}/q": torch.full((1, 1, 2, 3), float(t)) for t in (1, 501)}
    save_file(tensors, path, {"kind": "attention features", "timesteps": "[1, 501]"})
    store = FeatureStore.load(path)
    assert store.told == {1: 1, 501: 501} and store.get("a", 501, "q").unique().tolist() == [501]
    for levels in ("[1]", '{"1": 0}', "nonsense"):
        save_file(tensors, path, {"kind": "attention features", "levels": levels})
        with pytest.raises(CacheError, match=r"does not say of which noise levels it is: 1, 501"):
            FeatureStore.load(path)
    save_file({"a/b/q": torch.zeros(1)}, path, {"kind": "attention features"})
    with pytest.raises(CacheError, match="does not say of which noise levels it is: b"):
        FeatureStore.load(path)


def test_an_energy_of_maps_moves_the_latent_before_a_step() -> None:
    """What layout guidance does: at the first levels, the gradient of a loss on attention maps moves the latent."""
    model, maps = Network(BetaSchedule.from_betas(make_beta_schedule("linear", 1000, 0.00085, 0.012))), AttentionMaps()
    words = sites(model.unet, "output_blocks", kind="cross", resolution=2)
    losses: dict[int, list[float]] = {}

    def loss(x: Tensor, level: Level) -> Tensor:
        with attention_mode(model.unet, {words: Observe(maps)}):
            ask(model, x, level, None)
        assert {index for _, index in maps.probs} == {level.index}
        heat = maps.heat(1)[:, :, :4].mean() / maps.heat(1).mean()
        maps.clear()
        return (1 - heat / 2) ** 2

    def energy(x: Tensor, level: Level) -> Tensor:
        if level.index >= 2:
            return x
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            before = loss(x, level)
            (gradient,) = torch.autograd.grad(before, x)
        moved = x.detach() - gradient / gradient.norm()
        losses[level.index] = [float(before), float(loss(moved, level))]
        return moved

    plain = sample(model, model.x, None, steps=STEPS)
    guided = sample(model, model.x, None, steps=STEPS, before=[energy])
    assert list(losses) == [0, 1] and all(after < before for before, after in losses.values())
    assert not torch.allclose(guided, plain, atol=1e-2)
