"""A step of textual inversion beside diffusers' recipe: time and peak memory, the same random weights.

    python -m benchmarks.textual_inversion --parts ldm sd

Each side is a process of its own; they take turns, so that whatever else the machine does meets both. The recipe
encodes the picture in every step and lets AdamW work on the whole table of token vectors in float32, whose other rows
it puts back afterwards; its frozen UNet and autoencoder are bfloat16, its text encoder is float32 under autocast
(--text bf16 makes that one bfloat16 too, which the recipe does not do). This project's side reads the cached moments
of the latents and trains one vector, as ``main.py`` does with ``lightning.frozen=bf16``. One picture a step, no
gradient checkpointing on either side.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.textual_inversion_common import DEVICE, SIZES, Measured, Side, Size

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("ours", "diffusers", "diffusers_in_half")


def build(side: str, size: Size, weights: Path) -> Side:
    """One side; neither imports what only the other needs, so that the peaks are their own."""
    if side == "ours":
        from benchmarks.textual_inversion_ours import Ours

        return Ours(size, weights)
    from benchmarks.textual_inversion_diffusers import Diffusers, DiffusersInHalf

    return (Diffusers if side == "diffusers" else DiffusersInHalf)(size, weights)


class Worker:
    """One side in a process of its own; commands go in and answers come out as lines."""

    def __init__(self, command: Sequence[str]) -> None:
        """``command``: what follows the interpreter."""
        whole = [sys.executable, *command]
        self.process = subprocess.Popen(whole, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line: str) -> Measured:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"a side of the benchmark ended with exit code {self.process.wait()}")
        return Measured(**json.loads(answer))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def work(made: Side) -> None:
    """The loop of a worker: each line is the number of a step, whose draws it seeds."""
    for line in sys.stdin:
        print(json.dumps(vars(made.measure(int(line)))), flush=True)


def make_weights(size: str, path: Path, dtype: str) -> None:
    """In a process of its own, so that the memory that it takes is given back."""
    code = (
        "import sys, torch; from pathlib import Path; from benchmarks.textual_inversion_common import SIZES; "
        "from benchmarks.textual_inversion_diffusers import write_weights; "
        "write_weights(SIZES[sys.argv[1]], Path(sys.argv[2]), getattr(torch, sys.argv[3]))"
    )
    subprocess.run([sys.executable, "-c", code, size, str(path), dtype], cwd=ROOT, check=True)


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def compare(
    module: str, size: str, repeats: int, threads: int, other: str = "diffusers", dtype: str = "bfloat16",
    apart: bool = False, more: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Medians of both sides, their peaks, and whether they compute the same.

    Args:
        module: the benchmark whose ``--worker`` is a side.
        dtype: of what is frozen.
        apart: one side after the other, where memory does not hold both.
        more: arguments for the workers.
    """
    rows: dict[str, list[Measured]] = {"ours": [], other: []}
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        make_weights(size, weights, dtype)
        given = ["--parts", size, "--threads", str(threads), "--weights", str(weights), *more]
        first: dict[str, Measured] = {}
        for sides in [[side] for side in rows] if apart else [list(rows)]:
            workers = {side: Worker(["-m", module, "--worker", side, *given]) for side in sides}
            first |= {side: worker.ask("0") for side, worker in workers.items()}  # warms up, and is compared
            for number in range(1, repeats + 1):
                for side, worker in workers.items():
                    rows[side].append(worker.ask(str(number)))
            for worker in workers.values():
                worker.close()
    seconds = {side: statistics.median(row.seconds for row in found) for side, found in rows.items()}
    cpu = {side: statistics.median(row.cpu for row in found) for side, found in rows.items()}
    peak = {side: max(row.peak for row in found) for side, found in rows.items()}
    row = {
        "size": size, "seconds": seconds, "time_ratio": seconds["ours"] / seconds[other],
        "cpu_seconds": cpu, "cpu_ratio": cpu["ours"] / cpu[other],
        "peak_mb": peak, "peak_ratio": peak["ours"] / peak[other],
        "loss": {side: found.loss for side, found in first.items()},
        "gradient_cosine": cosine(first["ours"].gradient, first[other].gradient),
    }  # fmt: skip
    print(
        f"{size:6}{seconds['ours']:9.3f} s{seconds[other]:9.3f} s{row['time_ratio']:7.2f}{row['cpu_ratio']:9.2f}"
        f"{peak['ours']:9.0f} MB{peak[other]:7.0f} MB{row['peak_ratio']:7.2f}"
        f"{row['gradient_cosine']:10.4f}", flush=True,
    )  # fmt: skip
    return row


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=SIZES, default=["ldm", "sd"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--text", choices=["recipe", "bf16"], default="recipe", help="the recipe's text encoder")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--worker", choices=SIDES, help="be one side; for the benchmark itself")
    parser.add_argument("--weights", type=Path, help="with --worker")
    parser.add_argument("--outdir", "--out", dest="out", type=Path, default=ROOT / "outputs" / "benchmarks")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.worker:
        work(build(options.worker, SIZES[options.parts[0]], options.weights))
        return
    other = "diffusers" if options.text == "recipe" else "diffusers_in_half"
    print_head(options.threads, "bf16")
    rows = [compare("benchmarks.textual_inversion", size, options.repeats, options.threads, other)
            for size in options.parts]  # fmt: skip
    write_report(options.out / f"textual_inversion-{options.text}.json", rows, options.threads, other=other)


def print_head(threads: int, precision: str) -> None:
    """The line above the rows that ``compare`` prints."""
    print(f"{DEVICE}, {threads} threads, torch {torch.__version__}; a step of one picture, {precision}")
    print(
        f"{'':6}{'ours':>11}{'diffusers':>11}{'ratio':>7}{'CPU time':>9}"
        f"{'ours':>12}{'diffusers':>10}{'ratio':>7}{'gradient':>10}", flush=True,
    )  # fmt: skip


def write_report(path: Path, rows: Sequence[Mapping[str, Any]], threads: int, **about: Any) -> None:
    """All rows, with what they were measured on, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = {"device": DEVICE, "threads": threads, "torch": torch.__version__}
    path.write_text(json.dumps({**about, **machine, "rows": list(rows)}, indent=2))


if __name__ == "__main__":
    main()
