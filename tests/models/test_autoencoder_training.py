"""Autoencoders under Lightning: a few steps lower the loss, with and without a discriminator."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from ldm.models.autoencoder import AutoencoderKL, VQModel
from ldm.training.checkpoints import between_updates
from ldm.util import MissingPartError

DDCONFIG: dict[str, Any] = {
    "double_z": True, "z_channels": 4, "resolution": 16, "in_channels": 3, "out_ch": 3, "ch": 32,
    "ch_mult": [1, 1], "num_res_blocks": 1,
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
PLAIN = {"target": "ldm.modules.losses.ReconstructionLoss"}
DISCRIMINATOR = {"disc_start": 4, "perceptual_weight": 0.0, "disc_num_layers": 1, "disc_ndf": 8, "disc_weight": 0.1}
KL_GAN = {"target": "ldm.modules.losses.LPIPSWithDiscriminator", "params": {**DISCRIMINATOR, "kl_weight": 1e-6}}
VQ_GAN = {"target": "taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator", "params": DISCRIMINATOR}


class Record(pl.Callback):
    """Keeps what was logged after every training batch."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.steps.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    def of(self, name: str) -> list[float]:
        return [step[name] for step in self.steps]


def pictures() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(8, 3, 4, 4, generator=generator) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=16, mode="bilinear").movedim(1, -1)


def kl(loss: dict[str, Any], **options: Any) -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(ddconfig=DDCONFIG, lossconfig=loss, embed_dim=4, **options)


def vq(loss: dict[str, Any], **options: Any) -> VQModel:
    torch.manual_seed(0)
    ddconfig = {**DDCONFIG, "double_z": False}
    return VQModel(ddconfig=ddconfig, lossconfig=loss, n_embed=16, embed_dim=4, **options)


def train(model: Any, tmp_path: Path, steps: int = 12, rate: float = 1e-3) -> tuple[Record, pl.Trainer]:
    record = Record()
    batches: Any = [{"image": pictures()}] * steps  # the Trainer takes any list
    model.learning_rate = rate
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[record], default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(model, DataLoader(batches, batch_size=None), DataLoader(batches[:1], batch_size=None))
    return record, trainer


def test_plain_loss_trains_with_one_optimiser(tmp_path: Path) -> None:
    record, trainer = train(kl(PLAIN), tmp_path)
    losses = record.of("train/rec_loss")
    assert losses[-1] < 0.75 * losses[0]
    assert trainer.global_step == 12
    assert {"val/rec_loss", "val/psnr", "val/kl_loss", "val/total_loss"} <= set(trainer.callback_metrics)


def test_a_discriminator_joins_at_its_batch(tmp_path: Path) -> None:
    model = kl(KL_GAN)
    before = [p.detach().clone() for p in model.loss.discriminator.parameters()]
    record, trainer = train(model, tmp_path)
    losses = record.of("train/rec_loss")
    assert losses[-1] < 0.85 * losses[0]
    counts = [value > 0 for value in record.of("train/disc_factor")]
    assert counts == [batch >= 4 for batch in range(12)]
    assert min(record.of("train/d_weight")[4:]) > 0
    discriminator = record.of("train/disc_loss")
    assert discriminator[3] == 0 and discriminator[-1] < discriminator[4]
    assert any(not torch.equal(a, b) for a, b in zip(before, model.loss.discriminator.parameters(), strict=True))
    assert model.batches_seen == 12 and trainer.global_step == 24
    assert {"val/rec_loss", "val/disc_loss", "val/nll_loss", "val/logvar"} <= set(trainer.callback_metrics)
    assert all(p.requires_grad for p in model.parameters())


def test_vq_model_trains_by_tamings_loss_name(tmp_path: Path) -> None:
    record, _ = train(vq(VQ_GAN), tmp_path)
    losses = record.of("train/rec_loss")
    assert min(losses[-4:]) < 0.9 * losses[0]
    assert record.of("train/quant_loss")[0] > 0


def test_the_average_follows_the_weights_and_is_put_back(tmp_path: Path) -> None:
    model = kl(PLAIN, ema_decay=0.9)
    weight = model.encoder.conv_in.weight
    start = weight.detach().clone()
    _, trainer = train(model, tmp_path, steps=4)
    assert "val_ema/rec_loss" in trainer.callback_metrics
    own = weight.detach().clone()
    with model.ema_scope():
        averaged = weight.detach().clone()
    assert torch.equal(weight, own)
    with pytest.raises(ZeroDivisionError), model.ema_scope():
        raise ZeroDivisionError
    assert torch.equal(weight, own), "after an error, too"
    assert 0 < (averaged - start).norm() < (own - start).norm()


def test_learning_rate_schedule_and_factor_reach_both_optimisers(tmp_path: Path) -> None:
    schedule = {"target": "ldm.lr_scheduler.LambdaLinearScheduler", "params": {
        "warm_up_steps": [10], "cycle_lengths": [1000], "f_start": [0.0], "f_max": [1.0], "f_min": [1.0]}}
    model = kl(KL_GAN, scheduler_config=schedule, lr_g_factor=2.0)
    _, trainer = train(model, tmp_path, steps=5)
    autoencoder, discriminator = (optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers)
    assert autoencoder == pytest.approx(2e-3 * 0.5)
    assert discriminator == pytest.approx(1e-3 * 0.5)


def test_learned_log_variance_moves_and_otherwise_stays(tmp_path: Path) -> None:
    fixed, learned = kl(KL_GAN), kl(KL_GAN, learn_logvar=True)
    train(fixed, tmp_path, steps=2)
    train(learned, tmp_path, steps=2)
    assert fixed.loss.logvar.item() == 0.0
    assert learned.loss.logvar.item() != 0.0


def test_a_missing_perceptual_network_is_told_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)  # as if it were not installed
    loss = {"target": KL_GAN["target"], "params": {"disc_start": 4, "disc_ndf": 8, "disc_num_layers": 1}}
    model = kl(loss)
    assert not any("perceptual" in name for name in model.state_dict())
    record = Record()
    with pytest.raises(MissingPartError, match="perceptual_weight: 0"):
        train(model, tmp_path, steps=1)
    assert not record.steps


def test_batches_are_resized_within_the_range() -> None:
    model = vq(PLAIN, batch_resize_range=[16, 48])
    x = pictures().movedim(-1, 1)
    assert model.resized(x).shape[2:] == (48, 48)
    assert vq(PLAIN).resized(x) is x


def test_log_images_shows_inputs_reconstructions_and_samples() -> None:
    batch = {"image": pictures()}
    shown = kl(PLAIN, ema_decay=0.9).log_images(batch, split="val")
    assert set(shown) == {"inputs", "reconstructions", "reconstructions_ema", "samples"}
    assert all(image.shape == (8, 3, 16, 16) for image in shown.values())
    assert set(vq(PLAIN).log_images(batch, only_inputs=True)) == {"inputs"}


def test_label_maps_are_shown_in_colours() -> None:
    ddconfig = {**DDCONFIG, "in_channels": 5, "out_ch": 5}
    model = AutoencoderKL(ddconfig=ddconfig, lossconfig=PLAIN, embed_dim=4, colorize_nlabels=5)
    shown = model.log_images({"image": torch.rand(2, 16, 16, 5)})
    assert shown["inputs"].shape == (2, 3, 16, 16)
    assert shown["inputs"].min() == -1 and shown["inputs"].max() == 1


def test_gradients_of_several_batches_are_added_up(tmp_path: Path) -> None:
    """Lightning itself does not where a discriminator takes turns; the last batches of an epoch are an update, too."""
    model = kl(KL_GAN)
    model.accumulate_grad_batches = 2
    weights, complete = [model.encoder.conv_in.weight.detach().clone()], []

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            weights.append(model.encoder.conv_in.weight.detach().clone())
            complete.append(between_updates(trainer))

    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, callbacks=[Look()],
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    batches: Any = [{"image": pictures()}] * 5
    trainer.fit(model, DataLoader(batches, batch_size=None))
    assert complete == [False, True, False, True, True]
    assert [not torch.equal(a, b) for a, b in pairwise(weights)] == complete
    assert trainer.global_step == 2 * 3 and model.batches_seen == 3
