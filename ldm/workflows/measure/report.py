"""An evaluation as a table for people, CSV, JSON and a sheet of pictures."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

from PIL import Image

from ldm.metrics.networks import NETWORKS
from ldm.pictures.images import make_grid, save_image
from ldm.util import atomic_write
from ldm.workflows.measure.baselines import GIVEN, fitted
from ldm.workflows.measure.evaluate import SETS, Evaluation, Number, open_trio

ROWS = 12  # pairs on the sheet
SIDE = 192  # pixels of a picture's longer side there
ENOUGH = 2048  # pictures, from which the covariance of Inception's features is of full rank
ORDER = ("ArtFID", "FID", "FID_infinity", "LPIPS", "LPIPS_gray", "CFSD", "histogram", "KID", "FID_2015", "KID_2015")


def write_report(evaluation: Evaluation, out: Path, settings: dict[str, Any]) -> str:
    """Write pairs.csv, summary.json, table.md and sheet.png into a folder; returns what is to be printed.

    Raises:
        UserError: the folder cannot be written.
    """
    text = table(evaluation)
    _write_pairs(evaluation, out / "pairs.csv")
    with atomic_write(out / "summary.json") as temporary:
        temporary.write_text(json.dumps(as_json(evaluation, settings), indent=1, ensure_ascii=False) + "\n", "utf-8")
    with atomic_write(out / "table.md") as temporary:
        temporary.write_text(text + "\n", "utf-8")
    save_image(sheet(evaluation), out / "sheet.png")
    return "\n\n".join([text, *original_lines(evaluation)])


def measures_of(evaluation: Evaluation) -> list[str]:
    """The measures' names, those of papers first."""
    names = list(evaluation.numbers[GIVEN])
    return [name for name in ORDER if name in names] + [name for name in names if name not in ORDER]


def table(evaluation: Evaluation) -> str:
    """A Markdown table, a row for each way; then the networks and what is left out."""
    names = measures_of(evaluation)
    lines = [f"{len(evaluation.trios)} pairs; 95 % intervals in brackets", "", "| | " + " | ".join(names) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for way, numbers in evaluation.numbers.items():
        lines.append(f"| {way} | " + " | ".join(_cell(numbers[name]) for name in names) + " |")
    return "\n".join([*lines, "", *remarks(evaluation)])


def remarks(evaluation: Evaluation) -> list[str]:
    """Networks by file and hash, what they see, what a reader has to know, what is left out: a line each."""
    judges, lines = evaluation.judges, []
    for name, about in judges.networks.items():
        released = {True: "as published", False: "NOT the published file", None: "no published hash to compare with"}
        digest = f" sha256 {about['sha256'][:16]}, {released[about['released']]}" if about["sha256"] else ""
        lines.append(f"- network {name}: {about['file']}{digest}")
    seen: dict[str, list[str]] = {}
    for name, measure in judges.pairs.items():
        seen.setdefault(measure.seen, []).append(name)
    for network, features in judges.sets.items():
        seen.setdefault(features.seen, []).extend(title for title in SETS[network] if title)
    lines += [f"- pictures are seen at {size} by {', '.join(names)}" for size, names in seen.items()]
    if judges.sets and len(evaluation.trios) < ENOUGH:
        lines.append(f"- FID and KID of {len(evaluation.trios)} pictures compare only with those of as many")
    return lines + [f"- {sentence}" for sentence in judges.left_out]


def original_lines(evaluation: Evaluation) -> list[str]:
    """The numbers of the results as StyleID's evaluation prints them, as far as they are there."""
    numbers = evaluation.numbers[GIVEN]
    first = [f"{name}: {numbers[name].value}" for name in ("ArtFID", "FID", "LPIPS", "LPIPS_gray") if name in numbers]
    lines = [" ".join(first)] if first else []
    if "CFSD" in numbers:
        lines.append(f"CFSD: {numbers['CFSD'].value:.4f}")
    return [*lines, f"color matching loss: {numbers['histogram'].value}"]


def _cell(number: Number) -> str:
    low, high = number.interval
    value = f"{number.value:.4g}"
    return value if math.isnan(low) else f"{value} [{low:.4g}, {high:.4g}]"


def as_json(evaluation: Evaluation, settings: dict[str, Any]) -> dict[str, Any]:
    """All numbers with intervals (null where unknown), settings, networks and what is left out."""

    def plain(number: Number) -> dict[str, Any]:
        low, high = (None if math.isnan(end) else end for end in number.interval)
        return {"value": number.value, "low": low, "high": high}

    judges = evaluation.judges
    known = {name: {"published": network.file.url} for name, network in NETWORKS.items()}
    return {
        "pairs": len(evaluation.trios),
        "settings": settings,
        "numbers": {way: {n: plain(v) for n, v in numbers.items()} for way, numbers in evaluation.numbers.items()},
        "networks": {name: {**known.get(name, {}), **about} for name, about in judges.networks.items()},
        "seen": {name: measure.seen for name, measure in judges.pairs.items()}
        | {name: features.seen for name, features in judges.sets.items()},
        "left_out": judges.left_out,
    }


def _write_pairs(evaluation: Evaluation, path: Path) -> None:
    """A line for each pair and way, with the measures that a pair has."""
    names = list(evaluation.judges.pairs)
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["pair", "content", "style", "way", *names])
        for number, trio in enumerate(evaluation.trios):
            for way, found in evaluation.found.items():
                values = [f"{found.values[name][number]:.6g}" for name in names]
                writer.writerow([trio.name, trio.content.name, trio.style.name, way, *values])


def sheet(evaluation: Evaluation) -> Image.Image:
    """Some pairs, evenly spread: content, style, the result, and the baselines."""
    shown = [name for name in evaluation.made_by if name not in ("content", "style")]
    step = math.ceil(len(evaluation.trios) / ROWS)
    images, labels = [], []
    for trio in evaluation.trios[::step]:
        pictures = open_trio(trio)
        row = [pictures.content, pictures.style, *(evaluation.made_by[name](pictures) for name in shown)]
        width, height = pictures.content.size
        scale = min(1.0, SIDE / max(width, height))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        images += [fitted(image, size) for image in row]
        labels += ["content", "style", *shown]
    return make_grid(images, len(shown) + 2, labels)
