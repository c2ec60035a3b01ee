"""Stable Diffusion XL's networks, conditioner, levels, samplers and loss against numbers of the released code."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from ldm.models.diffusion.guidance import guided
from ldm.models.diffusion.samplers import edm
from ldm.models.diffusion.samplers.multistep import coefficients
from ldm.models.diffusion.sampling import sample
from ldm.modules.diffusionmodules.denoiser import DiscreteDenoiser
from ldm.modules.diffusionmodules.denoiser_scaling import EDMScaling, VScaling
from ldm.modules.diffusionmodules.discretizer import (
    EDMDiscretization,
    Img2ImgDiscretizationWrapper,
    LegacyDDPMDiscretization,
    Txt2NoisyDiscretizationWrapper,
)
from ldm.modules.diffusionmodules.loss import StandardDiffusionLoss
from ldm.modules.diffusionmodules.sigma_sampling import DiscreteSampling, EDMSampling
from ldm.modules.encoders.modules import FrozenCLIPEmbedder, FrozenOpenCLIPEmbedder2
from ldm.targets import current_name
from ldm.util import instantiate_from_config
from tests.engines import engine
from tests.helpers import GOLDEN, GoldenCase, golden_case

LEGACY = {"target": "sgm.modules.diffusionmodules.discretizer.LegacyDDPMDiscretization"}


@functools.cache
def model_of(name: str) -> Any:
    return engine(golden_case(name))


@pytest.mark.parametrize("name", ["sdxl_unet", "sdxl_refiner_unet"])
@torch.no_grad()
def test_networks(name: str) -> None:
    case, model = golden_case(name), model_of(name)
    unet, (x, t, context, y) = model.model.diffusion_model, (case.inputs[n] for n in ("x", "t", "context", "y"))
    seen: dict[str, Tensor] = {}
    parts = {"last_input_block": unet.input_blocks[-1], "middle": unet.middle_block, "label_emb": unet.label_emb,
             "time_emb": unet.time_embed}  # fmt: skip
    hooks = [
        part.register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out))
        for name, part in parts.items()
    ]
    case.assert_close("eps", unet(x, t, context=context, y=y))
    for hook in hooks:
        hook.remove()
    for part, out in seen.items():
        case.assert_close(part, out)
    case.assert_close("wrapper_eps", model.model(x, t, c_crossattn=[context], c_adm=y))


@torch.no_grad()
def test_rare_switches_of_the_network() -> None:
    case = golden_case("sdxl_unet_options")
    unet = instantiate_from_config(case.config)
    unet.load_state_dict(case.weights, strict=True)
    seen: list[Tensor] = []
    unet.middle_block.register_forward_hook(lambda _, __, out: seen.append(out))
    case.assert_close("eps", unet.eval()(*(case.inputs[name] for name in ("x", "t", "context", "y"))))
    case.assert_close("middle", seen[0])


def reading(monkeypatch: pytest.MonkeyPatch, encoder: Any, ids: Tensor) -> None:
    """Have an encoder read some ids in place of texts, which are their rows as numbers."""
    monkeypatch.setattr(encoder, "tokenize", lambda texts, placeholders=(): ids[[int(text) for text in texts]])


@torch.no_grad()
def test_base_conditioner(monkeypatch: pytest.MonkeyPatch) -> None:
    case, model = golden_case("sdxl_conditioner"), model_of("sdxl_conditioner")
    clip, open_clip, size = model.conditioner.embedders[:3]
    ids = {clip: case.inputs["clip_tokens"], open_clip: case.inputs["openclip_tokens"]}
    for encoder, rows in ids.items():
        reading(monkeypatch, encoder, rows)
    sizes = {"original_size_as_tuple": case.inputs["original_size"], "crop_coords_top_left": case.inputs["crop"],
             "target_size_as_tuple": case.inputs["target_size"]}  # fmt: skip
    batch, negative = {"txt": ["0", "1"], **sizes}, {"txt": ["2", "3"], **sizes}
    for prefix, zero in (("uc", None), ("uc_zero", ["txt"])):
        parts, away = model.conditioner.get_unconditional_conditioning(batch, negative, zero)
        for part in ("crossattn", "vector"):
            case.assert_close(part, parts[part])
            case.assert_close(f"{prefix}_{part}", away[part])
            changed = model.conditioner.changed(parts, {"txt": negative["txt"]}, zero or ())
            case.assert_close(f"{prefix}_{part}", changed[part])
    case.assert_close("clip_hidden", clip(ids[clip][:2]))
    context, pooled = open_clip.outputs(ids[open_clip][:2])
    case.assert_close("openclip_penultimate", context)
    case.assert_close("openclip_pooled", pooled)
    case.assert_close("size_embedding", size(case.inputs["original_size"]))


@pytest.mark.parametrize(("layer", "legacy"), [("last", False), ("last", True), ("penultimate", True)])
@torch.no_grad()
def test_other_layers_of_the_second_tower(layer: str, legacy: bool) -> None:
    case, model = golden_case("sdxl_conditioner"), model_of("sdxl_conditioner")
    tower = FrozenOpenCLIPEmbedder2(layer=layer, legacy=legacy, config=case.args["open_clip"]["tiny-bigG"])
    tower.load_state_dict(model.conditioner.embedders[1].state_dict())
    name = f"openclip_{'legacy_' if legacy else ''}{layer}"
    case.assert_close(name, tower(case.inputs["openclip_tokens"][:2]))


@torch.no_grad()
def test_other_layers_of_the_first_tower() -> None:
    case, model = golden_case("sdxl_conditioner"), model_of("sdxl_conditioner")
    weights, ids = model.conditioner.embedders[0].state_dict(), case.inputs["clip_tokens"][:2]
    last, pooled = (
        FrozenCLIPEmbedder("tiny-L", layer=layer, config=case.args["hf_text_config"], always_return_pooled=True)
        for layer in ("last", "pooled")
    )
    for tower in (last, pooled):
        tower.load_state_dict(weights)
    for name, out in zip(("clip_last", "clip_pooled"), last.outputs(ids), strict=True):
        case.assert_close(name, out)
    case.assert_close("clip_layer_pooled", pooled(ids))


@torch.no_grad()
def test_refiner_conditioner(monkeypatch: pytest.MonkeyPatch) -> None:
    case, model = golden_case("sdxl_refiner_conditioner"), model_of("sdxl_refiner_conditioner")
    tower, size = model.conditioner.embedders[:2]
    reading(monkeypatch, tower, case.inputs["openclip_tokens"])
    given = {"original_size": case.inputs["original_size"], "crop": case.inputs["crop"]}
    parts = model.condition(["0", "1"], aesthetic_score=case.inputs["aesthetic"], **given)
    case.assert_close("crossattn", parts["c_crossattn"][0])
    case.assert_close("vector", parts["c_adm"])
    negative = {"aesthetic_score": case.inputs["negative_aesthetic"]}
    away = [model.unconditional(parts, text, **negative) for text in ("2", "3")]
    for row, part in enumerate(away):
        torch.testing.assert_close(
            part["c_crossattn"][0][row], case.expected["uc_crossattn"][row], rtol=1e-4, atol=6e-5
        )
        torch.testing.assert_close(part["c_adm"][row], case.expected["uc_vector"][row], rtol=1e-4, atol=3e-5)
    made = {"crossattn": parts["c_crossattn"][0], "vector": parts["c_adm"]}
    changed = model.conditioner.changed(made, negative, ["txt"])
    case.assert_close("uc_zero_crossattn", changed["crossattn"])
    case.assert_close("uc_zero_vector", changed["vector"])
    context, pooled = tower.outputs(case.inputs["openclip_tokens"][:2])
    case.assert_close("openclip_penultimate", context)
    case.assert_close("openclip_pooled", pooled)
    case.assert_close("size_embedding", size(case.inputs["original_size"]))


# ---- levels ---------------------------------------------------------------------------------------------------------


def test_levels() -> None:
    case, model = golden_case("sdxl_sampling"), model_of("sdxl_sampling")
    legacy = LegacyDDPMDiscretization()
    case.assert_close("denoiser_sigmas", model.denoiser.sigmas)
    for n in case.args["sigma_lists"]:
        case.assert_close(f"sigmas_{n}", legacy(n))
        case.assert_close(f"sigmas_{n}", torch.tensor([level.noise for level in model.schedule.levels(n)]))
    assert torch.equal(model.denoiser.index_of(case.inputs["sigma_probe"]), case.expected["sigma_idx"])
    case.assert_close("sigma_quantized", model.denoiser.nearest(case.inputs["sigma_probe"]))
    case.assert_close("sigmas_edm", EDMDiscretization(0.0292, 14.6146, 3.0)(case.args["steps2"]))
    for i, (n, strength) in enumerate(case.args["img2img"]):
        case.assert_close(f"img2img_sigmas_{i}", Img2ImgDiscretizationWrapper(legacy, strength)(n))
    for i, (n, strength) in enumerate(case.args["to_noisy"]):
        case.assert_close(f"to_noisy_sigmas_{i}", Txt2NoisyDiscretizationWrapper(legacy, strength, original_steps=n)(n))


def parts_of(case: GoldenCase, prefix: str = "") -> dict[str, Any]:
    return {"c_crossattn": [case.inputs[f"{prefix}crossattn"]], "c_adm": case.inputs[f"{prefix}vector"]}


@torch.no_grad()
def test_denoiser() -> None:
    case, model = golden_case("sdxl_sampling"), model_of("sdxl_sampling")
    x, sigma, cond = case.inputs["x"], case.inputs["sigma"], parts_of(case)
    case.assert_close("denoised", model.denoiser(model.apply_model, x, sigma, cond))
    told_sigma = DiscreteDenoiser(
        {"target": "sgm.modules.diffusionmodules.denoiser_scaling.EpsScaling"}, 1000, LEGACY, quantize_c_noise=False
    )
    case.assert_close("denoised_c_noise_is_sigma", told_sigma(model.apply_model, x, sigma, cond))
    network = guided(model, case.args["scale"], parts_of(case, "uc_"))
    case.assert_close("denoised_guided", model.denoiser(network.predict, x, sigma, cond))


def stream(noise: Tensor) -> tuple[Callable[[], Tensor], list[int]]:
    draws, count = iter(noise), [0]

    def draw() -> Tensor:
        count[0] += 1
        return next(draws)

    return draw, count


def walked(case: GoldenCase, name: str, steps: str = "steps", **options: Any) -> tuple[Tensor, int]:
    """The end of a walk from the case's noise by the sampler of an old name, and how often it drew."""
    model = model_of(case.about["case"])
    options = {"discretization_config": LEGACY, "guider_config": cfg(case), "num_steps": case.args[steps], **options}
    sampler = getattr(edm, name)(**options)
    noise = case.inputs["noise"].clone()
    draw, count = stream(case.inputs["step_noise"])

    def denoise(x: Tensor, sigma: Tensor, cond: Any) -> Tensor:
        return model.denoiser(model.apply_model, x, sigma, cond)

    x = sampler(denoise, noise, parts_of(case), parts_of(case, "uc_"), draw=draw)
    assert torch.equal(noise, case.inputs["noise"])  # the caller's noise stays as it is
    return x, count[0]


def cfg(case: GoldenCase) -> dict[str, Any]:
    return {"target": "sgm.modules.diffusionmodules.guiders.VanillaCFG", "params": {"scale": case.args["scale"]}}


CHURN = ("s_churn", "s_tmin", "s_tmax", "s_noise")
FRESH = ("eta", "s_noise")
EDM = {
    "target": "sgm.modules.diffusionmodules.discretizer.EDMDiscretization",
    "params": {"sigma_min": 0.0292, "sigma_max": 14.6146, "rho": 3.0},
}


@pytest.mark.parametrize(
    ("out", "sampler", "takes", "options"),
    [
        ("euler", "EulerEDMSampler", (), {}),
        ("euler_churn", "EulerEDMSampler", CHURN, {}),
        ("heun", "HeunEDMSampler", (), {}),
        ("heun_churn", "HeunEDMSampler", CHURN, {}),
        ("euler_ancestral", "EulerAncestralSampler", FRESH, {}),
        ("dpmpp2s_ancestral", "DPMPP2SAncestralSampler", FRESH, {}),
        ("dpmpp2m", "DPMPP2MSampler", (), {"steps": "steps2"}),
        ("dpmpp2m_edm", "DPMPP2MSampler", (), {"steps": "steps2", "discretization_config": EDM}),
        ("lms", "LinearMultistepSampler", (), {"steps": "steps2", "order": 3}),
    ],
)
def test_samplers_by_their_old_names(out: str, sampler: str, takes: Sequence[str], options: dict[str, Any]) -> None:
    case = golden_case("sdxl_sampling")
    values = case.args["churn"] if takes is CHURN else [case.args[name] for name in takes]
    x, draws = walked(case, sampler, **dict(zip(takes, values, strict=True)), **options)
    case.assert_close(out, x)
    if f"{out}_draws" in case.expected:
        assert draws == int(case.expected[f"{out}_draws"])


def test_the_same_walks_by_the_samplers_of_every_model() -> None:
    case, model = golden_case("sdxl_sampling"), model_of("sdxl_sampling")
    seen: list[Tensor] = []
    common: dict[str, Any] = {"guidance_scale": case.args["scale"], "uncond": parts_of(case, "uc_")}
    noise, cond = case.inputs["noise"], parts_of(case)
    x = sample(model, noise, cond, steps=6, sampler="euler", callback=lambda s: seen.append(s.x), **common)
    case.assert_close("euler", x)
    case.assert_close("euler_trajectory", torch.stack(seen))
    case.assert_close("euler_no_uc", sample(model, noise, cond, steps=6, sampler="euler"))
    case.assert_close("euler", sample(model, noise, cond, steps=6, sampler="ddim", **common))
    case.assert_close("heun", sample(model, noise, cond, steps=6, sampler="heun", **common))
    case.assert_close("dpmpp2m", sample(model, noise, cond, steps=8, sampler="dpm_solver", **common))


def test_multistep_coefficients() -> None:
    case = golden_case("sdxl_sampling")
    sigmas = LegacyDDPMDiscretization()(case.args["steps2"]).tolist()
    here = case.args["steps2"] - 2
    newest_first = [sigmas[here - j] for j in range(case.args["order"])]
    case.assert_close("lms_coefficients", torch.tensor(coefficients(newest_first, sigmas[here + 1])))


@torch.no_grad()
def test_first_stage() -> None:
    case, model = golden_case("sdxl_sampling"), model_of("sdxl_sampling")
    case.assert_close("decoded", model.decode_first_stage(case.inputs["z"]))
    posterior = model.encode_first_stage(case.inputs["image"])
    case.assert_close("moments", posterior.parameters)
    drawn = posterior.mean + posterior.std * case.inputs["posterior_noise"]
    case.assert_close("encoded", model.get_first_stage_encoding(drawn))


@pytest.mark.parametrize(
    ("name", "start", "sampler", "steps", "out"),
    [
        ("sdxl_sampling", "img2img_start", "EulerEDMSampler", 0, "img2img"),
        ("sdxl_refiner_sampling", "start", "EulerEDMSampler", None, "refined"),
        ("sdxl_refiner_sampling", "start", "DPMPP2MSampler", None, "refined_dpmpp2m"),
        ("sdxl_refiner_sampling", "handover_start", "EulerEDMSampler", None, "handover_refined"),
    ],
)
@torch.no_grad()
def test_from_a_latent(name: str, start: str, sampler: str, steps: int | None, out: str) -> None:
    case, model = golden_case(name), model_of(name)
    n, strength = case.args["refine"] if steps is None else case.args["img2img"][steps]
    walk = Img2ImgDiscretizationWrapper(LegacyDDPMDiscretization(), strength)
    first = walk(n)[0]
    if start.startswith("handover"):
        x = case.inputs["z_noisy"] / (1 + first**2).sqrt()
        noisy = Txt2NoisyDiscretizationWrapper(LegacyDDPMDiscretization(), strength, original_steps=n)
        case.assert_close("handover_base_sigmas", noisy(n))
    else:
        x = (case.inputs["z"] + case.inputs["noise"] * first) / (1 + first**2).sqrt()
    case.assert_close(start, x)
    runner = getattr(edm, sampler)(discretization_config=LEGACY, guider_config=cfg(case), num_steps=n)
    runner.discretization = walk

    def denoise(x: Tensor, sigma: Tensor, cond: Any) -> Tensor:
        return model.denoiser(model.apply_model, x, sigma, cond)

    case.assert_close(out, runner(denoise, x, parts_of(case), parts_of(case, "uc_")))


# ---- training -------------------------------------------------------------------------------------------------------


def weighting(name: str, **params: Any) -> dict[str, Any]:
    return {"target": f"sgm.modules.diffusionmodules.loss_weighting.{name}", "params": params}


SAMPLING = {
    "target": "sgm.modules.diffusionmodules.sigma_sampling.DiscreteSampling",
    "params": {"num_idx": 1000, "discretization_config": LEGACY},
}


@pytest.mark.parametrize(
    ("name", "weight", "scaling", "options"),
    [
        ("eps", weighting("EpsWeighting"), None, {}),
        ("eps_l1", weighting("EpsWeighting"), None, {"loss_type": "l1"}),
        ("unit", weighting("UnitWeighting"), None, {}),
        ("v", weighting("VWeighting"), VScaling(), {}),
        ("edm", weighting("EDMWeighting", sigma_data=0.5), EDMScaling(), {}),
        ("eps_net_edm_weight", weighting("EDMWeighting", sigma_data=0.5), None, {}),
    ],
)
@torch.no_grad()
def test_losses(name: str, weight: dict[str, Any], scaling: Any, options: dict[str, Any]) -> None:
    case, model = golden_case("sdxl_training"), model_of("sdxl_training")
    loss_fn = StandardDiffusionLoss(SAMPLING, weight, **options)
    sigmas = DiscreteSampling(LEGACY, 1000)(2, rand=case.inputs["idx"])
    case.assert_close("sigmas", sigmas)
    denoiser = DiscreteDenoiser(
        {"target": "sgm.modules.diffusionmodules.denoiser_scaling.EpsScaling"}, 1000, LEGACY
    )
    denoiser.scaling = scaling or denoiser.scaling
    z, noise, cond = case.inputs["z"], case.inputs["noise"], parts_of(case)
    assert loss_fn.weighting is not None
    case.assert_close(f"weight_{name}", loss_fn.weighting(sigmas))
    case.assert_close(f"loss_{name}", loss_fn(denoiser, model.apply_model, z, cond, sigmas, noise))
    seen = model.denoiser(model.apply_model, z + sigmas[:, None, None, None] * noise, sigmas, cond)
    case.assert_close("model_output", seen)


@pytest.mark.parametrize(
    ("name", "options", "offsets"),
    [("per_channel", {"loss_type": "l2"}, "offset_nc"), ("per_sample", {"type": "l2"}, "offset_n")],
)
@torch.no_grad()
def test_offset_noise(
    name: str, options: dict[str, Any], offsets: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, model = golden_case("sdxl_training"), model_of("sdxl_training")
    level = case.args["offset_noise_level"]
    loss_fn = StandardDiffusionLoss(SAMPLING, weighting("EpsWeighting"), offset_noise_level=level, **options)
    draws = iter([case.inputs["noise"], case.inputs[offsets]])
    monkeypatch.setattr(torch, "randn", lambda *_, **__: next(draws))
    loss = loss_fn(model.denoiser, model.apply_model, case.inputs["z"], parts_of(case), case.expected["sigmas"])
    case.assert_close(f"loss_offset_{name}", loss)


def test_edm_sampling() -> None:
    case = golden_case("sdxl_training")
    sampling = EDMSampling(case.args["p_mean"], case.args["p_std"])
    case.assert_close("sigmas_edm_sampling", sampling(2, rand=case.inputs["edm_rand"]))


def test_gradients() -> None:
    case, model = golden_case("sdxl_training"), model_of("sdxl_training")
    z, noise = case.inputs["z"], case.inputs["noise"]
    loss = model.loss_fn(model.denoiser, model.apply_model, z, parts_of(case), case.expected["sigmas"], noise).mean()
    case.assert_close("loss_mean", loss[None])
    case.assert_close("noised_input", z + case.expected["sigmas"][:, None, None, None] * noise)
    names = {"out_2_weight": "out.2.weight", "input_blocks_0_0_weight": "input_blocks.0.0.weight",
             "label_emb_0_0_bias": "label_emb.0.0.bias",
             "middle_attn2_to_v": "middle_block.1.transformer_blocks.0.attn2.to_v.weight"}  # fmt: skip
    unet = model.model.diffusion_model
    gradients = torch.autograd.grad(loss, [unet.get_parameter(name) for name in names.values()])
    for name, gradient in zip(names, gradients, strict=True):
        case.assert_close(f"grad_{name}", gradient)


def test_names_of_old_configurations_are_of_this_house() -> None:
    for path in ("sdxl_base.yaml", "sdxl_refiner.yaml"):
        text = (GOLDEN / path).read_text()
        targets = [line.split()[-1] for line in text.splitlines() if "target: sgm" in line]
        assert targets and all(current_name(target).startswith("ldm.") for target in targets)
        assert OmegaConf.load(GOLDEN / path).model.target == "sgm.models.diffusion.DiffusionEngine"
