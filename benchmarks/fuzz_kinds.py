"""What the fuzz run damages: for each kind of file some good ones, made here, and how the project reads them."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from ldm.building.inference import inference_defaults
from ldm.checkpoint import (
    EmbeddingFile,
    diffusers_config,
    is_lightning_checkpoint,
    load_weights,
    read_embedding,
    read_metadata,
    read_state_dict,
    save_state_dict,
    write_embedding,
)
from ldm.control import FeatureStore
from ldm.data.captioned import CaptionedFolder
from ldm.data.sentence_pairs import SentencePairs
from ldm.modules.encoders.aligner import Aligner, load_aligner, save_aligner
from ldm.modules.encoders.post_BERT import SIZES, sizes_in
from ldm.pictures.images import load_image, read_parameters, save_image
from ldm.pictures.masks import read_mask
from ldm.training.latent_files import Latents, is_made_from, read_latents, write_latents
from ldm.util import instantiate_from_config, read_yaml
from ldm.workflows.models import sampling_node
from ldm.workflows.request import Txt2ImgOptions, read_request

Originals = dict[str, bytes]  # file name -> contents


@dataclass(frozen=True)
class KindOfFile:
    """Files of one kind: how good ones are made in a folder, and what is done with a damaged one."""

    make: Callable[[Path], Originals]
    read: Callable[[Path], Any]
    is_text: bool = False
    is_document: bool = False  # YAML or JSON


def _written(folder: Path, write: Callable[[Path], Any], name: str) -> Originals:
    path = folder / name
    write(path)
    return {name: path.read_bytes()}


def _saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


# ---- weights -------------------------------------------------------------------------------------------------------


def _checkpoints(folder: Path) -> Originals:
    weights = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.bias": torch.ones(3).half(), "step": torch.tensor(5)}
    version = {"pytorch-lightning_version": "2.6.0"}
    training = {"state_dict": weights, "global_step": 5, "loops": {"a": [1, (2,)]}, **version}
    return {
        "zip.ckpt": _saved(training),
        "stream.ckpt": _saved(training, _use_new_zipfile_serialization=False),
        "plain.pkl": pickle.dumps({**weights, "numbers": np.arange(3.0)}, 2),
        **_written(folder, lambda path: save_state_dict(weights, path, {"name": "x"}), "model.safetensors"),
    }


def _read_checkpoint(path: Path) -> None:
    is_lightning_checkpoint(path)
    read_metadata(path)
    module = torch.nn.ModuleDict({"a": torch.nn.Linear(4, 3)})
    load_weights(module, read_state_dict(path))


def _embeddings(folder: Path) -> Originals:
    file = EmbeddingFile({"*": torch.randn(2, 8, generator=torch.Generator().manual_seed(0))}, {"steps": "3"})
    made: Originals = {}
    kinds = {"a.pt": "compvis", "b.pt": "a1111", "c.png": None, "d.bin": None, "e.safetensors": None,
             "f.safetensors": "kohya"}  # fmt: skip
    for name, kind in kinds.items():
        made |= _written(folder, lambda path, kind=kind: write_embedding(path, file, kind), name)  # type: ignore[misc]
    fields = {"string_to_param": {"*": {"TORCHTENSOR": [[0.5, 1.0]]}}, "name": "x", "step": 3}
    return {**made, "fields.json": json.dumps(fields).encode()}


def _read_embedding(path: Path) -> None:
    if path.suffix == ".json":  # the fields inside a picture
        import base64

        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_text("sd-ti-embedding", base64.b64encode(path.read_bytes()).decode())
        path = path.with_suffix(".png")
        Image.new("RGB", (4, 4)).save(path, "PNG", pnginfo=info)
    read_embedding(path)


def _caches(folder: Path) -> Originals:
    latents = Latents(torch.ones(2, 4, 2, 2).half(), torch.tensor([0, 1]), [{"caption": "a"}, {"caption": "b"}])
    store = FeatureStore()
    for index, told in enumerate((981.0, 961.0)):
        store.put("output_blocks.3", index, "q", torch.ones(1, 2, 4, 4), told)
    return {
        **_written(folder, lambda path: write_latents(latents, path, "key"), "latents.safetensors"),
        **_written(folder, lambda path: store.save(path, {"picture": "x"}), "features.safetensors"),
    }


def _read_cache(path: Path) -> None:
    if path.name.startswith("latents"):
        if is_made_from(path, "key"):
            read_latents(path)
    else:
        FeatureStore.load(path, {"picture": "x"})


def _headers(folder: Path) -> Originals:
    sizes = {"source_width": 8, "target_width": 8, "length": 4, "dim": 8, "depth": 1, "heads": 2}
    about = {"kind": "text adapters", "width": "8", "sizes": json.dumps(dict.fromkeys(SIZES, 1))}
    return {
        **_written(folder, lambda path: save_aligner(Aligner(**sizes), path, "nowhere", {}), "aligner.safetensors"),
        **_written(folder, lambda path: save_state_dict({"a": torch.ones(2)}, path, about), "adapters.safetensors"),
    }


def _read_header(path: Path) -> None:
    (load_aligner if path.name.startswith("aligner") else sizes_in)(path)


# ---- pictures ------------------------------------------------------------------------------------------------------


def _pictures(folder: Path) -> Originals:
    image = Image.fromarray(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3))
    made = _written(folder, lambda path: save_image(image, path, {"seed": 1}), "a.png")
    for name in ("b.jpg", "c.webp", "d.gif", "e.bmp", "f.tiff"):
        made |= _written(folder, image.save, name)
    made |= _written(folder, image.convert("P").save, "g.png")
    return made | _written(folder, Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16)).save, "h.png")


def _read_picture(path: Path) -> None:
    load_image(path)
    read_parameters(path)


def _masks(folder: Path) -> Originals:
    half = np.zeros((16, 16), np.uint8)
    half[:, :8] = 255
    made: Originals = {}
    for name, values in (("a.npy", half), ("b.npy", half / 255), ("c.npy", half > 0)):
        made |= _written(folder, lambda path, values=values: np.save(path, values), name)  # type: ignore[misc]
    layer = Image.merge("LA", (Image.fromarray(half), Image.fromarray(half)))
    return made | _written(folder, Image.fromarray(half).save, "d.png") | _written(folder, layer.save, "e.png")


# ---- text ----------------------------------------------------------------------------------------------------------

_IDENTITY = {"target": "torch.nn.Identity"}
_MODEL: dict[str, Any] = {
    "model": {
        "base_learning_rate": 1e-3,
        "target": "ldm.models.diffusion.ddpm.LatentDiffusion",
        "params": {
            "linear_start": 0.001, "linear_end": 0.01, "timesteps": 10, "parameterization": "v", "image_size": 8,
            "channels": 4, "scale_factor": 0.9, "use_ema": False, "conditioning_key": "crossattn",
            "cond_stage_key": "caption", "first_stage_key": "image",
            "scheduler_config": {"target": "ldm.lr_scheduler.LambdaLinearScheduler",
                                 "params": {"warm_up_steps": [1], "cycle_lengths": [10], "f_start": [0.1],
                                            "f_max": [1.0], "f_min": [1.0]}},
            "unet_config": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
                            "params": {"image_size": 8, "in_channels": 4, "out_channels": 4, "model_channels": 32,
                                       "attention_resolutions": [1], "num_res_blocks": 1, "channel_mult": [1],
                                       "num_heads": 2, "use_spatial_transformer": True, "transformer_depth": 1,
                                       "context_dim": 8, "legacy": False}},
            "first_stage_config": {"target": "ldm.models.autoencoder.AutoencoderKL",
                                   "params": {"embed_dim": 4, "lossconfig": _IDENTITY,
                                              "ddconfig": {"double_z": True, "z_channels": 4, "resolution": 16,
                                                           "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 1],
                                                           "num_res_blocks": 1, "attn_resolutions": [],
                                                           "dropout": 0.0}}},
            "cond_stage_config": {"target": "ldm.modules.encoders.modules.BERTEmbedder",
                                  "params": {"n_embed": 8, "n_layer": 1, "vocab_size": 20, "max_seq_len": 4,
                                             "use_tokenizer": False}},
        },
    },
    "inference": {"steps": 10, "guidance_scale": 3.0, "sampler": "ddim", "width": 16, "height": 16},
}  # fmt: skip
_LINEAR = "model:\n  target: torch.nn.Linear\n  params: {in_features: 3, out_features: 4}\n"
_REFERENCES = f"root: here\n{_LINEAR}b: ${{root}}/x\n"


def _read_yaml(path: Path) -> None:
    document = read_yaml(path)
    inference_defaults(document)
    if path.name.startswith("model"):
        node, _ = sampling_node(document)
        with torch.device("meta"):
            instantiate_from_config(node)
    elif document.get("model") is not None:
        instantiate_from_config(document.model)


UNET_CONFIG = {
    "_class_name": "UNet2DConditionModel", "block_out_channels": [32, 64], "layers_per_block": 1, "in_channels": 4,
    "out_channels": 4, "sample_size": 8, "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "cross_attention_dim": 16, "attention_head_dim": 8, "use_linear_projection": False,
}  # fmt: skip


def _read_json(path: Path) -> None:
    if path.suffix == ".jsonl":
        Image.new("RGB", (16, 16)).save(path.with_name("a.png"))
        path.replace(path.with_name("captions.jsonl"))
        CaptionedFolder(str(path.parent), 16)[0]
        return
    path.replace(path.with_name("config.json"))
    with torch.device("meta"):
        instantiate_from_config(diffusers_config(path.parent))


def _texts(**files: str) -> Callable[[Path], Originals]:
    return lambda folder: {name.replace("_", "."): text.encode() for name, text in files.items()}


KINDS: dict[str, KindOfFile] = {
    "checkpoints": KindOfFile(_checkpoints, _read_checkpoint),
    "embeddings": KindOfFile(_embeddings, _read_embedding),
    "caches": KindOfFile(_caches, _read_cache),
    "headers": KindOfFile(_headers, _read_header),
    "pictures": KindOfFile(_pictures, _read_picture),
    "masks": KindOfFile(_masks, read_mask),
    "yamls": KindOfFile(_texts(model_yaml=yaml.safe_dump(_MODEL), refs_yaml=_REFERENCES), _read_yaml, True, True),
    "prompts": KindOfFile(
        _texts(a_txt="a red star\nun caf\u00e9 bleu\n\ud30c\ub780 \uc6d0\n", b_txt="one\r\ntwo\r\n"),
        lambda path: read_request(Txt2ImgOptions(from_file=str(path), outdir=str(path.parent / "out"))),
        is_text=True,
    ),
    "csv": KindOfFile(
        _texts(a_csv="ko,en\n\ubcc4,a star\n\ub2ec,a moon\n", b_csv='lang,source,en\nko,"\ubcc4",a\nzh,\u661f,b\n'),
        lambda path: SentencePairs(str(path)),
        is_text=True,
    ),
    "json": KindOfFile(
        _texts(a_jsonl='{"file": "a.png", "caption": "a star"}\n', b_json=json.dumps(UNET_CONFIG)),
        _read_json,
        is_text=True,
        is_document=True,
    ),
}
