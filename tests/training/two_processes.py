"""Two processes on one machine that train together, started as torchrun or Slurm start them."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any


def torchrun(rank: int) -> dict[str, str]:
    """What torchrun says to each of two processes."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip


def srun(rank: int) -> dict[str, str]:
    """What Slurm says to each of two tasks of a job on one machine."""
    return {
        "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NODELIST": "localhost", "SLURM_NODEID": "0", "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank),
    }  # fmt: skip


def both(folder: Path, start: Callable[[int], dict[str, str]], work: Callable[[], dict[str, Any]]) -> list[Any]:
    """What each of two processes that are started in one way comes to by some work; an error of one ends both."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    files = [folder / f"{start.__name__}-{rank}.json" for rank in range(2)]
    processes = [
        context.Process(target=_do, args=({"MASTER_PORT": str(port), **start(rank)}, work, file))
        for rank, file in enumerate(files)
    ]
    for process in processes:
        process.start()
    running = list(processes)
    while running:
        wait([process.sentinel for process in running])
        running = [process for process in running if process.is_alive()]
        if any(process.exitcode for process in processes):
            for process in running:
                process.kill()
    found = [json.loads(file.read_text()) if file.is_file() else {} for file in files]
    errors = [result["error"] for result in found if "error" in result]
    assert not errors, errors[0]
    return found


def _do(environment: dict[str, str], work: Callable[[], dict[str, Any]], file: Path) -> None:
    """The work of one process; what it comes to goes to a file."""
    os.environ |= environment
    try:
        found = work()
    except BaseException:
        found = {"error": traceback.format_exc()}
    file.write_text(json.dumps(found))
    os._exit("error" in found)  # what pytest does at its end is not this process's
