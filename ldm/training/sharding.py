"""``--strategy fsdp``: one network parted between processes, with its gradients and its optimiser (FSDP2)."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.strategies import ModelParallelStrategy
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict, set_optimizer_state_dict
from torch.distributed.fsdp import FullyShardedDataParallel, OptimStateKeyType

from ldm.training.difference import DifferenceFile
from ldm.util import ConfigError

NAMES = ("fsdp", "fsdp2", "model_parallel")
NETWORK = "model.diffusion_model"


class ShardedStrategy(ModelParallelStrategy):
    """Every process keeps its share of each block of the UNet, and gathers a block's weights while it computes.

    Processes see different batches, as with DDP, and learn the same. A checkpoint is the one file that a run without it
    writes, so that a run goes on with another number of processes, or alone.
    """

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Weights and optimiser states go to their shares, each process reading the file; the rest is returned."""
        checkpoint: dict[str, Any] = self.checkpoint_io.load_checkpoint(self.broadcast(checkpoint_path))
        assert self.model is not None and self.lightning_module is not None
        options = StateDictOptions(full_state_dict=True, strict=self.lightning_module.strict_loading)
        set_model_state_dict(self.model, checkpoint["state_dict"], options=options)
        for optimizer, state in zip(self.optimizers, checkpoint.get("optimizer_states", []), strict=False):
            named = FullyShardedDataParallel.rekey_optim_state_dict(state, OptimStateKeyType.PARAM_NAME, self.model)
            set_optimizer_state_dict(self.model, optimizer, named, options=options)
        return checkpoint


def check_sharding(trainer: pl.Trainer, model: pl.LightningModule) -> None:
    """Whether what is asked for can be had with weights in parts, where a run has them so.

    Raises:
        ConfigError: something besides the UNet learns, nothing does, or an average or a difference of it is kept.
    """
    if not isinstance(trainer.strategy, ShardedStrategy):
        return
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    beside = next((name for name in names if not name.startswith(f"{NETWORK}.")), None)
    if beside is not None or not names:
        what = f"'{beside}'" if beside else "nothing"
        raise ConfigError(f"strategy fsdp parts the UNet between processes, but here {what} learns; ddp trains that")
    if getattr(model, "model_ema", None) is not None:
        raise ConfigError("strategy fsdp keeps no average of the weights: model.params.use_ema must be false")
    if any(isinstance(callback, DifferenceFile) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        raise ConfigError("strategy fsdp writes whole checkpoints only: lightning.save must be all")
