"""Which models lie at hand: the weights in ``models/`` that have their configuration beside them, and what they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError, safe_open

from ldm.checkpoint import is_diffusers_folder, is_film_folder
from ldm.models.diffusion.sampling import SAMPLERS
from ldm.released import COMMAND, RELEASED
from ldm.shipped import ROOT, TINY
from ldm.util import UserError, nearest, read_yaml
from ldm.workflows.files import CONFIG, WEIGHTS

FOLDER = "models"
SUFFIXES = (".safetensors", ".ckpt", ".pt", ".bin")
UNET = "model.diffusion_model."
SAMPLER_NAMES = tuple(SAMPLERS)


@dataclass(frozen=True)
class Listed:
    """A model that can be opened.

    Attributes:
        ckpt: a file or a diffusers folder.
        about: a few words on it.
        films: whether it makes films, not pictures.
    """

    name: str
    ckpt: Path
    about: str
    films: bool = False


def models_at_hand(folder: str | Path = FOLDER) -> list[Listed]:
    """The models of a folder and of the project's own, the small one first, then by name; nothing is loaded.

    A weight file counts if its ``config.yaml`` lies beside it and describes a latent diffusion model.
    """
    small = _listed(TINY / WEIGHTS, TINY.parent)
    found = [small] if small is not None else []
    for place in dict.fromkeys(path.resolve() for path in (Path(folder), ROOT / FOLDER)):
        for ckpt in sorted(_candidates(place)):
            one = _listed(ckpt, place)
            if one is not None and all(one.ckpt != other.ckpt for other in found):
                found.append(one)
    return found


def model_named(name: str | None, listed: list[Listed]) -> Listed:
    """The model of that name, the first one without a name.

    Raises:
        UserError: there is none.
    """
    if not listed:
        raise UserError(f"there is no model in '{FOLDER}'; python -m scripts.download NAME gets one")
    if name is None:
        return listed[0]
    for one in listed:
        if name in (one.name, str(one.ckpt)):
            return one
    known = next((one for one in RELEASED if name in (one.name, one.folder.name)), None)
    way = f"'{COMMAND} {known.name}' gets it" if known else nearest(name, [one.name for one in listed])
    raise UserError(f"there is no model '{name}'; {way}")


def _candidates(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in folder.rglob("*"):
        if path.suffix in SUFFIXES and (path.parent / CONFIG).is_file():
            yield path.resolve()
        elif path.name == "model_index.json" and is_diffusers_folder(path.parent):
            yield path.parent.resolve()


def _listed(ckpt: Path, folder: Path) -> Listed | None:
    """The entry of a weight file or a diffusers folder; None where it holds no latent diffusion model."""
    if ckpt.is_dir():
        return Listed(_name(ckpt, folder), ckpt, "diffusers folder", is_film_folder(ckpt))
    if ckpt.suffix == ".safetensors" and not _has_unet(ckpt):
        return None
    try:
        document = read_yaml(ckpt.parent / CONFIG, False)
    except UserError:
        return None
    target = str(OmegaConf.select(document, "model.target") or "")
    if "diffusion" not in target.lower():
        return None
    networks = (OmegaConf.select(document, f"model.params.{name}.target") for name in ("unet_config", "network_config"))
    films = any("video" in str(network).lower() for network in networks)
    return Listed(_name(ckpt, folder), ckpt, _about(ckpt, document), films)


def _name(ckpt: Path, folder: Path) -> str:
    """Where it lies below the folder, short: that of its own folder where that holds one model only."""
    place = ckpt.parent if ckpt.name == WEIGHTS else ckpt.with_suffix("") if ckpt.is_file() else ckpt
    inside = place.relative_to(folder) if place.is_relative_to(folder) else Path(place.name)
    return inside.as_posix().removeprefix("ldm/")


def _about(ckpt: Path, document: DictConfig) -> str:
    """Size of the pictures and of the file, for people."""
    width, height = (OmegaConf.select(document, f"inference.{side}") for side in ("width", "height"))
    megabytes = f"{ckpt.stat().st_size / 1e6:.0f} MB"
    return f"{width}×{height}, {megabytes}" if width and height else megabytes


def _has_unet(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return any(key.startswith(UNET) for key in file.keys())  # noqa: SIM118 no mapping
    except (SafetensorError, OSError):
        return False


def words_at_hand(folder: str | Path = FOLDER, logs: str | Path = "logs") -> list[Path]:
    """Files of learned words: what lies in ``models/embeddings``, and what runs have left, the newest run first."""
    return _additions(Path(folder) / "embeddings", Path(logs), "embeddings.safetensors")


def loras_at_hand(folder: str | Path = FOLDER, logs: str | Path = "logs") -> list[Path]:
    """LoRA files: what lies in ``models/lora``, and what runs have left, the newest run first."""
    return _additions(Path(folder) / "lora", Path(logs), "lora.safetensors")


def _additions(folder: Path, logs: Path, name: str) -> list[Path]:
    own = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES) if folder.is_dir() else []
    return [*own, *sorted(logs.glob(f"*/checkpoints/{name}"), reverse=True)]
