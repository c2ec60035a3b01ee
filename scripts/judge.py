"""Judge pictures of scenes by classical measures against true renders.

    python -m scripts.judge outputs/asked/samples --scenes outputs/asked/scenes.jsonl
    python -m scripts.judge FOLDER --scenes FILE --json verdicts.json
    python -m scripts.judge FOLDER --scenes FILE --debug

The scenes, one a line in the order of the file names, are what `scripts.scene_prompts` writes; by hand, a line is
{"ground": "blue", "things": [{"name": "cat", "place": "left"}]}, with null or nothing for what is left open.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ldm.arguments import Parser
from ldm.pictures.images import image_to_array, list_images, load_image
from ldm.util import UserError, atomic_write, run_command
from ldm.world.judge import Seams, Verdict, judge
from ldm.world.paint import paint
from ldm.world.scene import Scene
from ldm.world.scene_files import read_scenes
from ldm.world.scoring import wilson

ASKED = ("ground", "things", "colours", "place", "outline", "right")
MEASURED = ("ground_error", "thing_error", "overlap", "edge_width")


def report(pictures: Sequence[NDArray[np.float32]], scenes: Sequence[Scene]) -> tuple[list[Verdict], dict[str, Any]]:
    """A verdict for each picture [size, size, 3] in [-1, 1], and shares, means and the seams of all together.

    Raises:
        UserError: another number of scenes than pictures, or none.
    """
    if len(pictures) != len(scenes) or not scenes:
        raise UserError(f"{len(pictures)} pictures need as many scenes, got {len(scenes)}")
    verdicts = [judge(picture, scene) for picture, scene in zip(pictures, scenes, strict=True)]
    shares = {}
    for name in ASKED:
        right = sum(bool(getattr(verdict, name)) for verdict in verdicts)
        low, high = wilson(right, len(verdicts))
        shares[name] = {"right": right, "of": len(verdicts), "low": low, "high": high}
    means = {name: float(np.mean([getattr(verdict, name) for verdict in verdicts])) for name in MEASURED}
    seams, true_seams = Seams(), Seams()
    for picture, verdict in zip(pictures, verdicts, strict=True):
        seams.add(picture)
        true_seams.add(paint([verdict.true], len(picture))[0])
    return verdicts, {"shares": shares, "means": means, "seams": seams.ratio, "true_seams": true_seams.ratio}


def table(summary: dict[str, Any]) -> str:
    """The summary as text for people."""
    lines = [f"{'':<12}{'right':>6} of{'asked':>6}{'share':>9}{'95 % interval':>19}"]
    for name, row in summary["shares"].items():
        share = row["right"] / row["of"]
        lines.append(
            f"{name:<12}{row['right']:>6} of{row['of']:>6}{share:>9.2%}{row['low']:>10.2%} -{row['high']:>7.2%}"
        )
    means = summary["means"]
    return "\n".join([
        *lines,
        f"colour difference (CIEDE2000) against the true render: background {means['ground_error']:.2f}, "
        f"things {means['thing_error']:.2f}",
        f"silhouettes: intersection over union {means['overlap']:.3f}; edges {means['edge_width']:.2f} times as wide",
        f"seams: {summary['seams']:.3f}, true pictures {summary['true_seams']:.3f}",
    ])  # fmt: skip


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("folder", type=Path, help="pictures, taken in natural order (2.png before 10.png)")
    parser.add_argument("--scenes", type=Path, required=True, help="what was asked for, one scene a line")
    parser.add_argument("--json", type=Path, help="write the summary and every verdict here")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args()
    files = list_images(options.folder)
    verdicts, summary = report([image_to_array(load_image(path)) for path in files], read_scenes(options.scenes))
    print(table(summary))
    if options.json:
        each = [{"picture": path.name, **asdict(v)} for path, v in zip(files, verdicts, strict=True)]
        with atomic_write(options.json) as path:
            path.write_text(json.dumps({**summary, "pictures": each}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    run_command(main)
