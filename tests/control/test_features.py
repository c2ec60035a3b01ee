"""A store keeps features by site, timestep and name, in memory and in a file that can be trusted or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ldm.checkpoint import read_metadata
from ldm.control import CacheError, FeatureStore, Save, attention_mode, sites
from ldm.util import UserError
from tests.control.networks import network, output


def filled(dtype: torch.dtype | None = torch.float16) -> FeatureStore:
    store = FeatureStore(dtype)
    generator = torch.Generator().manual_seed(0)
    for site in ("output_blocks.6.1", "output_blocks.7.1"):
        for timestep in (1, 21):
            for name in ("q", "k"):
                store.put(site, timestep, name, torch.randn(2, 2, 5, 4, generator=generator))
    return store


def test_what_is_in_it() -> None:
    store = filled()
    assert store.sites == ["output_blocks.6.1", "output_blocks.7.1"]
    assert store.timesteps == [1, 21] and store.names == ["q", "k"] and len(store) == 8
    assert store.nbytes == 8 * 2 * 2 * 5 * 4 * 2
    assert ("output_blocks.6.1", 21, "k") in store and ("output_blocks.6.1", 21, "v") not in store
    assert torch.equal(store.picture(1).get("output_blocks.6.1", 1, "q"), store.get("output_blocks.6.1", 1, "q")[1:])
    assert torch.equal(store.picture(0).get("output_blocks.6.1", 1, "q"), store.get("output_blocks.6.1", 1, "q")[:1])
    assert (
        FeatureStore(dtype=None).dtype is None and filled(None).get("output_blocks.6.1", 1, "q").dtype is torch.float32
    )


def test_a_view_does_not_keep_all_of_what_it_is_a_part_of() -> None:
    whole = torch.randn(3, 2, 2, 5, 4)
    store = FeatureStore(dtype=None)
    store.put("a", 1, "q", whole[0])
    kept = store.get("a", 1, "q")
    assert torch.equal(kept, whole[0]) and kept.untyped_storage().nbytes() == kept.nbytes


def test_file_and_back(tmp_path: Path) -> None:
    store, path = filled(), tmp_path / "a" / "features.safetensors"
    store.save(path, {"model": "abc", "steps": 50})
    loaded = FeatureStore.load(path, expect={"model": "abc", "steps": 50})
    assert set(loaded.keys()) == set(store.keys())
    assert all(torch.equal(loaded.get(*key), store.get(*key)) for key in store)
    assert loaded.metadata["steps"] == "50"
    metadata = read_metadata(path)
    assert json.loads(metadata["timesteps"]) == [1, 21] and json.loads(metadata["names"]) == ["q", "k"]
    assert json.loads(metadata["sites"]) == store.sites
    assert "output_blocks.7.1/21/k" in load_file(path)  # any reader of the format can have them


@pytest.mark.parametrize("kept", [0, 40, 0.5, 0.99])
def test_truncated_file(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "features.safetensors"
    filled().save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if kept < 1 else int(kept)])
    with pytest.raises(CacheError, match=r"features\.safetensors"):
        FeatureStore.load(path)


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(CacheError, match="there is no file"):
        FeatureStore.load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CacheError, match="holds no attention features"):
        FeatureStore.load(path)
    save_file({"a": torch.zeros(1)}, path, {"kind": "attention features"})
    with pytest.raises(CacheError, match="not named site/timestep/name"):
        FeatureStore.load(path)
    filled().save(path, {"model": "abc"})
    with pytest.raises(CacheError, match="made with model abc, not xyz"):
        FeatureStore.load(path, expect={"model": "xyz"})
    with pytest.raises(CacheError, match="made with steps None, not 50"):
        FeatureStore.load(path, expect={"steps": 50})
    with pytest.raises(UserError, match=r"\.safetensors file"):
        filled().save(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("key", "what"),
    [
        (("output_blocks.6.1", 41, "q"), "the timesteps are 1, 21"),
        (("output_blocks.8.1", 1, "q"), "the sites are output_blocks.6.1, output_blocks.7.1"),
        (("output_blocks.6.1", 1, "v"), "no v of 'output_blocks.6.1' at timestep 1 was saved: the features are q, k"),
    ],
)
def test_what_was_not_saved(key: tuple[str, int, str], what: str) -> None:
    with pytest.raises(UserError, match=what):
        filled().get(*key)
    with pytest.raises(UserError, match="no features at all"):
        FeatureStore().get(*key)


def test_a_choice_of_timesteps_heads_and_queries() -> None:
    unet, _ = network("unet_sd1")
    where = sites(unet, "output_blocks", resolution=2)
    every, some = FeatureStore(dtype=None), FeatureStore(dtype=None)
    with (
        attention_mode(unet, {where: Save(every, ["q", "k", "sim"])}),
        attention_mode(unet, {where: Save(some, "q,k,sim", timesteps={21}, heads=[3, 1], queries=[0, 7])}),
    ):
        output("unet_sd1", timestep=1)
        output("unet_sd1", timestep=21)
    assert some.timesteps == [21]
    site = where.names[0]
    q, k, sim = (every.get(site, 21, name) for name in ("q", "k", "sim"))
    assert torch.equal(some.get(site, 21, "q"), q[:, [3, 1]][:, :, [0, 7]])
    assert torch.equal(some.get(site, 21, "k"), k[:, [3, 1]])
    torch.testing.assert_close(some.get(site, 21, "sim"), sim[:, [3, 1]][:, :, [0, 7]])
    wrong: list[tuple[dict[str, Any], str]] = [({"heads": [4]}, "no head 4"), ({"queries": [-1]}, "no query -1")]
    for option, what in wrong:
        with pytest.raises(UserError, match=what), attention_mode(unet, {where: Save(some, "q", **option)}):
            output("unet_sd1")
    with pytest.raises(UserError, match="cannot save 'w'"):
        Save(some, "q,w")
