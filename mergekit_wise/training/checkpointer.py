"""What it takes to go on with a run of fine-tuning: its folder, and what is in it.

``state.safetensors`` holds weights, the optimiser's moments and how many steps were taken; ``epoch-N.safetensors`` is
the model after an epoch, as any other checkpoint. Knows nothing of what is learned.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mergekit_wise.errors import OutputError, UsageError
from mergekit_wise.training.loop import Run
from mergekit_wise.training.state import load_state, save_state

WEIGHTS, AVERAGE = "weights.", "average."


@dataclass(frozen=True, slots=True)
class Checkpointer:
    """Keeps the state of a run in a folder.

    Attributes:
        folder: is made when it is needed.
        facts: what the weights that come out depend on; a state with others is of another run.
        parameters: that learn, by name.
    """

    folder: Path
    facts: Mapping[str, Any]
    parameters: Mapping[str, nn.Parameter]

    @property
    def path(self) -> Path:
        """The file of the state."""
        return self.folder / "state.safetensors"

    def epoch(self, number: int) -> Path:
        """The checkpoint after `number` epochs."""
        return self.folder / f"epoch-{number}.safetensors"

    def save(self, run: Run) -> None:
        """Write the state as it is between two steps. Raises OutputError."""
        self.make()
        tensors = {f"{WEIGHTS}{name}": parameter.detach() for name, parameter in self.parameters.items()}
        if run.average is not None:
            tensors |= {f"{AVERAGE}{name}": tensor for name, tensor in run.average.tensors.items()}
        facts = {
            "run": self.facts,
            "step": run.stepper.taken,
            "scaler": run.stepper.scaler.state_dict(),
        }
        save_state(self.path, tensors | run.stepper.moments(), facts)

    @torch.no_grad()
    def restore(self, run: Run) -> None:
        """Go on from the state, if there is one. Raises UsageError if it is of another run, CheckpointError."""
        if not self.path.exists():
            return
        tensors, facts = load_state(self.path)
        self._require_same(facts["run"])
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[f"{WEIGHTS}{name}"])
        if run.average is not None:
            run.average.restore({name: tensors[f"{AVERAGE}{name}"] for name in run.average.tensors})
        run.stepper.restore(facts["step"], tensors)
        run.stepper.scaler.load_state_dict(facts["scaler"])

    def make(self) -> None:
        """Make the folder. Raises OutputError."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{self.folder}: cannot be made: {error.strerror}. Choose another with --state."
            ) from error

    def clear(self, keep_epochs: bool) -> None:
        """Remove what is no longer needed once the output is written, or before a run begins anew."""
        self.path.unlink(missing_ok=True)
        if not keep_epochs:
            for path in self.folder.glob("epoch-*.safetensors"):
                path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty, or never made
            self.folder.rmdir()

    def _require_same(self, before: Mapping[str, Any]) -> None:
        now = dict(self.facts)
        different = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        if different:
            listed = "; ".join(f"{key}: {before.get(key)} then, {now.get(key)} now" for key in different[:4])
            raise UsageError(
                f"{self.path}: holds the state of another run ({listed}). Give its options to go on with it, or "
                "--restart to begin anew."
            )
