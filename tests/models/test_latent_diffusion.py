"""LatentDiffusion against reference numbers: tables, noising, losses, both stages."""

from __future__ import annotations

import pytest
import torch

from ldm.models.diffusion.ddpm import LatentDiffusion
from ldm.util import instantiate_from_config
from tests.helpers import GoldenCase, golden_case


def build(case: GoldenCase) -> LatentDiffusion:
    model = instantiate_from_config(case.config.model)
    model.load_state_dict(case.weights, strict=True)
    return model.eval()


@pytest.mark.parametrize("name", ["ldm_full", "ldm_v"])
def test_schedule_buffers(name: str) -> None:
    case = golden_case(name)
    model = build(case)
    for key in case.expected:
        if key.startswith("buf."):
            case.assert_close(key, getattr(model, key.removeprefix("buf.")))


@torch.no_grad()
def test_eps_model() -> None:
    case = golden_case("ldm_full")
    model = build(case)
    z, noise, t = case.inputs["z"], case.inputs["noise"], case.inputs["t"]

    c = model.get_learned_conditioning(case.inputs["tokens"])
    x_noisy = model.q_sample(x_start=z, t=t, noise=noise)
    eps = model.apply_model(x_noisy, t, c)
    loss, parts = model.p_losses(z, c, t, noise=noise)
    mean, variance, log_variance = model.p_mean_variance(x=x_noisy, c=c, t=t, clip_denoised=False)

    case.assert_close("c", c)
    case.assert_close("x_noisy", x_noisy)
    case.assert_close("eps", eps)
    case.assert_close("loss", loss.reshape(1))
    case.assert_close("loss_simple", parts["val/loss_simple"].reshape(1))
    case.assert_close("loss_vlb", parts["val/loss_vlb"].reshape(1))
    case.assert_close("first_stage_mean", model.encode_first_stage(case.inputs["image"]).mode() * model.scale_factor)
    case.assert_close("decoded", model.decode_first_stage(z))
    case.assert_close("pred_x0", model.predict_start_from_noise(x_noisy, t=t, noise=eps))
    case.assert_close("p_mean", mean)
    case.assert_close("p_var", variance)
    case.assert_close("p_logvar", log_variance)
    case.assert_close("post_mean", model.q_posterior(x_start=z, x_t=x_noisy, t=t)[0])


@torch.no_grad()
def test_v_model() -> None:
    case = golden_case("ldm_v")
    model = build(case)
    z, noise, t, c = (case.inputs[key] for key in ("z", "noise", "t", "c"))

    x_noisy = model.q_sample(x_start=z, t=t, noise=noise)
    v = model.apply_model(x_noisy, t, c)
    loss, parts = model.p_losses(z, c, t, noise=noise)

    case.assert_close("x_noisy", x_noisy)
    case.assert_close("model_v", v)
    case.assert_close("v_target", model.get_v(z, noise, t))
    case.assert_close("x0_from_v", model.predict_start_from_z_and_v(x_noisy, t, v))
    case.assert_close("eps_from_v", model.predict_eps_from_z_and_v(x_noisy, t, v))
    case.assert_close("loss", loss.reshape(1))
    case.assert_close("loss_simple", parts["val/loss_simple"].reshape(1))
    case.assert_close("loss_vlb", parts["val/loss_vlb"].reshape(1))
