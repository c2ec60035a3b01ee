"""Shipped YAMLs train in two processes: whatever learns gets a gradient, for which the processes wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from ldm.building.kinds import DATA
from ldm.data.mixture import Mixture
from ldm.models.aligner import AlignerTraining
from ldm.models.autoencoder_training import TrainedAutoencoder
from ldm.models.patch_training import PatchTraining
from ldm.modules.encoders.modules import FrozenCLIPEmbedder, FrozenOpenCLIPEmbedder
from ldm.training import launch
from ldm.util import instantiate_from_config
from tests.helpers import ROOT
from tests.modules.encoders.vocabularies import write_bpe
from tests.training.small_yamls import YAMLS, name, small_config, write_inputs
from tests.training.test_learning_sdxl import LORA, configuration
from tests.training.two_processes import both, srun, torchrun

KINDS = (  # one of each that trains: what differs besides is in the numbers
    "tiny/ldm.yaml",  # a text encoder with the network
    "tiny/textual-inversion-adapter.yaml",  # words and adapters
    "stable-diffusion/v2-finetune.yaml",  # a word of an encoder that leaves layers out
    "latent-diffusion/lsun_churches-ldm-kl-8.yaml",  # no condition, a scale that is measured
    "autoencoder/autoencoder_kl_32x32x4.yaml",  # two optimisers that take turns, gradients added up
    "aligner/tiny.yaml",  # a multilingual encoder
    "tiny/lora.yaml",  # small matrices beside frozen ones
)
XL = "sdxl/lora.yaml"  # Stable Diffusion XL with two text encoders and pictures of two sizes, a batch of one
CLIP = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 64}
OPEN_CLIP = {"embed_dim": 8, "width": 16, "heads": 2, "layers": 3, "vocab_size": 64}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


def loss_of(model: Any, batch: Any) -> Tensor:
    """The loss of all that a step trains, the turns of two optimisers added up."""
    if isinstance(model, AlignerTraining):
        return model.total(model.losses(batch))
    if isinstance(model, PatchTraining):
        return model.shades(batch)[0]
    if isinstance(model, TrainedAutoencoder):
        x = model.get_input(batch)
        parts = model.reconstruct(x)
        return torch.stack([model._loss(x, parts, i, "train", 1)[0] for i in range(1 + model.adversarial)]).sum()
    return model.shared_step(batch)[0]


@pytest.mark.parametrize("path", YAMLS, ids=name)
def test_whatever_learns_gets_a_gradient(path: Path, inputs: Path) -> None:
    config = small_config(path, inputs)
    torch.manual_seed(0)
    model: Any = instantiate_from_config(config["model"]).train()
    data: Any = instantiate_from_config(config["data"]["params"]["train"], DATA)
    batch = data[0] if isinstance(data, Mixture) else default_collate([data[0], data[1]])
    loss_of(model, batch).backward()
    learners = {key: parameter for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert learners
    assert [key for key, parameter in learners.items() if parameter.grad is None] == []


def write_config(path: Path, inputs: Path) -> Path:
    config = inputs / name(path).replace("/", "-")
    config.write_text(yaml.safe_dump(small_config(path, inputs)))
    return config


STARTED: tuple[tuple[Callable[[int], dict[str, str]], tuple[str, ...]], ...] = (
    (torchrun, KINDS[:-1]), (srun, (KINDS[-1], XL))
)  # fmt: skip


def train_each(folder: Path, kinds: Sequence[str]) -> dict[str, Any]:
    """What one of two processes does: train each kind, and say what came of it."""
    found: dict[str, Any] = {}
    fit = launch.fit

    def told(trainer: Any, model: Any, *others: Any) -> None:
        fit(trainer, model, *others)
        learned = [p.detach().double().sum().item() for p in model.parameters() if p.requires_grad]
        found[kind] = {"steps": trainer.global_step, "learned": learned}

    vars(launch)["fit"] = told
    for kind in kinds:
        config = folder / kind.replace("/", "-")
        arguments = ["-b", str(config), "-t", "-l", str(folder / "logs"), "-n", config.stem, "--scale_lr", "false"]
        arguments += ["--data_root", str(folder / "two-sizes")] if kind == XL else []
        launch.main([*arguments, "--devices", "2", "--strategy", "ddp"])
    return found


@pytest.fixture(scope="module")
def results(inputs: Path) -> list[dict[str, Any]]:
    """What the two processes say of each kind."""
    for kind in KINDS:
        write_config(ROOT / "configs" / kind, inputs)
    write_bpe(inputs / "vocabulary")
    configuration(inputs, "lora", lora_config=LORA)
    (inputs / "lora.yaml").rename(inputs / XL.replace("/", "-"))
    (inputs / "two-sizes").mkdir()
    for i, size in enumerate(((56, 40), (40, 56))):
        Image.new("RGB", size, "red").save(inputs / "two-sizes" / f"{i}.png")
    found: list[dict[str, Any]] = [{}, {}]
    for start, kinds in STARTED:
        for rank, result in enumerate(both(inputs, start, partial(train_each, inputs, kinds))):
            found[rank] |= result
    return found


@pytest.mark.parametrize("kind", [*KINDS, XL])
def test_two_processes_learn_the_same(kind: str, results: list[dict[str, Any]]) -> None:
    first, second = (result[kind] for result in results)
    assert first["steps"] >= 2
    assert first["learned"] and first == second


@pytest.mark.parametrize(
    "encoder",
    [
        lambda: FrozenCLIPEmbedder(freeze=False, layer="hidden", layer_idx=1, config=CLIP),
        lambda: FrozenCLIPEmbedder(freeze=False, layer="hidden", layer_idx=-2, config=CLIP),
        lambda: FrozenCLIPEmbedder(freeze=False, layer="pooled", config=CLIP),
        lambda: FrozenOpenCLIPEmbedder("tiny", freeze=False, layer="penultimate", config=OPEN_CLIP),
        lambda: FrozenOpenCLIPEmbedder("tiny", freeze=False, config=OPEN_CLIP),
    ],
)
def test_layers_that_are_left_out_do_not_learn(encoder: Callable[[], Any]) -> None:
    model = encoder()
    keys = list(model.state_dict())
    assert model.requires_grad_(True) is model
    model.encode_tokens(torch.arange(8)[None]).square().sum().backward()
    missing = [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == [] and list(model.state_dict()) == keys
