"""Every configuration is built, ours and the public ones as they lie there, and full-size keys are compared.

``tests/public_yamls/<project>/<path>`` holds the ``model:`` nodes of public configurations, values as published.
"""

from __future__ import annotations

import importlib.util
import json
import re
from functools import cache
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ldm.checkpoint.loading import without_checkpoints
from ldm.util import UserError, instantiate_from_config
from tests.helpers import GOLDEN, ROOT

PUBLIC_ROOT = ROOT / "tests" / "public_yamls"
OURS = sorted([*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "models").rglob("config.yaml")])
PUBLIC = sorted(PUBLIC_ROOT.rglob("*.yaml"))
EMBEDDING_MANAGER = "ldm.additions.words"

SGM = "tests/public_yamls/generative_models/configs"
KEY_LISTS = {
    "sdxl_base_1.0": [
        "configs/sdxl/sd_xl_base.yaml",
        "configs/sdxl/sd_xl_turbo.yaml",
        f"{SGM}/inference/sd_xl_base.yaml",
        f"{SGM}/inference_2023_07/sd_xl_base.yaml",
        f"{SGM}/inference_2023_06/sd_xl_base.yaml",
    ],
    "sdxl_refiner_1.0": ["configs/sdxl/sd_xl_refiner.yaml", f"{SGM}/inference/sd_xl_refiner.yaml"],
    "sd_v1": [
        "configs/stable-diffusion/v1-inference.yaml",
        "tests/public_yamls/compvis_stable_diffusion/configs/stable-diffusion/v1-inference.yaml",
        "tests/public_yamls/styleid/models/ldm/stable-diffusion-v1/v1-inference.yaml",
    ],
    "sd_v2": [
        "configs/stable-diffusion/v2-inference-v.yaml",
        "configs/stable-diffusion/v2-inference.yaml",
        "tests/public_yamls/stablediffusion/configs/stable-diffusion/v2-inference-v.yaml",
    ],
    "svd": ["configs/svd/svd.yaml", "configs/svd/svd_xt.yaml"],
    "svd_image_decoder": ["configs/svd/svd_image_decoder.yaml", "configs/svd/svd_xt_image_decoder.yaml"],
    "ldm_text2img_large": [
        "configs/latent-diffusion/txt2img-1p4B-eval.yaml",
        "tests/public_yamls/compvis_latent_diffusion/configs/latent-diffusion/txt2img-1p4B-eval.yaml",
    ],
}

TEXT_HALF = re.compile(
    r"conditioner\.embedders\.0\.open_clip\.model\."
    r"(positional_embedding|text_projection|logit_scale|token_embedding\.weight|ln_final\.(weight|bias))"
)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def model_node(path: Path) -> DictConfig | None:
    """The model of a configuration; None where it says something about training only."""
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    return config.get("model")


@cache
def build(path: Path, words: bool = False) -> nn.Module:
    """The model on the meta device, with what learns words or without it; weights that it names are not read."""
    node = model_node(path)
    assert node is not None
    node = node.copy()
    if not words:
        for learns in ("personalization_config", "lora_config"):
            node.params.pop(learns, None)
    with torch.device("meta"):
        return instantiate_from_config(without_checkpoints(node))


@pytest.mark.parametrize("path", [*OURS, *PUBLIC], ids=name)
def test_builds_on_the_meta_device(path: Path) -> None:
    node = model_node(path)
    if node is None:
        assert OURS and path in OURS, "a public configuration here is there for its model"
        return
    if EMBEDDING_MANAGER in OmegaConf.to_yaml(node):
        if importlib.util.find_spec(EMBEDDING_MANAGER) is None:
            with pytest.raises(UserError, match=EMBEDDING_MANAGER):
                build(path, words=True)
        else:
            assert build(path, words=True).embedding_manager is not None
    if "lora_config" in node.params:
        assert len(build(path, words=True).lora.places) > 20  # type: ignore[arg-type, union-attr]
    model = build(path)
    parameters = dict(model.named_parameters())
    assert parameters
    assert all(p.is_meta for p in parameters.values()), [k for k, p in parameters.items() if not p.is_meta][:3]
    computed = {k: b for k, b in model.named_buffers() if k.split(".")[-1] in ("betas", "alphas_cumprod")}
    assert not [k for k, b in computed.items() if b.is_meta], "schedules must be real on the meta device"


@pytest.mark.parametrize(
    ("listing", "path"), [(listing, path) for listing, paths in KEY_LISTS.items() for path in paths]
)
def test_keys_and_shapes_are_those_of_the_released_checkpoint(listing: str, path: str) -> None:
    expected = json.loads((GOLDEN / "keys" / f"{listing}.json").read_text())
    assert path.endswith(expected["config"].split("/")[-1]) or listing.startswith(("sd_v2", "sdxl_base_1.0", "svd"))
    state = build(ROOT / path).state_dict()
    keys = {key: list(value.shape) for key, value in state.items()}
    wanted = dict(expected["keys"])
    # an integer buffer that older text models had and newer ones do not; both layouts load
    for place in ("cond_stage_model", "conditioner.embedders.0"):
        wanted.pop(f"{place}.transformer.text_model.embeddings.position_ids", None)
        keys.pop(f"{place}.transformer.text_model.embeddings.position_ids", None)
    # the unused text half of the tower that sees a film's first frame: 200 MB in memory, passed over when loading
    for key in [key for key in wanted if TEXT_HALF.fullmatch(key)]:
        wanted.pop(key)
    assert set(keys) == set(wanted), sorted(set(keys) ^ set(wanted))[:6]
    assert {k: v for k, v in keys.items() if v != wanted[k]} == {}


@pytest.mark.parametrize(
    "path", [p for p in PUBLIC if (m := model_node(p)) is not None and "ckpt_path: " in OmegaConf.to_yaml(m)], ids=name
)
def test_a_first_stage_that_is_not_there_is_named(path: Path) -> None:
    node = model_node(path)
    assert node is not None
    missing = node.params.first_stage_config.params.ckpt_path
    with torch.device("meta"), pytest.raises(UserError, match=re.escape(missing)):
        instantiate_from_config(node)


@pytest.mark.parametrize("path", OURS, ids=name)
def test_opens_with_purpose_command_cost_and_result(path: Path) -> None:
    lines = path.read_text().splitlines()
    header = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    assert header and len(header[0]) > 20, "the first line says what the configuration is for"
    text = "\n".join(header)
    for part in ("Command:", "Cost:", "Expected:"):
        assert f"# {part}" in text, f"the header has no '{part}'"
    assert max(map(len, lines)) <= 120
    command = re.search(r"(?:--config|--base|-b) (\S+)", text)
    if command and command[1].endswith(".yaml"):
        assert (ROOT / command[1]).is_file(), command[1]


@pytest.mark.parametrize("path", OURS, ids=name)
def test_sizes_in_the_header_are_the_models(path: Path) -> None:
    header = "\n".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    stated_weights, stated_keys = re.search(r"([\d,]+) M weights", header), re.search(r"([\d,]+) keys", header)
    if stated_weights is None:
        return
    state = build(path).state_dict()
    millions = sum(value.numel() for value in state.values()) / 1e6
    assert float(stated_weights[1].replace(",", "")) == pytest.approx(millions, abs=0.51)
    if stated_keys is not None:
        assert int(stated_keys[1].replace(",", "")) == len(state)


def test_the_table_states_what_is_built() -> None:
    rows = re.findall(r"^\| `(\S+\.yaml)` \|[^|]*\| (\d+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \|$",
                      (ROOT / "configs" / "README.md").read_text(), re.MULTILINE)  # fmt: skip
    assert len(rows) >= 16
    for path, *stated in rows:
        state = build(ROOT / "configs" / path).state_dict()
        weights = sum(value.numel() for value in state.values())
        found = [f"{len(state)}", f"{weights / 1e6:.0f}", f"{weights * 4 / 1e9:.1f}", f"{weights * 2 / 1e9:.1f}"]
        assert stated == found, path
