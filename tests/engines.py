"""Golden models whose configuration is in the words of the ``sgm`` world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from ldm.models.hooks import without_lightning
from ldm.util import instantiate_from_config
from tests.helpers import GoldenCase


def engine_node(case: GoldenCase) -> dict[str, Any]:
    """The case's ``model:`` with the sizes of its towers, which the YAML cannot carry."""
    node: Any = OmegaConf.to_container(case.config.model, resolve=True)
    for entry in node["params"]["conditioner_config"]["params"]["emb_models"]:
        params = entry.get("params") or {}
        inner = params.get("open_clip_embedding_config")
        if inner is not None:
            inner["params"]["config"] = picture_sizes(case.args["open_clip"][inner["params"]["arch"]])
        sizes = tower_sizes(params, case.args)
        if sizes is not None:
            entry["params"]["config"] = sizes
    return without_lightning(node)


def tower_sizes(params: Mapping[str, Any], args: Mapping[str, Any]) -> dict[str, Any] | None:
    if params.get("arch") in args.get("open_clip", {}):
        sizes: dict[str, Any] = args["open_clip"][params["arch"]]
        return sizes
    return args["hf_text_config"] if params.get("version") == "tiny-L" else None


def picture_sizes(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """OpenCLIP's sizes of an image tower in this project's words."""
    width = sizes["vision_width"]
    return {"embed_dim": sizes["embed_dim"], "width": width, "heads": width // sizes["vision_head_width"],
            "layers": sizes["vision_layers"], "patch_size": sizes["patch_size"], "image_size": sizes["image_size"]}


def engine(case: GoldenCase) -> Any:
    """The case's whole model with its weights, in eval mode."""
    model = instantiate_from_config(engine_node(case))
    model.load_state_dict(case.weights, strict=True)
    return model.eval()
