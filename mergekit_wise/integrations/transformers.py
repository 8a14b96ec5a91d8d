"""WiSE-FT in the Trainer of transformers."""

from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mergekit_wise.errors import UsageError
from mergekit_wise.integrations.loop import WiseFT


@dataclass(eq=False, kw_only=True)
class WiseFTCallback(WiseFT, TrainerCallback):
    """A `WiseFT` that a Trainer calls; see there for the arguments.

    What is measured is in ``trainer.state.log_history``. For TensorBoard, Weights & Biases and whatever else the
    Trainer reports to, it must know the Trainer, since transformers gives a callback no way to report::

        trainer.add_callback(WiseFTCallback(alphas=(0.3, 0.5), measure=accuracy, trainer=trainer))

    Attributes:
        trainer: the Trainer, whose ``log`` is called; None for ``log_history`` alone.
    """

    trainer: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check that mixtures can be computed. Raises UsageError under FSDP and DeepSpeed, and what `begin` raises."""
        for name in ("deepspeed", "fsdp"):
            if getattr(args, name):
                raise UsageError(
                    f"TrainingArguments({name}=...) shards the weights, so no mixture can be computed while training. "
                    "Save a full checkpoint, and use 'wise sweep' afterwards."
                )
        self.begin(kwargs["model"], state.global_step)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write or measure mixtures, unless that is done by steps."""
        if state.is_world_process_zero:
            self._report(self.after_epoch(kwargs["model"], float(state.epoch or 0), state.global_step), state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write or measure mixtures after every so many optimizer steps."""
        if state.is_world_process_zero:
            self._report(self.after_step(kwargs["model"], state.global_step, float(state.epoch or 0)), state)

    def _report(self, values: dict[str, float], state: TrainerState) -> None:
        if not values:
            return
        if self.trainer is not None:
            self.trainer.log(values)
        else:
            state.log_history.append({**values, "epoch": state.epoch, "step": state.global_step})
