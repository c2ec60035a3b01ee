"""Files of learned words (textual inversion): every common format is read and written, recognised by its content."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm.checkpoint.embedding_picture import is_picture, read_picture, write_picture
from ldm.checkpoint.formats import open_file
from ldm.checkpoint.saving import save_state_dict, write_file
from ldm.util import UserError

MODELS_OF_WIDTH = {
    192: "the small model (width 192)",
    768: "Stable Diffusion v1 (width 768)",
    1024: "Stable Diffusion v2 (width 1024)",
    1280: "LDM text-to-image (width 1280)",
}
PER_LAYER, IN_CONTEXT, PER_TIMESTEP = "layers", "context", "mapper"  # the field ``kind`` of words that are not ordinary
OF_LAYERS = (PER_LAYER, IN_CONTEXT)
_STARTS = "initial_vectors."  # metadata of safetensors files: float32 bytes, little-endian, base64
_SAID_AS = {  # what others call the fields of our metadata
    "name": "name",
    "step": "steps",
    "sd_checkpoint_name": "base_model",
    "sd_checkpoint": "base_model_hash",
    "ss_output_name": "name",
    "ss_steps": "steps",
    "ss_sd_model_name": "base_model",
}
_ENCODERS = ("clip_l", "clip_g", "t5xxl")  # files of several encoders' vectors for one word name these
_A1111_TOKEN = 265  # what the web UI writes for '*' whatever the model; it never reads it


@dataclass
class EmbeddingFile:
    """The learned words of one file.

    Attributes:
        vectors: placeholder -> [n, D] float32; n vectors stand for it in a prompt.
        metadata: text fields: ``name``, ``steps``, ``base_model``, ``family`` (bert, clip, openclip), ``dimension``,
            ``trigger``, ``init_words``, and whatever else the file said.
        initial: placeholder -> [n, D], where its training began, if that is known.
        tokens: placeholder -> token id, if that is known; only CompVis files keep it.
        format: the name of the format that it was read from.
        second: placeholder -> [n, D'], of words for two text encoders (SDXL) those of the second.
    """

    vectors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)
    initial: dict[str, Tensor] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    format: str = "safetensors"
    second: dict[str, Tensor] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """D, the same for all vectors."""
        return next(iter(self.vectors.values())).shape[1]

    @property
    def made_for(self) -> str:
        """Words for the model whose prompts these vectors fit."""
        if self.second:
            widths = f"{self.width} and {next(iter(self.second.values())).shape[1]}"
            return f"a model with two text encoders (Stable Diffusion XL, widths {widths})"
        said = self.metadata.get("base_model")
        return f"'{said}' (width {self.width})" if said else MODELS_OF_WIDTH.get(self.width, f"width {self.width}")

    def renamed(self, names: Mapping[str, str]) -> EmbeddingFile:
        """The same vectors under other placeholders, old -> new; those not named keep theirs.

        Raises:
            UserError: a name that is not here, or two placeholders would have one name.
        """
        missing = next((old for old in names if old not in self.vectors), None)
        if missing is not None:
            raise UserError(f"there is no placeholder '{missing}' to rename; there are: {_listed(self.vectors)}")
        new = [names.get(old, old) for old in self.vectors]
        if len(set(new)) < len(new):
            raise UserError(f"two placeholders would be called '{next(n for n in new if new.count(n) > 1)}'")

        def moved(values: Mapping[str, Any]) -> dict[str, Any]:
            return {names.get(old, old): value for old, value in values.items()}

        tokens = {old: token for old, token in self.tokens.items() if old not in names}
        metadata = {**self.metadata, "trigger": ", ".join(new)} if "trigger" in self.metadata else self.metadata
        return replace(
            self, vectors=moved(self.vectors), initial=moved(self.initial), tokens=tokens, metadata=dict(metadata),
            second=moved(self.second),
        )  # fmt: skip

    def check_width(self, width: int, loaded: str | None = None, origin: object = "the embedding") -> None:
        """Refuse vectors that the loaded text encoder cannot take.

        Args:
            width: D of the loaded text encoder.
            loaded: words for the loaded model; by its width where not given.
            origin: the file, for the message.

        Raises:
            UserError: the widths differ; says which model the file was made for and which is loaded.
        """
        if self.width != width or self.second:
            known = MODELS_OF_WIDTH.get(width, f"one of width {width}")
            known = known if loaded is None else f"'{loaded}' (width {width})"
            raise UserError(f"'{origin}' was made for {self.made_for}, but the loaded model is {known}")


def read_embedding(path: str | os.PathLike[str]) -> EmbeddingFile:
    """Read the learned words of a file: CompVis ``.pt``, the web UI's ``.pt`` and ``.png``, diffusers' ``.bin`` and
    ``.safetensors``, kohya's ``emb_params``. Nothing that a pickle names is run.

    The web UI and kohya do not name a placeholder: it is then the ``name`` inside the file, else the file's own.

    Raises:
        UserError: no such file, another kind of file, a damaged one, one that asks for something to be called, or an
            embedding for other text encoders than SDXL's two (SD 3, Flux).
    """
    if is_picture(path):
        value, metadata, picture = read_picture(path), {}, True
    else:
        contents = open_file(path)
        value, metadata, picture = contents.value, contents.metadata, False
    try:
        found = _understand(value, metadata, Path(path), picture)
    except _NotThisError as error:
        raise UserError(f"'{path}' is no textual-inversion embedding: {error}") from error
    return found


def read_about(path: str | os.PathLike[str]) -> dict[str, str]:
    """The text fields that a file of learned words has, under our names; ``kind`` tells words of other kinds apart.

    Raises:
        UserError: no such file, or nothing that can be read.
    """
    if is_picture(path):
        return {}
    contents = open_file(path)
    fields = contents.value if isinstance(contents.value, Mapping) else {}
    return {**_spoken(fields), **_spoken(contents.metadata)}


class _NotThisError(Exception):
    """Why a file is no embedding; becomes a UserError that names the file."""


def _understand(value: Any, metadata: dict[str, str], path: Path, picture: bool) -> EmbeddingFile:
    if not isinstance(value, Mapping) or not value:
        raise _NotThisError("it holds nothing by name")
    said = {**_spoken(metadata), **_spoken(value)}
    trigger = said.get("name") or path.stem
    encoders = [key for key in _ENCODERS if key in value]
    if encoders == ["clip_l"]:
        return _made({trigger: value["clip_l"]}, said, format="clip_l")
    if encoders == ["clip_l", "clip_g"]:
        file = _made({trigger: value["clip_l"]}, said, format="sdxl")
        file.second = _made({trigger: value["clip_g"]}, said, format="sdxl").vectors
        if len(file.vectors[trigger]) != len(file.second[trigger]):
            raise _NotThisError("its 'clip_l' and 'clip_g' have different numbers of vectors")
        return file
    if encoders:
        family = "Flux or SD 3" if "t5xxl" in encoders else "SDXL"
        named = " and ".join(encoders)
        raise UserError(f"'{path}' is an embedding for the encoders {named} ({family}), which no model here has")
    if "emb_params" in value:
        return _made({trigger: value["emb_params"]}, said, format="kohya")
    if "string_to_param" in value:
        params = value["string_to_param"]
        if not isinstance(params, Mapping):
            raise _NotThisError("its 'string_to_param' is no dictionary of vectors")
        if ("name" in value or "step" in value or picture) and len(params) == 1:
            return _made({trigger: next(iter(params.values()))}, said, format="a1111-png" if picture else "a1111")
        starts = value.get("initial_embeddings")
        tokens = _token_ids(value.get("string_to_token"))
        return _made(params, said, starts if isinstance(starts, Mapping) else {}, tokens, format="compvis")
    if any(str(key).endswith((".weight", ".bias")) for key in value):
        raise _NotThisError("it holds weights of a network")
    starts = {key.removeprefix(_STARTS): _decoded(text) for key, text in metadata.items() if key.startswith(_STARTS)}
    kind = "safetensors" if metadata or path.suffix == ".safetensors" else "diffusers"
    return _made(value, said, starts, format=kind)


def _spoken(fields: Mapping[Any, Any]) -> dict[str, str]:
    """The text and numbers among a file's fields, under our names for them."""
    kept: dict[str, str] = {}
    inner = fields.get("metadata")
    for key, value in {**(inner if isinstance(inner, Mapping) else {}), **fields}.items():
        if isinstance(value, (str, int, float)) and isinstance(key, str) and not key.startswith(_STARTS):
            kept.setdefault(_SAID_AS.get(key, key), str(value))
    kept.pop("format", None)  # safetensors' own "pt"
    return {key: text for key, text in kept.items() if text and text != "None"}


def _made(
    vectors: Mapping[Any, Any],
    metadata: dict[str, str],
    starts: Mapping[Any, Any] | None = None,
    tokens: dict[str, int] | None = None,
    *,
    format: str,
) -> EmbeddingFile:
    """Check everything once: numbers, finite, [n, D] with one D."""
    checked = {str(name): _as_vectors(str(name), value) for name, value in vectors.items()}
    if not checked:
        raise _NotThisError("there is no placeholder in it")
    widths = {value.shape[1] for value in checked.values()}
    if len(widths) > 1:
        raise _NotThisError(f"its vectors have different widths ({', '.join(map(str, sorted(widths)))})")
    initial = {
        str(name): _as_vectors(str(name), value)
        for name, value in (starts or {}).items()
        if str(name) in checked and isinstance(value, Tensor) and value.shape[-1] in widths
    }
    return EmbeddingFile(checked, metadata, initial, tokens or {}, format)


def _as_vectors(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise _NotThisError(f"'{name[:40]}' in it is no tensor")
    value = value[None] if value.dim() == 1 else value
    if value.dim() != 2 or not value.is_floating_point() or value.numel() == 0:
        raise _NotThisError(f"'{name[:40]}' in it has the shape {list(value.shape)}, not vectors x width")
    value = value.detach().to(torch.float32, copy=True)  # out of the mapped file: it may be written anew
    if not bool(torch.isfinite(value).all()):
        raise _NotThisError(f"the vectors of '{name[:40]}' hold values that are not numbers; its training diverged")
    return value


def _token_ids(value: Any) -> dict[str, int]:
    """Token ids are plain numbers in some files and tensors of none, one or several elements in others."""
    found = {}
    for name, token in value.items() if isinstance(value, Mapping) else ():
        first = token.flatten()[:1].tolist() if isinstance(token, Tensor) else [token]
        if first and isinstance(first[0], int):
            found[str(name)] = first[0]
    return found


def _decoded(text: str) -> Tensor | None:
    """``width:base64`` -> [n, width]; None when it is damaged: a start is good to have, not needed."""
    width, _, data = text.partition(":")
    try:
        flat = torch.frombuffer(bytearray(base64.b64decode(data, validate=True)), dtype=torch.float32)
        return flat.clone().view(-1, int(width))
    except (ValueError, RuntimeError):
        return None


def _encoded(value: Tensor) -> str:
    data = value.detach().float().cpu().contiguous().numpy().astype("<f4").tobytes()
    return f"{value.shape[1]}:{base64.b64encode(data).decode()}"


def write_embedding(path: str | os.PathLike[str], file: EmbeddingFile, format: str | None = None) -> None:
    """Write learned words.

    Args:
        path: where to.
        file: what; ``dimension`` and ``trigger`` are added to its metadata.
        format: one of ``FORMATS``; by the suffix where not given: .safetensors, .pt (CompVis), .bin, .png.

    Raises:
        UserError: an unknown format or suffix, several placeholders for a format that holds one, or no space.
    """
    path = Path(path)
    checked = _made(file.vectors, file.metadata, file.initial, file.tokens, format=file.format)
    checked.second = file.second
    format = format or _BY_SUFFIX.get(path.suffix.lower())
    if file.second and format != "safetensors":
        raise UserError(f"cannot write '{path}': words for two text encoders (SDXL) go into .safetensors")
    if file.metadata.get("kind") in OF_LAYERS and format not in ("safetensors", "compvis"):
        raise UserError(f"cannot write '{path}': its format cannot say that these are words for layers of the network")
    if format not in FORMATS:
        raise UserError(
            f"cannot write '{path}': the format should be one of {', '.join(FORMATS)}, "
            f"or the suffix one of {', '.join(_BY_SUFFIX)}"
        )
    writer, suffixes = FORMATS[format]
    writer = _write_sdxl if file.second else writer
    if path.suffix.lower() not in suffixes:
        raise UserError(f"cannot write '{path}': the format '{format}' goes into {' or '.join(suffixes)}")
    names = ", ".join(checked.vectors)
    checked.metadata = {**checked.metadata, "dimension": str(checked.width), "trigger": names}
    writer(path, checked)


def _write_safetensors(path: Path, file: EmbeddingFile) -> None:
    starts = {_STARTS + name: _encoded(value) for name, value in file.initial.items()}
    save_state_dict(file.vectors, path, {"kind": "textual-inversion", **file.metadata, **starts})


def _write_compvis(path: Path, file: EmbeddingFile) -> None:
    """The original's layout, containers included: its loader expects a ParameterDict and token tensors."""
    try:
        parameters = nn.ParameterDict({name: nn.Parameter(value) for name, value in file.vectors.items()})
    except KeyError as error:  # torch keeps the names as attributes
        raise UserError(
            f"cannot write '{path}': a CompVis file takes no placeholder with a dot or called like a method of torch's "
            f"ParameterDict ({_listed(file.vectors)}); rename it, or write .safetensors"
        ) from error
    value = {
        "string_to_token": {name: torch.tensor(file.tokens.get(name, 0)) for name in file.vectors},
        "string_to_param": parameters,
        "metadata": dict(file.metadata),
    }
    write_file(value | ({"initial_embeddings": dict(file.initial)} if file.initial else {}), path)


def web_ui_fields(file: EmbeddingFile, path: object) -> dict[str, Any]:
    """What the web UI keeps of one embedding."""
    name, vectors = _only(file, path)
    steps = file.metadata.get("steps", "")
    return {
        "string_to_token": {"*": _A1111_TOKEN},
        "string_to_param": {"*": vectors},
        "name": name,
        "step": int(steps) if steps.isdecimal() else None,
        "sd_checkpoint": file.metadata.get("base_model_hash"),
        "sd_checkpoint_name": file.metadata.get("base_model"),
    }


def _only(file: EmbeddingFile, path: object) -> tuple[str, Tensor]:
    if len(file.vectors) != 1:
        raise UserError(f"cannot write '{path}': its format holds one placeholder, not {_listed(file.vectors)}")
    return next(iter(file.vectors.items()))


def _write_kohya(path: Path, file: EmbeddingFile) -> None:
    """kohya's tools call the word by the file's name; ours is kept beside as ``name``."""
    name, vectors = _only(file, path)
    if path.suffix.lower() == ".safetensors":
        save_state_dict({"emb_params": vectors}, path, {**file.metadata, "name": name})
    else:
        write_file({"emb_params": vectors, "name": name}, path)


def _write_sdxl(path: Path, file: EmbeddingFile) -> None:
    """What kohya's tools and others call an embedding for SDXL: one word, its vectors by encoder."""
    name, vectors = _only(file, path)
    save_state_dict({"clip_l": vectors, "clip_g": file.second[name]}, path, {**file.metadata, "name": name})


FORMATS: dict[str, tuple[Callable[[Path, EmbeddingFile], None], tuple[str, ...]]] = {
    "safetensors": (_write_safetensors, (".safetensors",)),
    "compvis": (_write_compvis, (".pt", ".ckpt", ".pth", ".bin")),
    "a1111": (lambda path, file: write_file(web_ui_fields(file, path), path), (".pt", ".bin")),
    "a1111-png": (lambda path, file: write_picture(path, web_ui_fields(file, path)), (".png",)),
    "diffusers": (lambda path, file: write_file(dict(file.vectors), path), (".bin", ".pt")),
    "kohya": (_write_kohya, (".safetensors", ".pt")),
}
_BY_SUFFIX = {".safetensors": "safetensors", ".pt": "compvis", ".bin": "diffusers", ".png": "a1111-png"}


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(f"'{name}'" for name in names)
