"""A server under load: many requests of several clients at once, each answer compared with what Python makes.

    python -m benchmarks.server_load --requests 50 --clients 8

Starts ``python -m scripts.serve`` with the small model, and ends it. Prints how many were answered, how long the
slowest waited, pictures in a second, the server's memory after the first requests and after the last, and how many
pictures are the same to the last bit as those of ``ldm.workflows.txt2img``. Linux only.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ldm.arguments import Parser
from ldm.util import UserError, run_command
from ldm.workflows.studio import open_studio
from ldm.workflows.txt2img import Txt2ImgOptions, txt2img

THINGS = ("a red star", "a large green heart", "a small blue circle", "a yellow square", "파란 배경 위의 빨간 별")
SIZES = ((64, 64), (96, 64), (64, 96))
WARM = 8  # requests before memory is looked at first


@dataclass(frozen=True)
class Asked:
    """A request: none is like another one."""

    number: int
    steps: int

    def options(self) -> Txt2ImgOptions:
        width, height = SIZES[self.number % len(SIZES)]
        return Txt2ImgOptions(
            prompt=THINGS[self.number % len(THINGS)], seed=self.number, steps=self.steps, width=width, height=height,
            n_samples=1 + self.number % 2, skip_save=True, skip_grid=True, progress=False,
        )  # fmt: skip

    def payload(self) -> dict[str, Any]:
        made = self.options()
        names = {"prompt": made.prompt, "seed": made.seed, "steps": made.steps, "batch_size": made.n_samples}
        return {**names, "width": made.width, "height": made.height}


def ask(url: str, asked: Asked) -> tuple[float, list[Image.Image]]:
    """Seconds until the answer, and its pictures."""
    began = time.perf_counter()
    data = json.dumps(asked.payload()).encode()
    request = urllib.request.Request(f"{url}/txt2img", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        found = json.load(answer)["images"]
    pictures: list[Image.Image] = [Image.open(io.BytesIO(base64.b64decode(one)), formats=("PNG",)) for one in found]
    return time.perf_counter() - began, pictures


def megabytes(process: int) -> float:
    """What a process holds of memory now."""
    text = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) / 1024


def start() -> tuple[subprocess.Popen[str], str]:
    """A server at a port of its own, and the address of its API.

    Raises:
        UserError: it did not start.
    """
    command = [sys.executable, "-m", "scripts.serve"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    line = server.stdout.readline()
    if not line.startswith("http"):
        raise UserError("the server did not start; python -m scripts.serve says why")
    url = line.split()[0]
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{url}/samplers", timeout=5).close()
            return server, url
        except OSError:
            time.sleep(0.1)
    raise UserError("the server does not answer")


def run(requests: int, clients: int, steps: int) -> list[str]:
    """The lines of the report."""
    asked = [Asked(number, steps) for number in range(requests)]
    server, url = start()
    try:
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(lambda one: ask(url, one), asked[:WARM]))
            before, began = megabytes(server.pid), time.perf_counter()
            answers = list(pool.map(lambda one: ask(url, one), asked))
        seconds, after = time.perf_counter() - began, megabytes(server.pid)
    finally:
        server.terminate()
        server.wait(30)
    studio = open_studio(device="cpu")
    same = [
        [one.tobytes() for one in made] == [one.tobytes() for one in txt2img(request.options(), studio)]
        for request, (_, made) in zip(asked, answers, strict=True)
    ]
    waits = sorted(wait for wait, _ in answers)
    pictures = sum(len(made) for _, made in answers)
    return [
        f"{len(answers)} of {requests} requests of {clients} clients answered in {seconds:.1f} s",
        f"{pictures} pictures, {pictures / seconds:.2f} a second; wait {waits[len(waits) // 2]:.1f} s in the middle, "
        f"{waits[-1]:.1f} s at most",
        f"memory of the server {before:.0f} MB after {WARM} requests, {after:.0f} MB at the end",
        f"{sum(same)} of {requests} answers are what Python makes, to the last bit",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--requests", type=int, default=50, metavar="N", help="(50)")
    parser.add_argument("--clients", type=int, default=8, metavar="N", help="at the same time (8)")
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="of a picture (10)")
    given = parser.parse_args(arguments)
    logging.getLogger("ldm").setLevel(logging.ERROR)
    print("\n".join(run(given.requests, given.clients, given.steps)))


if __name__ == "__main__":
    run_command(main)
