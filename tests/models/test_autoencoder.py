"""The autoencoders against reference numbers, released key lists and diffusers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ldm.checkpoint import save_state_dict
from ldm.models.autoencoder import AutoencoderKL, IdentityFirstStage, VQModel, VQModelInterface
from ldm.util import ConfigError, instantiate_from_config
from tests.helpers import GOLDEN, golden_case

NO_LOSS = {"target": "torch.nn.Identity"}
SMALL: dict[str, Any] = {
    "double_z": True, "z_channels": 4, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32,
    "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip


def built(name: str, target: str | None = None) -> tuple[Any, Any]:
    case = golden_case(name)
    config = {"target": target or case.config.target, "params": case.config.params}
    model = instantiate_from_config(config).eval()
    model.load_state_dict(case.weights, strict=True)
    return case, model


@torch.no_grad()
def test_kl_autoencoder_meets_the_reference() -> None:
    case, model = built("ae_kl")
    posterior = model.encode(case.inputs["image"])
    case.assert_close("moments", posterior.parameters)
    case.assert_close("mean", posterior.mode())
    case.assert_close("logvar", posterior.logvar)
    case.assert_close("std", posterior.std)
    case.assert_close("kl", posterior.kl())
    case.assert_close("nll", posterior.nll(case.inputs["z"]))
    case.assert_close("dec", model.decode(case.inputs["z"]))
    case.assert_close("rec_mode", model(case.inputs["image"], sample_posterior=False)[0])


@torch.no_grad()
def test_vq_interface_meets_the_reference() -> None:
    case, model = built("ae_vq")
    h = case.inputs["h"]
    case.assert_close("h", model.encode(case.inputs["image"]))
    z_q, loss, (_, _, indices) = model.quantize(h)
    case.assert_close("z_q", z_q)
    case.assert_close("q_loss", loss.reshape(1))
    case.assert_close("indices", indices)
    case.assert_close("dec", model.decode(h))
    case.assert_close("dec_noq", model.decode(h, force_not_quantize=True))
    shape = (h.shape[0], *h.shape[2:], h.shape[1])
    case.assert_close("entry", model.quantize.get_codebook_entry(indices, shape))


@torch.no_grad()
def test_vq_model_meets_the_reference() -> None:
    case, model = built("ae_vqmodel", "ldm.models.autoencoder.VQModel")
    decoded, loss, indices = model(case.inputs["image"], return_pred_indices=True)
    case.assert_close("dec", decoded)
    case.assert_close("q_loss", loss.reshape(1))
    case.assert_close("indices", indices)
    case.assert_close("prequant", model.encode_to_prequant(case.inputs["image"]))
    case.assert_close("quant", model.encode(case.inputs["image"])[0])
    case.assert_close("dec_h", model.decode(case.inputs["h"]))
    by_code = model.decode_code(indices.view(2, 8, 8))
    torch.testing.assert_close(by_code, decoded, rtol=1e-4, atol=1e-4)


FULL = {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
        "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}  # fmt: skip


def test_full_size_kl_keys_are_the_released_ones() -> None:
    loss = {"target": "ldm.modules.losses.LPIPSWithDiscriminator", "params": {"disc_start": 50001, "kl_weight": 1e-6}}
    with torch.device("meta"):
        model = AutoencoderKL(ddconfig=FULL, lossconfig=loss, embed_dim=4)
    assert own_shapes(model) == released("kl_f8")


def test_full_size_vq_keys_are_the_released_ones() -> None:
    ddconfig = {**FULL, "double_z": False, "z_channels": 3, "ch_mult": [1, 2, 4]}
    with torch.device("meta"):
        model = VQModelInterface(embed_dim=3, ddconfig=ddconfig, lossconfig=NO_LOSS, n_embed=8192)
    assert own_shapes(model) == released("vq_f4")


def own_shapes(model: torch.nn.Module) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in model.state_dict().items() if not name.startswith("loss.")}


def released(name: str) -> dict[str, list[int]]:
    return json.loads((GOLDEN / "keys" / f"{name}.json").read_text())["keys"]


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_the_same_weights_give_the_same_numbers_in_diffusers(size: tuple[int, int]) -> None:
    diffusers = pytest.importorskip("diffusers")
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    torch.manual_seed(0)
    ddconfig = {**SMALL, "ch_mult": [1, 2, 2], "num_res_blocks": 2}
    ours = AutoencoderKL(ddconfig=ddconfig, lossconfig=NO_LOSS, embed_dim=4).eval()
    theirs = diffusers.AutoencoderKL(
        block_out_channels=(32, 64, 64), down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, layers_per_block=2, latent_channels=4, norm_num_groups=32,
    ).eval()  # fmt: skip
    theirs.load_state_dict(convert_ldm_vae_checkpoint(ours.state_dict(), theirs.config))
    image = torch.rand(2, 3, *size) * 2 - 1
    latent = torch.randn(2, 4, size[0] // 4, size[1] // 4)
    expected = theirs.encode(image).latent_dist
    actual = ours.encode(image)
    torch.testing.assert_close(actual.mode(), expected.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(actual.logvar, expected.logvar, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.decode(latent), theirs.decode(latent).sample, rtol=1e-4, atol=1e-5)


def test_a_ddconfig_with_a_wrong_key_or_width_is_named() -> None:
    with pytest.raises(ConfigError, match="'chanels'"):
        AutoencoderKL(ddconfig={**SMALL, "chanels": 3}, lossconfig=NO_LOSS, embed_dim=4)
    with pytest.raises(ConfigError, match="'z_channels'"):
        AutoencoderKL(ddconfig={k: v for k, v in SMALL.items() if k != "z_channels"}, lossconfig=NO_LOSS, embed_dim=4)
    with pytest.raises(ConfigError, match="multiple of 32"):
        AutoencoderKL(ddconfig={**SMALL, "ch": 48}, lossconfig=NO_LOSS, embed_dim=4)
    with pytest.raises(ConfigError, match="double_z"):
        AutoencoderKL(ddconfig={**SMALL, "double_z": False}, lossconfig=NO_LOSS, embed_dim=4)
    with pytest.raises(ConfigError, match="double_z"):
        VQModel(ddconfig=SMALL, lossconfig=NO_LOSS, n_embed=8, embed_dim=4)


def test_identity_stage_returns_what_it_is_given() -> None:
    x = torch.rand(1, 3, 8, 8)
    stage = IdentityFirstStage(vq_interface=True)
    assert stage.encode(x) is x and stage.decode(x) is x and stage.quantize(x)[0] is x


@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
def test_weights_come_from_an_autoencoders_file_or_from_a_diffusion_models(prefix: str, tmp_path: Path) -> None:
    other = {"model.diffusion_model.out.weight": torch.ones(3)} if prefix else {}
    source = AutoencoderKL(SMALL, NO_LOSS, embed_dim=4)
    weights = {prefix + name: value for name, value in source.state_dict().items()}
    save_state_dict(weights | other, tmp_path / "weights.safetensors")
    made = AutoencoderKL(SMALL, NO_LOSS, embed_dim=4, ckpt_path=str(tmp_path / "weights.safetensors"))
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in made.state_dict().items())
