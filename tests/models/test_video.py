"""Films on a network of pictures: what the network is shown, what learns, and what stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ldm.checkpoint import load_model, save_state_dict
from ldm.models.diffusion.ddpm import LatentDiffusion, LatentVideoDiffusion
from ldm.models.diffusion.noise import ImageNoise
from ldm.models.diffusion.sampling import sample
from ldm.models.diffusion.video import FIRST_CONVOLUTION
from ldm.modules.diffusionmodules.video_model import copies, is_temporal
from ldm.modules.ema import LitEma
from ldm.moved import moved_along
from ldm.training.latents import encode_pictures
from ldm.util import ConfigError, UserError, instantiate_from_config
from ldm.world.film import FilmWorld
from tests.models.test_variants import SCALE, config, randomise

NUMBERS = 8


def video_config(given: int = 1, **more: Any) -> dict[str, Any]:
    unet = {"num_classes": "sequential", "adm_in_channels": 3 * NUMBERS, "video_kernel_size": [1, 3, 3],
            "use_spatial_context": True}  # fmt: skip
    node = config("LatentVideoDiffusion", 4 * (1 + given), "video", unet, number_width=NUMBERS, frames=3)
    node["params"] |= {"first_stage_key": "frames", "concat_keys": ["first", "last"][:given], **more}
    node["params"]["unet_config"]["target"] = "ldm.modules.diffusionmodules.video_model.VideoUNet"
    return node


def build(given: int = 1, **more: Any) -> LatentVideoDiffusion:
    torch.manual_seed(0)
    return instantiate_from_config(video_config(given, **more))


def batch(films: int = 2) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(1)
    frames = torch.rand(films, 3, 16, 16, 3, generator=draw) * 2 - 1
    return {"frames": frames, "txt": ["a red house", "a boat"][:films], "fps": torch.tensor([8.0, 4.0])[:films],
            "motion": torch.tensor([10.0, 200.0])[:films]}  # fmt: skip


def test_each_frame_is_shown_the_first_one_and_told_the_numbers() -> None:
    model = build()
    model.eval()
    given = batch()
    z, parts = model.get_input(given)
    assert z.shape == (6, 4, 8, 8) and parts["c_frames"].shape == (6, 3) and not parts["c_frames"].any()
    first = model.latents_of(given, [0])[:, 0]
    assert torch.equal(parts["c_concat"][0], first.repeat_interleave(3, dim=0))
    assert torch.equal(z[::3], first), "the latents of a film are the means of their posteriors"
    assert parts["c_adm"].shape == (6, 3 * NUMBERS) and torch.equal(parts["c_adm"][0], parts["c_adm"][2])
    assert not torch.equal(parts["c_adm"][0], parts["c_adm"][3])
    picture = given["frames"][:, 0].permute(0, 3, 1, 2)
    asked = model.condition(
        given["txt"], size=(8, 8), image=picture, fps=given["fps"], motion=given["motion"], frames=3
    )
    for name in ("c_concat", "c_crossattn"):
        torch.testing.assert_close(asked[name][0], parts[name][0])
    torch.testing.assert_close(asked["c_adm"], parts["c_adm"])


def test_two_given_frames() -> None:
    model, given = build(2), batch()
    model.eval()
    _, parts = model.get_input(given)
    both = model.latents_of(given, [0, -1])
    assert torch.equal(parts["c_concat"][0][1], both[0].flatten(0, 1))
    pictures = given["frames"].permute(0, 1, 4, 2, 3)
    open_end = model.condition(given["txt"], image=pictures[:, 0])
    assert not open_end["c_concat"][0][:, 4:].any() and open_end["c_concat"][0][:, :4].any()
    ends = model.condition(given["txt"], image=pictures[:, 0], last_image=pictures[:, -1])
    torch.testing.assert_close(ends["c_concat"][0], parts["c_concat"][0])


def moved_batch() -> tuple[dict[str, Any], Tensor]:
    """A batch whose frames have the first one moved behind them, and the path."""
    given, path = batch(), torch.zeros(2, 3, 4)
    path[..., :2] = 0.5
    path[:, :, 0] += torch.tensor([[0.0, 0.25, 0.5], [0.0, 0.0, -0.125]])
    first = given["frames"][:, 0].permute(0, 3, 1, 2)
    frames = torch.cat([given["frames"], moved_along(first, path).permute(0, 1, 3, 4, 2)], dim=1)
    return given | {"frames": frames, "moved": torch.ones(2, dtype=torch.bool)}, path


def test_the_first_frame_moved_along_a_path_is_shown_beside_each() -> None:
    model = build(2, concat_keys=["first", "moved"])
    model.eval()
    given, path = moved_batch()
    z, parts = model.get_input(given)
    first, moved = model.latents_of(given, [0])[:, 0], model.latents_of(given, range(3, 6))
    assert z.shape == (6, 4, 8, 8) and torch.equal(z, model.latents_of(given, range(3)).flatten(0, 1))
    shown = parts["c_concat"][0].unflatten(0, (2, 3))
    still = first[:, None].expand(-1, 3, -1, -1, -1)
    assert torch.equal(shown[:, :, :4], still) and torch.equal(shown[:, :, 4:], moved)
    assert torch.allclose(shown[:, 0, 4:], first, atol=1e-5)
    assert not torch.allclose(shown[0, 1, 4:], first[0], atol=0.1)
    picture = given["frames"][:, 0].permute(0, 3, 1, 2)
    asked = model.condition(given["txt"], size=(8, 8), image=picture, path=path, frames=3)
    torch.testing.assert_close(asked["c_concat"][0], parts["c_concat"][0])
    assert not model.unconditional(asked)["c_concat"][0].any()
    noisy = model.condition(given["txt"], image=picture, path=path, frames=3, cond_aug=0.5, noise=ImageNoise([1, 2]))
    spread = (noisy["c_concat"][0] - asked["c_concat"][0]).flatten(2).std(2)
    assert (spread > 0.2).all() and not torch.equal(noisy["c_concat"][0][0, 4:], noisy["c_concat"][0][1, 4:])
    assert model.log_images(given, N=2, ddim_steps=2)["samples"].shape == (2, 3, 16, 48)
    with pytest.raises(UserError, match="lacks 'path'"):
        model.condition(given["txt"], image=picture)
    for wrong, frames in ((path, 4), (path[:, :2], 3), (path[[0, 1, 0]], 3),
                          (path * float("nan"), 3)):  # fmt: skip
        with pytest.raises(UserError, match=rf"2 films of {frames} frames are 2 x {frames} x 4 finite numbers"):
            model.condition(given["txt"], image=picture, path=wrong, frames=frames)
    with pytest.raises(UserError, match="'latents' with 'moved'"):
        model.condition(given["txt"], latents=first, path=path, frames=3)


def test_clips_and_given_frames_must_go_together() -> None:
    given, _ = moved_batch()
    with pytest.raises(UserError, match="concat_keys has 'moved', unlike the clips"):
        build(2, concat_keys=["first", "moved"]).get_input(batch())
    with pytest.raises(UserError, match="concat_keys lacks 'moved', unlike the clips"):
        build().get_input(given)


def test_training_hides_and_worsens_moved_frames_as_well() -> None:
    model = build(2, concat_keys=["first", "moved"], first_dropout=0.5)
    model.train()
    torch.manual_seed(0)
    given, _ = moved_batch()
    clean, hidden = model.latents_of(given, range(3, 6)), 0
    for _ in range(10):
        shown = model.get_input(given)[1]["c_concat"][0].unflatten(0, (2, 3))
        noise = (shown[:, :, 4:] - clean)[shown.flatten(1).abs().sum(1) > 0]
        assert all(0.005 < film.std() < 0.4 for film in noise)
        gone = shown.flatten(1, 2).flatten(2).abs().sum(2) == 0
        assert torch.equal(gone.all(1), gone.any(1)), "all that is given, or nothing"
        hidden += int(gone.all(1).sum())
    assert 4 <= hidden <= 16


def test_weights_that_see_the_first_frame_alone_go_on_with_it_moved(tmp_path: Path) -> None:
    _, path = pictures_model(tmp_path)
    model = build(stands_on=str(path))
    for parameter in (p for p in model.parameters() if p.requires_grad):
        torch.nn.init.normal_(parameter, std=0.1)
    kept = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(kept)
    save_state_dict(dict(kept["state_dict"]), tmp_path / "film.safetensors")
    begun = {"stands_on": str(path), "ckpt_path": str(tmp_path / "film.safetensors")}
    both = build(2, concat_keys=["first", "moved"], **begun)
    averaged = build(stands_on=str(path), use_ema=True)
    averaged.load_state_dict(kept["state_dict"], strict=False)
    assert averaged.model_ema is not None
    averaged.model_ema.load_state_dict(LitEma(averaged.model).state_dict())
    save_state_dict(dict(averaged.state_dict()), tmp_path / "averaged.safetensors")
    wide = build(2, concat_keys=["first", "moved"], use_ema=True, ckpt_path=str(tmp_path / "averaged.safetensors"))
    with wide.ema_scope():
        assert wide.model.diffusion_model.get_parameter(FIRST_CONVOLUTION)[:, 8:].any(), "of the averages, too"
    before, after = (m.model.diffusion_model.get_parameter(FIRST_CONVOLUTION) for m in (model, both))
    assert torch.equal(after[:, :4], before[:, :4])
    assert torch.equal(after[:, 4:8], before[:, 4:] / 2) and torch.equal(after[:, 8:], before[:, 4:] / 2)
    save_state_dict(dict(both.state_dict()), tmp_path / "both.safetensors")
    again = build(2, concat_keys=["first", "moved"], stands_on=str(path), ckpt_path=str(tmp_path / "both.safetensors"))
    assert torch.equal(again.model.diffusion_model.get_parameter(FIRST_CONVOLUTION), after)
    ends = build(2, **begun).model.diffusion_model.get_parameter(FIRST_CONVOLUTION)
    assert torch.equal(ends[:, :8], before) and not ends[:, 8:].any(), "a last frame says nothing yet"
    with pytest.raises(UserError, match="given more frames: 12 input channels; concat_keys \\['first'\\] makes 8"):
        build(stands_on=str(path), ckpt_path=str(tmp_path / "both.safetensors"))


def test_weights_that_copy_nothing_go_on_in_a_network_that_copies(tmp_path: Path) -> None:
    _, path = pictures_model(tmp_path)
    plain = build(stands_on=str(path))
    for parameter in (p for p in plain.parameters() if p.requires_grad):
        torch.nn.init.normal_(parameter, std=0.1)
    save_state_dict(dict(plain.part_to_save(plain.state_dict())), tmp_path / "film.safetensors")
    copier = build_copier(stands_on=str(path), ckpt_path=str(tmp_path / "film.safetensors"))
    z = torch.randn(6, 4, 8, 8)
    assert torch.equal(film_outputs(copier.eval(), z, batch()), film_outputs(plain.eval(), z, batch()))
    learned = [name for name in copier.part_to_save(copier.state_dict()) if copies(name)]
    copier(*copier.get_input(batch()))[0].backward()
    assert len(learned) == 4 and copier.get_parameter(learned[2]).grad.any()  # type: ignore[union-attr]
    save_state_dict(dict(copier.part_to_save(copier.state_dict())), tmp_path / "copier.safetensors")
    with pytest.raises(UserError, match="copy_given: true"):
        build(stands_on=str(path), ckpt_path=str(tmp_path / "copier.safetensors"))


def build_copier(given: int = 1, **more: Any) -> LatentVideoDiffusion:
    node = video_config(given, **more)
    node["params"]["unet_config"]["params"]["copy_given"] = True
    torch.manual_seed(0)
    return instantiate_from_config(node)


def test_what_copies_goes_on_where_more_is_given(tmp_path: Path) -> None:
    first = build_copier(use_ema=True)
    names = [name for name, _ in first.model.named_parameters() if copies(name)]
    for parameter in map(first.model.get_parameter, names):
        torch.nn.init.normal_(parameter)
    first.model_ema = LitEma(first.model)
    save_state_dict(dict(first.state_dict()), tmp_path / "first.safetensors")
    both = build_copier(2, concat_keys=["first", "moved"], use_ema=True, ckpt_path=str(tmp_path / "first.safetensors"))
    for _ in range(2):
        for old, new in ((model.model.get_parameter(name) for model in (first, both)) for name in names):
            inside = tuple(slice(side) for side in old.shape)
            assert torch.equal(new[inside], old) and new.count_nonzero() == old.count_nonzero()
        both.model_ema.copy_to(both.model)  # type: ignore[union-attr]  # the averages, too


def test_guidance_is_away_from_no_given_frame() -> None:
    model = build()
    model.eval()
    _, parts = model.get_input(batch())
    empty = model.unconditional(parts)
    assert not empty["c_concat"][0].any() and torch.equal(empty["c_adm"], parts["c_adm"])
    assert empty["c_frames"] is parts["c_frames"]
    assert not torch.equal(empty["c_crossattn"][0], parts["c_crossattn"][0])


def test_noise_on_the_given_frame_is_the_seeds() -> None:
    model, picture = build(), torch.zeros(1, 3, 16, 16)
    model.eval()
    clean = model.condition([""], image=picture)
    noisy, again, other = (
        model.condition([""], image=picture, cond_aug=0.5, noise=ImageNoise([seed])) for seed in (1, 1, 2)
    )
    difference = noisy["c_concat"][0] - clean["c_concat"][0]
    assert torch.equal(noisy["c_concat"][0], again["c_concat"][0])
    assert not torch.equal(noisy["c_concat"][0], other["c_concat"][0])
    assert 0.3 < difference.std() < 0.7 and not torch.equal(noisy["c_adm"], clean["c_adm"])


def test_training_hides_and_worsens_the_given_frames() -> None:
    model = build(2, first_dropout=0.5, last_dropout=0.5)
    model.train()
    latents = torch.ones(400, 2, 4, 2, 2)
    torch.manual_seed(0)
    shown, amount = model._worsened(latents)
    there = shown.flatten(2).abs().sum(2) > 0
    assert 0.4 < there[:, 0].float().mean() < 0.6
    assert 0.4 < there[there[:, 0], 1].float().mean() < 0.6 and not there[~there[:, 0]].any()
    assert 0.03 < amount.median() < 0.08
    spread = (shown - 1)[there].flatten(1).std(1)
    assert torch.corrcoef(torch.stack([spread, amount[:, None].expand(-1, 2)[there]]))[0, 1] > 0.5


def test_all_frames_of_a_film_have_one_timestep(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(draws=2)
    seen: list[Tensor] = []
    monkeypatch.setattr(model, "p_losses", lambda x, cond, t: seen.append(t))
    model(*model.get_input(batch()))
    assert seen[0].shape == (12,) and all(len(set(film.tolist())) == 1 for film in seen[0].reshape(4, 3))
    assert len(set(seen[0].tolist())) > 1


def pictures_model(tmp_path: Path) -> tuple[LatentDiffusion, Path]:
    """A text-to-image model with weights, and its file."""
    torch.manual_seed(3)
    model = instantiate_from_config(config("LatentDiffusion", 4, "crossattn")).eval()
    randomise(model)
    path = tmp_path / "pictures.safetensors"
    save_state_dict(model.state_dict(), path)
    return model, path


def film_outputs(model: LatentVideoDiffusion, x: Tensor, given: dict[str, Any]) -> Tensor:
    _, parts = model.get_input(given)
    with torch.no_grad():
        return model.apply_model(x, torch.full((len(x),), 100), parts)


def test_it_begins_as_the_model_of_pictures_and_only_what_is_new_learns(tmp_path: Path) -> None:
    pictures, path = pictures_model(tmp_path)
    model = build(ckpt_path=str(path), use_ema=True)
    model.eval()
    given = batch()
    x = torch.randn(6, 4, 8, 8)
    context = pictures.condition([given["txt"][0]] * 3 + [given["txt"][1]] * 3)
    with torch.no_grad():
        alone = pictures.apply_model(x, torch.full((6,), 100), context)
    torch.testing.assert_close(film_outputs(model, x, given), alone, rtol=1e-4, atol=1e-4)

    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    optimizer = model.configure_optimizers()
    for _ in range(3):
        optimizer.zero_grad()
        loss, _ = model.shared_step(given)
        loss.backward()
        optimizer.step()
    first = "model.diffusion_model.input_blocks.0.0.weight"
    changed = {
        name for name, value in model.state_dict().items() if not torch.equal(value, before[name]) and "ema" not in name
    }
    assert first in changed and all(is_temporal(name) or name == first for name in changed)
    assert torch.equal(model.state_dict()[first][:, :4], before[first][:, :4])
    assert {name for name, _ in model.named_parameters() if "time_stack" in name and name.endswith("weight")} & changed
    learned = {name for name, p in model.model.named_parameters() if p.requires_grad}
    assert model.model_ema is not None and set(model.model_ema.shadow_names) == learned
    # frames that are pictures on their own, and no given frame: still the model of pictures
    model.eval()
    _, parts = model.get_input({**given, "image_only_indicator": torch.ones(2, 3)})
    model.model.diffusion_model.label_emb[0][2].weight.data.zero_()
    model.model.diffusion_model.label_emb[0][2].bias.data.zero_()
    with torch.no_grad():
        stills = model.apply_model(
            x, torch.full((6,), 100), {**parts, "c_concat": [torch.zeros_like(parts["c_concat"][0])]}
        )
    torch.testing.assert_close(stills, alone, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_holds_what_was_learned_and_finds_the_rest(tmp_path: Path) -> None:
    _, path = pictures_model(tmp_path)
    model = build(stands_on=str(path))
    model.eval()
    for parameter in (p for p in model.parameters() if p.requires_grad):
        torch.nn.init.normal_(parameter, std=0.1)
    kept = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(kept)
    assert all(is_temporal(key) or key.endswith("input_blocks.0.0.weight") for key in kept["state_dict"])
    film = tmp_path / "film.safetensors"
    save_state_dict(dict(kept["state_dict"]), film)
    opened: Any = load_model(video_config(stands_on=str(path)), film)
    x, given = torch.randn(6, 4, 8, 8), batch()
    torch.testing.assert_close(film_outputs(opened, x, given), film_outputs(model, x, given))
    with pytest.raises(UserError, match="nowhere"):
        load_model(video_config(stands_on=str(tmp_path / "nowhere.safetensors")), film)
    going_on = build(stands_on=str(path), ckpt_path=str(film))
    going_on.eval()
    torch.testing.assert_close(film_outputs(going_on, x, given), film_outputs(model, x, given))
    third = tmp_path / "third.safetensors"
    save_state_dict(dict(list(kept["state_dict"].items())[::3]), third)
    with pytest.raises(UserError, match="does not fit"):
        build(stands_on=str(path), ckpt_path=str(third))


def test_it_samples_films_of_any_number_of_frames() -> None:
    model = build()
    model.eval()
    randomise(model)
    parts = model.condition(["a boat"], size=(8, 8), image=torch.zeros(1, 3, 16, 16), frames=4)
    noise = ImageNoise([5]).draw((4, 4, 8, 8))[0]
    film = sample(
        model, noise, parts, steps=4, guidance_scale=torch.linspace(1, 2, 4), uncond=model.unconditional(parts)
    )
    assert film.shape == (4, 4, 8, 8) and film.isfinite().all()
    both = model.condition(["a boat", "a sea"], size=(8, 8), image=torch.zeros(2, 3, 16, 16), frames=4)
    twice = sample(model, torch.cat([noise, noise + 1]), both, steps=4)
    torch.testing.assert_close(twice[:4], sample(model, noise, parts, steps=4), rtol=1e-3, atol=1e-3)


def test_films_are_encoded_once_frame_by_frame() -> None:
    """What the cache of latents keeps of a film is what the model makes of its frames."""
    model = instantiate_from_config({"target": "ldm.models.autoencoder.AutoencoderKL", "params": {
        "embed_dim": 4, "lossconfig": {"target": "torch.nn.Identity"}, "ddconfig": {
            "double_z": True, "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32,
            "ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}}})  # fmt: skip
    video = build()
    video.first_stage_model = model.eval()
    films = [FilmWorld(length=2, frames=3, size=32)[i]["frames"] for i in range(2)]
    frames = torch.stack([torch.from_numpy(film) for film in films])
    moments = encode_pictures(frames, video, "fp32")
    assert moments.shape == (2, 3, 8, 16, 16) and moments.dtype == torch.float16
    cached = video.latents_of({"moments": moments})
    torch.testing.assert_close(cached, video.latents_of({"frames": frames}), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(cached[0, 1], SCALE * moments[0, 1, :4].float())


def test_the_world_gives_the_first_frame_moved() -> None:
    world, plain = (FilmWorld(length=4, frames=3, size=32, seed=2, moved=moved) for moved in (True, False))
    for i, film in enumerate(world.films(range(4))):
        item, frames = world[i], plain[i]["frames"]
        assert item["moved"] is True and "moved" not in plain[i] and np.array_equal(item["frames"][:3], frames)
        first = torch.from_numpy(frames[:1]).permute(0, 3, 1, 2)
        moved = moved_along(first, torch.from_numpy(film.course.path(3))[None])[0].permute(0, 2, 3, 1)
        assert np.array_equal(item["frames"][3:], moved)


def test_previews_are_strips() -> None:
    shown = build().log_images(batch(), N=2, ddim_steps=2)
    assert {name: tuple(picture.shape) for name, picture in shown.items()} == dict.fromkeys(
        ("inputs", "samples"), (2, 3, 16, 48)
    )


def test_bad_input_is_named() -> None:
    with pytest.raises(ConfigError, match="make 8, but the network's in_channels are 12"):
        build(2, concat_keys=["first"])
    with pytest.raises(ConfigError, match=r"names \[first\], \[first, last\] or \[first, moved\]"):
        build(concat_keys=["last"])
    lora = {"target": "ldm.additions.lora.trained.TrainedLora", "params": {"rank": 2}}
    with pytest.raises(ConfigError, match="reg_target: base is for models of pictures"):
        build(lora_config=lora, reg_target="base")
    with pytest.raises(UserError, match="2 frames or more, got 1"):
        build().condition([""], image=torch.zeros(1, 3, 16, 16), frames=1)
    with pytest.raises(UserError, match="lacks 'image'"):
        build().condition([""])
