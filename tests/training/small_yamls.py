"""The shipped training YAMLs made small: the same classes, options and kinds of data, a few weights and pictures."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from ldm.arrays import write_array
from ldm.data.drawn_patches import drawing_record
from ldm.data.errors import METRIC, portion
from ldm.world.drawn import write_drawn
from ldm.world.scene import Scene, Thing
from scripts.make_multilingual_encoder import learn_tokenizer, untrained_encoder
from tests.helpers import ROOT
from tests.modules.encoders.vocabularies import bpe_size, write_bpe

YAMLS = sorted(  # but Stable Diffusion XL's, which tests/training/test_learning_sdxl.py makes small
    path
    for path in (ROOT / "configs").rglob("*.yaml")
    if "\ndata:\n" in path.read_text() and path.parent.name != "sdxl"
)
WIDTH = 64
PAIRS = [("ko", "빨간 별", "a red star"), ("zh", "蓝色的圆", "a blue circle"), ("ko", "* 하나", "one *")]
SMALL: dict[str, Any] = {
    "model_channels": 32, "num_res_blocks": 1, "num_head_channels": 32, "num_heads": 4, "ch": 32, "context_dim": WIDTH,
    "n_embed": WIDTH, "n_layer": 1, "post_dim": 32, "dim": 32, "depth": 1, "heads": 2,
    "disc_start": 0, "disc_ndf": 8, "disc_num_layers": 1, "num_workers": 0,
}  # fmt: skip
LARGEST = {"batch_size": 2, "length": 64, "size": 64, "repeats": 4}


def name(path: Path) -> str:
    return path.relative_to(ROOT / "configs").as_posix()


def write_inputs(folder: Path) -> None:
    """Pictures, sentence pairs, a multilingual encoder, CLIP's vocabulary, drawn scenes and patches."""
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(folder / "pictures" / f"{i}.png")
        (folder / "pictures" / f"{i}.txt").write_text("a * sks star")
    with (folder / "pairs.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("lang", "source", "en"), *PAIRS])
    tokenizer = learn_tokenizer([source for _, source, _ in PAIRS], 100)
    tokenizer.save_pretrained(folder / "multilingual")
    untrained_encoder(len(tokenizer), 32, 1, 2, 64, seed=0).save_pretrained(folder / "multilingual")
    write_bpe(folder / "clip")
    (folder / "drawn").mkdir()
    scene = Scene("blue", (Thing("cat", "small", "left"),))
    write_drawn(folder / "drawn", 0, rng.normal(size=(2, 24, 8, 8)), [scene, scene])
    write_patches(folder)


def write_patches(folder: Path) -> None:
    """Errors and pictures in patches as large as the small model's, of noise."""
    rng = np.random.default_rng(0)
    for name in ("errors", "patches"):
        (folder / name).mkdir()
    write_array(portion(folder / "errors", 0), rng.normal(size=(64, 1632)).astype(np.float16))
    drawings = np.ones(4, drawing_record(128, 24, 16))
    for name in ("drawn", "true"):
        drawings[name] = rng.integers(0, 256, drawings[name].shape)
    drawings["latent"] = rng.normal(size=drawings["latent"].shape)
    write_array(portion(folder / "patches", 0), drawings)
    write_array(folder / "errors" / METRIC, np.diag(np.linspace(1, 3, 24, dtype=np.float32)))


def small_config(path: Path, folder: Path) -> dict[str, Any]:
    """A shipped YAML as a small configuration that reads what ``write_inputs`` wrote into ``folder``."""
    config = _shrink(yaml.safe_load(path.read_text()), folder)
    params = config["model"]["params"]
    if "AlignerTraining" in config["model"]["target"]:
        params |= {"encoder": str(folder / "multilingual"), "model_config": "models/ldm/tiny/config.yaml",
                   "ckpt_path": "models/ldm/tiny/model.safetensors"}  # fmt: skip
        params["aligner_config"]["params"] |= {"source_width": 32, "target_width": 192, "length": 40}
    encoder = params.get("cond_stage_config")
    if isinstance(encoder, dict):
        _small_encoder(encoder, params, folder)
    config["lightning"]["trainer"] |= {"max_steps": 2, "log_every_n_steps": 1, "accelerator": "cpu",
                                       "enable_progress_bar": False, "enable_model_summary": False}  # fmt: skip
    config["lightning"]["trainer"].pop("limit_val_batches", None)
    config["lightning"].pop("compile", None)  # a minute for each process
    config["data"]["params"].pop("validation", None)
    config["lightning"].setdefault("callbacks", {})["image_logger"] = {"params": {"disabled": True}}
    return config


def _shrink(node: Any, folder: Path) -> Any:
    if isinstance(node, list):
        return [_shrink(value, folder) for value in node]
    if not isinstance(node, dict):
        return node
    small = {key: _value(key, _shrink(value, folder), folder) for key, value in node.items()}
    small.pop("ckpt_path", None)
    small.pop("stands_on", None)
    small.pop("cache_file", None)
    if "disc_start" in small:
        small["perceptual_weight"] = 0
    if "ldm.data.personalized" in str(node.get("target")) or "ldm.data.captioned" in str(node.get("target")):
        small["params"]["data_root"] = str(folder / "pictures")
    for kind, own in {"PatchErrors": "errors", "PatchPictures": "patches"}.items():
        if kind in str(node.get("target")):
            small["params"]["folder"] = str(folder / own)
    return small


def _value(key: str, value: Any, folder: Path) -> Any:
    if key == "data_root":
        return str(folder / "pictures")
    if key == "folder":
        return str(folder / "drawn")
    if key == "path":
        return str(folder / "pairs.csv")
    if key == "channel_mult":
        return value[:2]
    if key == "ch_mult":
        return [1] * len(value)
    if key in LARGEST and value is not None:
        return min(value, LARGEST[key])
    return SMALL.get(key, value)


def _small_encoder(encoder: dict[str, Any], params: dict[str, Any], folder: Path) -> None:
    """Words that the small vocabulary has, and sizes where the class has its own."""
    inner = encoder.setdefault("params", {})
    if "CLIP" not in encoder["target"]:
        inner.setdefault("tokenizer", "models/ldm/tiny/vocab.txt")
        word = "star"
    else:
        tokens = {"vocab_size": bpe_size(folder / "clip")}
        inner |= {"tokenizer": str(folder / "clip")}
        if "OpenCLIP" in encoder["target"]:
            inner["config"] = {"embed_dim": 32, "width": WIDTH, "heads": 2, "layers": 2, **tokens}
        else:
            inner["config"] = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2,
                               "num_attention_heads": 2, **tokens}  # fmt: skip
        word = "cat"
    if "personalization_config" in params:
        params["personalization_config"]["params"]["initializer_words"] = [word]
