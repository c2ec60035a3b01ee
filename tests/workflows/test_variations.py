"""Ways beyond StyleID: each is StyleID at its neutral setting, and does what it says at others."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from ldm.control import Inject, Rows, Save, attention_mode
from ldm.control.adaptive import AdaptiveInject, spread
from ldm.control.features import FeatureStore
from ldm.control.shared import SharedInject, aligned
from ldm.models.diffusion.loop import Snapshot
from ldm.models.diffusion.noise import ImageNoise
from ldm.util import UserError
from ldm.workflows.inversion.invert import Inversion, invert_with_features, unet_of
from ldm.workflows.restyle.checks import checked
from ldm.workflows.restyle.gamma import cosine, gamma_by_level, read_schedule
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.recipe import Recipe
from ldm.workflows.restyle.start import adain, beginning, damped, share_by_place
from ldm.workflows.restyle.steps import sampled_timesteps, walk, way_of
from ldm.workflows.restyle.stylise import stylise
from tests.helpers import golden_case
from tests.workflows.test_stylise import Quick

STEPS = 8
NEUTRAL: dict[str, dict[str, Any]] = {  # a setting of each that changes nothing, beside what must be said with it
    "adaptive": {"adaptive": 0.0}, "share": {"share": 0.0}, "low_frequencies": {"low_frequencies": 1.0},
    "adain_deviation": {"adain_deviation": 1.0}, "adain_flat": {"adain_flat": 1.0},
    "settle": {"settle": 0}, "distill": {"distill": 0}, "gamma_schedule": {"gamma_schedule": "cosine:0.75,0.75"},
    "negative_scale": {"negative": "a dog", "negative_scale": 1.0},
}  # fmt: skip
OTHER: dict[str, dict[str, Any]] = {
    "adaptive": {"adaptive": 1.0}, "share": {"share": 1.0}, "low_frequencies": {"low_frequencies": 0.5},
    "adain_deviation": {"adain_deviation": 0.0}, "adain_flat": {"adain_flat": 0.0},
    "settle": {"settle": 2}, "distill": {"distill": 1}, "gamma_schedule": {"gamma_schedule": "cosine"},
    "negative_scale": {"negative": "a dog", "negative_scale": 2.0}, "fast": {"fast": True},
    "edict": {"inversion": "edict"}, "bdia": {"inversion": "bdia"},
}  # fmt: skip


@pytest.fixture(scope="module")
def quick() -> Quick:
    return Quick(golden_case("ldm_v"))


def restyled(
    quick: Quick, contents: int = 1, stores: bool = True, masks: Any = None, smooth: bool = False, **how: Any
) -> torch.Tensor:
    """The first latents, with ``smooth`` those of a half without grain, in the manner of the last one."""
    latents = quick.latents[:contents].clone()
    latents[..., latents.shape[3] // 2 :] *= 0.1 if smooth else 1
    recipe = Recipe(detail=0.0, ddim_inv_steps=STEPS, save_feat_steps=STEPS, **how)
    schedule, away = quick.model.schedule, -quick.context if recipe.negative else None
    content, style = (
        invert_with_features(
            quick.model, latents, quick.context, steps=STEPS, sites=quick.sites, what="qkv", dtype=None,
            way=way_of(schedule, recipe), away=away, scale=recipe.negative_scale,
            timesteps=sampled_timesteps(recipe, schedule),
        )
        for latents in (latents, quick.latents[3:])
    )  # fmt: skip
    if not stores:
        content, style = content.without_features(), style.without_features()
    start = beginning(schedule, content, [style], recipe, masks)
    return stylise(quick.model, start, content, [style], quick.context, recipe, masks=masks, sites=quick.sites)


@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_is_styleid(quick: Quick, name: str) -> None:
    plain = restyled(quick, smooth=True)
    torch.testing.assert_close(restyled(quick, smooth=True, **NEUTRAL[name]), plain, rtol=1e-4, atol=1e-5)
    assert float((restyled(quick, smooth=True, **OTHER[name]) - plain).abs().max()) > 0.01


@pytest.mark.parametrize("name", ["distill", "fast", "edict", "bdia"])
def test_replayed_and_in_batches_it_is_the_same(quick: Quick, name: str) -> None:
    one = restyled(quick, **OTHER[name])
    torch.testing.assert_close(restyled(quick, contents=2, **OTHER[name])[:1], one, rtol=2e-3, atol=1e-3)
    torch.testing.assert_close(restyled(quick, stores=False, **OTHER[name]), one, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("how", [{"inversion": "edict"}, {"inversion": "bdia"}])
def test_without_a_style_exact_inversions_lead_back(quick: Quick, how: dict[str, Any]) -> None:
    bare = {"without_init_adain": True, "without_attn_injection": True}
    back = restyled(quick, **how, **bare)
    assert float((back - quick.latents[:1]).abs().max()) < 1e-3
    assert float((restyled(quick, **bare) - quick.latents[:1]).abs().max()) > 0.02
    half = torch.zeros(1, 8, 8)
    half[:, :, :4] = 1
    kept = restyled(quick, masks=half, **how)
    assert torch.equal(kept[..., 4:], quick.latents[:1, :, :, 4:])
    assert float((kept - quick.latents[:1]).abs().max()) > 0.05


def test_fast_asks_a_third(quick: Quick) -> None:
    asked = list[int]()
    hook = unet_of(quick.model).register_forward_pre_hook(lambda network, args: asked.append(len(args[0])))
    counts = []
    for fast in (False, True):
        asked.clear()
        restyled(quick, fast=fast)
        counts.append(len(asked))
    hook.remove()
    assert counts == [3 * STEPS - 1, 3 * ((STEPS - 1) // 3)]


def test_the_usual_50_steps_of_fast_are_a_third_of_149_calls(quick: Quick) -> None:
    recipe, schedule = Recipe(fast=True), quick.model.schedule
    levels = walk(schedule, recipe)
    assert len(levels) == 50 and len(way_of(schedule, recipe).asks(levels[:-1])) == 16
    late = replace(recipe, start_step=30)
    assert way_of(schedule, late).asks(walk(schedule, late))[0] == walk(schedule, late)[0]
    with pytest.raises(UserError, match="--fast needs equal numbers of steps"):
        sampled_timesteps(replace(recipe, ddim_inv_steps=100), schedule)


def heads(seed: int, positions: int = 12) -> torch.Tensor:
    return torch.randn(2, 3, positions, 8, generator=torch.Generator().manual_seed(seed))


class Given:
    """A source of the same features at every call."""

    def __init__(self, **features: torch.Tensor) -> None:
        self.features = features

    def read(self, call: Any, name: str, own: torch.Tensor) -> torch.Tensor:
        return self.features[name]


class Plain:
    """A call with plain attention underneath."""

    site, index, timestep = "here", 0, 1

    @staticmethod
    def inner(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float | None = None) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scale)


def test_an_adaptive_temperature_gives_logits_their_own_spread() -> None:
    q, k, v = heads(0), 3 * heads(1), heads(2)
    style = Given(k=0.2 * heads(3, 20), v=heads(4, 20))
    logits = q @ k.transpose(-1, -2)
    torch.testing.assert_close(spread(q, k), logits.var(dim=-1, correction=0).mean(dim=-1).sqrt())
    call: Any = Plain()
    asked = list[torch.Tensor]()

    def inner(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
        asked.append(scale * query @ keys.transpose(-1, -2))
        return query

    call.inner = inner
    AdaptiveInject(None, style, adaptive=1.0)(q, k, v, call=call, scale=1.0)
    own, injected = (x.var(dim=-1, correction=0).mean(dim=-1).sqrt() for x in (logits, asked[0]))
    torch.testing.assert_close(injected, own)


def test_shared_attention_is_one_softmax_over_both() -> None:
    q, k, v = heads(0), heads(1), heads(2)
    style = Given(q=2 * heads(3, 20), k=heads(4, 20) + 1, v=heads(5, 20))
    own_q, own_k = aligned(q, style.features["q"]), aligned(k, style.features["k"])
    torch.testing.assert_close(own_k.mean(dim=2), style.features["k"].mean(dim=2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(own_k.std(dim=2), style.features["k"].std(dim=2), rtol=1e-4, atol=1e-5)
    call: Any = Plain()
    shared = SharedInject(None, style, gamma=0.0, T=1.0, weight=1.0)(q, k, v, call=call)
    keys, values = (torch.cat([mine, style.features[n]], dim=2) for n, mine in (("k", own_k), ("v", v)))
    torch.testing.assert_close(shared, Plain.inner(own_q, keys, values), rtol=1e-4, atol=1e-5)
    none = SharedInject(None, style, weight=0.0)(q, k, v, call=call)
    torch.testing.assert_close(none, Inject(None, style)(q, k, v, call=call))


def test_damped_noise_keeps_its_mean_and_its_high_frequencies() -> None:
    noise = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) + 1
    less = damped(noise, 0.5)
    torch.testing.assert_close(less.mean(dim=(2, 3)), noise.mean(dim=(2, 3)))
    before, after = (torch.fft.rfft2(x).abs() for x in (noise, less))
    torch.testing.assert_close(after[..., 8, 8], before[..., 8, 8], rtol=0.01, atol=0)
    torch.testing.assert_close(after[..., 0, 1] / before[..., 0, 1], torch.full((2, 3), 0.5), rtol=0.1, atol=0)


def test_schedules_of_gamma(quick: Quick) -> None:
    assert read_schedule("0.9,0.5") == (0.9, 0.5)
    assert read_schedule("cosine") == cosine(0.75, 0.375) and read_schedule("cosine:0.5,0.2") == cosine(0.5, 0.2)
    levels = quick.model.schedule.levels(50)
    gammas = list(gamma_by_level(cosine(0.75, 0.375), levels[:51]).values())
    assert gammas[0] == pytest.approx(0.75) and gammas[-1] == pytest.approx(0.375)
    assert gammas[25] == pytest.approx(0.5625, abs=1e-3) and gammas[12] > 0.66  # flat at both ends
    for wrong in ("cosine:1", "cosine:a,b", "sine", "cosines"):
        with pytest.raises(UserError, match="--gamma_schedule takes"):
            read_schedule(wrong)


def test_distilled_attention_is_nearer_to_the_styles(quick: Quick) -> None:
    """In the last call that a walk makes, attention without injection gives more of what the style's would."""
    style = invert_with_features(
        quick.model, quick.latents[3:], quick.context, steps=STEPS, sites=quick.sites, dtype=None
    )
    last, gaps = quick.model.schedule.levels(STEPS)[STEPS - 1], []
    for times in (0, 3):
        seen = list[Snapshot]()
        restyled_at = restyled_with_snapshots(quick, seen, distill=times)
        own = FeatureStore(dtype=None)
        with torch.no_grad(), attention_mode(unet_of(quick.model), {quick.sites: Save(own, "qkv")}):
            quick.model.predict(restyled_at, torch.tensor([int(last.told)]), quick.context)
        assert isinstance(style.store, FeatureStore)
        gap = 0.0
        for site in quick.sites:
            q, k, v = (own.get(site, int(last.told), name) for name in "qkv")
            wanted = Plain.inner(q, style.store.get(site, last.index, "k"), style.store.get(site, last.index, "v"))
            gap += float((Plain.inner(q, k, v) - wanted).abs().mean())
        gaps.append(gap)
    assert gaps[1] < 0.97 * gaps[0], gaps


def restyled_with_snapshots(quick: Quick, seen: list[Snapshot], **how: Any) -> torch.Tensor:
    """The latent before the last step."""
    recipe = Recipe(detail=0.0, ddim_inv_steps=STEPS, save_feat_steps=STEPS, **how)
    content, style = (
        invert_with_features(quick.model, z, quick.context, steps=STEPS, sites=quick.sites, dtype=None)
        for z in (quick.latents[:1], quick.latents[3:])
    )
    start = beginning(quick.model.schedule, content, [style], recipe)
    stylise(quick.model, start, content, [style], quick.context, recipe, sites=quick.sites, callback=seen.append)
    return seen[-2].x


def test_guided_inversion_keeps_the_features_of_the_conditional_rows(quick: Quick) -> None:
    found = invert_with_features(
        quick.model, quick.latents[:2], quick.context, steps=STEPS, sites=quick.sites, dtype=None,
        away=-quick.context, scale=2.0,
    )  # fmt: skip
    assert isinstance(found.store, FeatureStore)
    first = found.store.timesteps[0]
    kept = found.store.at(quick.sites.names[0], first, "k")
    plain = FeatureStore(dtype=None)
    both = Save(plain, "k", rows=Rows(0, 2))
    with torch.no_grad(), attention_mode(unet_of(quick.model), {quick.sites: both}):
        context = quick.context.expand(2, -1, -1)
        quick.model.predict(quick.latents[:2], torch.full((2,), int(first)), context)
    torch.testing.assert_close(kept, plain.at(quick.sites.names[0], int(first), "k"), rtol=1e-3, atol=1e-4)


REFUSED = [
    ({"adaptive": 2.0}, "--adaptive"), ({"share": -1.0}, "--share"), ({"low_frequencies": -1.0}, "--low_frequencies"),
    ({"adain_deviation": 1.5}, "--adain_deviation must lie between 0 and 1"),
    ({"adain_deviation": 1.0, "without_init_adain": True}, "--without_init_adain leaves out what"),
    ({"settle": -1}, "to 64 noises, got -1"), ({"settle": 65}, "noises, got 65"),
    ({"keep_flat": 1.5}, "--keep_flat must lie between 0 and 1, got 1.5"),
    ({"adain_flat": -0.5}, "--adain_flat must lie between 0 and 1"),
    ({"adain_flat": 1.0, "without_init_adain": True}, "--without_init_adain leaves out what --adain_flat is about"),
    ({"inversion_rounds": -1}, "--inversion_rounds must not be negative, got -1"),
    ({"inversion_rounds": 1, "inversion": "bdia"}, "--inversion_rounds is for --inversion fixed_point only"),
    ({"inversion_rounds": 1, "fast": True}, "--inversion_rounds is for --inversion fixed_point only"),
    ({"distill": -1}, "--distill"), ({"negative_scale": 0.0}, "--negative_scale"),
    ({"adaptive": 0.5, "share": 0.5}, "leave one of them out"), ({"fast": True, "inversion": "bdia"}, "--fast"),
    ({"inversion": "edict", "distill": 1}, "edict is exact"), ({"inversion": "bdia", "ddim_eta": 1.0}, "bdia is exact"),
]  # fmt: skip


@pytest.mark.parametrize(("how", "said"), REFUSED)
def test_what_is_refused(how: dict[str, Any], said: str, tmp_path: Any) -> None:
    with pytest.raises(UserError, match=said):
        checked(StyleIDOptions(output_path=str(tmp_path), **how))


def test_the_deviation_of_what_is_flat() -> None:
    """Of a half with grain and one that is smooth only the first takes over the deviation."""
    noise = torch.randn(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    clean = noise.clone()
    clean[..., 32:] = clean[..., 32:] * 0.05 + 3  # a clear sky of another tone
    share = share_by_place(clean, 0.8, 0.1)
    assert share.shape == (1, 1, 32, 64)
    torch.testing.assert_close(share[..., 34:], torch.full((1, 1, 32, 30), 0.1))
    torch.testing.assert_close(share[..., :30], torch.full((1, 1, 32, 30), 0.8))
    assert 0.1 < float(share[..., 32].mean()) < float(share[..., 31].mean()) < 0.81  # softly from the one to the other
    style = 3 * torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    moved, plain = adain(noise, style, share), adain(noise, style, 0.1)
    assert float(moved[..., :30].std() / plain[..., :30].std()) > 1.5
    assert 0.9 < float(moved[..., 36:].std() / plain[..., 36:].std()) < 1.1


def test_what_is_flat_is_seen_in_what_was_inverted(quick: Quick) -> None:
    recipe = Recipe(ddim_inv_steps=5, save_feat_steps=5, inversion="fixed_point", adain_flat=0.0)
    content, style = quick.invert(0.3 * quick.latents[:1]), quick.invert(quick.latents[3:])
    level = walk(quick.model.schedule, recipe)[0]
    share = share_by_place(content.clean, 1.0, 0.0)
    assert 0 < float(share.mean()) < 1
    expected = adain(content.seen(level), style.seen(level), share)
    assert torch.equal(beginning(quick.model.schedule, content, [style], recipe), expected)


def test_a_result_settles_at_the_lower_level_after_its_walk(quick: Quick) -> None:
    drawn = torch.Generator().manual_seed(3)
    recipe = Recipe(detail=0.0, ddim_inv_steps=5, save_feat_steps=5)
    content, style = (quick.invert(latents, "qkv") for latents in (quick.latents[:1], quick.latents[3:]))
    start = beginning(quick.model.schedule, content, [style], recipe)

    def made(settle: int, masks: torch.Tensor | None = None) -> torch.Tensor:
        return stylise(
            quick.model, start, content, [style], quick.context, replace(recipe, settle=settle, pi=0.0),
            masks=masks, sites=quick.sites, noise=lambda: torch.randn(start.shape, generator=drawn),
        )  # fmt: skip

    walked, result = made(0), made(2)
    drawn.manual_seed(3)
    level = walk(quick.model.schedule, recipe)[-2]  # one of four steps is left there
    expected = torch.zeros_like(walked)
    for _ in range(2):
        x = level.noised(walked, torch.randn(start.shape, generator=drawn))
        told = torch.full((1,), level.told)
        output = quick.model.predict(x, told, quick.context)
        expected += quick.model.schedule.to_x0(output, x, told.long()) / 2
    torch.testing.assert_close(result, (walked + expected) / 2)
    outside = torch.zeros(1, *start.shape[2:])
    outside[..., : start.shape[3] // 4] = 1
    kept = made(2, outside)
    torch.testing.assert_close(kept[..., -1], content.clean[..., -1])  # outside of all masks the content stays


def test_a_settled_result_is_the_same_in_a_batch(quick: Quick) -> None:
    recipe = Recipe(detail=0.0, ddim_inv_steps=5, save_feat_steps=5, settle=2)
    style = quick.invert(quick.latents[3:], "qkv")

    def made(contents: int) -> torch.Tensor:
        content, fresh = quick.invert(quick.latents[:contents], "qkv"), ImageNoise([22] * contents)
        start = beginning(quick.model.schedule, content, [style], recipe)
        draw = partial(fresh.draw, start.shape[1:])
        return stylise(quick.model, start, content, [style], quick.context, recipe, sites=quick.sites, noise=draw)

    torch.testing.assert_close(made(2)[:1], made(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["adaptive", "share", "distill"])
def test_variations_of_the_injection_are_not_for_masks(name: str) -> None:
    with pytest.raises(UserError, match=f"--{name} is for one style without masks"):
        Recipe(**OTHER[name]).settled(mixed=True)


def test_a_latent_has_a_partner_only_where_two_are_coupled(quick: Quick) -> None:
    found = quick.invert(quick.latents[:1])
    with pytest.raises(UserError, match="did not couple two latents"):
        found.partner(quick.model.schedule.levels(5)[2])


def test_coupled_latents_in_a_file(quick: Quick, tmp_path: Any) -> None:
    recipe = Recipe(inversion="edict", ddim_inv_steps=5, save_feat_steps=5)
    found = quick.invert(quick.latents[:2], way=way_of(quick.model.schedule, recipe))
    found.save(tmp_path / "a.safetensors")
    again = Inversion.join([Inversion.load(tmp_path / "a.safetensors").picture(i) for i in (0, 1)])
    for level in quick.model.schedule.levels(5)[:-1]:
        assert torch.equal(again.partner(level), found.partner(level))
        assert torch.equal(again.seen(level), found.seen(level))
