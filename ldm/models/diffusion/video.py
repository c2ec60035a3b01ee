"""Films: latent diffusion over all frames of a clip at once, conditioned on given frames and on how things move.

The network is that of pictures with temporal layers between its own (``ldm.modules.diffusionmodules.video_model``),
which alone learn, with what copies given frames. Sources: Blattmann et al. 2023, "Align your Latents" (temporal layers,
keyframes and what lies between them) and "Stable Video Diffusion" (first frame, motion, frames a second and
augmentation as the condition).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.checkpoint import read_state_dict
from ldm.flat_options import flat
from ldm.models.diffusion.condition import Condition, Parts, as_parts, in_rows
from ldm.models.diffusion.film_condition import IMAGE, SETTINGS, augmentation_of, film_rows
from ldm.models.diffusion.guidance import repeat_condition
from ldm.models.diffusion.loss import refuse_mask
from ldm.models.diffusion.network import Start
from ldm.models.diffusion.variants import FinetuneModel, entry_of
from ldm.modules.diffusionmodules.util import timestep_embedding, zero_module
from ldm.modules.diffusionmodules.video_model import copies, is_temporal
from ldm.modules.distributions.distributions import DiagonalGaussianDistribution
from ldm.modules.ema import LitEma
from ldm.modules.encoders.needs import Need, Needs
from ldm.moved import moved_along
from ldm.util import ConfigError, UserError

LAST_IMAGE = Need("last_image", "the last frame: pictures [B, 3, H, W] in [-1, 1]", 3)
PATH = Need("path", "where what moves is in each frame, [B, T, 4]: its middle x and y in picture sides, how far it has "
                    "turned clockwise in degrees, the logarithm of its size", instead="moved")  # fmt: skip
GIVEN = (("first",), ("first", "last"), ("first", "moved"))
FIRST_CONVOLUTION = "input_blocks.0.0.weight"


class VideoModel(FinetuneModel):
    """Films from a first frame, or between two, on a network of pictures whose own layers stay as they are.

    A batch holds ``frames`` [B, T, H, W, 3] in [-1, 1] or ``moments`` [B, T, 2C, h, w], ``fps`` and ``motion`` [B] and,
    where there are any, captions. With "moved" there are 2T frames, behind those of the film the first one, moved for
    each, and ``moved``, which is true. Rows of latents and conditions are frames, (clip, frame) with the frame fastest.

    Args:
        frames: T, of films where no number is given.
        concat_keys: the given frames, whose latents the network sees beside each: "first"; that and "last"; or that and
            "moved", the first frame moved along a path (``ldm.moved``), another one beside each frame.
        fps, motion: what a film has where nothing else is asked for.
        first_dropout: how often training shows no given frame at all, for guidance.
        last_dropout: how often training shows only the first of two given frames.
        augmentation: whether training puts noise on the given frames, and tells the network how much.
        spatial: "frozen", or "trained" to have all layers of the network learn.
        number_width: sinusoidal features of each of the numbers that the network is told: fps, motion, augmentation.
        stands_on: the weights of the model of pictures. Checkpoints of a run then hold what learned and nothing else,
            and whoever opens such a file finds the rest there.
    """

    @flat(start=Start)
    def __init__(
        self,
        concat_keys: Sequence[str] = GIVEN[0],
        frames: int = 8,
        fps: float = 7.0,
        motion: float = 127.0,
        first_dropout: float = 0.1,
        last_dropout: float = 0.0,
        augmentation: bool = True,
        spatial: Literal["frozen", "trained"] = "frozen",
        number_width: int = 64,
        stands_on: str | None = None,
        *,
        start: Start,
        **finetune: Any,
    ) -> None:
        """Raises ConfigError for values that do not fit each other; ``finetune`` are parameters of FinetuneModel."""
        super().__init__(concat_keys, **{"first_stage_key": "frames", "conditioning_key": "video", **finetune})
        if frames < 2 or self.concat_keys not in GIVEN:
            raise ConfigError("a film has 2 frames or more, of which concat_keys names [first], [first, last] or "
                              f"[first, moved]; got frames: {frames}, concat_keys: {list(concat_keys)}")  # fmt: skip
        unet = self.model.diffusion_model
        takes, has = self.channels * (1 + len(self.concat_keys)), unet.in_channels
        if takes != has:
            raise ConfigError(f"{len(concat_keys)} given frames beside {self.channels} channels make {takes}, "
                              f"but the network's in_channels are {has}")  # fmt: skip
        self.frames, self.fps, self.motion = frames, fps, motion
        self.first_dropout, self.last_dropout, self.augmentation = first_dropout, last_dropout, augmentation
        self.number_width = number_width
        self.keep_finetune_dims = self.channels
        zero_module(unet.label_emb[0][2])  # what was never trained on says nothing
        if spatial == "frozen":
            self._freeze_spatial()
            self.model_ema = LitEma(self.model, decay=self.ema_decay) if self.use_ema else None
        self.stands_on = stands_on
        if stands_on is not None:
            self.strict_loading = False
            if not next(self.parameters()).is_meta:  # else whoever loads the weights reads these as well
                self.begin(Start(ckpt_path=stands_on))
        self.begin(start)

    def _freeze_spatial(self) -> None:
        """Only the temporal layers learn, what tells them fps and motion, what copies, and the given frames' part."""
        for name, parameter in self.model.diffusion_model.named_parameters():
            parameter.requires_grad_(is_temporal(name) or name == FIRST_CONVOLUTION)
        convolution = self.model.diffusion_model.get_parameter(FIRST_CONVOLUTION)
        convolution.register_hook(self._of_given_frames)

    def _of_given_frames(self, gradient: Tensor) -> Tensor:
        """A gradient of the first convolution [C', C, 3, 3], zero for the channels that the network of pictures has."""
        return torch.cat([torch.zeros_like(gradient[:, : self.channels]), gradient[:, self.channels :]], dim=1)

    def trained_parameters(self) -> list[Any]:
        """As in the base; the first convolution without weight decay, which would reach its frozen half."""
        first = self.model.diffusion_model.get_parameter(FIRST_CONVOLUTION)
        others = [parameter for parameter in super().trained_parameters() if parameter is not first]
        return [{"params": others}, {"params": [first], "weight_decay": 0.0}]

    def part_to_save(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What of a state dict a checkpoint keeps: all, or what is not in the weights that the model stands on."""
        if self.stands_on is None:
            return state
        learned = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        return {key: value for key, value in state.items() if key in learned or key.startswith("model_ema.")}

    def init_from_ckpt(
        self, weights: str | Mapping[str, Tensor], ignore_keys: Sequence[str] = (), only_model: bool = False
    ) -> None:
        """As in the base; what weights need not have stays as it is.

        Weights of a model of pictures have no temporal layers. The file of a film model that stands on one holds only
        what learned; the rest has come from ``stands_on``.

        Raises:
            UserError: as in the base, or the weights are of a film model that is given more frames, or that copies
                what it is given where this one does not.
        """
        given, own = dict(read_state_dict(weights) if isinstance(weights, str) else weights), self.state_dict()
        if any(map(copies, given)) and not any(map(copies, own)):
            raise UserError("these weights are of a film model whose unet_config has copy_given: true")
        may_lack = {key for key in own if is_temporal(key)}
        if self.stands_on is not None and any(map(is_temporal, given)):
            learned = self.part_to_save(own)
            may_lack = {key for key in own if key not in learned or key.startswith("model_ema.")}
            if not any(map(copies, given)):
                may_lack |= {key for key in own if copies(key)}  # it begins by copying nothing
        lacking = [key for key in own if key not in given and key in may_lack]
        if any(map(is_temporal, given)):
            given |= {key: self._widened(given[key]) for key in self.finetune_keys if key in given}
            given |= {key: grown(given[key], own[key].shape) for key in own if copies(key) and key in given}
        super().init_from_ckpt(given, (*ignore_keys, *lacking), only_model)

    def _widened(self, weight: Tensor) -> Tensor:
        """The first convolution of a film model [C', C, 3, 3] for one that is given as much or more.

        The first frame as it is and moved both begin with half of what the first one did; other frames with nothing.

        Raises:
            UserError: it was given more.
        """
        own = self.model.diffusion_model.in_channels
        more = own - weight.shape[1]
        if more < 0:
            raise UserError(f"these weights are of a film model that is given more frames: {weight.shape[1]} input "
                            f"channels; concat_keys {list(self.concat_keys)} makes {own}")  # fmt: skip
        if more != self.channels or not self.shows_moved:
            return F.pad(weight, (0, 0, 0, 0, 0, more))
        half = weight[:, self.channels :] / 2
        return torch.cat([weight[:, : self.channels], half, half], dim=1)

    # ---- conditions -----------------------------------------------------------------------------------------------

    @property
    def needs(self) -> Needs:
        last = (LAST_IMAGE,) if "last" in self.concat_keys else ()
        path = (PATH,) if self.shows_moved else ()
        return Needs((IMAGE, *path), (*last, *SETTINGS), command="scripts/simple_video_sample.py")

    @property
    def shows_moved(self) -> bool:
        """Whether the network sees the first frame moved along a path."""
        return "moved" in self.concat_keys

    def condition(self, prompts: Sequence[str] | Tensor, *, size: tuple[int, int] | None = None, **given: Any) -> Parts:
        """The condition of ``len(prompts)`` films, with a row for each frame of each.

        Args:
            prompts: one a film; "" for none.
            size: (height, width) of the latents.
            given: ``image``, the first frame; where two are given also ``last_image``, without which the end is open;
                and what :attr:`needs` names besides. Noise is on the latents of the given frames.

        Raises:
            UserError: as in the base, or there are too few frames.
        """
        films = super().condition(prompts, size=size, **given)
        rows = film_rows(films, given.get("frames", self.frames), given.get("stills"))
        if self.shows_moved:
            rows["c_concat"] = [torch.cat([*rows["c_concat"], self._moved(given, len(prompts))], dim=1)]
        return rows

    @torch.no_grad()
    def _moved(self, given: Mapping[str, Any], films: int) -> Tensor:
        """The latents of the first frame as it is moved for each, [B T, C, h, w], with noise.

        Raises:
            UserError: a path has another number of films or frames, is not finite, or there is no picture.
        """
        if "moved" in given:
            return given["moved"].flatten(0, 1)
        path, frames = in_rows(given["path"], films), given.get("frames", self.frames)
        if path.shape != (films, frames, 4) or not path.isfinite().all():
            raise UserError(f"paths of {films} films of {frames} frames are {films} x {frames} x 4 finite numbers, got "
                            f"{list(path.shape)}")  # fmt: skip
        if "image" not in given:
            raise UserError("a path moves a picture: 'path' goes with 'image', and 'latents' with 'moved'")
        moved = moved_along(in_rows(given["image"], films).cpu(), path.cpu())  # the same on any device
        latents = self._latent_of(moved.flatten(0, 1)).unflatten(0, moved.shape[:2])
        if "noise" in given:
            noise = given["noise"].draw(latents.shape[1:]).to(latents)
            latents = noised(latents, noise, in_rows(given.get("cond_aug", 0.0), films).to(latents))
        return latents.flatten(0, 1)

    @torch.no_grad()
    def picture_parts(self, given: Mapping[str, Any], size: tuple[int, int] | None, rows: int) -> Parts:
        amount = in_rows(given.get("cond_aug", 0.0), rows).to(self.device, torch.float32)
        shown = given["latents"] if "latents" in given else self._shown(given, amount)
        numbers = (given.get("fps", self.fps), given.get("motion", self.motion), amount)
        told = [timestep_embedding(in_rows(n, rows).to(self.device), self.number_width) for n in numbers]
        return {"c_concat": [shown], "c_adm": torch.cat(told, dim=1)}

    def _shown(self, given: Mapping[str, Any], amount: Tensor) -> Tensor:
        """The latents of the given frames beside each other, [B, n C, h, w], with noise; zeros for one that is not."""
        first = self._latent_of(given["image"])
        others = [self._latent_of(given["last_image"]) if "last_image" in given else torch.zeros_like(first)]
        latents = torch.stack([first, *others][: self.still_frames], dim=1)
        if "noise" in given:
            noise = torch.stack([given["noise"].draw(first.shape[1:]) for _ in range(self.still_frames)], dim=1)
            latents = noised(latents, noise.to(latents), amount)
        return latents.flatten(1, 2)

    def unconditional(self, condition: Condition, negative_prompt: str = "", **given: Any) -> Parts:
        """``condition`` with another text, and without the given frames."""
        parts = as_parts(condition, self.model.conditioning_key)
        of_text = super().unconditional(condition, negative_prompt, **given) or parts
        return {**of_text, "c_concat": [torch.zeros_like(part) for part in parts["c_concat"]]}

    # ---- latents --------------------------------------------------------------------------------------------------

    def encode_first_stage(self, x: Tensor) -> Any:
        """As in the base; of films [B, 3, T, H, W] the moments of each frame, [B, T, 2C, h, w]."""
        if x.dim() == 4:
            return super().encode_first_stage(x)
        films, frames = x.shape[0], x.shape[2]
        encoded = super().encode_first_stage(x.transpose(1, 2).flatten(0, 1).contiguous())
        if isinstance(encoded, Tensor):
            return encoded
        return FilmMoments(encoded.parameters.unflatten(0, (films, frames)))

    # ---- training -------------------------------------------------------------------------------------------------

    def latents_of(self, batch: Mapping[str, Any], which: Sequence[int] | None = None) -> Tensor:
        """Scaled latents [B, n, C, h, w] of frames of a batch's clips; the means of their posteriors, float32.

        A random sample of the posterior would make what does not move flicker.
        """
        chosen = slice(None) if which is None else list(which)
        if "moments" in batch:
            moments = batch["moments"][:, chosen].to(self.device, torch.float32)
            return self.scale_factor * moments.chunk(2, dim=2)[0]
        frames = entry_of(batch, self.first_stage_key)[:, chosen].to(self.device, torch.float32)
        latents = self._latent_of(frames.flatten(0, 1).permute(0, 3, 1, 2).contiguous())
        return latents.unflatten(0, frames.shape[:2])

    def _latent_of(self, picture: Tensor) -> Tensor:
        """A scaled latent [B, C, h, w] of pictures [B, 3, H, W]."""
        encoded = self.encode_first_stage(picture.to(self.device))
        return self.get_first_stage_encoding(
            encoded.mode() if isinstance(encoded, DiagonalGaussianDistribution) else encoded
        )

    def frames_in(self, batch: Mapping[str, Any]) -> int:
        """T of a batch's films.

        Raises:
            UserError: the batch has moved frames and the network takes none, or the other way round.
        """
        if bool(torch.as_tensor(batch.get("moved", False)).any()) != self.shows_moved:
            says = "has" if self.shows_moved else "lacks"
            raise UserError(f"concat_keys {says} 'moved', unlike the clips of this data set; of the data sets here "
                            "ldm.world.film.FilmWorld has moved frames, with moved: true")  # fmt: skip
        held = len(entry_of(batch, "moments" if "moments" in batch else self.first_stage_key)[0])
        return held // 2 if self.shows_moved else held

    @torch.no_grad()
    def get_latent(self, batch: Mapping[str, Any]) -> Tensor:
        return self.latents_of(batch, range(self.frames_in(batch))).flatten(0, 1)

    def get_input(self, batch: Mapping[str, Any]) -> tuple[Tensor, Parts]:
        z = self.get_latent(batch)
        return z, self.get_condition(batch, (z.shape[-2], z.shape[-1]))

    @torch.no_grad()
    def given_by(self, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        frames = self.frames_in(batch)
        moved = range(frames, 2 * frames) if self.shows_moved else ()
        latents = self.latents_of(batch, [*(0, -1)[: self.still_frames], *moved])
        films = len(latents)
        given: dict[str, Any] = {"frames": frames}
        for name in ("fps", "motion"):
            given[name] = batch.get(name, getattr(self, name))
        if "image_only_indicator" in batch:
            given["stills"] = batch["image_only_indicator"].float()
        if self.training:
            latents, given["cond_aug"] = self._worsened(latents)
        prompts = self.get_raw_condition(batch) if self.cond_stage_key in batch else [""] * films
        still = self.still_frames
        if self.shows_moved:
            given["moved"] = latents[:, still:]
        return prompts, {**given, "latents": latents[:, :still].flatten(1, 2)}

    @property
    def still_frames(self) -> int:
        """How many of the given frames are the same beside every frame."""
        return len(self.concat_keys) - self.shows_moved

    def _worsened(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Given frames [B, n, C, h, w] with noise of some amount [B], and some of them not given at all."""
        films, device = len(latents), latents.device
        amount = augmentation_of(films, device) * float(self.augmentation)
        latents = noised(latents, torch.randn(latents.shape, device=device), amount)
        kept = torch.rand(films, 1, device=device) >= self.first_dropout
        kept = kept.expand(-1, latents.shape[1]).clone()
        kept[:, 1:] &= torch.rand(films, 1, device=device) >= self.last_dropout
        return latents * kept[..., None, None, None], amount

    def forward(
        self, x: Tensor, cond: Condition = None, mask: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss for clean latents [clips T, C, h, w], all frames of a clip at one random timestep."""
        refuse_mask(mask)
        if self.training and self.draws > 1:
            cond = repeat_condition(cond, x.shape[0], self.draws)
            x = x.repeat(self.draws, 1, 1, 1)
        frames = as_parts(cond, self.model.conditioning_key)["c_frames"].shape[1]
        t = torch.randint(*self.timestep_range, (x.shape[0] // frames,), device=x.device)
        return self.p_losses(x, cond, t.repeat_interleave(frames))


def grown(weight: Tensor, shape: Sequence[int]) -> Tensor:
    """A weight with zeros behind its last rows, columns and so on, as far as a larger shape asks."""
    more = [max(0, wide - side) for wide, side in zip(shape, weight.shape, strict=True)]
    return F.pad(weight, [end for side in reversed(more) for end in (0, side)])


class FilmMoments(NamedTuple):
    """Means and log-variances of the latents of each frame of films, [B, T, 2C, h, w]."""

    parameters: Tensor


def noised(latents: Tensor, noise: Tensor, amount: Tensor) -> Tensor:
    """Latents and noise [B, n, C, h, w], amounts [B] -> the same shape."""
    return latents + amount.reshape(-1, 1, 1, 1, 1) * noise
