"""LoRA files in forms that the golden cases do not have, and files that are wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ldm.additions.base import applied
from ldm.additions.lora.lora import Lora
from ldm.additions.lora.scales import parse_lora, parse_scales
from ldm.checkpoint import read_state_dict, save_state_dict, write_file
from ldm.checkpoint.lora import read_lora
from ldm.models.diffusion.latent import LatentModel
from ldm.util import UserError
from tests.additions.lora.networks import Networks, golden_networks
from tests.helpers import GOLDEN, golden_case
from tests.models.small_words import small_model

TO_K = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


@pytest.fixture(scope="module")
def networks() -> Networks:
    return golden_networks()


def changes(lora: Lora, networks: Any, scale: float = 1.0) -> dict[str, Tensor]:
    """Parameter -> its change, of those that changed."""
    before = {name: value.clone() for name, value in networks.named_parameters()}
    with applied(networks, [lora], [scale]):
        after = {name: value.clone() for name, value in networks.named_parameters()}
    return {name: after[name] - before[name] for name in after if not torch.equal(after[name], before[name])}


def tensors_of(name: str) -> dict[str, Tensor]:
    return dict(read_state_dict(GOLDEN / f"lora_{name}.lora.safetensors"))


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_precisions_and_containers(tmp_path: Path, networks: Networks, dtype: torch.dtype, suffix: str) -> None:
    tensors = {key: value.to(dtype) for key, value in tensors_of("kohya").items()}
    path = tmp_path / f"l{suffix}"
    if suffix == ".bin":
        write_file(tensors, path)
    else:
        save_state_dict(tensors, path)
    found = changes(Lora.read(path, networks), networks)[f"model.diffusion_model.{TO_K}"]
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    up, down = (tensors[f"{key}.lora_{end}.weight"].double() for end in ("up", "down"))
    torch.testing.assert_close(found.double(), 0.5 * up @ down, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("network", ["unet", "text_encoder"])
def test_cloneofsimos_list(tmp_path: Path, networks: Networks, network: str) -> None:
    case = golden_case("lora_cloneofsimo")
    tensors = tensors_of("cloneofsimo")
    count = len(case.args[f"order_{'unet' if network == 'unet' else 'text_encoder'}"])
    pairs = [tensors[f"{network}:{i}:{end}"] for i in range(count) for end in ("up", "down")]
    write_file(pairs, tmp_path / "lora.pt")
    found = changes(Lora.read(tmp_path / "lora.pt", networks), networks)
    assert len(found) == count
    start = "model.diffusion_model." if network == "unet" else "cond_stage_model."
    for key in [key for key in case.expected if key.startswith("delta.")]:
        if start + key.removeprefix("delta.") in found:
            case.assert_close(key, found[start + key.removeprefix("delta.")])


def test_words_in_a_file_are_read(networks: Networks, tmp_path: Path) -> None:
    case = golden_case("lora_cloneofsimo")
    words = read_lora(GOLDEN / "lora_cloneofsimo.lora.safetensors").words
    assert list(words) == ["<s1>"]
    torch.testing.assert_close(words["<s1>"][0, :4], torch.tensor(case.args["embedding"]), rtol=0, atol=1e-6)
    bundle = tensors_of("kohya") | {"bundle_emb.mydog.string_to_param.*": torch.ones(2, 32)}
    save_state_dict(bundle, tmp_path / "bundle.safetensors")
    file = read_lora(tmp_path / "bundle.safetensors")
    assert file.words["mydog"].shape == (2, 32) and not file.unknown


def peft_folder(folder: Path, prefix: str, **settings: Any) -> None:
    """The UNet's part, or the text encoder's, of a golden case as PEFT itself writes it."""
    tensors = {
        f"base_model.model.{key.removeprefix(prefix)}": value
        for key, value in tensors_of("peft").items() if key.startswith(prefix)
    }  # fmt: skip
    folder.mkdir(parents=True)
    save_state_dict(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **settings}))


def test_peft_folders(tmp_path: Path, networks: Networks) -> None:
    peft_folder(tmp_path / "alone", "unet.", r=3, lora_alpha=6)
    case = golden_case("lora_peft")
    found = changes(Lora.read(tmp_path / "alone", networks), networks, scale=0.5)
    assert len(found) == 88
    case.assert_close(f"delta.{TO_K}", found[f"model.diffusion_model.{TO_K}"])

    peft_folder(tmp_path / "both" / "unet", "unet.", r=3, lora_alpha=3)
    peft_folder(tmp_path / "both" / "text_encoder", "text_encoder.", r=3, lora_alpha=3)
    assert len(changes(Lora.read(tmp_path / "both", networks), networks)) == 96


@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        ({"lora_alpha": 12}, 4.0),
        ({"lora_alpha": 12, "use_rslora": True}, 12 / math.sqrt(3)),
        ({"lora_alpha": 3, "alpha_pattern": {"attn2.to_k": 6}}, 2.0),
        ({"lora_alpha": 3, "alpha_pattern": {"attn1.to_k": 6}}, 1.0),
    ],
)
def test_alpha_of_pefts_settings(
    tmp_path: Path, networks: Networks, settings: dict[str, Any], factor: float
) -> None:
    peft_folder(tmp_path / "p", "unet.", r=3, **settings)
    found = changes(Lora.read(tmp_path / "p", networks), networks, scale=1 / factor)
    golden_case("lora_peft").assert_close(f"delta.{TO_K}", found[f"model.diffusion_model.{TO_K}"])


def test_several_files_add_to_the_untouched_weights(networks: Networks) -> None:
    """DoRA measures norms of the base model, whatever else is put on beside it."""
    loras = [Lora.read(GOLDEN / f"lora_{name}.lora.safetensors", networks) for name in ("dora", "kohya", "dora_loha")]
    name = f"model.diffusion_model.{TO_K}"
    alone = sum(changes(lora, networks, scale)[name] for lora, scale in zip(loras, (0.7, 0.5, 1.0), strict=True))
    base = networks.get_parameter(name).clone()
    for order in ((0, 1, 2), (2, 0, 1)):
        with applied(networks, [loras[i] for i in order], [(0.7, 0.5, 1.0)[i] for i in order]):
            together = networks.get_parameter(name) - base
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_dora_between_nothing_and_all(networks: Networks) -> None:
    path = GOLDEN / "lora_dora.lora.safetensors"
    assert not changes(Lora.read(path, networks), networks, scale=0.0)
    name = f"model.diffusion_model.{TO_K}"
    whole, half = (changes(Lora.read(path, networks), networks, scale)[name] for scale in (1, 0.5))
    torch.testing.assert_close(half, 0.5 * whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.8", {"a": 0.8, "b": 0.8, "c": 0.8}),
        ("-0.5@output_blocks", {"a": 0.0, "b": -0.5, "c": 0.0}),
        ("0.8,0.2@input_blocks.1,1@text", {"a": 0.2, "b": 0.8, "c": 1.0}),
        ("1@unet,0@output_blocks.*.1", {"a": 1.0, "b": 0.0, "c": 0.0}),
    ],
)
def test_scales_by_part(text: str, expected: dict[str, float]) -> None:
    weights = {
        "a": f"model.diffusion_model.{TO_K}",
        "b": "model.diffusion_model.output_blocks.11.1.proj_in.weight",
        "c": "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
    }
    scales = parse_scales(text, text)
    assert {name: scales.at(weight) for name, weight in weights.items()} == expected
    assert parse_scales(str(scales), text) == scales


def test_a_file_may_have_an_equals_sign_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "a=b").touch()
    assert parse_lora(f"{tmp_path}/a=b")[0].name == "a=b"
    path, scales = parse_lora(f"{tmp_path}/a=b=0.5@text")
    assert path.name == "a=b" and str(scales) == "0.5@text"


def pair(key: str, up: tuple[int, ...], down: tuple[int, ...]) -> dict[str, Tensor]:
    return {f"{key}.lora_up.weight": torch.ones(up), f"{key}.lora_down.weight": torch.ones(down)}


K = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
WRONG: list[tuple[dict[str, Tensor] | bytes, str]] = [
    (b"", "is empty (0 bytes)"),
    ({"x.oft_blocks": torch.ones(2)}, "is OFT"),
    ({f"{K}.a1.weight": torch.ones(2)}, "is GLoRA"),
    ({f"{K}.on_input": torch.ones(())}, "is IA3"),
    ({"model.diffusion_model.out.2.weight": torch.ones(2)}, "a whole model is given with --ckpt"),
    (pair(K, (32, 4), (4, 2048)), "was made for SDXL (context of width 2048), but the loaded model is"),
    (pair("lora_unet_nowhere", (32, 4), (4, 24)), "is for another model: of its 1 modules this one has none"),
    (pair(K, (32, 4), (3, 24)), "its ranks do not fit: lora_down [3, 24], lora_up [32, 4]"),
    (pair(K, (31, 4), (4, 24)), "changes a weight of [31, 24], but the model's is [32, 24]"),
    ({f"{K}.lora_up.weight": torch.ones(32, 4)}, "half of it is missing: there is lora_up, but no lora_down"),
    ({f"{K}.lokr_w1": torch.ones(4, 4)}, "but no lokr_w2"),
    ({f"{K}.alpha": torch.ones(())}, "there is only alpha"),
    (pair(K, (32, 0), (0, 24)), "its rank is 0"),
    ({**pair(K, (32, 4), (4, 24)), f"{K}.diff": torch.ones(32, 24)}, "parts of two kinds stand together"),
    ({**pair(K, (32, 4), (4, 24)), f"{K}.dora_scale": torch.ones(5)}, "its magnitude has 5 entries"),
    ({**pair(K, (32, 4), (4, 24)), f"{K}.diff_b": torch.ones(32)}, "which the model lacks"),
    ({f"{K}.diff": torch.full((32, 24), torch.nan)}, "values that are no numbers (NaN)"),
    ({"unet:0:up": torch.ones(32, 2), "unet:0:down": torch.ones(2, 32)}, "has 1 numbered pairs, but the model 63"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_is_wrong_is_one_sentence(
    tmp_path: Path, networks: Networks, content: dict[str, Tensor] | bytes, message: str
) -> None:
    path = tmp_path / "wrong.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save_state_dict(content, path)
    before = {name: value.clone() for name, value in networks.state_dict().items()}
    with pytest.raises(UserError) as caught, applied(networks, [Lora.read(path, networks)]):
        pass
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in networks.state_dict().items())


@pytest.mark.parametrize("text", ["f=x", "f=", "f=1@", "f=1@a b", "f=1e9", "f=nan", "=0.5"])
def test_a_scale_that_is_none(text: str) -> None:
    with pytest.raises(UserError, match="should be"):
        parse_lora(text)


def test_a_scale_for_what_the_file_does_not_change(networks: Networks) -> None:
    with pytest.raises(UserError, match=r"changes nothing in 'output_blocks\.77'"):
        Lora.read(GOLDEN / "lora_kohya.lora.safetensors", networks, parse_scales("1@output_blocks.77", ""))


def test_bert_under_its_own_names_and_diffusers(tmp_path: Path) -> None:
    model = small_model(tmp_path)
    assert isinstance(model, LatentModel)
    weights = {name: value.shape for name, value in model.cond_stage_model.named_parameters()}
    for theirs, ours in {
        "transformer.attn_layers.layers.0.1.to_q": "transformer.attn_layers.layers.0.1.to_q",
        "model.layers.0.self_attn.q_proj": "transformer.attn_layers.layers.0.1.to_q",
        "model.layers.0.fc1": "transformer.attn_layers.layers.1.1.net.0.0",
        "model.layers.0.self_attn.out_proj": "transformer.attn_layers.layers.0.1.to_out",
    }.items():
        rows, columns = weights[f"{ours}.weight"]
        file = pair(f"lora_te_{theirs.replace('.', '_')}", (rows, 2), (2, columns))
        save_state_dict(file, tmp_path / "b.safetensors")
        found = changes(Lora.read(tmp_path / "b.safetensors", model), model)
        assert list(found) == [f"cond_stage_model.{ours}.weight"]
        torch.testing.assert_close(found[f"cond_stage_model.{ours}.weight"], torch.full((rows, columns), 2.0))
