"""Batch-norm statistics of a mixture that is being written, estimated again on images."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.errors import UsageError
from mergekit_wise.evaluation import default_workers
from mergekit_wise.evaluation.recalibration import recalibrate
from mergekit_wise.merging import KEY, Mixer
from mergekit_wise.merging.arithmetic import Scratch, encode
from mergekit_wise.merging.torch_arithmetic import open_device
from mergekit_wise.models.opening import open_model
from mergekit_wise.models.transform import Preprocess
from mergekit_wise.progress import Progress
from mergekit_wise.recipes.merge_job import Job
from mergekit_wise.suites.catalog import open_suite
from mergekit_wise.suites.dataset import Dataset
from mergekit_wise.suites.fingerprint import fingerprint


@dataclass(frozen=True, slots=True)
class Recalibration:
    """On which images, and with which architecture (None where the checkpoint tells it) on which device."""

    dataset: Dataset
    model: str | None
    device: str

    def told(self, job: Job) -> Job:
        """The job, whose output will say on which images its statistics were estimated."""
        origin = json.loads(job.metadata[KEY])
        origin["recalibrated"] = {
            "dataset": self.dataset.name,
            "images": len(self.dataset),
            "data": fingerprint(self.dataset),
        }
        return replace(job, metadata={**job.metadata, KEY: json.dumps(origin)})

    def of(self, mixer: Mixer, job: Job, progress: Progress) -> Iterator[tuple[str, NDArray[np.generic]]]:
        """Names and contents of the output's tensors that hold statistics. Raises ModelError, SuiteError."""
        model = open_model(mixer.pair.finetuned, self.model)
        steps = {step.info.name: step for step in job.steps}
        model.set_weights({name: (steps[name].info, mixer.whole(steps[name])) for name in model.names if name in steps})
        device = open_device(self.device)
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


def open_recalibration(names: str, root: Path | None, model: str | None, device: str) -> Recalibration:
    """On the one data set that `names` names; of a suite, its reference. Raises SuiteError, UsageError."""
    suite = open_suite(names, root, strict=True)
    datasets = [dataset for dataset in (suite.reference, *suite.shifts) if dataset is not None]
    if len(datasets) > 1 and suite.reference is None:
        raise UsageError(f"--recalibrate {names}: expected one data set, found {len(datasets)}.")
    return Recalibration(datasets[0], model, device)
