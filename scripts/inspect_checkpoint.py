"""What a weight file holds, and which YAML of configs/ it fits.

    python -m scripts.inspect_checkpoint model.ckpt
    python -m scripts.inspect_checkpoint models/ldm/tiny/model.safetensors
    python -m scripts.inspect_checkpoint model.safetensors --configs my/configs

A configuration is built without memory for its weights, and its keys and shapes are compared with the file's: first
those whose network may be the file's by its widths, and the rest only where none of them fits, to name the nearest.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for: python scripts/inspect_checkpoint.py

import torch
from omegaconf import OmegaConf
from torch import Tensor
from tqdm import tqdm

from ldm.arguments import Parser
from ldm.checkpoint import is_lightning_checkpoint, read_embedding, read_file, read_metadata, read_state_dict
from ldm.checkpoint.diagnosis import describe_weights
from ldm.checkpoint.fit import OPTIONAL, make_report, match_text_model
from ldm.checkpoint.loading import without_checkpoints, without_learning
from ldm.util import UserError, instantiate_from_config, printable, read_yaml, run_command

ROOT = Path(__file__).resolve().parents[1]
UNET = "model.diffusion_model."
NETWORKS = ("unet_config", "network_config")
PARTS = {
    UNET: "UNet",
    "first_stage_model.": "autoencoder",
    "cond_stage_model.": "text encoder (or other condition)",
    "model_ema.": "averaged weights (EMA)",
    "embedding_manager.": "learned words",
    "loss.": "loss of an autoencoder",
    "encoder.": "encoder",
    "decoder.": "decoder",
}
REST = "the rest (schedule tables, ...)"
SHOWN = 4  # configurations to name


@dataclass(frozen=True)
class Fit:
    """How a file and a configuration compare."""

    config: Path
    wanted: int  # tensors that the configuration's model has
    missing: int
    reshaped: int
    unexpected: int

    @property
    def wrong(self) -> int:
        return self.missing + self.reshaped + self.unexpected


def parts_of(tensors: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
    """The tensors by the part of a model that they belong to."""
    parts: dict[str, list[Tensor]] = {}
    for key, value in tensors.items():
        part = next((words for prefix, words in PARTS.items() if key.startswith(prefix)), REST)
        parts.setdefault(part, []).append(value)
    return parts


def shapes_of(config: Path) -> dict[str, Tensor] | None:
    """The state dict on the meta device that a YAML describes; None where it describes no model or not without more."""
    document = read_yaml(config)
    node = document.get("model")
    if node is None or "target" not in node:
        return None
    plain: Any = OmegaConf.to_container(node, resolve=True)
    node = without_checkpoints(without_learning(plain))  # learned words and LoRA have files of their own
    try:
        with torch.device("meta"):
            return dict(instantiate_from_config(node).state_dict(keep_vars=True))
    except UserError:
        return None


def compare(config: Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Fit:
    """Keys and shapes of a file against those of a model; optional ones aside."""
    given = {k: v for k, v in tensors.items() if not k.startswith(("embedding_manager.", "model_ema."))}
    given = match_text_model(given, wanted)
    report = make_report(given, wanted)
    needed = [key for key in wanted if not OPTIONAL.search(key)]
    reshaped = sum(1 for key in needed if key in given and given[key].shape != wanted[key].shape)
    return Fit(config, len(needed), len(report.missing), reshaped, len(report.unexpected))


def network_sizes(tensors: Mapping[str, Tensor]) -> dict[str, set[int]]:
    """The widths of a file's UNet under the names that YAMLs give them; empty where it has none."""
    network = {key.removeprefix(UNET): value.shape for key, value in tensors.items() if key.startswith(UNET)}
    first = network.get("input_blocks.0.0.weight", ())
    contexts = {shape[1] for key, shape in network.items() if key.endswith("attn2.to_k.weight") and len(shape) == 2}
    found = dict(zip(("model_channels", "in_channels"), ({size} for size in first), strict=False))
    return {**found, **({"context_dim": contexts} if contexts else {})}


def may_fit(config: Path, tensors: Mapping[str, Tensor], sizes: Mapping[str, set[int]]) -> bool:
    """False where the network that a YAML asks for cannot be the file's; nothing is built for the answer."""
    document: Any = OmegaConf.to_container(read_yaml(config))
    asked = next((found for name in NETWORKS if (found := _below(document, "model", "params", name))), None)
    if (asked is None) == any(key.startswith(UNET) for key in tensors):  # a network in one of them alone
        return False
    wanted = _below(asked, "params") or {}
    return all(wanted[name] in known for name, known in sizes.items() if isinstance(wanted.get(name), int))


def _below(node: Any, *names: str) -> dict[str, Any] | None:
    """The mapping at a place of a document; None where there is none."""
    for name in names:
        node = node.get(name) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else None


def fits(tensors: Mapping[str, Tensor], configs: list[Path]) -> list[Fit]:
    """The configurations with a model that were compared, the best first."""
    sizes = network_sizes(tensors)
    likely = [config for config in configs if may_fit(config, tensors, sizes)]
    found = compare_all(tensors, likely)
    if not any(fit.wrong == 0 for fit in found):
        found += compare_all(tensors, [config for config in configs if config not in likely])
    return sorted(found, key=lambda fit: (fit.wrong, str(fit.config)))


def compare_all(tensors: Mapping[str, Tensor], configs: list[Path]) -> list[Fit]:
    """How each configuration that has a model compares, in their order."""
    pairs = ((config, shapes_of(config)) for config in tqdm(configs, desc="configurations", leave=False))
    return [compare(config, tensors, wanted) for config, wanted in pairs if wanted]


def describe(path: Path, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """What the file holds, line by line."""
    size = sum(value.numel() * value.element_size() for value in tensors.values())
    words = describe_weights({key: tuple(value.shape) for key, value in tensors.items()})
    yield f"{path}: {len(tensors)} tensors, {size / 2**20:.1f} MB" + (f"; looks like {words}" if words else "")
    for part, values in parts_of(tensors).items():
        numbers = sum(value.numel() for value in values)
        types = sorted({str(value.dtype).removeprefix("torch.") for value in values})
        yield f"  {part:<36}{len(values):>6} tensors {numbers / 1e6:>10.2f} M numbers  {', '.join(types)}"
    if path.is_file():
        yield from _about(path)


def _about(path: Path) -> Iterator[str]:
    for key, value in read_metadata(path).items():
        if key != "format":
            yield f"  {key}: {value[:100]}"
    if is_lightning_checkpoint(path):
        value = read_file(path)
        yield f"  a training checkpoint, step {value['global_step']}: it can be resumed with main.py --resume"


def embedding_summary(path: Path) -> str | None:
    """A line about a file of learned words; None where it is none."""
    try:
        file = read_embedding(path)
    except UserError:
        return None
    words = ", ".join(f"'{name}' ({len(vectors)})" for name, vectors in file.vectors.items())
    return f"{path}: learned words {words} for {file.made_for}; see scripts/inspect_embedding.py"


def verdict(found: list[Fit]) -> Iterator[str]:
    """Which configurations to take."""
    if not found:
        yield "no configuration with a model to compare with"
        return
    perfect = [fit for fit in found if fit.wrong == 0]
    near = [fit for fit in found if fit.missing + fit.reshaped < fit.wanted / 2][:SHOWN]
    if not perfect:
        yield "fits no configuration; the nearest:" if near else "fits no configuration, and resembles none"
    else:
        yield "fits (whether the network predicts noise or v cannot be seen in weights):"
    for fit in perfect or near:
        odd = f"  ({fit.missing} missing, {fit.reshaped} of another shape, {fit.unexpected} unexpected of {fit.wanted})"
        yield f"  {shown(fit.config)}{odd if fit.wrong else ''}"


def shown(path: Path) -> Path:
    """A path as one would type it from the repository."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def yamls(place: Path) -> list[Path]:
    """The configurations below a folder, or the one file.

    Raises:
        UserError: there is none.
    """
    found = [place] if place.is_file() else sorted(place.rglob("*.yaml"))
    if not found:
        raise UserError(f"there is no YAML in '{place}'")
    return found


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("path", type=Path, help="a weight file of any format, or a diffusers folder")
    parser.add_argument("--configs", type=Path, help="a YAML or a folder of them (configs/ and models/)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args()
    configs = yamls(options.configs) if options.configs else [*yamls(ROOT / "configs"), *yamls(ROOT / "models")]
    summary = embedding_summary(options.path) if options.path.is_file() else None
    if summary is not None:
        print(printable(summary))
        return
    tensors = read_state_dict(options.path)
    for line in [*describe(options.path, tensors), *verdict(fits(tensors, configs))]:
        print(printable(line))


if __name__ == "__main__":
    run_command(main)
