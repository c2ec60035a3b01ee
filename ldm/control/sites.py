"""Where in a UNet: layers picked by block, kind and resolution, under names that stay the same from run to run."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ldm.modules.attention import AttentionBlock, CrossAttention, SpatialTransformer
from ldm.modules.diffusionmodules.resblock import ResBlock
from ldm.util import UserError

KINDS = ("self", "cross", "residual", "time", "time_cross")
LATE_DECODER = "output_blocks.{6..11}"


@dataclass(frozen=True)
class Sites:
    """Names of layers, and the attribute at which something else can be put there: ``attend`` or ``residual``."""

    names: tuple[str, ...]
    seam: str = "attend"

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def sites(
    unet: nn.Module,
    pattern: str | int | Sequence[str | int] = LATE_DECODER,
    kind: str = "self",
    resolution: int | Sequence[int] | None = None,
) -> Sites:
    """The layers of ``unet`` that a pattern names, such as ``output_blocks.6.1.transformer_blocks.0.attn1``.

    Args:
        pattern: the beginning of a name, up to a dot. ``{6..11}`` and ``{6,8}`` stand for each of those, ``*`` for
            anything between two dots, commas separate patterns; a number means that decoder block.
        kind: "self" or "cross" attention; in a video network "time" (over the frames at each position) or "time_cross"
            (from those to the context); or "residual": what the last residual block of each block adds to its skip.
        resolution: only where the latent has been made smaller by this factor (or one of these): 1, 2, 4, ...

    Raises:
        UserError: a pattern that cannot be read or matches nothing, or an unknown kind; it says what there is.
    """
    if kind not in KINDS:
        raise UserError(f"unknown kind of site '{kind}'; known: {', '.join(KINDS)}")
    unet = uncompiled(unet)
    candidates = _residuals(unet) if kind == "residual" else _attention(unet, kind)
    if resolution is not None:
        wanted = {resolution} if isinstance(resolution, int) else set(resolution)
        factors = _factors(unet)
        candidates = [name for name in candidates if factors.get(_block(name)) in wanted]
    found: set[str] = set()
    for part in _parts(pattern):
        matching = [name for name in candidates if _matches(part, name)]
        if not matching:
            raise UserError(_nothing(part, kind, resolution, candidates))
        found.update(matching)
    return Sites(tuple(name for name in candidates if name in found), "residual" if kind == "residual" else "attend")


def by_resolution(
    unet: nn.Module, pattern: str | int | Sequence[str | int] = "*", kind: str = "cross"
) -> dict[int, Sites]:
    """The layers of a pattern by how much smaller than the latent their feature maps are: 1, 2, 4, ...

    Raises:
        UserError: as ``sites``.
    """
    found, factors = sites(unet, pattern, kind), _factors(uncompiled(unet))
    parted: dict[int, list[str]] = {}
    for name in found:
        parted.setdefault(factors[_block(name)], []).append(name)
    return {factor: Sites(tuple(parted[factor]), found.seam) for factor in sorted(parted)}


def late_decoder(unet: Any) -> str:
    """The pattern of the later half of the decoder: blocks 6 to 11 of Stable Diffusion, 2 and 3 of four.

    A resolution that the half would cut through belongs to it, unless there is no other: blocks 3 to 8 of the nine of
    Stable Diffusion XL, whose cells are two and one of the latent's wide, as those of Stable Diffusion's half.
    """
    factors = [factor for name, factor in _factors(uncompiled(unet)).items() if name.startswith("output_blocks.")]
    count = len(factors)
    half = count // 2
    return f"output_blocks.{{{factors.index(factors[half]) or half}..{count - 1}}}"


def uncompiled(module: nn.Module) -> Any:
    """The module that ``torch.compile`` has wrapped, or the module itself."""
    return dict(module.named_children()).get("_orig_mod", module)


def expand(pattern: str) -> list[str]:
    """A pattern without its first braces, once for each thing in them, and so on: ``a.{1..2}`` -> ``a.1``, ``a.2``.

    Raises:
        UserError: braces that do not close, or hold no range and no list.
    """
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        if "{" in pattern or "}" in pattern:
            raise UserError(f"the braces of the pattern '{pattern}' do not fit; right is for example '{LATE_DECODER}'")
        return [pattern]
    choices = list(itertools.chain.from_iterable(_choices(item, pattern) for item in found[1].split(",")))
    return [whole for choice in choices for whole in expand(pattern[: found.start()] + choice + pattern[found.end() :])]


def _choices(item: str, pattern: str) -> list[str]:
    bounds = re.fullmatch(r"\s*(\d+)\s*\.\.\s*(\d+)\s*", item)
    if bounds is not None and int(bounds[1]) <= int(bounds[2]):
        return [str(number) for number in range(int(bounds[1]), int(bounds[2]) + 1)]
    if bounds is not None or ".." in item or not item.strip():
        raise UserError(f"'{{{item}}}' in the pattern '{pattern}' is no range; right is for example '{{6..11}}'")
    return [item.strip()]


def _parts(pattern: str | int | Sequence[str | int]) -> list[str]:
    """The patterns of a comma list, or of several; commas within braces do not separate."""
    several = [pattern] if isinstance(pattern, str | int) else list(pattern)
    parts = [part.strip() for one in several for part in re.split(r",(?![^{]*\})", str(one))]
    if not parts or not all(parts):
        raise UserError(f"an empty pattern names no sites; right is for example '{LATE_DECODER}'")
    return [f"output_blocks.{part}" if part.isdecimal() else part for part in parts]


def _matches(pattern: str, name: str) -> bool:
    for one in expand(pattern):
        wanted = r"\.".join(re.escape(part).replace(r"\*", "[^.]*") for part in one.split("."))
        if re.fullmatch(rf"{wanted}(\..*)?", name):
            return True
    return False


def _attention(unet: nn.Module, kind: str) -> list[str]:
    """Names of all attention layers of one kind, in the order of the network."""
    of_kind = []
    for name, module in unet.named_modules():
        layers: Mapping[str, str] = getattr(module, "attention_kinds", {})
        if layers:
            children = dict(module.named_children())
            of_kind += [f"{name}.{part}" for part, its in layers.items() if its == kind and part in children]
        elif isinstance(module, AttentionBlock) and kind == "self":
            of_kind.append(name)
    return of_kind


def _residuals(unet: nn.Module) -> list[str]:
    """Names of the last residual block of each block of the network that has one and does not change the size."""
    last: dict[str, str] = {}
    for name, module in unet.named_modules():
        if isinstance(module, ResBlock) and module.resample is None:
            last[_block(name)] = name
    return list(last.values())


def _block(name: str) -> str:
    """The block of a name: ``output_blocks.6`` of ``output_blocks.6.1.transformer_blocks.0.attn1``."""
    parts = name.split(".")
    return ".".join(parts[:1] if parts[0] == "middle_block" else parts[:2])


def _factors(unet: Any) -> Mapping[str, int]:
    """How much smaller than the latent the feature map is in each block."""
    factors, factor = {"input_blocks.0": 1}, 1
    for i, block in enumerate(unet.input_blocks[1:], start=1):
        factor *= 2 if _changes_size(block[-1]) else 1
        factors[f"input_blocks.{i}"] = factor
    factors["middle_block"] = factor
    for i, block in enumerate(unet.output_blocks):
        factors[f"output_blocks.{i}"] = factor
        factor //= 2 if _changes_size(block[-1]) else 1
    return factors


def _changes_size(layer: nn.Module) -> bool:
    if isinstance(layer, ResBlock):
        return layer.resample is not None
    return not isinstance(layer, SpatialTransformer | AttentionBlock | CrossAttention)


def _nothing(pattern: str, kind: str, resolution: int | Sequence[int] | None, candidates: list[str]) -> str:
    where = "" if resolution is None else f" at resolution {resolution}"
    what = "residual block" if kind == "residual" else f"{kind}-attention"
    blocks = ", ".join(dict.fromkeys(_block(name) for name in candidates))
    there = f"this network has some in {blocks}" if blocks else "this network has none"
    return f"no {what}{where} matches '{pattern}': {there}"
