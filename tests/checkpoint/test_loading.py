"""From weights to a module: the meta device, what is missing or too much, other models, memory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from ldm.checkpoint import LoadReport, load_model, load_weights, save_state_dict
from ldm.checkpoint.diagnosis import describe_weights
from ldm.util import ConfigError, UserError
from tests.helpers import GOLDEN, golden_case


class Inner(nn.Module):
    """A model inside the model, which would read a file of its own."""

    def __init__(self, width: int = 4, ckpt_path: str | None = None) -> None:
        super().__init__()
        if ckpt_path is not None:
            raise AssertionError(f"read {ckpt_path}")
        self.linear = nn.Linear(width, width)
        self.linear.weight.requires_grad_(False)


class Model(nn.Module):
    """Names as in a latent-diffusion checkpoint, and one buffer of each sort."""

    def __init__(self, first: dict[str, Any] | None = None, width: int = 4, ckpt_path: str | None = None) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.diffusion_model = Inner(width, ckpt_path)
        self.first_stage_model = Inner(width, (first or {}).get("params", {}).get("ckpt_path"))
        self.cond_stage_model = nn.Module()
        self.cond_stage_model.text_model = nn.Embedding(5, width)
        self.cond_stage_model.register_buffer("position_ids", torch.arange(7)[None])
        self.cond_stage_model.register_buffer("other_ids_position_ids", None)
        self.register_buffer("betas", torch.linspace(0, 1, 3, device="cpu"))
        self.register_buffer("table", torch.linspace(0, 1, 3, device="cpu"), persistent=False)


def on_meta(**options: Any) -> Any:
    with torch.device("meta"):
        return Model(**options)


@pytest.fixture
def reference() -> Any:
    torch.manual_seed(0)
    return Model()


def assert_equal(module: nn.Module, expected: dict[str, Tensor]) -> None:
    actual = module.state_dict()
    for key, value in expected.items():
        assert not actual[key].is_meta
        assert torch.equal(actual[key].to(value.dtype), value), key


def test_meta_module_takes_everything(reference: Any, tmp_path: Path) -> None:
    save_state_dict(reference.state_dict(), tmp_path / "x.ckpt")
    module = on_meta()
    assert load_weights(module, tmp_path / "x.ckpt", strict=True) == LoadReport([], [])
    assert_equal(module, reference.state_dict())
    assert not module.first_stage_model.linear.weight.requires_grad
    assert module.first_stage_model.linear.bias.requires_grad
    assert torch.equal(module.table, reference.table)
    module.cond_stage_model.text_model.weight.sum().backward()
    torch.optim.SGD(module.parameters(), lr=1.0).step()
    assert torch.equal(module.cond_stage_model.text_model.weight, reference.cond_stage_model.text_model.weight - 1)


def test_real_module_keeps_its_tensors(reference: Any) -> None:
    module: Any = Model()
    before = module.first_stage_model.linear.bias
    load_weights(module, reference.state_dict())
    assert module.first_stage_model.linear.bias is before
    assert_equal(module, reference.state_dict())


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("asked", [None, torch.float32, torch.bfloat16])
def test_types_are_those_of_the_constructor_or_those_asked_for(
    stored: torch.dtype, asked: torch.dtype | None, reference: Any, tmp_path: Path
) -> None:
    weights = {k: v.to(stored) if v.is_floating_point() else v for k, v in reference.state_dict().items()}
    save_state_dict(weights, tmp_path / "x.safetensors")
    module = on_meta()
    load_weights(module, tmp_path / "x.safetensors", dtype=asked)
    assert {parameter.dtype for parameter in module.parameters()} == {asked or torch.float32}
    assert module.cond_stage_model.position_ids.dtype == torch.int64
    assert torch.equal(module.betas, reference.betas), "the schedule stays as precise as the constructor makes it"
    parameters = dict(reference.named_parameters())
    assert_equal(module, {k: v.to(stored).to(asked or torch.float32) for k, v in parameters.items()})


def test_optional_keys_are_no_news_and_others_are(reference: Any, caplog: pytest.LogCaptureFixture) -> None:
    weights = reference.state_dict()
    del weights["cond_stage_model.position_ids"], weights["betas"]
    extra = {"model_ema.decay", "model_ema.diffusion_modellinearbias", "first_stage_model.loss.logvar", "logvar",
             "cond_stage_model.attn_mask", "sqrt_alphas_cumprod"}  # fmt: skip
    weights |= {key: torch.zeros(1) for key in extra}
    module = on_meta()
    assert load_weights(module, weights, strict=True) == ([], [])
    assert torch.equal(module.cond_stage_model.position_ids, torch.arange(7)[None])
    assert not caplog.records
    weights["strange.key"] = torch.zeros(1)
    assert load_weights(on_meta(), weights) == ([], ["strange.key"])
    assert "strange.key" in caplog.text
    with pytest.raises(UserError, match=r"1 are unexpected \(strange.key\)"):
        load_weights(on_meta(), weights, strict=True)


def test_missing_parameters(reference: Any, caplog: pytest.LogCaptureFixture) -> None:
    weights = {k: v for k, v in reference.state_dict().items() if not k.startswith("first_stage_model.")}
    with pytest.raises(UserError, match=r"2 of 6 keys are missing \(first_stage_model.linear.weight, "):
        load_weights(on_meta(), weights)
    report = load_weights(Model(), weights)
    assert report.missing == ["first_stage_model.linear.weight", "first_stage_model.linear.bias"]
    module = on_meta()
    assert load_weights(module, weights, ignore=["first_stage_model."]) == ([], [])
    assert not any(tensor.is_meta for tensor in module.parameters())
    assert module.first_stage_model.linear.weight.std() > 0, "initialised as its class does it"
    with pytest.raises(UserError, match="are missing"):
        load_weights(Model(), {"betas": torch.zeros(3)})


def test_prefix_and_ignored_keys(reference: Any) -> None:
    part = Inner()
    report = load_weights(part, reference.state_dict(), prefix="first_stage_model.", strict=True)
    assert report == ([], [])
    assert_equal(part, reference.first_stage_model.state_dict())
    with pytest.raises(UserError, match=r"holds nothing below 'absent\.'"):
        load_weights(part, reference.state_dict(), prefix="absent.")
    other = Inner()
    bias = other.linear.bias.clone()
    load_weights(other, reference.first_stage_model.state_dict(), ignore=["linear.bias"])
    assert torch.equal(other.linear.bias, bias)
    assert torch.equal(other.linear.weight, reference.first_stage_model.linear.weight)


def test_text_model_level_may_be_there_or_not(reference: Any) -> None:
    weights = reference.state_dict()
    weights["cond_stage_model.weight"] = weights.pop("cond_stage_model.text_model.weight")
    module = on_meta()
    assert load_weights(module, weights, strict=True) == ([], [])
    plain = nn.Module()
    plain.encoder = nn.Linear(2, 2)
    assert load_weights(plain, {f"text_model.encoder.{k}": torch.ones(v.shape) for k, v in
                                plain.encoder.state_dict().items()}, strict=True) == ([], [])  # fmt: skip


def test_averages_that_the_file_lacks_start_as_the_weights(reference: Any) -> None:
    module = on_meta()
    module.model_ema = nn.Module()
    module.model_ema.register_buffer("diffusion_modellinearbias", torch.empty(4, device="meta"))
    load_weights(module, reference.state_dict())
    assert torch.equal(module.model_ema.diffusion_modellinearbias, reference.model.diffusion_model.linear.bias)
    assert module.model_ema.diffusion_modellinearbias.data_ptr() != module.model.diffusion_model.linear.bias.data_ptr()


def test_a_buffer_that_nobody_computes_is_the_constructors_fault(reference: Any) -> None:
    module = on_meta()
    module.register_buffer("forgotten", torch.empty(2, device="meta"), persistent=False)
    with pytest.raises(RuntimeError, match="'forgotten' has no values"):
        load_weights(module, reference.state_dict())


def listing(name: str) -> dict[str, Tensor]:
    shapes = json.loads((GOLDEN / "keys" / f"{name}.json").read_text())["keys"]
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


class Listed(nn.Module):
    """A module with the names and shapes of a full-size model, on the meta device."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._tensors = listing(name)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        return self._tensors


@pytest.mark.parametrize(
    ("file", "model", "words"),
    [
        ("sd_v2", "sd_v1", ["SD v2 (context width 1024", "SD v1 (context width 768"]),
        ("sd_v1", "sd_v2", ["SD v1 (context width 768", "SD v2 (context width 1024"]),
        ("ldm_text2img_large", "sd_v1", ["LDM text-to-image (context width 1280"]),
        ("kl_f8", "sd_v1", ["an autoencoder alone (KL)"]),
        ("vq_f4", "kl_f8", ["an autoencoder alone (VQ)", "an autoencoder alone (KL)"]),
    ],
)
def test_a_file_of_another_model_is_recognised(file: str, model: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_weights(Listed(model), listing(file))
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "tensors have another shape" in message or "keys are missing" in message
    assert len(message) < 700 and "\n" not in message


@pytest.mark.parametrize(
    ("key", "shape", "words"),
    [
        ("model.diffusion_model.input_blocks.0.0.weight", (320, 9, 3, 3), "9 input channels, as for in-painting"),
        ("transformer.double_blocks.0.x", (1,), "Flux"),
        ("lora_unet_x.lora_up.weight", (1,), "LoRA"),
        ("down_blocks.0.resnets.0.norm1.weight", (1,), "diffusers"),
        ("whatever", (1,), ""),
    ],
)
def test_kinds_of_weights(key: str, shape: tuple[int, ...], words: str) -> None:
    described = describe_weights({key: shape})
    assert words in described and bool(words) == bool(described)


def config(**params: Any) -> dict[str, Any]:
    return {"target": f"{__name__}.Model", "params": params}


@pytest.mark.parametrize("as_omegaconf", [False, True])
def test_load_model_reads_no_other_file(as_omegaconf: bool, reference: Any, tmp_path: Path) -> None:
    save_state_dict(reference.state_dict(), tmp_path / "x.safetensors")
    first = {"target": "x", "params": {"ckpt_path": "models/absent.ckpt"}}
    document: Any = {"model": config(first=first, ckpt_path="models/absent.ckpt")}
    if as_omegaconf:
        document = OmegaConf.create(document)
        OmegaConf.set_readonly(document, True)
    model = load_model(document, tmp_path / "x.safetensors")
    assert not model.training
    assert_equal(model, reference.state_dict())
    assert document["model"]["params"]["ckpt_path"] == "models/absent.ckpt", "the caller's configuration is untouched"


def test_load_model_with_ema(reference: Any, tmp_path: Path) -> None:
    average = {"model_ema.diffusion_modellinearbias": torch.full((4,), 9.0)}
    save_state_dict({**reference.state_dict(), **average}, tmp_path / "x.ckpt")
    plain: Any = load_model(config(), tmp_path / "x.ckpt")
    assert torch.equal(plain.model.diffusion_model.linear.bias, reference.model.diffusion_model.linear.bias)
    averaged: Any = load_model(config(), tmp_path / "x.ckpt", ema=True)
    assert torch.equal(averaged.model.diffusion_model.linear.bias, torch.full((4,), 9.0))


def test_configurations_without_a_model(reference: Any, tmp_path: Path) -> None:
    save_state_dict(reference.state_dict(), tmp_path / "x.ckpt")
    with pytest.raises(ConfigError, match=r"no section 'model' with a 'target'; it has: data, lightning"):
        load_model({"data": {}, "lightning": {}}, tmp_path / "x.ckpt")
    with pytest.raises(ConfigError, match="belongs to Python itself"):
        load_model({"target": "collections.OrderedDict"}, tmp_path / "x.ckpt")
    with pytest.raises(ConfigError, match="needs a configuration"):
        load_model(None, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="there is no file"):
        load_model(config(), tmp_path / "absent.ckpt")


def test_golden_unet_through_load_model(tmp_path: Path) -> None:
    case = golden_case("unet_sd1")
    save_state_dict(case.weights, tmp_path / "unet.ckpt")
    unet = load_model(case.config, tmp_path / "unet.ckpt")
    x, t, context = (case.inputs[name] for name in ("x", "t", "context"))
    with torch.no_grad():
        case.assert_close("eps", unet(x, timesteps=t, context=context))


COUNT, WIDTH = 12, 2048  # tensors of 16 MB: 200 MB


def peak_memory(reset: bool = False) -> int:
    """Bytes that this process has had in memory at most, since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="measures through Linux' /proc")
@pytest.mark.parametrize("kind", ["safetensors", "zip", "old"])
def test_memory_stays_at_the_size_of_the_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.ckpt")
    weights = {f"{i}.weight": torch.ones(WIDTH, WIDTH) for i in range(COUNT)}
    if kind == "safetensors":
        before = peak_memory(reset=True)
        save_state_dict(weights, path)
        assert peak_memory() - before < 0.2 * path.stat().st_size, "written without a second copy"
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=kind == "zip")
    del weights
    size = path.stat().st_size
    for dtype in (None, torch.bfloat16):
        with torch.device("meta"):
            module = nn.ModuleList([nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(COUNT)])
        before = peak_memory(reset=True)
        load_weights(module, path, strict=True, dtype=dtype)
        if kind != "old" and dtype is None:
            assert peak_memory() - before < 0.1 * size, "nothing was read before it was needed"
        assert sum(float(weight.detach().sum()) for weight in module.parameters()) == COUNT * WIDTH * WIDTH
        assert peak_memory() - before < 1.1 * size, dtype
