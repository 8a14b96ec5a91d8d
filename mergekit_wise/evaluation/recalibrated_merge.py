"""Batch-norm statistics of a mixture that is being written, estimated again on images."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.fingerprint import fingerprint
from mergekit_wise.errors import UsageError
from mergekit_wise.evaluation import default_workers
from mergekit_wise.evaluation.recalibration import batch_norms, recalibrate
from mergekit_wise.merging import KEY, Mixer, Pair, Step
from mergekit_wise.merging.arithmetic import Scratch, encode
from mergekit_wise.merging.torch_backend import open_device
from mergekit_wise.models.model import Model
from mergekit_wise.models.names import HEAD, SCALE, TEXT
from mergekit_wise.models.opening import open_model
from mergekit_wise.models.pair_notes import template
from mergekit_wise.models.transform import Preprocess
from mergekit_wise.progress import Progress


@dataclass(frozen=True, slots=True)
class Recalibration:
    """On which images, and with which model on which device; `inputs` are the tensors that its statistics hang on."""

    dataset: Dataset
    model: Model
    inputs: frozenset[str]
    device: str

    def recorded(self, metadata: Mapping[str, str]) -> dict[str, str]:
        """The output's metadata, which says on which images its statistics were estimated."""
        origin = json.loads(metadata[KEY])
        origin["recalibrated"] = {
            "dataset": self.dataset.name,
            "images": len(self.dataset),
            "data": fingerprint(self.dataset),
        }
        return {**metadata, KEY: json.dumps(origin)}

    def of(self, mixer: Mixer, plan: Sequence[Step], progress: Progress) -> Iterator[tuple[str, NDArray[np.generic]]]:
        """Names and contents of the output's tensors that hold statistics. Raises SuiteError."""
        model, device = self.model, open_device(self.device)
        steps = {step.info.name: step for step in plan}
        model.set_weights({name: (steps[name].info, mixer.whole(steps[name])) for name in self.inputs})
        names = recalibrate(
            model.module.to(device),
            Preprocess.of(model.preprocess),
            self.dataset,
            device=device,
            workers=default_workers(),
            progress=progress,
        )
        state, theirs = model.module.state_dict(), {module: name for name, module in model.names.items()}
        for name in names:
            step = steps.get(theirs.get(name, ""))
            if step is not None:
                values = state[name].cpu().numpy().reshape(-1)
                as_stored = encode(values, step.info.dtype, Scratch()) if step.info.dtype.kind == "float" else values
                yield step.info.name, as_stored


def open_recalibration(
    names: str, root: Path | None, model: str | None, device: str, pair: Pair, plan: Sequence[Step]
) -> Recalibration:
    """On the one data set that `names` names; of a suite, its reference.

    Raises SuiteError, UsageError or ModelError if the mixture could not be shown these images: all that can be known
    before anything is mixed.
    """
    suite = open_suite(names, root, strict=True)
    datasets = [dataset for dataset in (suite.reference, *suite.shifts) if dataset is not None]
    if len(datasets) > 1 and suite.reference is None:
        raise UsageError(f"--recalibrate {names}: expected one data set, found {len(datasets)}.")
    opened = open_model(template(pair), model)
    batch_norms(opened.module)
    if not opened.has_own_head:
        opened.use_head(torch.zeros(1, opened.config["model_cfg"]["embed_dim"]))  # statistics hang on no head
    inputs = {name for name, place in opened.destinations.items() if not place.name.startswith((HEAD, TEXT, SCALE))}
    if missing := sorted(inputs - {step.info.name for step in plan}):
        raise UsageError(
            f"--recalibrate {names}: needs the whole image tower, of which --only leaves out {missing[0]}. "
            "Leave one of the options out."
        )
    return Recalibration(datasets[0], opened, frozenset(inputs), device)
