"""Adapters around the BERT text encoder: they begin as nothing, learn, and travel as a small file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from ldm.checkpoint import load_weights, save_state_dict
from ldm.modules.encoders.bert import BERTEmbedder
from ldm.modules.encoders.post_BERT import AdapterBERTEmbedder, sizes_in
from ldm.training import launch
from ldm.training.adapter_files import AdapterFiles
from ldm.training.additions import AdditionFiles
from ldm.training.launch import build
from ldm.util import ConfigError, UserError, instantiate_from_config, read_yaml
from tests.helpers import golden_case
from tests.models.small_words import small_model
from tests.workflows.small_model import write_small_model

SIZES: dict[str, Any] = {"n_embed": 16, "n_layer": 1, "vocab_size": 20, "max_seq_len": 8, "use_tokenizer": False}
TOKENS = torch.arange(16).reshape(2, 8)


def pair(**options: Any) -> tuple[BERTEmbedder, AdapterBERTEmbedder]:
    torch.manual_seed(0)
    base = BERTEmbedder(**SIZES)
    adapted = AdapterBERTEmbedder(**SIZES, **options)
    load_weights(adapted, base.state_dict())
    return base.eval(), adapted.eval()


def disturb(model: AdapterBERTEmbedder) -> None:
    for parameter in model.text_adapters.parameters():
        torch.nn.init.normal_(parameter, std=0.5)


def test_untrained_adapters_change_no_bit() -> None:
    base, adapted = pair()
    assert torch.equal(base(TOKENS), adapted(TOKENS))
    manager = lambda tokens, embedded: embedded * 2  # noqa: E731
    assert torch.equal(base(TOKENS, manager), adapted(TOKENS, manager))


def test_also_after_loading_through_the_meta_device() -> None:
    base, _ = pair()
    with torch.device("meta"):
        adapted = AdapterBERTEmbedder(**SIZES)
    load_weights(adapted, base.state_dict())
    assert not any(p.is_meta for p in adapted.parameters())
    assert torch.equal(base(TOKENS), adapted.eval()(TOKENS))


def test_switched_off_they_change_no_bit_whatever_they_learned() -> None:
    base, adapted = pair()
    disturb(adapted)
    assert not torch.allclose(base(TOKENS), adapted(TOKENS))
    with adapted.without_adapters():
        assert torch.equal(base(TOKENS), adapted(TOKENS))
    assert adapted.adapters_on
    _, off = pair(adapters_on=False)
    disturb(off)
    assert torch.equal(base(TOKENS), off(TOKENS))


@pytest.mark.parametrize("part", ["adapter", "post"])
def test_each_part_learns_from_the_first_step_on(part: str) -> None:
    _, adapted = pair(adapter_dim=4 if part == "adapter" else 0, post_layers=1 if part == "post" else 0)
    target = torch.randn(2, 8, 16)
    optimizer = torch.optim.Adam(adapted.text_adapters.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = (adapted(TOKENS) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert all(p.grad is not None for p in adapted.text_adapters.parameters())


def test_in_training_they_stand_aside_for_a_share_of_the_prompts() -> None:
    base, adapted = pair(adapter_drop=0.25)
    disturb(adapted)
    tokens = torch.arange(8).repeat(400, 1)
    without, every = base(tokens), adapted(tokens)
    adapted.text_adapters.train()
    torch.manual_seed(0)
    found = adapted(tokens)
    plain = torch.tensor([torch.equal(a, b) for a, b in zip(found, without, strict=True)])
    assert 0.18 < plain.float().mean() < 0.32
    torch.testing.assert_close(found[~plain], every[~plain])
    adapted.eval()
    assert torch.equal(adapted(tokens), every)
    with pytest.raises(ConfigError, match=r"adapter_drop is a share from 0 to below 1, got 1\.0"):
        pair(adapter_drop=1.0)


def test_a_word_learns_from_the_prompts_without_them_alone() -> None:
    base, adapted = pair(adapter_drop=0.5)
    disturb(adapted)
    adapted.text_adapters.train()
    word = torch.randn(16, requires_grad=True)
    tokens = torch.arange(8).repeat(12, 1)
    put = lambda tokens, embedded: torch.where(tokens[..., None] == 3, word, embedded)  # noqa: E731
    torch.manual_seed(0)
    found, plain = adapted(tokens, put), base(tokens, put)
    aside = (found == plain).flatten(1).all(dim=1)
    assert 0 < aside.sum() < 12
    with_adapters = found[~aside].square().sum()
    assert not torch.autograd.grad(with_adapters, word, retain_graph=True)[0].any()
    grads = torch.autograd.grad(with_adapters, list(adapted.text_adapters.parameters()), retain_graph=True)
    assert all(grad.any() for grad in grads)
    (of_word,) = torch.autograd.grad(found[aside].square().sum(), word)
    torch.testing.assert_close(of_word, torch.autograd.grad(plain[aside].square().sum(), word)[0])


def test_the_empty_prompt_stays_as_it_is(tmp_path: Path) -> None:
    write_small_model(tmp_path)
    torch.manual_seed(0)
    model = AdapterBERTEmbedder(**{**SIZES, "use_tokenizer": True, "tokenizer": str(tmp_path / "vocab.txt")}).eval()
    disturb(model)
    found = model(["", "red", " "])
    with model.without_adapters():
        plain = model(["", "red", " "])
    assert torch.equal(found[[0, 2]], plain[[0, 2]])
    assert not torch.allclose(found[1], plain[1])
    assert model(TOKENS[:, :5]).shape == (2, 5, 16)  # token ids of another length


def test_a_small_file_carries_them(tmp_path: Path) -> None:
    _, adapted = pair()
    disturb(adapted)
    adapted.save_adapters(tmp_path / "a.safetensors", {"steps": "7"})
    assert all(key.startswith(("adapter.", "post.")) for key in load_file(tmp_path / "a.safetensors"))
    assert sizes_in(tmp_path / "a.safetensors") == (16, adapted.sizes)
    _, other = pair()
    other.load_adapters(tmp_path / "a.safetensors")
    assert torch.equal(adapted(TOKENS), other(TOKENS))
    _, third = pair(adapter_ckpt=str(tmp_path / "a.safetensors"))
    assert torch.equal(adapted(TOKENS), third(TOKENS))


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    _, adapted = pair()
    adapted.save_adapters(tmp_path / "a.safetensors")
    wide = AdapterBERTEmbedder(**{**SIZES, "n_embed": 32})
    with pytest.raises(UserError, match=r"made for a text encoder of width 16; this model's has 32"):
        wide.load_adapters(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="the configuration says"):
        pair(adapter_dim=5, adapter_ckpt=str(tmp_path / "a.safetensors"))
    save_state_dict({"a": torch.zeros(1)}, tmp_path / "b.safetensors")
    with pytest.raises(UserError, match="holds no adapters"):
        adapted.load_adapters(tmp_path / "b.safetensors")


def test_it_takes_the_place_of_the_encoder_in_old_checkpoints() -> None:
    case = golden_case("ti_bert")
    params = dict(case.config.embedder.params)
    model = AdapterBERTEmbedder(**params).eval()
    weights = {k.removeprefix("embedder."): v for k, v in case.weights.items() if k.startswith("embedder.")}
    report = load_weights(model, weights)
    assert not report.missing and not report.unexpected
    with torch.no_grad():
        case.assert_close("encoded_plain", model.encode(case.inputs["tokens"]))


# ---- in a diffusion model -------------------------------------------------------------------------------------------

WORDS = {"target": "ldm.modules.embedding_manager.EmbeddingManager",
         "params": {"placeholder_strings": ["square"], "initializer_words": ["circle"]}}  # fmt: skip


def diffusion(folder: Path, words: bool, **params: Any) -> Any:
    """A small model with adapters, whose network learns nothing unless it is told to."""
    write_small_model(folder)
    node = OmegaConf.load(folder / "config.yaml").model
    node.params.cond_stage_trainable = True
    node.params.cond_stage_config.target = "ldm.modules.encoders.post_BERT.AdapterBERTEmbedder"
    node.params.cond_stage_config.params.tokenizer = str(folder / "vocab.txt")
    if words:
        node.params.personalization_config = WORDS
    node.params.update(params)
    model = instantiate_from_config(node)
    load_weights(model, folder / "model.safetensors")
    return model


@pytest.mark.parametrize("words", [True, False])
def test_what_learns_in_a_diffusion_model(tmp_path: Path, words: bool) -> None:
    model = diffusion(tmp_path, words)
    added = set(model.cond_stage_model.text_adapters.parameters())
    learning = {p for p in model.parameters() if p.requires_grad}
    assert added < learning if words else added == learning
    assert len(learning) - len(added) == (1 if words else 0)
    (group,) = model.trained_parameters()
    assert set(group["params"]) == learning and len(group["params"]) == len(learning)
    batch = {"image": torch.randn(2, 32, 32, 3), "caption": ["a red square", "a blue square"]}
    loss, _ = model.shared_step(batch)
    loss.backward()
    assert all(p.grad is None for p in model.model.parameters())
    assert model.cond_stage_model.text_adapters["post"].out.weight.grad.abs().sum() > 0
    checkpoint = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(checkpoint)
    assert len(checkpoint["state_dict"]) == len(learning) + words  # and the word's start


def test_of_the_encoder_the_adapters_alone_are_in_training_mode(tmp_path: Path) -> None:
    encoder = diffusion(tmp_path, True).train().cond_stage_model
    modes = {name: module.training for name, module in encoder.named_modules()}
    assert all(training == name.startswith("text_adapters") for name, training in modes.items())
    assert not any(module.training for module in diffusion(tmp_path, True).train().eval().modules())


@pytest.mark.parametrize("words", [True, False])
def test_they_learn_at_a_rate_of_their_own(tmp_path: Path, words: bool) -> None:
    model = diffusion(tmp_path, words)
    model.cond_stage_model.added_rate = 0.25
    model.learning_rate = 8e-3
    optimizer = model.configure_optimizers()
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    added = {id(p) for p in model.cond_stage_model.text_adapters.parameters()}
    assert {id(p) for p in model.parameters() if p.requires_grad} == set(rates)
    assert all(rate == (2e-3 if which in added else 8e-3) for which, rate in rates.items())
    assert pair(adapter_lr=0.25)[1].added_rate == 0.25


def test_with_the_whole_model_learning_nothing_is_trained_twice(tmp_path: Path) -> None:
    model = diffusion(tmp_path, True, unfreeze_model=True, model_lr=1e-5)
    groups = model.trained_parameters()
    everything = [p for group in groups for p in group["params"]]
    assert len(everything) == len(set(everything))
    assert {id(p) for p in model.cond_stage_model.parameters()} <= {id(p) for p in everything}
    frozen = diffusion(tmp_path, False)
    frozen.cond_stage_model.train_adapters = False
    assert not frozen.learning.additions


def test_a_run_leaves_small_files(tmp_path: Path) -> None:
    write_small_model(tmp_path / "model")
    config = read_yaml(tmp_path / "model/config.yaml")
    del config["inference"]
    params = config.model.params
    config.model.base_learning_rate = 1e-3
    params.personalization_config = WORDS
    params.cond_stage_config.target = "ldm.modules.encoders.post_BERT.AdapterBERTEmbedder"
    params.cond_stage_config.params.tokenizer = str(tmp_path / "model/vocab.txt")
    params.ckpt_path = str(tmp_path / "model/model.safetensors")
    config.data = {"target": "main.DataModuleFromConfig", "params": {
        "batch_size": 2, "num_workers": 0,
        "train": {"target": "ldm.world.scenes.SceneWorld", "params": {"size": 32, "length": 8}}}}  # fmt: skip
    config.lightning = {
        "callbacks": {"image_logger": {"params": {"disabled": True}},
                      "adapter_files": {"target": "ldm.training.adapter_files.AdapterFiles",
                                        "params": {"every_n_steps": 2}}},
        "trainer": {"max_steps": 3, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False,
                    "log_every_n_steps": 1}}  # fmt: skip
    OmegaConf.save(config, tmp_path / "run.yaml")
    launch.main(["-t", "-l", str(tmp_path / "logs"), "-b", str(tmp_path / "run.yaml")])
    (run,) = (tmp_path / "logs").iterdir()
    files = sorted(path.name for path in run.glob("checkpoints/adapters*"))
    assert files == ["adapters.safetensors", "adapters_gs-2.safetensors"]
    assert load_file(run / "checkpoints/adapters.safetensors")["post.out.weight"].any()
    assert not torch.equal(load_file(run / "checkpoints/adapters.safetensors")["post.out.weight"],
                           load_file(run / "checkpoints/adapters_gs-2.safetensors")["post.out.weight"])  # fmt: skip


def test_saving_the_adapters_of_an_encoder_without_any(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="learns no adapters that could be saved"):
        AdapterFiles(1).on_fit_start(None, small_model(tmp_path))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 1"):
        AdapterFiles(0)
    with pytest.raises(ConfigError, match="not be negative"):
        AdditionFiles(every_n_steps=-1)


@pytest.mark.parametrize("by_name", [True, False])
def test_one_callback_writes_what_learns_and_leaves_to_another_what_that_names(tmp_path: Path, by_name: bool) -> None:
    """An older configuration asks for adapters by a callback of its own."""
    model = diffusion(tmp_path, True)
    every = build({"target": "ldm.training.words.EmbeddingSaver", "params": {"folder": str(tmp_path / "all")}})
    assert type(every) is AdditionFiles
    trainer = SimpleNamespace(
        callbacks=[every, *([AdapterFiles(2)] if by_name else [])], is_global_zero=True, global_step=2,
        lightning_module=model,
        checkpoint_callback=SimpleNamespace(dirpath=str(tmp_path / "own")), accumulate_grad_batches=1,
        fit_loop=SimpleNamespace(_should_accumulate=lambda: False),
    )  # fmt: skip
    for callback in trainer.callbacks:
        callback.on_fit_start(trainer, model)
        callback.on_train_batch_end(trainer, model, None, None, 0)
        callback.on_train_end(trainer, model)
    words, adapters = ["embeddings.pt", "embeddings.safetensors"], ["adapters.safetensors"]
    found = {folder: sorted(path.name for path in (tmp_path / folder).glob("*")) for folder in ("all", "own")}
    steps = ["adapters_gs-2.safetensors"]
    assert found == {
        "all": sorted(words if by_name else words + adapters), "own": sorted(adapters + steps) if by_name else [],
    }  # fmt: skip
