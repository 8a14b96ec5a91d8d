"""The resumable state of a fine-tuning run, in a folder, and the file format it has.

``state.safetensors`` holds the weights, the optimizer's moments and the number of steps; ``epoch-N.safetensors`` is the
model after epoch N, an ordinary checkpoint. Reading executes no code. Knows nothing of the model.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mergekit_wise.checkpoint import BY_TORCH, Checkpoint, TensorInfo, closing, open_checkpoint, write_safetensors
from mergekit_wise.errors import CheckpointError, OutputError, UsageError
from mergekit_wise.evaluation.distributed import ALONE, Ranks
from mergekit_wise.training.loop import RunningMean
from mergekit_wise.training.optimizer import MovingAverage, OptimizerStep

WEIGHTS, AVERAGE = "weights.", "average."
"""Prefixes of the names of tensors in a state."""
KEY = "mergekit_wise_training"
"""The metadata entry of a state that holds the facts, as JSON."""


@dataclass(frozen=True, slots=True)
class Checkpointer:
    """Saves and restores the state of a run.

    Attributes:
        folder: is created on the first save.
        facts: everything that the resulting weights depend on; a state with other facts belongs to another run.
        parameters: the trained parameters, by name.
        optimizer: its moments and its number of steps are part of the state.
        average: moving averages of the weights, if any.
        chosen: what an earlier run of the same options must not choose anew, such as the precision; see `chosen_in`.
    """

    folder: Path
    facts: Mapping[str, Any]
    parameters: Mapping[str, nn.Parameter]
    optimizer: OptimizerStep
    average: MovingAverage | None = None
    chosen: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file that holds the state."""
        return self.state_in(self.folder)

    @staticmethod
    def state_in(folder: Path) -> Path:
        """Return the file in a folder that holds a state."""
        return folder / "state.safetensors"

    @staticmethod
    def chosen_in(folder: Path) -> dict[str, Any]:
        """Return what the run chose whose state a folder holds; empty without a state, or with one that has no record.

        Reads no tensor. Raises CheckpointError if the file is damaged or of another kind.
        """
        path = Checkpointer.state_in(folder)
        if not path.exists():
            return {}
        checkpoint = open_checkpoint(path)
        with closing(checkpoint):
            chosen = _facts_in(path, checkpoint).get("chosen", {})
        return chosen if isinstance(chosen, dict) else {}

    def epoch(self, number: int) -> Path:
        """Return the path of the checkpoint after `number` epochs."""
        return self.folder / f"epoch-{number}.safetensors"

    def save(self, epoch: RunningMean) -> None:
        """Write the state; call it between two steps, with the sums of the current epoch. Raises OutputError."""
        self.make_folder()
        tensors = {f"{WEIGHTS}{name}": parameter.detach() for name, parameter in self.parameters.items()}
        if self.average is not None:
            tensors |= {f"{AVERAGE}{name}": tensor for name, tensor in self.average.tensors.items()}
        facts = {
            "run": self.facts,
            "step": self.optimizer.taken,
            "epoch": asdict(epoch),
            "scaler": self.optimizer.scaler.state_dict(),
            "chosen": self.chosen,
        }
        save_state(self.path, tensors | self.optimizer.moments(), facts)

    def restore(self, ranks: Ranks = ALONE) -> RunningMean | None:
        """Load the state that process 0 finds, if there is one, in every process of `ranks`.

        It is sent to the others, so these need not see the folder; what they find there does not count. Returns the
        sums that `save` got, None if there are none.

        Raises UsageError if the state belongs to another run, CheckpointError if it is damaged; in every process.
        """
        with ranks.agreeing():
            found = load_state(self.path) if ranks.rank == 0 and self.path.exists() else None
        facts = ranks.share(None if found is None else found[1])
        if facts is None:
            return None
        tensors = ranks.share_tensors({} if found is None else found[0])
        with ranks.agreeing():
            try:
                self._require_same(facts["run"])
                self._load(tensors, facts)
                return RunningMean(**facts["epoch"]) if "epoch" in facts else None  # earlier versions did not save it
            except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                raise CheckpointError(
                    f"{self.path}: this training state is damaged ({error}). Start over with --restart."
                ) from error

    @torch.no_grad()
    def _load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[f"{WEIGHTS}{name}"])
        if self.average is not None:
            self.average.restore({name: tensors[f"{AVERAGE}{name}"] for name in self.average.tensors})
        self.optimizer.restore(facts["step"], tensors)
        self.optimizer.scaler.load_state_dict(facts["scaler"])

    def make_folder(self) -> None:
        """Create the folder. Raises OutputError."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{self.folder}: cannot create this folder: {error.strerror}. Choose another one with --state."
            ) from error

    def clear(self, keep_epochs: bool) -> None:
        """Remove the state, and the checkpoints of epochs unless `keep_epochs`; then the folder, if it is empty."""
        self.path.unlink(missing_ok=True)
        if not keep_epochs:
            for path in self.folder.glob("epoch-*.safetensors"):
                if re.fullmatch(r"epoch-\d+\.safetensors", path.name):  # others are not this tool's
                    path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty, or never created
            self.folder.rmdir()

    def weights(self) -> Mapping[str, Tensor]:
        """Return the weights that the run has produced so far: the moving averages if there are any."""
        return self.parameters if self.average is None else self.average.tensors

    def _require_same(self, before: Mapping[str, Any]) -> None:
        now = dict(self.facts)
        different = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        if different:
            listed = "; ".join(f"{key}: {before.get(key)} before, {now.get(key)} now" for key in different[:4])
            raise UsageError(
                f"{self.path}: holds the state of a run with other options ({listed}). "
                "Repeat its options to resume it, or start over with --restart."
            )


def save_state(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and facts to a safetensors file, atomically. Raises OutputError."""
    write_safetensors(path, {n: as_stored(n, t) for n, t in tensors.items()}, {KEY: json.dumps(facts, sort_keys=True)})


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_state` wrote, onto the CPU. Raises CheckpointError if the file is damaged or of another kind."""
    checkpoint = open_checkpoint(path)
    with closing(checkpoint):
        facts = _facts_in(path, checkpoint)
        tensors = {name: as_tensor(stored.info, checkpoint.read(name)) for name, stored in checkpoint.tensors.items()}
    return tensors, facts


def _facts_in(path: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    try:
        facts = json.loads(checkpoint.metadata[KEY])
    except (KeyError, ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise CheckpointError(f"{path}: not a training state. Remove it or choose another --state.")
    return facts


def as_stored(name: str, tensor: Tensor) -> tuple[TensorInfo, NDArray[np.generic]]:
    """Convert a tensor to the form that `write_safetensors` takes; the storage is a view if possible."""
    dtype = BY_TORCH[str(tensor.dtype).removeprefix("torch.")]
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    storage = flat.view(torch.uint8).numpy().view(dtype.storage)
    return TensorInfo(name, dtype, tuple(tensor.shape)), storage


def as_tensor(info: TensorInfo, storage: NDArray[np.generic]) -> Tensor:
    """Convert a stored tensor to torch; the elements are copied."""
    raw = torch.from_numpy(np.array(storage).reshape(-1).view(np.uint8))
    return raw.view(getattr(torch, info.dtype.torch)).view(info.shape)
