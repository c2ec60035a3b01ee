"""Pictures of what attention did: marks on pictures, histograms of logits, overlays, sheets, principal components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ldm.util import atomic_write
from ldm.workflows.look.attention_numbers import TOP, Looks, bin_edges, finite
from ldm.workflows.look.inspection import Spot, nats, short_layer

BEFORE, CONTENT = "0.55", "tab:blue"
STYLES = ("tab:orange", "tab:green", "tab:purple", "tab:red", "tab:brown", "tab:pink")
CELL = 2.2  # inches of a picture on a sheet
FAINT = 0.5  # of the picture under an overlay
Heat = Mapping[tuple[str, float], NDArray[np.float32]]  # by layer and timestep: [rows, columns]


def save_figure(figure: Figure, path: Path, dpi: int = 90) -> None:
    """Write a figure as PNG.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    FigureCanvasAgg(figure)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)


def show(axes: Any, image: Image.Image, title: str = "", spots: Sequence[Spot] = ()) -> None:
    """A picture with its places marked, numbered when there are a few."""
    axes.imshow(np.asarray(image), extent=(0, image.width, image.height, 0), interpolation="nearest")
    for number, spot in enumerate(spots):
        axes.plot(spot.x, spot.y, "o", ms=7 if len(spots) < 10 else 3, mfc="none", mec="white", mew=3)
        axes.plot(spot.x, spot.y, "o", ms=7 if len(spots) < 10 else 3, mfc="none", mec="red", mew=1.4)
        if 1 < len(spots) < 10:
            box = {"boxstyle": "round,pad=0.15", "fc": "red", "ec": "white", "lw": 0.6}
            axes.annotate(str(number), (spot.x, spot.y), (6, 4), textcoords="offset points", color="white", fontsize=7,
                          bbox=box)  # fmt: skip
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def plot_histograms(
    content: Image.Image, stylised: Image.Image, spots: Sequence[Spot], looks: Sequence[Looks]
) -> Figure:
    """Both pictures with the places marked, and below a row for each layer and timestep, a column for each head."""
    heads = max(len(one.heads) for one in looks)
    columns = max(2, heads)
    figure = Figure(figsize=(3.0 * columns, 3.0 + 2.5 * len(looks)), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=[3.0, 2.5 * len(looks)])
    top, below = halves
    left, right = top.subplots(1, 2)
    show(left, content, "content", spots)
    show(right, stylised, "stylised", spots)
    grid = below.subplots(len(looks), columns, squeeze=False)
    for row, one in zip(grid, looks, strict=True):
        for column, axes in enumerate(row):
            if column < len(one.heads):
                _histogram(axes, one, column)
            else:
                axes.set_axis_off()
        row[0].set_ylabel(f"{short_layer(one.layer)}, t = {one.timestep:g}\nshare of a source's keys", fontsize=8)
    for axes in grid[-1][: len(looks[-1].heads)]:
        axes.set_xlabel("logit", fontsize=8)
    handles, labels = grid[0][0].get_legend_handles_labels()
    top.legend(handles, labels, fontsize=8, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def _histogram(axes: Any, looks: Looks, row: int) -> None:
    """One head: logits before as an area, those after as a line for each source."""
    edges = bin_edges(looks)
    content = finite(looks.before[row])
    axes.hist(content, bins=edges, weights=np.full(len(content), 1 / len(content)), color=BEFORE, alpha=0.6,
              label="before: content to itself")  # fmt: skip
    for number, (source, values) in enumerate(looks.after.items()):
        logits = finite(values[row])
        colour = CONTENT if source == "content" else STYLES[(number - ("content" in looks.after)) % len(STYLES)]
        weights = np.full(len(logits), 1 / max(1, len(logits)))
        axes.hist(logits, bins=edges, weights=weights, histtype="step", lw=1.5, color=colour, label=f"after: {source}")
    axes.set_title(f"head {looks.heads[row]}: {_change(looks, row)}", fontsize=7.5)
    axes.tick_params(labelsize=7)


def _change(looks: Looks, row: int) -> str:
    """Entropy and largest keys before and after, means over the queries."""
    before = looks.before[row].softmax(dim=-1)
    after = torch.cat([values[row] for values in looks.after.values()], dim=-1).softmax(dim=-1)
    (e0, m0), (e1, m1) = (
        (float(nats(p).mean()), float(p.topk(min(TOP, p.shape[-1])).values.sum(dim=-1).mean())) for p in (before, after)
    )
    return f"entropy {e0:.2f} → {e1:.2f} nats\n{TOP} largest keys {100 * m0:.0f} → {100 * m1:.0f} %"


def overlay(image: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    """A map [rows, columns] of any scale over a faint grey picture; the brightest is its 99.5th percentile."""
    top = max(float(np.percentile(heat, 99.5)), 1e-12)
    scaled = Image.fromarray(np.clip(heat / top, 0, 1).astype(np.float32)).resize(image.size, Image.Resampling.BILINEAR)
    strength = np.clip(np.asarray(scaled), 0, 1)[..., None]
    grey = np.asarray(image.convert("L"), np.float32)[..., None] / 255 * FAINT + (1 - FAINT) * 0.15
    colour = colormaps["inferno"](strength[..., 0])[..., :3]
    amount = 0.15 + 0.75 * np.sqrt(strength)
    mixed = (1 - amount) * grey + amount * colour
    return Image.fromarray((mixed * 255).round().astype(np.uint8))


def sheet(
    first: Image.Image, cells: Mapping[tuple[str, float], Image.Image], title: str, spots: Sequence[Spot] = (),
    last: Mapping[str, Image.Image] | None = None,
) -> Figure:  # fmt: skip
    """A row for each layer, a column for each timestep, the picture on the left; ``last``: a column more, by layer."""
    layers = list(dict.fromkeys(layer for layer, _ in cells))
    timesteps = sorted({t for _, t in cells}, reverse=True)
    columns = 1 + len(timesteps) + (last is not None)
    size = (CELL * columns * max(1.0, first.width / first.height), CELL * max(1.0, first.height / first.width))
    figure = Figure(figsize=(size[0], size[1] * len(layers) + 0.6), layout="constrained")
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(len(layers), columns, squeeze=False)
    for number, (row, layer) in enumerate(zip(grid, layers, strict=True)):
        blank = Image.new("RGB", first.size, "white")
        show(row[0], first if number == 0 else blank, spots=spots if number == 0 else ())
        row[0].text(-0.04, 0.5, short_layer(layer), transform=row[0].transAxes, rotation=90, fontsize=8,
                    ha="right", va="center")  # fmt: skip
        for axes, t in zip(row[1:], timesteps, strict=False):
            show(axes, cells[layer, t], f"t = {t:g}" if number == 0 else "", spots)
        if last is not None:
            show(row[-1], last[layer], "mean" if number == 0 else "", spots)
    return figure


def component_pictures(features: Sequence[tuple[Tensor, tuple[int, int]]]) -> list[Image.Image]:
    """The first three principal components of several sets of features as red, green and blue, small pictures.

    Components are those of all sets together, so that a colour means the same in each; each set is centred first.

    Args:
        features: [positions, width] and the grid of the positions, for each set; the same width.
    """
    centred = [values.float() - values.float().mean(dim=0) for values, _ in features]
    _, _, basis = torch.linalg.svd(torch.cat(centred), full_matrices=False)
    axes = basis[:3]
    axes = axes * axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()  # a sign that does not change by chance
    scores = [values @ axes.T for values in centred]
    low, high = (torch.cat(scores).quantile(level, dim=0) for level in (0.01, 0.99))
    pictures = []
    for its, (_, grid) in zip(scores, features, strict=True):
        colour = ((its - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
        colour = torch.cat([colour, torch.full((len(colour), 3 - colour.shape[1]), 0.5)], dim=1)
        pixels = (colour.reshape(*grid, 3) * 255).round().to(torch.uint8).numpy()
        pictures.append(Image.fromarray(pixels))
    return pictures
