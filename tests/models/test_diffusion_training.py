"""How LatentDiffusion trains: targets, weights, empty conditions, averages, scale, cached latents."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, Dataset

from ldm.models.diffusion.condition import as_parts
from ldm.models.diffusion.ddpm import DDPM
from ldm.models.diffusion.lightning import with_empty_conditions
from ldm.modules.ema import LitEma
from ldm.util import ConfigError, instantiate_from_config
from tests.helpers import GOLDEN, noted

UNET: dict[str, Any] = {
    "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
    "params": {
        "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": 1, "channel_mult": [1, 1],
        "attention_resolutions": [2], "num_heads": 2, "use_spatial_transformer": True, "context_dim": 16,
    },
}  # fmt: skip


def latent_diffusion(**params: Any) -> Any:
    """The reference model of ``ldm_v``, changed; its context comes as it is."""
    torch.manual_seed(0)
    node: Any = OmegaConf.to_container(OmegaConf.load(GOLDEN / "ldm_v.yaml").model, resolve=True)
    node["params"] |= {"unet_config": copy.deepcopy(UNET), **params}
    model = instantiate_from_config(node)
    for parameter in model.model.parameters():  # zero-initialised layers would hide the rest
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return model


class Pictures(Dataset):
    """A few latents [8, 8, 4] with a context each."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(index)
        return {
            "image": torch.randn(8, 8, 4, generator=generator),
            "caption": torch.randn(3, 16, generator=generator),
        }


def fit(model: pl.LightningModule, **trainer: Any) -> None:
    options: dict[str, Any] = {"max_steps": 2, "accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    warnings.filterwarnings("ignore", ".*(no logger configured|in eval mode|does not have many workers)")
    made = pl.Trainer(enable_progress_bar=False, enable_model_summary=False, **options | trainer)
    made.fit(model, DataLoader(Pictures(), 2))


@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
def test_a_perfect_network_has_no_loss(kind: str) -> None:
    model = latent_diffusion(parameterization=kind)
    z, noise, t = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.tensor([10, 900])
    a = model.alphas_cumprod[t].reshape(2, 1, 1, 1)
    perfect = {"eps": noise, "v": a.sqrt() * noise - (1 - a).sqrt() * z, "x0": z}[kind]
    model.apply_model = lambda x, t, c: perfect
    assert model.p_losses(z, None, t, noise=noise)[0].abs() < 1e-6
    model.apply_model = lambda x, t, c: perfect + 0.5
    assert model.p_losses(z, None, t, noise=noise)[0].item() == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
def test_min_snr_weights_are_one_error_in_x0_clipped(kind: str) -> None:
    """Whatever is predicted, the weighted loss is min(SNR, gamma) times the squared error of x0 (Hang et al.)."""
    model = latent_diffusion(parameterization=kind, min_snr_gamma=5.0)
    t = torch.tensor([1, 300, 950])
    a = model.alphas_cumprod[t].double()
    snr = a / (1 - a)
    # how far x0 moves when the prediction moves by one: sqrt((1-a)/a) for eps, sqrt(1-a) for v, 1 for x0
    x0_error = {"eps": 1 / snr, "v": 1 - a, "x0": torch.ones_like(a)}[kind]
    torch.testing.assert_close(model.loss_weights(t).double(), snr.clamp(max=5.0) * x0_error, rtol=1e-3, atol=1e-6)


def test_a_masked_loss_is_the_mean_of_what_is_marked() -> None:
    """What lies outside has no gradient, a whole mask changes nothing, and the size of a mask does not matter."""
    model = latent_diffusion(draws=2).train()
    z, mask = torch.randn(2, 4, 8, 8), torch.zeros(2, 32, 32)
    mask[0, :16], mask[1] = 1, 1  # of the first picture the upper half
    noise, t = torch.randn_like(z), torch.tensor([100, 700])
    said = torch.randn_like(z).requires_grad_()
    model.apply_model = lambda x, t, c: said
    model.p_losses(z, None, t, noise, mask)[0].backward()
    gradient = said.grad
    assert gradient is not None and gradient[0, :, :4].all() and gradient[1].all() and not gradient[0, :, 4:].any()
    alone, _ = model.losses_of(said[:1, :, :4], z[:1, :, :4], noise[:1, :, :4], t[:1])
    torch.testing.assert_close(model.losses_of(said[:1], z[:1], noise[:1], t[:1], mask[:1])[0], alone)
    whole = model.losses_of(said, z, noise, t, torch.ones(2, 32, 32))[0]
    torch.testing.assert_close(whole, model.losses_of(said, z, noise, t)[0])
    assert model.losses_of(said, z, noise, t, torch.zeros(2, 32, 32))[0] == 0


def test_a_batch_with_masks_has_their_loss() -> None:
    model = latent_diffusion(draws=2).train()
    batch = torch.utils.data.default_collate([Pictures()[0], Pictures()[1]])
    outside = copy.deepcopy(batch)
    outside["image"][:, 4:] += 5  # what is not marked may be anything, where the network does not look at it
    model.apply_model = lambda x, t, c: 0.1 * x
    upper = (torch.arange(8) < 4).float()[None, :, None].expand(2, 8, 8)
    losses = []
    for one in (batch, outside):
        torch.manual_seed(0)
        losses.append(model.shared_step({**one, "loss_mask": upper}))
    torch.manual_seed(0)
    assert losses[0][0] == losses[1][0] != model.shared_step(batch)[0]


def test_learned_log_variance_is_trained_and_saved() -> None:
    model = latent_diffusion(learn_logvar=True, logvar_init=0.5)
    assert model.state_dict()["logvar"].shape == (1000,)
    before = model.logvar.detach().clone()
    fit(model)
    assert not torch.equal(model.logvar, before)

    model = latent_diffusion(learn_logvar=True, logvar_init=0.5)  # v: the target is sqrt(acp) times the noise
    model.apply_model = lambda x, t, c: torch.zeros_like(x)
    noise = torch.randn(1, 4, 8, 8)
    loss, _ = model.p_losses(torch.zeros_like(noise), None, torch.tensor([500]), noise=noise)
    error = (model.alphas_cumprod[500] * noise.square()).mean()
    torch.testing.assert_close(loss.detach(), error * math.exp(-0.5) + 0.5)


def test_l1_and_unknown_values() -> None:
    model = latent_diffusion(loss_type="l1")
    model.apply_model = lambda x, t, c: torch.zeros_like(x)
    noise = torch.randn(1, 4, 8, 8)
    z = torch.zeros_like(noise)
    a = model.alphas_cumprod[500]
    loss, _ = model.p_losses(z, None, torch.tensor([500]), noise=noise)
    torch.testing.assert_close(loss, (a.sqrt() * noise).abs().mean())
    for changes in ({"loss_type": "l3"}, {"parameterization": "w"}, {"conditioning_key": "telepathy"}):
        with pytest.raises(ConfigError):
            latent_diffusion(**changes)


def test_some_conditions_become_empty() -> None:
    model = latent_diffusion(ucg_training={"caption": {"p": 0.25, "val": ""}})
    captions = [f"caption {i}" for i in range(2000)]
    torch.manual_seed(0)
    changed = with_empty_conditions({"caption": captions, "image": None}, model.ucg_training)["caption"]
    assert changed.count("") == pytest.approx(500, abs=80)
    assert all(c in ("", original) for c, original in zip(changed, captions, strict=True))
    assert "" not in captions


def test_many_draws_of_a_picture_are_as_many_rows_of_a_batch() -> None:
    """Each latent is trained with ``draws`` noises beside its own condition; validation takes one."""
    z, cond = torch.randn(2, 4, 8, 8), {"c_crossattn": [torch.randn(2, 3, 16)]}
    model = latent_diffusion(draws=3).train()
    torch.manual_seed(5)
    loss, _ = model(z, cond)
    plain = latent_diffusion().train()
    torch.manual_seed(5)
    expected, _ = plain(torch.cat([z] * 3), {"c_crossattn": [torch.cat(cond["c_crossattn"] * 3)]})
    assert loss.item() == expected.item()

    torch.manual_seed(5)
    one, _ = plain(z, cond)
    torch.manual_seed(5)
    assert model.eval()(z, cond)[0].item() == pytest.approx(one.item(), rel=1e-6)
    with pytest.raises(ConfigError, match="draws, the noises of a picture"):
        latent_diffusion(draws=0)


def test_averages_move_once_an_optimiser_step() -> None:
    model = latent_diffusion(use_ema=True)
    start = {k: v.clone() for k, v in model.model_ema.state_dict().items()}
    fit(model, max_steps=2, accumulate_grad_batches=2)
    assert model.model_ema.num_updates == 2
    name = "diffusion_modelout2weight"
    assert not torch.equal(model.model_ema.state_dict()[name], start[name])
    own = model.model.diffusion_model.out[2].weight.clone()
    with model.ema_scope():
        assert torch.equal(model.model.diffusion_model.out[2].weight, model.model_ema.get_buffer(name))
    assert torch.equal(model.model.diffusion_model.out[2].weight, own)


def test_an_average_that_is_read_from_a_file_goes_on_with_its_count() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    first, second = LitEma(network, 0.9), LitEma(network, 0.9)
    for _ in range(3):
        first(network)
    second(network)  # its own count is in use
    second.load_state_dict(first.state_dict())
    torch.nn.init.ones_(network.weight)
    first(network)
    second(network)
    assert first.num_updates == second.num_updates == 4
    assert torch.equal(first.get_buffer("weight"), second.get_buffer("weight"))
    second.reset_num_updates()
    second(network)
    assert second.num_updates == 1


def test_early_weights_leave_the_average_sooner() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    slow, quick, even = LitEma(network, 0.9999), LitEma(network, 0.2), LitEma(network, 0.9999, use_num_updates=False)
    torch.nn.init.ones_(network.weight)
    for decays in ((2 / 11, 2 / 11, 0.9999), (3 / 12, 0.2, 0.9999)):  # min(decay, (1 + n) / (10 + n))
        for average, decay in zip((slow, quick, even), decays, strict=True):
            before = average.get_buffer("weight").item()
            average(network)
            assert average.get_buffer("weight").item() == pytest.approx(1 - decay * (1 - before), abs=1e-6)


def test_only_the_network_trains_and_frozen_stages_stay_in_eval_mode() -> None:
    encoder = {"target": "torch.nn.Linear", "params": {"in_features": 16, "out_features": 16}}
    model = latent_diffusion(cond_stage_config=encoder)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fit(model)
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved and all(k.startswith("model.") for k in moved)
    model.train()
    assert model.model.training and not model.cond_stage_model.training and not model.first_stage_model.training


def test_scale_of_the_latents_is_taken_from_the_first_batch() -> None:
    model = latent_diffusion(scale_by_std=True, scale_factor=1.0)
    fit(model, max_steps=1)
    shown = next(iter(DataLoader(Pictures(), 2)))["image"]
    assert float(model.scale_factor) == pytest.approx(1 / shown.std().item(), rel=1e-4)
    assert "scale_factor" in model.state_dict()


def test_cached_moments_stand_for_the_picture() -> None:
    node: Any = OmegaConf.to_container(OmegaConf.load(GOLDEN / "ldm_full.yaml").model, resolve=True)
    model = instantiate_from_config(node)
    image = torch.randn(2, 16, 16, 3)
    moments = model.encode_first_stage(image.permute(0, 3, 1, 2)).parameters
    torch.manual_seed(5)
    from_picture = model.get_latent({"image": image})
    torch.manual_seed(5)
    torch.testing.assert_close(model.get_latent({"moments": moments}), from_picture)


@pytest.mark.parametrize(
    ("key", "channels", "condition"),
    [
        ("concat", 8, torch.randn(2, 4, 8, 8)),
        ("crossattn", 4, torch.randn(2, 3, 16)),
        ("hybrid", 8, {"c_concat": [torch.randn(2, 4, 8, 8)], "c_crossattn": [torch.randn(2, 3, 16)]}),
        ("adm", 4, torch.randn(2, 6)),
        ("crossattn-adm", 4, {"c_crossattn": [torch.randn(2, 3, 16)], "c_adm": torch.randn(2, 6)}),
    ],
)
def test_every_way_in_for_a_condition(key: str, channels: int, condition: Any) -> None:
    unet = copy.deepcopy(UNET)
    unet["params"]["in_channels"] = channels
    if "adm" in key:
        # with as many groups as channels, what is only added before a norm would vanish in it
        unet["params"] |= {"num_classes": "sequential", "adm_in_channels": 6, "use_scale_shift_norm": True}
    if "crossattn" not in key and key != "hybrid":
        unet["params"] |= {"use_spatial_transformer": False, "context_dim": None}
    model = latent_diffusion(conditioning_key=key, unet_config=unet).eval()
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([1, 500])

    def halved(c: Any) -> Any:
        if isinstance(c, dict):
            return {k: halved(v) for k, v in c.items()}
        return [halved(v) for v in c] if isinstance(c, list) else c / 2

    one, other = model.apply_model(x, t, condition), model.apply_model(x, t, halved(condition))
    assert one.shape == x.shape
    assert (one - other).abs().max() > 1e-5


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("concat", "c_concat"),
        ("crossattn", "c_crossattn"),
        ("hybrid", "c_concat"),
        ("adm", "c_adm"),
        ("hybrid-adm", "c_concat"),
        ("crossattn-adm", "c_crossattn"),
    ],
)
def test_a_bare_condition_is_the_part_that_its_kind_names_first(key: str, part: str) -> None:
    bare = torch.zeros(2, 6)
    found = as_parts(bare, key)
    assert list(found) == [part]
    assert (found[part] if part == "c_adm" else found[part][0]) is bare
    assert as_parts(None, key) == as_parts(bare, None) == {}


def test_pixels_without_a_condition() -> None:
    torch.manual_seed(0)
    unet = {**UNET, "params": {**UNET["params"], "use_spatial_transformer": False, "context_dim": None}}
    model = DDPM(unet_config=unet, channels=4, image_size=8, use_ema=False)
    fit(model, max_steps=3)
    images = model.log_images(next(iter(DataLoader(Pictures(), 2))), ddim_steps=2)
    assert {k: tuple(v.shape) for k, v in images.items()} == {
        "inputs": (2, 4, 8, 8), "diffusion_row": (10, 4, 8, 8), "samples": (2, 4, 8, 8),
    }  # fmt: skip


def test_timesteps_of_a_range_alone_are_drawn() -> None:
    model = latent_diffusion(timestep_range=[100, 103])
    drawn: list[int] = []
    model.p_losses = lambda x, cond, t: drawn.extend(t.tolist())
    for _ in range(20):
        model(torch.zeros(4, 4, 8, 8))
    assert set(drawn) == {100, 101, 102}
    for wrong in ([5], [3, 3], [0, 1001], [-1, 4]):
        with pytest.raises(ConfigError, match="0 <= first < end <= "):
            latent_diffusion(timestep_range=wrong)


def test_offset_noise_is_the_same_at_every_place_of_a_channel() -> None:
    model = latent_diffusion(offset_noise=2.0)
    noises: list[torch.Tensor] = []
    model.q_sample = lambda x, t, noise: noted(noises, noise) and x
    model.apply_model = lambda x, t, cond: x
    for seed in range(200):
        torch.manual_seed(seed)
        model.p_losses(torch.zeros(1, 4, 8, 8), None, torch.tensor([5]))
    means = torch.stack(noises).mean(dim=(-2, -1)).flatten()
    assert float(means.std()) == pytest.approx((2.0**2 + 1 / 64) ** 0.5, rel=0.1)
    within = torch.stack(noises) - torch.stack(noises).mean(dim=(-2, -1), keepdim=True)
    assert float(within.std()) == pytest.approx((63 / 64) ** 0.5, rel=0.02)
