"""StyleID on the reference's numbers: inversion, features, AdaIN and the stylised latents."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ldm.control import CacheError, FeatureStore, Inject, attention_mode, sites
from ldm.pictures.images import tensor_to_image
from ldm.util import UserError, instantiate_from_config
from ldm.workflows.inversion.invert import Inversion, invert_with_features, unet_of
from ldm.workflows.restyle.gamma import gamma_by_level
from ldm.workflows.restyle.recipe import Recipe
from ldm.workflows.restyle.start import adain, start_noise
from ldm.workflows.restyle.steps import executed_levels, executed_timesteps
from ldm.workflows.restyle.stylise import stylise
from tests.helpers import GoldenCase, golden_case


def recipe_and_rest(options: dict[str, Any], steps: int) -> tuple[Recipe, dict[str, Any]]:
    """Options of a recipe, which adds no detail unless it is asked to, and all others."""
    names = {field.name for field in fields(Recipe)}
    how = {"detail": 0.0} | {name: value for name, value in options.items() if name in names}
    rest = {name: value for name, value in options.items() if name not in names}
    return Recipe(save_feat_steps=steps, **how), rest


class Pair:
    """The golden model, its two latents and their inversions with every feature."""

    def __init__(self, case: GoldenCase) -> None:
        self.case = case
        self.model = instantiate_from_config(case.config.model).eval()
        self.model.load_state_dict(case.weights, strict=True)
        self.context = self.model.get_learned_conditioning(case.inputs["uc_tokens"]).detach()
        self.sites = sites(unet_of(self.model), case.args["attn_layer"])
        self.content, self.style = (
            invert_with_features(
                self.model, case.inputs[f"{name}_z0"], self.context,
                steps=case.args["steps"], sites=self.sites, dtype=None,
            )
            for name in ("cnt", "sty")
        )  # fmt: skip
        self.levels = self.model.schedule.levels(case.args["steps"])
        self.start = start_noise(self.content.noise, [self.style.noise])

    def stylised(self, **options: Any) -> torch.Tensor:
        given = {"start": self.start, "content": self.content, "styles": [self.style], "sites": self.sites}
        how, rest = recipe_and_rest({**given, **options}, self.case.args["steps"])
        return stylise(self.model, context=self.context, recipe=how, **rest)


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair(golden_case("styleid"))


def test_inversion(pair: Pair) -> None:
    for name, inversion in (("cnt", pair.content), ("sty", pair.style)):
        pair.case.assert_close(f"{name}_zT", inversion.noise)
        for index in (49, 40, 30, 20, 10):
            pair.case.assert_close(f"{name}_z_enc_{index}", inversion.after(pair.levels[index]))
        assert torch.equal(inversion.seen(pair.levels[49]), pair.case.inputs[f"{name}_z0"])
        assert list(inversion.visited) == list(range(49, -1, -1)) and inversion.timesteps == list(range(1, 1000, 20))
    pair.case.assert_close("one_reverse_step", pair.content.after(pair.levels[49]))


def features_of(inversion: Inversion) -> FeatureStore:
    """What an inversion kept, which it must have."""
    assert isinstance(inversion.store, FeatureStore)
    return inversion.store


def test_features(pair: Pair) -> None:
    for index in pair.case.args["feature_indices"]:
        for site, layer in zip(pair.sites, pair.case.args["attn_layer"], strict=True):
            for name, inversion, features in (("cnt", pair.content, "q"), ("sty", pair.style, "kv")):
                for feature in features:
                    saved = features_of(inversion).get(site, index, feature)
                    pair.case.assert_close(f"feat{index}.{name}_layer{layer}_{feature}", saved[0])


def test_adain(pair: Pair) -> None:
    pair.case.assert_close("adain_zT", adain(pair.content.noise, pair.style.noise))
    assert torch.equal(pair.start, adain(pair.content.noise, pair.style.noise))


def test_a_picture_of_one_cell_has_no_statistics() -> None:
    cells = torch.randn(1, 4, 2, 2), torch.randn(1, 4, 1, 1)
    for content, style in (cells, cells[::-1]):
        with pytest.raises(UserError, match="AdaIN needs more than one latent cell"):
            start_noise(content, [style])


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_adain_of_the_mean_and_a_share_of_the_deviation(pair: Pair, share: float) -> None:
    content, style = pair.content.noise, 3 * pair.style.noise
    made = start_noise(content, [style], deviation_share=share)
    own, its, found = (torch.std_mean(x, dim=(2, 3)) for x in (content, style, made))
    torch.testing.assert_close(found[1], its[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[0], own[0] ** (1 - share) * its[0] ** share, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_injected_output(pair: Pair) -> None:
    t = 981 - 20 * pair.case.args["feature_indices"][1]
    call = (pair.case.inputs["cnt_z0"], torch.tensor([t]), pair.context)
    mode = Inject(pair.content.store, pair.style.store, pair.case.args["gamma"], pair.case.args["T"])
    with attention_mode(unet_of(pair.model), {pair.sites: mode}):
        pair.case.assert_close("eps_injected", pair.model.apply_model(*call))
    pair.case.assert_close("eps_plain", pair.model.apply_model(*call))


def test_main_run(pair: Pair) -> None:
    seen: dict[int, torch.Tensor] = {}
    final = pair.stylised(callback=lambda step: seen.update({step.t: step.x}))
    pair.case.assert_close("final", final)
    pair.case.assert_close("executed_t", torch.tensor(list(seen)))
    for index in (1, 10, 20, 30, 40):
        pair.case.assert_close(f"x_after_iter_{index}", seen[981 - 20 * index])
    with torch.no_grad():
        image = pair.model.decode_first_stage(final)
    pair.case.assert_close("image", image)
    levels = np.asarray(tensor_to_image(image[0])).astype(int)
    assert np.abs(levels - pair.case.expected["png"].numpy()).max() <= 1  # the reference cuts off, this rounds


def test_switches(pair: Pair) -> None:
    pair.case.assert_close("final_without_attn_injection", pair.stylised(without_attn_injection=True))
    pair.case.assert_close("final_without_init_adain", pair.stylised(start=pair.content.noise))
    late = pair.case.args["start_step_alt"]
    pair.case.assert_close("final_start_alt", pair.stylised(start_step=late))
    pair.case.assert_close(
        "executed_t_start_alt", torch.tensor(executed_timesteps(pair.model.schedule, pair.case.args["steps"], late))
    )


STEPS = 5


class Quick:
    """The same model in few steps, from inversions that kept nothing but latents."""

    def __init__(self, case: GoldenCase) -> None:
        self.model = instantiate_from_config(case.config.model).eval()
        self.model.load_state_dict(case.weights, strict=True)
        generator = torch.Generator().manual_seed(1)
        shape = (self.model.channels, 8, 8)
        unet: Any = unet_of(self.model)
        self.context = torch.randn(1, 8, unet.context_dim, generator=generator)
        self.latents = torch.randn(4, *shape, generator=generator)
        self.wide = torch.randn(1, shape[0], 8, 12, generator=generator)
        self.sites = sites(unet_of(self.model), "output_blocks")

    def invert(self, latents: torch.Tensor, what: str | None = None, **options: Any) -> Inversion:
        where = self.sites if what else None
        options = {"dtype": None, "sites": where, "what": what or "q", **options}
        return invert_with_features(self.model, latents, self.context, steps=STEPS, **options)

    def stylised(self, content: Inversion, styles: list[Inversion], **options: Any) -> torch.Tensor:
        start = options.pop("start", start_noise(content.noise, [s.noise for s in styles], options.get("masks")))
        how, rest = recipe_and_rest({"sites": self.sites, **options}, STEPS)
        return stylise(self.model, start, content, styles, self.context, how, **rest)


@pytest.fixture(scope="module", params=["ldm_full", "ldm_v"])
def quick(request: pytest.FixtureRequest) -> Quick:
    return Quick(golden_case(request.param))


OPTIONS = [
    {},
    {"detail": 0.3},
    {"masks": torch.tensor([[[1.0, 1, 0, 0]]]).expand(1, 4, 4), "mix": "competition", "sharpen": True},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_memory_disk_and_replay_agree(quick: Quick, options: dict[str, Any], tmp_path: Path) -> None:
    residuals = sites(unet_of(quick.model), "output_blocks", kind="residual")
    options = {**options, "residuals": residuals}
    used = executed_timesteps(quick.model.schedule, STEPS)
    content = quick.invert(quick.latents[:1], "qkv", detail=residuals, timesteps=used)
    style = quick.invert(quick.latents[1:2], "kv", timesteps=used)
    memory = quick.stylised(content, [style], **options)

    for name, inversion in (("content", content), ("style", style)):
        inversion.save(tmp_path / f"{name}.safetensors", {"steps": STEPS})
        features_of(inversion).save(tmp_path / f"{name}.features.safetensors", {"steps": STEPS})
    content, style = (
        replace(
            Inversion.load(tmp_path / f"{name}.safetensors", {"steps": STEPS}),
            store=FeatureStore.load(tmp_path / f"{name}.features.safetensors", {"steps": STEPS}),
        )
        for name in ("content", "style")
    )
    assert torch.equal(quick.stylised(content, [style], **options), memory)

    content, style = content.without_features(), style.without_features()
    torch.testing.assert_close(quick.stylised(content, [style], **options), memory, rtol=1e-3, atol=2e-4)
    plain = quick.stylised(content, [style], without_attn_injection=True)
    assert float((memory - plain).abs().max()) > 0.1  # so that agreeing means something


def test_half_precision_features_are_good_enough(quick: Quick) -> None:
    results = []
    for dtype in (None, torch.float16):
        content, style = (quick.invert(quick.latents[i : i + 1], "qkv", dtype=dtype) for i in (0, 1))
        results.append(quick.stylised(content, [style]))
    store = features_of(content)
    assert store.nbytes == 2 * sum(store.get(*key).numel() for key in store)
    torch.testing.assert_close(*results, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("features", [None, "qkv"])
def test_a_batch_of_contents_is_one_after_the_other(quick: Quick, features: str | None) -> None:
    style = quick.invert(quick.latents[3:], features)
    together = quick.invert(quick.latents[:2], features)
    batch = quick.stylised(together, [style])
    alone = [quick.invert(quick.latents[i : i + 1], features) for i in range(2)]
    one_by_one = torch.cat([quick.stylised(one, [style]) for one in alone])
    torch.testing.assert_close(batch, one_by_one, rtol=1e-3, atol=2e-4)
    joined = quick.stylised(Inversion.join(alone), [style])
    torch.testing.assert_close(joined, batch, rtol=1e-3, atol=2e-4)
    second = quick.stylised(together.picture(1), [style])
    torch.testing.assert_close(second, batch[1:], rtol=1e-3, atol=2e-4)


def test_a_style_of_another_size(quick: Quick) -> None:
    content, kept = quick.invert(quick.latents[:1], "q"), quick.invert(quick.wide, "kv")
    assert kept.noise.shape != content.noise.shape
    expected = quick.stylised(content, [kept])
    content, replayed = content.without_features(), kept.without_features()
    torch.testing.assert_close(quick.stylised(content, [replayed]), expected, rtol=1e-3, atol=2e-4)


def test_one_full_mask_is_styleid(quick: Quick) -> None:
    content, style = quick.invert(quick.latents[:1], "qkv"), quick.invert(quick.latents[1:2], "kv")
    plain = quick.stylised(content, [style])
    masked = quick.stylised(content, [style], masks=torch.ones(1, 5, 7), pi=1.0, gamma=0.75, T=1.5)
    torch.testing.assert_close(masked, plain, rtol=1e-3, atol=1e-4)
    assert float((quick.stylised(content, [style], masks=torch.ones(1, 5, 7)) - plain).abs().max()) > 0.05


def test_equal_styles_are_one(quick: Quick) -> None:
    content, style = quick.invert(quick.latents[:1], "qkv"), quick.invert(quick.latents[1:2], "kv")
    masks = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.4
    one = quick.stylised(content, [style], masks=torch.ones(1, 8, 8))
    three = quick.stylised(content, [style] * 3, masks=masks.clamp(max=1))
    torch.testing.assert_close(three, one, rtol=1e-3, atol=1e-4)


def test_v_prediction_is_the_same_walk() -> None:
    """A model that predicts v, and the same one seen as predicting the noise, give the same picture."""
    quick = Quick(golden_case("ldm_v"))
    assert quick.model.schedule.parameterization == "v"
    content, style = (quick.invert(quick.latents[i : i + 1], "qkv") for i in (0, 1))
    expected = quick.stylised(content, [style])

    class AsNoise:
        device = quick.model.device
        model = quick.model.model
        schedule = replace(quick.model.schedule, parameterization="eps")

        def predict(self, x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
            return original.schedule.to_eps(original.predict(x, t, cond), x, t)

    original, quick.model = quick.model, AsNoise()
    content, style = (quick.invert(quick.latents[i : i + 1], "qkv") for i in (0, 1))
    torch.testing.assert_close(quick.stylised(content, [style]), expected, rtol=1e-3, atol=1e-4)


def test_noise_outside_of_all_masks_is_the_contents() -> None:
    generator = torch.Generator().manual_seed(0)
    content, first, second = (torch.randn(1, 4, 8, 8, generator=generator) * s + s for s in (1, 2, 3))
    masks = torch.zeros(2, 16, 16)
    masks[0, :, :8] = 1
    masks[1, 8:, :4] = 1
    start = start_noise(content, [first, second], masks)
    assert torch.equal(start[..., 4:], content[..., 4:])
    torch.testing.assert_close(start[..., :4, :4], adain(content, first)[..., :4, :4])
    both = (adain(content, first) + adain(content, second)) / 2
    torch.testing.assert_close(start[..., 4:, :2], both[..., 4:, :2])
    soft = start_noise(content, [first, second], masks / 4)
    torch.testing.assert_close(soft[..., :4, :4], torch.lerp(content, adain(content, first), 0.25)[..., :4, :4])
    torch.testing.assert_close(soft[..., 4:, :2], torch.lerp(content, both, 0.5)[..., 4:, :2])
    full = start_noise(content, [first], torch.ones(1, 3, 3))
    torch.testing.assert_close(full, adain(content, first))
    moved = adain(torch.cat([content, content + 5]), first)
    torch.testing.assert_close(moved[0], moved[1])  # statistics are those of each picture by itself


def test_gamma_over_the_steps(quick: Quick) -> None:
    levels = executed_levels(quick.model.schedule, STEPS, 3)
    assert [level.index for level in levels] == [2, 3, 4] and [level.told for level in levels] == [401, 201, 1]
    assert gamma_by_level([0.8, 0.4], levels) == pytest.approx({2: 0.8, 3: 0.6, 4: 0.4})
    assert gamma_by_level([0.5], levels) == {2: 0.5, 3: 0.5, 4: 0.5}
    content, style = quick.invert(quick.latents[:1], "q"), quick.invert(quick.latents[1:2], "kv")
    constant = quick.stylised(content, [style], gamma=0.4)
    assert torch.equal(quick.stylised(content, [style], gamma_schedule=(0.4,)), constant)
    assert not torch.allclose(quick.stylised(content, [style], gamma_schedule=(0.4, 0.9)), constant, atol=1e-3)


def test_fresh_noise_comes_from_where_it_is_told(quick: Quick) -> None:
    content, style = quick.invert(quick.latents[:1], "q"), quick.invert(quick.latents[1:2], "kv")

    def noisy(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        draw = partial(torch.randn, content.noise.shape, generator=generator)
        return quick.stylised(content, [style], ddim_eta=1.0, noise=draw)

    assert torch.equal(noisy(1), noisy(1)) and not torch.equal(noisy(1), noisy(2))


def test_what_does_not_fit(quick: Quick) -> None:
    content, style = quick.invert(quick.latents[:1], "q"), quick.invert(quick.latents[1:2], "kv")
    with pytest.raises(UserError, match=r"no k of .* was saved: the features are q"):
        quick.stylised(content, [content])
    with pytest.raises(UserError, match="no residual of"):
        quick.stylised(content, [style], detail=0.3)
    with pytest.raises(UserError, match="a style is needed"):
        stylise(quick.model, content.noise, content, [], quick.context, Recipe(save_feat_steps=STEPS))
    with pytest.raises(UserError, match="at least one style"):
        start_noise(content.noise, [])
    with pytest.raises(UserError, match="cannot run the last 6 of 5"):
        quick.stylised(content, [style], start_step=6)
    with pytest.raises(UserError, match="in 5 steps did not visit timestep 981"):
        content.seen(quick.model.schedule.level(981))
    with pytest.raises(UserError, match="cannot be one batch"):
        Inversion.join([content, quick.invert(quick.wide, "q")])
    with pytest.raises(UserError, match="with and without features"):
        Inversion.join([content, style.without_features()])


def test_a_damaged_inversion_file(quick: Quick, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    inversion = quick.invert(quick.latents[:1])
    inversion.save(path, {"model": "abc"})
    with pytest.raises(CacheError, match="made with model abc, not xyz"):
        Inversion.load(path, {"model": "xyz"})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CacheError, match="cannot be used"):
        Inversion.load(path)
    FeatureStore().save(path)
    with pytest.raises(CacheError, match="holds no inversion latents"):
        Inversion.load(path)
