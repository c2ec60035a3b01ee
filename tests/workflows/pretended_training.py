"""What a page sees of main.py, without any learning: a run's folder that fills step by step, an end in good order.

The word that it has learned is the file that the environment names.
"""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

STEPS = 40


def main(arguments: list[str]) -> int:
    value = {flag: arguments[place + 1] for place, flag in enumerate(arguments[:-1]) if flag.startswith("-")}
    if value.get("--init_word") == "nonsense":
        print("warning: something else")
        print("error: the word 'nonsense' is not in the vocabulary", file=sys.stderr)
        return 2
    stopped: list[bool] = []
    signal.signal(signal.SIGINT, lambda *about: stopped.append(True))
    if "--resume" in value:
        run = Path(value["--resume"])
        step = json.loads((run / "checkpoints" / "last.ckpt").read_text())
    else:
        run, step = Path(value["--logdir"]) / f"2030-01-01T00-00-{os.getpid() % 60:02}_{value['--name']}", 0
        for part in ("checkpoints", "images/train", "configs", f"metrics/version_{step}"):
            (run / part).mkdir(parents=True)
        params = {"placeholder_token": "*", "templates": ["a {}"]}
        project = {"data": {"params": {"train": {"params": params}}}}
        (run / "configs" / "a-project.yaml").write_text(json.dumps(project))
        (run / "metrics" / "version_0" / "metrics.csv").write_text("step,train/loss_simple\n")
        shutil.copy(os.environ["PRETENDED_PICTURE"], run / "images/train/samples_gs-000001_e-000000_b-000000.png")
    while step < STEPS and not stopped:
        step += 1
        with (run / "metrics" / "version_0" / "metrics.csv").open("a") as table:
            table.write(f"{step},{1 / step}\n")
        (run / "progress.part").write_text(json.dumps({"step": step, "steps": STEPS, "loss": 1 / step}))
        (run / "progress.part").rename(run / "progress.json")
        time.sleep(float(os.environ.get("PRETENDED_SECONDS", "0.01")))
    (run / "checkpoints" / "last.ckpt").write_text(json.dumps(step))
    if stopped:
        print(f"stopped; everything is in {run}")
        return 130
    shutil.copy(os.environ["PRETENDED_WORD"], run / "checkpoints" / "embeddings.safetensors")
    print(f"trained to step {step}; everything is in {run}")
    return 0


sys.exit(main(sys.argv[1:]))
