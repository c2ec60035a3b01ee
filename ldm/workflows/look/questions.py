"""What somebody asks who looks at a picture: where does this place look, where is this word seen, what is in q."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ldm.control import Sites, late_decoder
from ldm.pictures.sizing import Picture, look_at, sizing_for
from ldm.util import UserError
from ldm.workflows.inversion.invert import unet_of
from ldm.workflows.look.attention_maps import Course, attention_to, course_of_picture, features_of
from ldm.workflows.look.attention_numbers import restyle_and_look
from ldm.workflows.look.inspection import (
    Spot,
    choose_heads,
    choose_layers,
    choose_timesteps,
    read_spots,
    short_layer,
    word_positions,
)
from ldm.workflows.restyle.checks import checked
from ldm.workflows.restyle.features import make_cache
from ldm.workflows.restyle.jobs import make_jobs
from ldm.workflows.restyle.pairs import make_pairs
from ldm.workflows.restyle.plan import StyleIDOptions
from ldm.workflows.restyle.setting import make_setting
from ldm.workflows.restyle.usual import as_usual
from ldm.workflows.studio import Studio

FEATURES = ("q", "k", "v", "residual")
SHOWN = 4  # steps on a sheet
KEPT = 4  # pictures whose way through the noise is kept
Cells = Mapping[tuple[str, float], Image.Image]


@dataclass(frozen=True)
class Question:
    """A place, a word or a feature; and where in the network and on the way.

    Attributes:
        spot: "x,y" in pixels of the file: where does this place look.
        word: of ``prompt``: where is it seen.
        feature: one of FEATURES: its principal components as colours.
        layer: a pattern of layers; None: the later half of the decoder.
        step: which of the steps, 0 the noisiest; None: one in the middle.
        head: None: the mean over all.
    """

    spot: str = ""
    word: str = ""
    feature: str = ""
    prompt: str = ""
    layer: str | None = None
    step: int | None = None
    head: int | None = None

    def check(self) -> None:
        """Raises UserError unless exactly one thing is asked."""
        if sum(map(bool, (self.spot, self.word, self.feature))) != 1:
            raise UserError("one thing at a time: click on a place, name a word, or choose a feature")
        if self.word and not self.prompt:
            raise UserError(f"the word '{self.word}' needs the prompt that it stands in")

    @property
    def kind(self) -> str:
        """Of the layers that are asked."""
        return "residual" if self.feature == "residual" else "cross" if self.word else "self"


@dataclass(frozen=True)
class Answer:
    """What was seen: at one layer and step, and on a sheet of all layers at some steps."""

    picture: Image.Image
    sheet: Image.Image
    layers: tuple[str, ...]
    layer: str
    timestep: float


@dataclass
class Courses:
    """Ways of pictures through the noise, the last few of them, so that the next question is answered at once."""

    steps: int = 20
    kept: OrderedDict[tuple[str, str, str, int], tuple[Picture, Course]] = field(default_factory=OrderedDict)

    def find(self, studio: Studio, path: Path, longest: int, prompt: str = "") -> tuple[Picture, Course]:
        """The picture of a file, and its inversion under a prompt.

        Raises:
            UserError: the file cannot be read, or the model does not take that size.
        """
        picture = look_at(path, sizing_for(studio.model, None, None, False, longest))
        key = (studio.fingerprint, picture.sha256, prompt, self.steps)
        if key not in self.kept:
            self.kept[key] = (picture, course_of_picture(studio, picture, prompt, self.steps))
        self.kept.move_to_end(key)
        while len(self.kept) > KEPT:
            self.kept.popitem(last=False)
        return picture, self.kept[key][1]


def answer(studio: Studio, picture: Picture, course: Course, question: Question) -> Answer:
    """Ask the network what is asked.

    Raises:
        UserError: the question is none, or names what is not there.
    """
    question.check()
    model = studio.model
    layers = choose_layers(model, late_decoder(unet_of(model)), question.kind)
    chosen = choose_layers(model, question.layer, question.kind) if question.layer else layers
    layer = chosen.names[-1]
    every = sorted(course.visited, reverse=True)
    here = every[len(every) // 2 if question.step is None else min(max(question.step, 0), len(every) - 1)]
    timesteps = sorted({here, *choose_timesteps(None, every, SHOWN)}, reverse=True)
    among = layers if layer in layers.names else Sites((*layers.names, layer))
    cells = _cells(studio, picture, course, question, among, timesteps)
    spots = read_spots([question.spot], picture) if question.spot else []
    return Answer(cells[layer, here], _sheet(course.image, cells, _title(question), spots), layers.names, layer, here)


def _title(question: Question) -> str:
    if question.feature:
        return f"{question.feature}: first three principal components as red, green, blue"
    return f"'{question.word}' in '{question.prompt}'" if question.word else "where the marked place looks"


def _cells(
    studio: Studio, picture: Picture, course: Course, question: Question, layers: Sites, timesteps: list[float]
) -> Cells:
    """A picture for each layer and step."""
    from ldm.workflows.look.inspection_plots import component_pictures, overlay  # they bring matplotlib

    model = studio.model
    heads = None if question.head is None or question.kind == "residual" else [question.head]
    if heads is not None:
        choose_heads(str(question.head), model, layers)
    if question.feature:
        found = features_of(model, course, layers, timesteps, heads, question.feature)
        seen = {site: component_pictures([found[site, t] for t in timesteps]) for site in layers}
        return {
            (site, t): small.resize(course.image.size, Image.Resampling.NEAREST)
            for site in layers for t, small in zip(timesteps, seen[site], strict=True)
        }  # fmt: skip
    spots: list[Spot] = read_spots([question.spot], picture) if question.spot else []
    words = word_positions(model, question.prompt, question.word) if question.word else []
    maps: Mapping[tuple[str, float], NDArray[np.float32]] = attention_to(
        model, course, layers, timesteps, heads, spots=spots, words=words
    )
    return {key: overlay(course.image, heat) for key, heat in maps.items()}


def _sheet(first: Image.Image, cells: Cells, title: str, spots: list[Spot]) -> Image.Image:
    from ldm.workflows.look.inspection_plots import sheet

    return _drawn(sheet(first, cells, title, spots))


def histograms(studio: Studio, options: StyleIDOptions, spot: str, head: int | None = None) -> Image.Image:
    """How a place of a content matches its own picture before, and those of a style while it is restyled.

    Args:
        options: name one content and one style.
        spot: "x,y" in pixels of the content's file.
        head: None: all.

    Raises:
        UserError: an option, the place or the head does not fit.
    """
    from ldm.workflows.look.inspection_plots import plot_histograms

    options = as_usual(checked(options), studio.inference)
    with studio.lock:
        setting = make_setting(options, studio)
        pairs = make_pairs([Path(options.cnt or "")], [Path(options.sty or "")], [])
        (job,), _ = make_jobs(options, setting, pairs)
        spots = read_spots([spot], job.content)
        layers = choose_layers(studio.model, setting.sites.names[-1], "self", setting.sites)
        timesteps = choose_timesteps(None, setting.timesteps, 2)
        heads = choose_heads(None if head is None else str(head), studio.model, layers)
        image, looks = restyle_and_look(
            setting, make_cache(options, setting, [job]), job, spots, layers, timesteps, heads
        )
    return _drawn(plot_histograms(job.content.image(), image, spots, looks))


def _drawn(figure: object) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    assert isinstance(figure, Figure)
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return Image.open(buffer, formats=("PNG",)).convert("RGB")


__all__ = ["FEATURES", "Answer", "Courses", "Question", "answer", "histograms", "short_layer"]
