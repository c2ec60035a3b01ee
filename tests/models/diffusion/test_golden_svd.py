"""Stable Video Diffusion against reference numbers: first stage, conditioner, sampling, loss."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from ldm.models.diffusion.guidance import guided
from ldm.models.diffusion.loop import Snapshot, beginning, estimator, run
from ldm.models.diffusion.samplers.euler import Euler
from ldm.models.first_stage import KLAutoencoder
from ldm.models.hooks import without_lightning
from ldm.modules.diffusionmodules.guiders import LinearPredictionGuider, TrianglePredictionGuider
from ldm.modules.diffusionmodules.loss import StandardDiffusionLoss
from ldm.modules.diffusionmodules.loss_weighting import VWeighting
from ldm.modules.encoders.conditioner import ConcatTimestepEmbedderND
from ldm.modules.encoders.film import VideoPredictionEmbedderWithEncoder
from ldm.util import instantiate_from_config
from tests.engines import engine
from tests.helpers import GoldenCase, golden_case


class Given:
    """Noise that is given, in the place of what draws it."""

    def __init__(self, *noises: Tensor) -> None:
        self.noises = list(noises)

    def draw(self, shape: Any) -> Tensor:
        return self.noises.pop(0)


def remember(seen: dict[str, Tensor], name: str, module: Any, args: Any, output: Tensor) -> None:
    seen.setdefault(name, output)


@pytest.fixture(scope="module")
def model() -> Any:
    return engine(golden_case("svd_sampling"))


@torch.no_grad()
def test_first_stage(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    case = golden_case("svd_decoder")
    stage, z, frames = model.first_stage_model, case.inputs["z"], case.args["num_video_frames"]
    seen: dict[str, Tensor] = {}
    for name in ("block_1", "attn_1"):
        stage.decoder.mid.get_submodule(name).register_forward_hook(partial(remember, seen, f"mid_{name}"))
    case.assert_close("decoded", stage.decode(z, timesteps=frames))
    for name, value in seen.items():
        case.assert_close(name, value)
    case.assert_close("decoded_one_clip_of_all", stage.decode(z, timesteps=len(z)))
    case.assert_close("decoded_single_frames", stage.decode(z, timesteps=1))
    case.assert_close("decoded_skip_video", stage.decode(z, timesteps=frames, skip_video=True))
    case.assert_close("moments", stage.encoder(case.inputs["image"]))
    posterior = stage.encode(case.inputs["image"])
    sampled = posterior.mean + posterior.std * case.inputs["posterior_noise"]
    case.assert_close("encode_sampled", sampled)
    case.assert_close("encode_first_stage", model.scale_factor * sampled)
    case.assert_close("decode_first_stage", model.decode_first_stage(z[:frames]))
    monkeypatch.setitem(vars(model.engine), "en_and_decode_n_samples_a_time", case.args["chunk"])
    case.assert_close("decode_first_stage_chunked", model.decode_first_stage(z[:frames]))


@torch.no_grad()
def test_image_decoder() -> None:
    case = golden_case("svd_image_decoder")
    node = without_lightning(OmegaConf.to_container(case.config, resolve=True))
    stage = instantiate_from_config(node)
    assert isinstance(stage, KLAutoencoder)
    prefix = case.args["prefix"]
    stage.load_state_dict({k.removeprefix(prefix): v for k, v in case.weights.items() if k.startswith(prefix)})
    stage.eval()
    case.assert_close("decoded", stage.decode(case.inputs["z"] / case.args["scale_factor"]))
    posterior = stage.encode(case.inputs["image"])
    case.assert_close("moments", posterior.parameters)
    case.assert_close("encode_sampled", posterior.mean + posterior.std * case.inputs["posterior_noise"])


@torch.no_grad()
def test_conditioner(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    case = golden_case("svd_conditioner")
    embedder, inputs = model.conditioner.embedders[0], case.inputs
    tiled = inputs["image_tile"].repeat(1, 1, *case.args["tile"]) / 127.5 - 1
    for name, picture in (("small", inputs["image"]), ("big", tiled)):
        seen = embedder.open_clip.preprocess(picture)
        case.assert_close(f"preprocess_{name}_crop", seen[:, :, 96:128, 64:96])
        case.assert_close(f"preprocess_{name}_corner", seen[:, :, :12, -12:])
        case.assert_close(f"clip_{name}", embedder.open_clip(picture))
        case.assert_close(f"clip_prediction_{name}", embedder(picture))
    tower = embedder.open_clip.model.visual
    patches = tower.states(embedder.open_clip.preprocess(inputs["image"]))[:, 1:]
    case.assert_close("clip_tokens_mean", patches.mean(2))

    frames = case.args["num_frames"]
    given = {"image": inputs["image"], "fps": case.args["fps_id"] + 1, "motion": case.args["motion_bucket_id"],
             "cond_aug": case.args["cond_aug"], "noise": Given(inputs["image_noise"]), "frames": frames}  # fmt: skip
    parts = model.condition([""], **given)
    empty = model.unconditional(parts)
    for prefix, found in (("", parts), ("uc_", empty)):
        case.assert_close(f"{prefix}crossattn", found["c_crossattn"][0][:1])
        case.assert_close(f"{prefix}concat", found["c_concat"][0][:1])
        case.assert_close(f"{prefix}vector", found["c_adm"])
        assert found["c_concat"][0].shape[0] == frames and found["c_frames"].shape == (frames, frames)

    copies = VideoPredictionEmbedderWithEncoder(
        n_cond_frames=1, n_copies=case.args["n_copies"], scale_factor=case.args["embedder_scale_factor"], is_ae=True,
        encoder_config={"target": "torch.nn.Identity"},
        sigma_sampler_config={"target": "ldm.modules.diffusionmodules.sigma_sampling.EDMSampling",
                              "params": {"p_mean": case.args["p_mean"], "p_std": case.args["p_std"]}},
    )  # fmt: skip
    copies.encoder = model.conditioner.embedders[3].encoder
    copies.sigma_cond = ConcatTimestepEmbedderND(case.expected["copies_sigma_cond"].shape[1])
    sampler: Any = copies.sigma_sampler
    copies.sigma_sampler = lambda count: sampler(count, rand=inputs["sigma_rand"])
    monkeypatch.setattr(torch, "randn_like", lambda x: inputs["two_noise"])
    concat, told = copies(torch.cat([inputs["image"], inputs["image"].flip(3)]))
    case.assert_close("copies_concat", concat)
    case.assert_close("copies_sigma_cond", told)


def conditions(case: GoldenCase, model: Any) -> tuple[Any, Any]:
    args = case.args
    parts = model.condition([""], image=case.inputs["image"], fps=args["fps_id"] + 1, motion=args["motion_bucket_id"],
                            cond_aug=args["cond_aug"], noise=Given(case.inputs["image_noise"]),
                            frames=args["num_frames"])  # fmt: skip
    return parts, model.unconditional(parts)


@torch.no_grad()
def test_sampling(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    case = golden_case("svd_sampling")
    args, inputs, frames = case.args, case.inputs, case.args["num_frames"]
    for steps in args["sigma_lists"]:
        walk = model.schedule.levels(steps)
        case.assert_close(f"sigmas_{steps}", torch.tensor([level.noise for level in walk]))
    parts, empty = conditions(case, model)
    sigma = float(inputs["sigma_one"][0])
    estimate = estimator(model, parts)(inputs["x_one"], model.schedule.at(sigma))
    case.assert_close("denoised_one", estimate.x0)

    linear = LinearPredictionGuider(args["max_scale"], frames, args["min_scale"])
    triangle = TrianglePredictionGuider(args["max_scale"], frames, args["min_scale"])
    case.assert_close("linear_scale", torch.as_tensor(linear.scale)[None])
    case.assert_close("triangle_scale", torch.as_tensor(triangle.scale)[None])
    levels = model.schedule.levels(args["num_steps"])
    for name, guider in (("latents", linear), ("latents_triangle", triangle)):
        shots: list[Snapshot] = []
        x = run(Euler(), levels, beginning(inputs["noise"], levels[0]),
                estimator(guided(model, guider.scale, empty), parts), lambda: torch.zeros(1),
                callback=shots.append)  # fmt: skip
        case.assert_close(name, x)
        if name == "latents":
            case.assert_close("trajectory", torch.stack([shot.x for shot in shots]))
            latents = x
    case.assert_close("frames_all_at_once", model.decode_first_stage(latents))
    monkeypatch.setitem(vars(model.engine), "en_and_decode_n_samples_a_time", args["decoding_t"])
    pictures = model.decode_first_stage(latents)
    case.assert_close("frames", pictures)
    as_bytes = (((pictures + 1) / 2).clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1)
    assert (as_bytes.int() - case.expected["frames_uint8"].int()).abs().max() <= 1


@torch.no_grad()
def test_loss(model: Any) -> None:
    case = golden_case("svd_training")
    inputs, frames = case.inputs, case.args["num_video_frames"]
    sampler = {"target": "ldm.modules.diffusionmodules.sigma_sampling.EDMSampling",
               "params": {"p_mean": case.args["p_mean"], "p_std": case.args["p_std"]}}  # fmt: skip
    weighting = {"target": "ldm.modules.diffusionmodules.loss_weighting.VWeighting"}
    loss = StandardDiffusionLoss(sampler, weighting, n_frames=frames)
    sigmas = loss.sigma_sampler(len(inputs["z"]), rand=inputs["sigma_rand"])
    case.assert_close("sigmas", sigmas)
    case.assert_close("weights", VWeighting()(sigmas))
    parts = {"c_concat": [inputs["concat"]], "c_crossattn": [inputs["context"]], "c_adm": inputs["y"],
             "c_frames": inputs["indicator"].repeat_interleave(frames, dim=0)}  # fmt: skip
    found = loss(model.denoiser, model.apply_model, inputs["z"], parts, sigmas=sigmas, noise=inputs["noise"])
    case.assert_close("loss", found)
    drawn = loss.draw_sigmas(2 * frames)
    assert len(set(drawn.tolist())) == 2 and drawn[0] == drawn[frames - 1]


@torch.no_grad()
def test_wrapper(model: Any) -> None:
    case = golden_case("svd_unet")
    x, frames = case.inputs["x"], case.args["num_video_frames"]
    parts = {"c_concat": [x[:, 4:]], "c_crossattn": [case.inputs["context"]], "c_adm": case.inputs["y"],
             "c_frames": case.inputs["indicator_video"].repeat_interleave(frames, dim=0)}  # fmt: skip
    case.assert_close("wrapper_v", model.apply_model(x[:, :4], case.inputs["t"], parts))
