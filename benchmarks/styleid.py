"""A pair of 512x512 pictures at Stable Diffusion v1's size: UNet evaluations, seconds, peak memory, bytes of cache.

    python -m benchmarks.styleid --steps 10
    python -m benchmarks.styleid --steps 10 --features replay
    python -m benchmarks.styleid --only folder

Random weights, bfloat16. The yardstick is what a pair of 50 steps needs at the very least: 149 plain forwards of
diffusers' UNet (50 + 50 to invert, 49 to sample), channels-last. Each side is a process of its own, and they take
turns after every few evaluations, so that whatever else the machine does meets both. With fewer ``--steps`` the time
in the UNet is scaled to 149 evaluations, what is outside of it (encode, decode, files) is counted as it is, and bytes
of features are scaled to 49 timesteps, and memory by what they grow (an upper bound). Loading, and the first call of
each UNet, are left out on both sides.

``--only folder``: 20 contents by 40 styles with the small model and few steps, to count what is inverted how often.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.styleid_sides import ROOT, SIZES, Block, make_pictures, ours, theirs

FULL = 50  # steps of the pair that everything is scaled to
MB, GB = 1e6, 1e9
SIDES = ("ours", "diffusers")


def evaluations(steps: int) -> int:
    """Two inversions and the sampling, which leaves out the noisiest step."""
    return 2 * steps + steps - 1


class Side:
    """A process of its own, to which numbers go as lines, and from which blocks come."""

    def __init__(self, side: str, options: argparse.Namespace, folder: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.styleid", "--side", side, "--folder", str(folder)]
        for name in ("size", "steps", "every", "features", "threads"):
            command += [f"--{name}", str(getattr(options, name))]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.blocks: list[Block] = []

    def work(self, number: int) -> Block:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"a side of the benchmark ended with exit code {self.process.wait()}")
        self.blocks.append(Block(**json.loads(answer)))
        return self.blocks[-1]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    @property
    def calls(self) -> list[float]:
        return [seconds for block in self.blocks for seconds in block.calls]

    def total(self, name: str) -> float:
        return sum(getattr(block, name) for block in self.blocks)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Both sides in turn, until the pair is done."""
    with tempfile.TemporaryDirectory() as folder:
        made = {side: Side(side, options, Path(folder)) for side in SIDES}
        mine, other = made["ours"], made["diffusers"]
        while True:
            block = mine.work(0)
            if block.calls:
                other.work(len(block.calls))
            if block.done:
                break
        for side in made.values():
            side.close()
    return compare(mine, other, options.steps, SIZES[options.size].side // 8)


def compare(mine: Side, other: Side, steps: int, side: int) -> dict[str, Any]:
    """What was measured, and what it comes to for 50 steps."""
    count = evaluations(steps)
    if not len(mine.calls) == len(other.calls) == count:
        raise SystemExit(f"a pair should be {count} evaluations, not {len(mine.calls)}, {len(other.calls)}")
    scale = evaluations(FULL) / count
    in_unet, outside = sum(mine.calls), mine.total("seconds") - sum(mine.calls)
    about = mine.blocks[-1].about
    spans = {"content": slice(0, steps), "style": slice(steps, 2 * steps), "sampling": slice(2 * steps, None)}
    pair = scale * in_unet + outside
    cpu_pair = scale * mine.total("calls_cpu") + mine.total("cpu") - mine.total("calls_cpu")
    per_step = about["features"] / (steps - 1)
    grown = per_step * (FULL - steps) / 2**30  # on top of the peak before decoding, when features are let go of
    peak = max(about["peak"], max(block.peak for block in mine.blocks) + grown)
    return {
        "steps": steps, "evaluations": count, "evaluations_of_50_steps": evaluations(FULL),
        "seconds": mine.total("seconds"), "seconds_in_unet": in_unet, "seconds_outside": outside,
        "diffusers_seconds": other.total("seconds"),
        "pair_of_50_steps": pair, "yardstick": scale * other.total("seconds"),
        "ratio": pair / (scale * other.total("seconds")),
        "cpu_ratio": cpu_pair / (scale * other.total("cpu")),
        "cpu_seconds": mine.total("cpu"), "diffusers_cpu_seconds": other.total("cpu"),
        "user_seconds": mine.total("user"), "diffusers_user_seconds": other.total("user"),
        "median_call": {name: statistics.median(mine.calls[span]) for name, span in spans.items()},
        "diffusers_median_call": statistics.median(other.calls),
        "peak_gib": about["peak"], "peak_gib_of_50_steps": peak, "gpu_peak_gib": about.get("gpu_peak"),
        "inverted": about["inverted"],
        "features": about["features"], "feature_bytes_a_step": per_step,
        "features_of_50_steps": per_step * (FULL - 1), "file": max(about["files"]),
        "file_of_50_steps": latents_file(FULL, side),
    }  # fmt: skip


def latents_file(steps: int, side: int) -> int:
    """Bytes of the file in which an inversion of one picture keeps its latents, by writing one."""
    from ldm.workflows.inversion.invert import Inversion

    latent = torch.zeros(1, 4, side, side)
    about = {"picture": "0" * 64, "steps": steps, "model": "0" * 32, "precision": "bf16"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "latents.safetensors"
        told = {index: 981 - 20 * index for index in range(steps)}
        Inversion({index: latent.clone() for index in told}, told, latent).save(path, about)
        return path.stat().st_size


def many(contents: int, styles: int, steps: int, features: str) -> dict[str, Any]:
    """Every content with every style by the small model: pictures inverted, rows of the UNet, bytes on the disk."""
    from ldm.workflows.models import open_model
    from ldm.workflows.restyle.plan import StyleIDOptions
    from ldm.workflows.restyle.styleid import styleid

    model, _ = open_model(precision="bf16")
    rows = [0, 0]

    def count(_: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        rows[0] += 1
        rows[1] += len(args[0] if args else kwargs["x"])

    model.model.diffusion_model.register_forward_pre_hook(count, with_kwargs=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, number in (("cnt", contents), ("sty", styles)):
            (folder / kind).mkdir()
            make_pictures(folder / kind, 16, number, first=0 if kind == "cnt" else contents)
        options = StyleIDOptions(
            cnt=str(folder / "cnt"), sty=str(folder / "sty"), output_path=str(folder / "out"),
            precomputed=str(folder / "cache"), features=features, precision="bf16", ddim_inv_steps=steps,
            save_feat_steps=steps, batch=contents, progress=False, no_sheet=True, inversion="ddim", keep_flat=0.0,
        )  # fmt: skip
        results = styleid(options, model)
        latents = list((folder / "cache").glob("*_latents.safetensors"))
        files = sum(path.stat().st_size for path in (folder / "cache").iterdir())
    pairs, inverted = len(results), contents + styles
    sampled = pairs * (steps - 1)
    return {
        "pairs": pairs, "steps": steps, "features": features, "inversions": len(latents), "calls": rows[0],
        "rows": rows[1], "rows_inverting": inverted * steps, "rows_sampling": sampled,
        "rows_beside": rows[1] - inverted * steps - sampled, "bytes": files,
        "rows_of_50_steps": inverted * FULL + pairs * (FULL - 1),
        "bytes_at_512_50_steps": inverted * latents_file(FULL, 64),
    }  # fmt: skip


def show_pair(row: dict[str, Any], features: str) -> None:
    print(f"{row['evaluations']} evaluations measured; a pair of 50 steps has {row['evaluations_of_50_steps']}")
    print(f"{'':34}{'ours':>10}{'diffusers':>11}{'ratio':>7}")
    wall = (row["pair_of_50_steps"], row["yardstick"], row["ratio"])
    print(f"{'a pair of 50 steps, seconds':34}{wall[0]:10.1f}{wall[1]:11.1f}{wall[2]:7.2f}")
    print(f"{'  the same in CPU time':34}{'':10}{'':11}{row['cpu_ratio']:7.2f}")
    for name, seconds in row["median_call"].items():
        other = row["diffusers_median_call"]
        print(f"{'  median evaluation, ' + name:34}{seconds:10.3f}{other:11.3f}{seconds / other:7.2f}")
    print(f"outside of the UNet {row['seconds_outside']:.1f} s")
    print(f"peak memory {row['peak_gib_of_50_steps']:.2f} GiB ({features})")
    print(
        f"cache of a pair: features {row['features_of_50_steps'] / GB:.3f} GB, "
        f"latents of a picture {row['file_of_50_steps'] / MB:.2f} MB"
    )


def show_many(row: dict[str, Any]) -> None:
    print(
        f"{row['pairs']} pairs: {row['inversions']} inversions; of {row['rows']} rows {row['rows_inverting']} "
        f"inverting, {row['rows_sampling']} sampling, {row['rows_beside']} beside ({row['features']})"
    )
    print(f"on the disk, 50 steps at 512x512: {row['bytes_at_512_50_steps'] / GB:.3f} GB")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("pair", "folder"), help="one of the two parts")
    parser.add_argument("--steps", type=int, default=FULL, help="of the pair that is measured; 5, 10, 20, ...")
    parser.add_argument("--every", type=int, default=3, help="evaluations in a turn")
    parser.add_argument("--features", choices=("memory", "disk", "replay"), default="memory")
    parser.add_argument("--size", choices=SIZES, default="sd")
    parser.add_argument("--contents", type=int, default=20)
    parser.add_argument("--styles", type=int, default=40)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--side", choices=SIDES, help="be one side; for the benchmark itself")
    parser.add_argument("--folder", type=Path, help="with --side")
    parser.add_argument("--outdir", "--out", dest="out", type=Path, default=ROOT / "outputs" / "benchmarks")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.side == "diffusers":
        return theirs(SIZES[options.size])
    if options.side == "ours":
        return ours(SIZES[options.size], options.steps, options.every, options.features, options.folder)
    started, report = time.perf_counter(), {"torch": torch.__version__, "threads": options.threads}
    if options.only != "folder":
        report["pair"] = measure(options)
        show_pair(report["pair"], options.features)
    if options.only != "pair":
        report["folder"] = many(options.contents, options.styles, 2, "replay")
        show_many(report["folder"])
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"styleid-{options.features}-{options.only or 'both'}.json"
    path.write_text(json.dumps(report, indent=2))
    print(f"{time.perf_counter() - started:.0f} s; {path}")


if __name__ == "__main__":
    main()
