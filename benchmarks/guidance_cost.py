"""What guidance by attention costs beside plain steps, at SD v1's size: ``python -m benchmarks.guidance_cost``.

A plain step asks the network under classifier-free guidance (two rows a picture); a gradient iteration asks for one row
as far as the last map that counts, and goes back. Weights are random. Time is the processor's, summed over threads;
memory is the largest that the process held meanwhile, weights included (Linux).
"""

from __future__ import annotations

import functools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.attention_modes import build
from ldm.arguments import Parser
from ldm.control.energy import Excite, Goal, Layout, excite_sites, layout_sites
from ldm.control.regions import Box
from ldm.models.diffusion.guidance import guided
from ldm.models.diffusion.loop import ask
from ldm.models.diffusion.steering import Slope
from ldm.modules.cpu.packed import pack_for_inference
from ldm.modules.diffusionmodules.schedule import BetaSchedule, make_beta_schedule

RESET_PEAK = "5"  # see proc(5), clear_refs


class Network:
    """A UNet with a schedule around it."""

    device = torch.device("cpu")
    schedule = BetaSchedule.from_betas(make_beta_schedule("linear", 1000, 0.00085, 0.012))

    def __init__(self, width: int) -> None:
        self.unet = pack_for_inference(build(width, torch.float32))

    def predict(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        return self.unet(x, t, cond)


def peak() -> float:
    """The largest memory since it was last reset, in GB."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1e6


def measured(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the processor, and GB at most."""
    Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    start = time.process_time()
    call()
    return time.process_time() - start, peak()


def measure(width: int, size: int, repeats: int) -> dict[str, float]:
    """Medians of each, measured in turns, and the ratios to plain steps."""
    network = Network(width)
    generator = torch.Generator().manual_seed(0)
    cond, empty = (torch.randn(1, 77, 768, generator=generator) for _ in range(2))
    x = torch.randn(1, 4, size, size, generator=generator)
    level = network.schedule.levels(50)[3]
    both = guided(network, 7.5, empty)
    goals = [Goal((2, 3), Box(0, 0.2, 0.5, 0.8)), Goal((6,), Box(0.5, 0.2, 1, 0.8))]
    layout = Layout([goals], layout_sites(network.unet))
    excite = Excite([[(3,), (6,)]], excite_sites(network.unet))

    def plain() -> Tensor:
        with torch.no_grad():
            return ask(both, x, level, cond)

    works: dict[str, Callable[[], object]] = {"plain": plain}
    for name, energy in (("layout", layout), ("excite", excite)):
        slope = Slope(network, network.unet, cond, energy)
        works[name] = functools.partial(slope, x, level, [0])
    with torch.no_grad():
        network.predict(x[:, :, :16, :16], torch.tensor([1]), cond)  # weights are packed at the first call
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            found[name].append(measured(work))
    seconds = {name: statistics.median(s for s, _ in runs) for name, runs in found.items()}
    memory = {name: max(gb for _, gb in runs) for name, runs in found.items()}
    row = {f"{name}_s": value for name, value in seconds.items()} | {f"{n}_GB": gb for n, gb in memory.items()}
    for name in ("layout", "excite"):
        row |= {f"{name}_time_ratio": seconds[name] / seconds["plain"]}
        row |= {f"{name}_memory_ratio": memory[name] / memory["plain"]}
    return {name: round(value, 3) for name, value in row.items()}


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--width", type=int, default=320, help="channels of the first level (320, as SD v1)")
    parser.add_argument("--size", type=int, default=64, help="height and width of the latent (64, as SD v1)")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(json.dumps(measure(options.width, options.size, options.repeats), indent=1))


if __name__ == "__main__":
    main()
