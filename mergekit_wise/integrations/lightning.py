"""WiSE-FT in the Trainer of Lightning."""

from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from mergekit_wise.errors import UsageError
from mergekit_wise.integrations.loop import WiseFT


@dataclass(eq=False, kw_only=True)
class WiseFTCallback(WiseFT, Callback):
    """A `WiseFT` that Lightning's Trainer calls; see there for the arguments.

    What is measured goes to every logger of the Trainer, after an epoch by ``pl_module.log_dict``. Set ``part`` to the
    name of the network within the LightningModule, such as ``"model"``, to mix it alone, under its own names.
    """

    _last: int = field(default=0, init=False, repr=False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that mixtures can be computed. Raises UsageError if weights are sharded, and what `begin` raises."""
        if isinstance(trainer.strategy, DeepSpeedStrategy | FSDPStrategy | ModelParallelStrategy):
            raise UsageError(
                f"{type(trainer.strategy).__name__} shards the weights, so no mixture can be computed while training. "
                "Save a full checkpoint, and use 'wise sweep' afterwards."
            )
        self._last = trainer.global_step
        self.begin(pl_module, trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write or measure mixtures, unless that is done by steps."""
        if trainer.is_global_zero:
            values = self.after_epoch(pl_module, trainer.current_epoch + 1, trainer.global_step)
            pl_module.log_dict(values, rank_zero_only=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write or measure mixtures after every so many optimizer steps."""
        if trainer.global_step == self._last or not trainer.is_global_zero:  # gradients are being accumulated
            return
        self._last = trainer.global_step
        batches = trainer.num_training_batches
        share = (batch_idx + 1) / batches if isfinite(batches) else 0
        values = self.after_step(pl_module, trainer.global_step, trainer.current_epoch + share)
        if values:
            for logger in trainer.loggers:  # log_dict would repeat the numbers after each further step of the epoch
                logger.log_metrics(values, step=trainer.global_step)
