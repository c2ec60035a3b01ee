"""Samplers against the numbers of the original implementation, through the whole LatentDiffusion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ldm.models.diffusion.samplers.ddim import DDIMSampler
from ldm.models.diffusion.samplers.plms import PLMSSampler
from ldm.models.diffusion.sampling import sample
from ldm.modules.diffusionmodules.schedule import make_ddim_timesteps
from ldm.util import instantiate_from_config
from tests.helpers import GoldenCase, golden_case


def build(case: GoldenCase) -> Any:
    model = instantiate_from_config(case.config.model if "model" in case.config else case.config)
    model.load_state_dict(case.weights, strict=True)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> Any:
    return build(golden_case("ldm_full"))


def stream(noise: torch.Tensor) -> Callable[[], torch.Tensor]:
    draws = iter(noise)
    return lambda: next(draws)


def guidance(case: GoldenCase) -> dict[str, Any]:
    return {
        "unconditional_guidance_scale": case.args["scale"],
        "unconditional_conditioning": case.expected.get("uc", case.inputs.get("uc")),
    }


@pytest.mark.parametrize("S", [7, 10, 30, 50, 250])
def test_ddim_timesteps(S: int) -> None:
    golden_case("ldm_full").assert_close(f"ddim_ts_{S}", torch.from_numpy(make_ddim_timesteps("uniform", S, 1000)))


def test_ddim_tables(model: Any) -> None:
    case = golden_case("ddim")
    sampler = DDIMSampler(model)
    sampler.make_schedule(case.args["S"], ddim_eta=case.args["eta"], verbose=False)
    case.assert_close("ddim_timesteps", torch.from_numpy(sampler.ddim_timesteps))
    case.assert_close("ddim_alphas", sampler.ddim_alphas)
    case.assert_close("ddim_alphas_prev", sampler.ddim_alphas_prev)
    case.assert_close("ddim_sigmas", sampler.ddim_sigmas)
    case.assert_close("ddim_sqrt_one_minus_alphas", sampler.ddim_sqrt_one_minus_alphas)


def old_call(case: GoldenCase) -> dict[str, Any]:
    x_T = case.inputs["x_T"]
    return {"S": case.args["S"], "batch_size": len(x_T), "shape": x_T.shape[1:], "x_T": x_T, "verbose": False}


def test_ddim_with_guidance(model: Any) -> None:
    case = golden_case("ddim")
    context = case.expected["c"]
    final, kept = DDIMSampler(model).sample(**old_call(case), conditioning=context, **guidance(case))
    case.assert_close("final_eta0", final)
    case.assert_close("pred_x0_first", kept["pred_x0"][1])


def test_ddim_without_guidance(model: Any) -> None:
    case = golden_case("ddim")
    options = {**guidance(case), "unconditional_guidance_scale": 1.0}
    final, _ = DDIMSampler(model).sample(**old_call(case), conditioning=case.expected["c"], **options)
    case.assert_close("final_noguid", final)


def test_ddim_with_noise(model: Any) -> None:
    case = golden_case("ddim")
    final, _ = DDIMSampler(model).sample(
        **old_call(case), conditioning=case.expected["c"], **guidance(case),
        eta=case.args["eta"], normals_sequence=list(case.inputs["step_noise"]),
    )  # fmt: skip
    case.assert_close("final_eta", final)


def test_function_with_mask_and_with_noise(model: Any) -> None:
    case = golden_case("ddim")
    common: dict[str, Any] = {
        "steps": case.args["S"], "guidance_scale": case.args["scale"], "uncond": case.expected["uc"],
    }  # fmt: skip
    masked = sample(
        model, case.inputs["x_T"], case.expected["c"], **common,
        mask=case.inputs["mask"], x0=case.inputs["z"], noise=stream(case.inputs["step_noise"]),
    )  # fmt: skip
    case.assert_close("final_mask", masked)
    noisy = sample(
        model, case.inputs["x_T"], case.expected["c"], **common,
        eta=case.args["eta"], noise=stream(case.inputs["step_noise"]),
    )  # fmt: skip
    case.assert_close("final_eta", noisy)


def test_image_to_image(model: Any) -> None:
    case = golden_case("ddim")
    sampler = DDIMSampler(model)
    sampler.make_schedule(case.args["S"], ddim_eta=0.0, verbose=False)
    t_enc = case.args["t_enc"]
    z = case.inputs["z"]
    encoded = sampler.stochastic_encode(z, torch.full((len(z),), t_enc), noise=case.inputs["noise"])
    case.assert_close("stoch_enc", encoded)
    case.assert_close("decode_from_t", sampler.decode(encoded, case.expected["c"], t_enc, **guidance(case)))
    again = sample(
        model, encoded, case.expected["c"], steps=case.args["S"], start=t_enc,
        guidance_scale=case.args["scale"], uncond=case.expected["uc"],
    )  # fmt: skip
    case.assert_close("decode_from_t", again)


def test_plms(model: Any) -> None:
    case = golden_case("plms")
    final, _ = PLMSSampler(model).sample(**old_call(case), conditioning=case.expected["c"], **guidance(case))
    case.assert_close("final", final)
    plain, _ = PLMSSampler(model).sample(**old_call(case), conditioning=case.expected["c"])
    case.assert_close("final_noguid", plain)
    case.assert_close(
        "final_noguid",
        sample(model, case.inputs["x_T"], case.expected["c"], steps=case.args["S"], sampler="plms"),
    )


def test_v_prediction() -> None:
    case = golden_case("ldm_v")
    model = build(case)
    sampler = DDIMSampler(model, device=torch.device("cpu"))
    final, _ = sampler.sample(**old_call(case), conditioning=case.inputs["c"], **guidance(case))
    case.assert_close("final", final)
    sampler.make_schedule(case.args["S"], verbose=False)
    encoded, _ = sampler.encode(case.inputs["z"], case.inputs["c"], case.args["t_enc"])
    case.assert_close("ddim_encoded", encoded)
