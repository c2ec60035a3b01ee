"""CPU seconds of a UNet call that never had a mode, with one, and after it: ``python -m benchmarks.attention_modes``.

Without a mode there is nothing to pay for: the ratio of after to never should be 1 but for the noise of the machine.
It is the processor's time, summed over threads, which other programs disturb less than the clock on the wall.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import torch

from ldm.arguments import Parser
from ldm.control import FeatureStore, Inject, Save, attention_mode, sites
from ldm.modules.diffusionmodules.openaimodel import UNetModel


def build(width: int, dtype: torch.dtype) -> UNetModel:
    """A UNet with the layers of Stable Diffusion v1 and random weights."""
    unet = UNetModel(
        model_channels=width, attention_resolutions=[4, 2, 1], num_res_blocks=2, channel_mult=[1, 2, 4, 4],
        num_heads=8, use_spatial_transformer=True, context_dim=768,
    )  # fmt: skip
    return unet.eval().to(dtype)


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


@torch.no_grad()
def measure(width: int, size: int, repeats: int, dtype: torch.dtype) -> dict[str, float]:
    """Medians, each measured in turns with plain calls of a second UNet that never had a mode."""
    unet, untouched = build(width, dtype), build(width, dtype)
    untouched.load_state_dict(unet.state_dict())
    inputs = (torch.randn(1, 4, size, size, dtype=dtype), torch.tensor([501]), torch.randn(1, 77, 768, dtype=dtype))
    plain = unet(*inputs)
    where, store = sites(unet), FeatureStore()
    with attention_mode(unet, {where: Save(store)}):
        unet(*inputs)
    assert torch.equal(unet(*inputs), plain)
    untouched(*inputs)

    times: dict[str, list[float]] = {"never": [], "after": [], "save": [], "inject": []}
    for _ in range(repeats):
        times["never"].append(seconds(lambda: untouched(*inputs)))
        times["after"].append(seconds(lambda: unet(*inputs)))
        for name, mode in (("save", Save(FeatureStore())), ("inject", Inject(store, store))):
            with attention_mode(unet, {where: mode}):
                times[name].append(seconds(lambda: unet(*inputs)))
    medians = {f"{name}_s": statistics.median(values) for name, values in times.items()}
    ratios = {
        name: statistics.median(a / b for a, b in zip(times[name], times["never"], strict=True)) for name in times
    }
    return {**medians, **{f"{name}_ratio": ratio for name, ratio in ratios.items() if name != "never"}}


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--width", type=int, default=64, help="channels of the first level; 320 is Stable Diffusion v1")
    parser.add_argument("--size", type=int, default=32, help="height and width of the latent")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    options = parser.parse_args()
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[options.precision]
    print(json.dumps(measure(options.width, options.size, options.repeats, dtype), indent=1))


if __name__ == "__main__":
    main()
