"""Stable Diffusion XL's diffusers folders, against diffusers and transformers with the same weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from ldm.additions.base import applied
from ldm.additions.lora.trained import TrainedLora
from ldm.additions.paired_words import PairedEmbeddingManager
from ldm.additions.reading import read_additions
from ldm.checkpoint import diffusers_config, load_model
from ldm.models.diffusion.sampling import sample
from ldm.util import UserError
from tests.modules.encoders.vocabularies import bpe_size, write_bpe

WIDTHS, POOLED, NUMBER = (24, 32), 20, 8
UNET: dict[str, Any] = {
    "block_out_channels": (32, 64), "layers_per_block": 1, "sample_size": 8, "norm_num_groups": 32,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "use_linear_projection": True, "attention_head_dim": (2, 4), "transformer_layers_per_block": (1, 2),
    "addition_embed_type": "text_time", "addition_time_embed_dim": NUMBER,
}  # fmt: skip
BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def text_config(width: int, act: str, entries: int = 96) -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=3, num_attention_heads=4, vocab_size=entries,
        max_position_embeddings=77, hidden_act=act, projection_dim=POOLED, bos_token_id=entries - 2,
        eos_token_id=entries - 1, pad_token_id=0,
    )  # fmt: skip


def parts(refiner: bool = False, entries: int = 96) -> dict[str, Any]:
    """The networks of a random pipeline: unet, vae and one or two text encoders, in eval mode."""
    torch.manual_seed(0)
    context = WIDTHS[1] if refiner else sum(WIDTHS)
    vector = POOLED + (5 if refiner else 6) * NUMBER
    made: dict[str, Any] = {
        "unet": UNet2DConditionModel(
            **UNET, cross_attention_dim=context, projection_class_embeddings_input_dim=vector
        ),
        "vae": AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(32, 64), layers_per_block=1, sample_size=16, scaling_factor=0.13025,
        ),
        "text_encoder": None if refiner else CLIPTextModel(text_config(WIDTHS[0], "quick_gelu", entries)),
        "text_encoder_2": CLIPTextModelWithProjection(text_config(WIDTHS[1], "gelu", entries)),
    }  # fmt: skip
    return {name: part if part is None else part.eval() for name, part in made.items()}


def saved(folder: Path, refiner: bool = False, entries: int = 96, **index: Any) -> tuple[Path, dict[str, Any]]:
    """The folder as ``StableDiffusionXLPipeline.save_pretrained`` lays it out, and its networks."""
    made = parts(refiner, entries)
    for name, part in made.items():
        if part is not None:
            part.save_pretrained(folder / name)
    scheduler: Any = EulerDiscreteScheduler(**BETAS)
    scheduler.save_pretrained(folder / "scheduler")
    named = {"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
             "text_encoder": [None, None] if refiner else ["transformers", "CLIPTextModel"],
             "requires_aesthetics_score": refiner, "force_zeros_for_empty_prompt": not refiner}  # fmt: skip
    kind = "StableDiffusionXLImg2ImgPipeline" if refiner else "StableDiffusionXLPipeline"
    (folder / "model_index.json").write_text(json.dumps({"_class_name": kind, **named, **index}))
    return folder, made


def ids(rows: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    made = torch.randint(1, 94, (rows, 77), generator=generator)
    made[:, 0] = 94
    for row, end in enumerate((9, 30)[:rows]):
        made[row, end:] = 95
    return made


def encoded(made: dict[str, Any], tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Context and pooled vector as the pipeline's ``encode_prompt`` makes them of token ids."""
    outs = [made[name](tokens, output_hidden_states=True) for name in ("text_encoder", "text_encoder_2") if made[name]]
    return torch.cat([out.hidden_states[-2] for out in outs], dim=-1), outs[-1].text_embeds


def read_as(model: Any, tokens: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    for encoder in model.conditioner.text_encoders:
        monkeypatch.setattr(encoder, "tokenize", lambda texts, placeholders=(): tokens[[int(t) for t in texts]])


@pytest.mark.parametrize("refiner", [False, True])
@torch.no_grad()
def test_a_folder_computes_what_diffusers_computes(
    refiner: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, made = saved(tmp_path, refiner)
    model: Any = load_model(None, folder)
    read_as(model, ids(), monkeypatch)
    numbers: dict[str, Any] = {"original_size": (90, 70), "crop": (3, 5)}
    last = {"aesthetic_score": 6.0} if refiner else {"target_size": (16, 12)}
    condition = model.condition(["0", "1"], size=(8, 6), **numbers, **last)
    context, pooled = encoded(made, ids())
    torch.testing.assert_close(condition["c_crossattn"][0], context, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(condition["c_adm"][:, :POOLED], pooled, rtol=1e-4, atol=1e-5)
    generator = torch.Generator().manual_seed(2)
    x, t = torch.randn(2, 4, 8, 6, generator=generator), torch.tensor([3, 700])
    time_ids = torch.tensor([[90, 70, 3, 5, *([6.0] if refiner else [16, 12])]] * 2)
    added = {"text_embeds": pooled, "time_ids": time_ids}
    expected = made["unet"](x, t, encoder_hidden_states=context, added_cond_kwargs=added).sample
    torch.testing.assert_close(model.apply_model(x, t, condition), expected, rtol=1e-4, atol=1e-5)
    picture = made["vae"].decode(x / 0.13025).sample
    torch.testing.assert_close(model.decode_first_stage(x), picture, rtol=1e-4, atol=1e-4)
    image = torch.rand(1, 3, 16, 12, generator=generator) * 2 - 1
    moments = made["vae"].encode(image).latent_dist.parameters
    torch.testing.assert_close(model.encode_first_stage(image).parameters, moments, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_pictures_are_those_of_the_pipeline_at_the_same_timesteps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guidance against nothing (zeros), sizes, and Euler's levels, which diffusers calls "trailing".

    It begins these with sigma times the noise, not with sqrt(1 + sigma^2) times it.
    """
    folder, made = saved(tmp_path)
    scheduler: Any = EulerDiscreteScheduler(**BETAS, timestep_spacing="trailing")
    pipe: Any = StableDiffusionXLPipeline(**made, tokenizer=None, tokenizer_2=None, scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    context, pooled = encoded(made, ids(1))
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    start = noise * (1 + 1 / 14.6146**2) ** 0.5
    common = {"prompt_embeds": context, "pooled_prompt_embeds": pooled, "latents": start, "output_type": "latent"}
    theirs = pipe(
        **common, negative_prompt_embeds=torch.zeros_like(context), guidance_scale=4.0, num_inference_steps=10,
        negative_pooled_prompt_embeds=torch.zeros_like(pooled), height=16, width=16,
    ).images  # fmt: skip
    model: Any = load_model(None, folder)
    read_as(model, ids(1), monkeypatch)
    condition = model.condition(["0"], size=(8, 8))
    away = model.unconditional(condition)
    ours = sample(model, noise, condition, steps=10, sampler="euler", guidance_scale=4.0, uncond=away)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_how_it_is_sampled_comes_with_the_folder(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path / "base")
    model: Any = load_model(None, folder)
    assert model.usual == {"sampler": "euler", "steps": 30, "guidance_scale": 5.0}
    assert model.image_size == 8 and model.scale_factor == 0.13025 and model.zeroes_text
    refiner: Any = load_model(None, saved(tmp_path / "refiner", True)[0])
    assert not refiner.zeroes_text
    other = saved(tmp_path / "other", force_zeros_for_empty_prompt=False)[0]
    kept: Any = load_model(None, other)
    assert not kept.zeroes_text


@pytest.mark.parametrize(
    ("part", "changes", "sentence"),
    [
        ("scheduler", {"_class_name": "EDMEulerScheduler"}, "asks for EDMEulerScheduler"),
        ("scheduler", {"beta_schedule": "linear"}, "with 'linear' and 'epsilon'"),
        ("scheduler", {"rescale_betas_zero_snr": True}, "a last level without any signal"),
        ("vae", {"latents_mean": [0.0] * 4}, "shifted as well as scaled"),
    ],
)
def test_what_is_not_built_is_said(part: str, changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    folder, _ = saved(tmp_path)
    file = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(UserError, match=sentence):
        diffusers_config(folder)


def test_a_missing_second_encoder_is_one_sentence(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path)
    for file in (folder / "text_encoder_2").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"text_encoder_2' holds no CLIP text model"):
        load_model(None, folder)


@torch.no_grad()
@pytest.mark.parametrize("spelling", ["kohya", "kohya_sgm", "peft"])
def test_a_lora_is_read_by_diffusers_with_the_same_result(spelling: str, tmp_path: Path) -> None:
    folder, made = saved(tmp_path / "base")
    model: Any = load_model(None, folder)
    lora = TrainedLora(model, rank=2, layers="kohya", text_layers="diffusers", format=spelling)
    torch.manual_seed(4)
    for parameter in lora.learned():
        parameter.add_(0.1 * torch.randn(parameter.shape))
    lora.save(tmp_path / "lora.safetensors")
    pipe: Any = StableDiffusionXLPipeline(
        **made, tokenizer=None, tokenizer_2=None, scheduler=EulerDiscreteScheduler(**BETAS)
    )
    pipe.load_lora_weights(str(tmp_path), weight_name="lora.safetensors")
    context, pooled = encoded({name: getattr(pipe, name) for name in made}, ids())
    x, t = torch.randn(2, 4, 8, 6), torch.tensor([3, 700])
    added = {"text_embeds": pooled, "time_ids": torch.tensor([[16, 12, 0, 0, 16, 12]] * 2)}
    theirs = pipe.unet(x, t, encoder_hidden_states=context, added_cond_kwargs=added).sample
    with applied(model, [lora]):
        texts = [encoder.outputs(ids()) for encoder in model.conditioner.text_encoders]
        torch.testing.assert_close(torch.cat([out[0] for out in texts], dim=-1), context, rtol=1e-3, atol=1e-4)
        vector = torch.cat([pooled, torch.cat([model.conditioner.embedders[2](n) for n in numbers()], dim=1)], dim=1)
        ours = model.apply_model(x, t, {"c_crossattn": [context], "c_adm": vector})
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_a_word_is_read_by_diffusers_with_the_same_result(tmp_path: Path) -> None:
    """The file of a word of two vectors, ``clip_l`` and ``clip_g``, as its users load it into a pipeline."""
    vocabulary = write_bpe(tmp_path / "base" / "tokenizer")
    shutil.copytree(vocabulary, tmp_path / "base" / "tokenizer_2")
    folder, made = saved(tmp_path / "base", entries=bpe_size(vocabulary))
    model: Any = load_model(None, folder)
    word = PairedEmbeddingManager(model.conditioner, ["*"], ["cat"], num_vectors_per_token=2)
    torch.manual_seed(6)
    for parameter in word.learned():
        parameter.add_(torch.randn(parameter.shape))
    word.save(tmp_path / "word.safetensors")
    tokenizers = {name: CLIPTokenizer(vocab=str(vocabulary / "vocab.json"), merges=str(vocabulary / "merges.txt"),
                                      model_max_length=77, **padding)
                  for name, padding in (("tokenizer", {}), ("tokenizer_2", {"pad_token": "!"}))}  # fmt: skip
    pipe: Any = StableDiffusionXLPipeline(**made, **tokenizers, scheduler=EulerDiscreteScheduler(**BETAS))
    plain = pipe.encode_prompt("a red dog", do_classifier_free_guidance=False, device="cpu")
    vectors = load_file(tmp_path / "word.safetensors")
    for name, number in (("clip_l", ""), ("clip_g", "_2")):
        pipe.load_textual_inversion(
            vectors[name], token="<new>", text_encoder=getattr(pipe, f"text_encoder{number}"),
            tokenizer=getattr(pipe, f"tokenizer{number}"),
        )  # fmt: skip
    context, _, pooled, _ = pipe.encode_prompt("a red <new>", do_classifier_free_guidance=False, device="cpu")
    (read,) = read_additions(model, [f"{tmp_path / 'word.safetensors'}=<new>"])
    with applied(model, [read]):
        ours = model.condition(["a red <new>"], size=(8, 6))
    torch.testing.assert_close(ours["c_crossattn"][0], context, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours["c_adm"][:, :POOLED], pooled, rtol=1e-3, atol=1e-4)
    assert (context - plain[0]).abs().max() > 0.1


def numbers() -> list[Tensor]:
    return [torch.tensor([pair] * 2) for pair in ([16, 12], [0, 0], [16, 12])]
