"""The two processes of ``benchmarks.styleid``: a pair as ``run_styleid.py`` makes it, and plain forwards of diffusers.

Each waits for a line, works for a block of UNet evaluations, answers with a line of JSON, and waits again.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "stable-diffusion" / "v1-inference.yaml"
DTYPE = torch.bfloat16
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LENGTH = 77  # of a prompt in tokens


@dataclass(frozen=True)
class Size:
    """``unet``, ``vae``: the first width of each; ``side``: of the pictures; the others are of the text encoder."""

    unet: int = 320
    vae: int = 128
    side: int = 512
    layers: int = 12
    vocabulary: int = 49408


SIZES = {"sd": Size(), "small": Size(32, 32, 64, 1, 100)}


@dataclass
class Block:
    """What a process did since the last answer.

    ``calls``: the seconds of each UNet evaluation; ``calls_cpu``: of all threads in them; ``peak``: the largest
    resident memory in GiB from the start of the process to the last of them.
    """

    calls: list[float] = field(default_factory=list)
    calls_cpu: float = 0.0
    peak: float = 0.0
    seconds: float = 0.0
    cpu: float = 0.0
    user: float = 0.0
    done: bool = False
    about: dict[str, Any] = field(default_factory=dict)


class Turns:
    """The clock of a process, which stands still while it is the other's turn."""

    def __init__(self) -> None:
        self.block = Block()
        self.marks = (0.0, 0.0, 0.0)

    def start(self) -> int:
        """Wait for the word to go on: a line with a number."""
        line = sys.stdin.readline()
        if not line:
            raise SystemExit(0)
        self.block, self.marks = Block(), now()
        return int(line)

    def stop(self, **more: Any) -> None:
        """Answer what the block took."""
        self.block.seconds, self.block.cpu, self.block.user = (b - a for a, b in zip(self.marks, now(), strict=True))
        for name, value in more.items():
            setattr(self.block, name, value)
        print(json.dumps(asdict(self.block)), file=sys.stdout, flush=True)


def now() -> tuple[float, float, float]:
    """Seconds on the wall, of all this process's threads, and of those what was not the system's."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time(), os.times().user


class EmptyPrompt:
    """A tokenizer for which every text is empty: the one marker, and the other for the rest."""

    def __init__(self, vocabulary: int) -> None:
        self.tokens = torch.tensor([[vocabulary - 2] + [vocabulary - 1] * (LENGTH - 1)])

    def __call__(self, text: Any) -> Tensor:
        count = 1 if isinstance(text, str) else len(text)
        return self.tokens.expand(count, -1)


def random_weights(module: nn.Module) -> None:
    """Give the parameters of a module on the meta device values that keep activations near unit size."""
    generator = torch.Generator().manual_seed(0)
    for name, like in list(module.named_parameters()):
        value = torch.empty(like.shape, dtype=DTYPE)
        reach = 0.7 * (3 / like[0].numel()) ** 0.5 if like.dim() > 1 else 0.1
        value.uniform_(-reach, reach, generator=generator)
        value = value + 1 if like.dim() == 1 and name.endswith("weight") else value
        parent, _, own = name.rpartition(".")
        setattr(module.get_submodule(parent), own, nn.Parameter(value.to(DEVICE), requires_grad=False))


def our_config(size: Size) -> DictConfig:
    """Stable Diffusion v1 as its YAML has it, or narrower for the benchmark's own test."""
    node = OmegaConf.load(CONFIG).model
    node.params.unet_config.params.model_channels = size.unet
    node.params.first_stage_config.params.ddconfig.ch = size.vae
    node.params.cond_stage_config.params = {
        "config": {
            "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": size.layers,
            "num_attention_heads": 12, "vocab_size": size.vocabulary, "hidden_act": "quick_gelu",
        }
    }  # fmt: skip
    assert isinstance(node, DictConfig)
    return node


def our_model(size: Size) -> Any:
    """A latent diffusion model with random weights in half precision, ready to sample as the commands have it."""
    from ldm.models.hooks import without_lightning
    from ldm.modules.cpu.packed import pack_for_inference
    from ldm.util import instantiate_from_config

    with torch.device("meta"):
        model = instantiate_from_config(without_lightning(OmegaConf.to_container(our_config(size))))
    random_weights(model)
    model.eval().to(DEVICE)
    model.cond_stage_model.tokenizer = EmptyPrompt(size.vocabulary)
    return pack_for_inference(model) if DEVICE == "cpu" else model.to(memory_format=torch.channels_last)


def make_pictures(folder: Path, side: int, count: int = 2, first: int = 0) -> list[Path]:
    """Pictures of noise that no two pixels share; what is in them does not matter to the time."""
    paths = []
    for index in range(first, first + count):
        generator = torch.Generator().manual_seed(index)
        pixels = torch.randint(0, 256, (side, side, 3), generator=generator, dtype=torch.uint8)
        paths.append(folder / f"picture{index}.png")
        Image.fromarray(pixels.numpy()).save(paths[-1])
    return paths


def ours(size: Size, steps: int, every: int, features: str, folder: Path) -> None:
    """One pair of pictures from files to a file, with a turn after ``every`` evaluations of the UNet."""
    from ldm.workflows.restyle.features import make_cache
    from ldm.workflows.restyle.group import restyle
    from ldm.workflows.restyle.jobs import make_jobs
    from ldm.workflows.restyle.plan import StyleIDOptions, find_pairs
    from ldm.workflows.restyle.results import save_result
    from ldm.workflows.restyle.setting import make_setting
    from ldm.workflows.studio import Studio

    model, turns = our_model(size), Turns()
    unet, side = model.model.diffusion_model, size.side // 8
    content, style = make_pictures(folder, size.side)
    options = StyleIDOptions(
        cnt=str(content), sty=str(style), output_path=str(folder / "out"), precomputed=str(folder / "cache"),
        ddim_inv_steps=steps, save_feat_steps=steps, features=features, precision="bf16", longest=size.side,
        progress=False,
    )  # fmt: skip
    setting = make_setting(options, Studio.of(model, options.precision))
    with torch.no_grad():  # the layers pack their weights
        x = torch.zeros(1, 4, side, side, dtype=DTYPE, device=DEVICE)
        unet(x, torch.zeros(1, device=DEVICE), context=torch.zeros(1, LENGTH, 768, dtype=DTYPE, device=DEVICE))
    take_turns(unet, turns, every)
    turns.start()
    jobs, _ = make_jobs(options, setting, find_pairs(options)[0])
    cache = make_cache(options, setting, jobs)
    (image,) = restyle(setting, cache, jobs)
    save_result(options, setting, jobs[0], image, seconds=0)
    files = [path.stat().st_size for path in (folder / "cache").iterdir()]
    turns.stop(done=True, about={"inverted": cache.inverted, "features": cache.most, "files": files, **peaks()})


def take_turns(unet: nn.Module, turns: Turns, every: int) -> None:
    """Note how long each evaluation takes, and let the other side work after every so many."""
    called = [now()]

    def before(*_: Any) -> None:
        called[0] = now()

    def after(*_: Any) -> None:
        turns.block.calls.append(now()[0] - called[0][0])
        turns.block.calls_cpu += now()[1] - called[0][1]
        turns.block.peak = peaks()["peak"]
        if len(turns.block.calls) == every:
            turns.stop()
            turns.start()

    unet.register_forward_pre_hook(before)
    unet.register_forward_hook(after)


def peaks() -> dict[str, float]:
    """The largest resident memory of this process, from its start, in GiB; on a GPU what torch has allocated."""
    unit = 2**30 if sys.platform == "darwin" else 2**20
    found = {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
    if DEVICE == "cuda":
        found["gpu_peak"] = torch.cuda.max_memory_allocated() / 2**30
    return found


@torch.no_grad()
def theirs(size: Size) -> None:
    """Plain forwards of diffusers' UNet, channels-last; each line has the number of them."""
    from diffusers import UNet2DConditionModel

    widths = tuple(size.unet * factor for factor in (1, 2, 4, 4))
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(
            sample_size=64, cross_attention_dim=768, attention_head_dim=8, block_out_channels=widths
        )
    random_weights(unet)
    unet.eval().to(DEVICE, memory_format=torch.channels_last)
    side = size.side // 8
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 4, side, side, generator=generator).to(DEVICE, DTYPE, memory_format=torch.channels_last)
    context = torch.randn(1, LENGTH, 768, generator=generator).to(DEVICE, DTYPE)
    t = torch.tensor([501], device=DEVICE)
    unet(x, t, encoder_hidden_states=context)
    turns = Turns()
    while True:
        count = turns.start()
        for _ in range(count):
            began = now()[0]
            unet(x, t, encoder_hidden_states=context)
            turns.block.calls.append(now()[0] - began)
        turns.stop(done=True, about=peaks())
