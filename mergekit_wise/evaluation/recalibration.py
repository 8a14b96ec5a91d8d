"""Recomputes the batch-norm statistics of a mixture on images.

Mixed weights have activations that neither model had, so the average of the two models' statistics does not describe
them.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.fingerprint import fingerprint
from mergekit_wise.errors import ModelError, SuiteError, UsageError
from mergekit_wise.evaluation.image_batches import decoded, default_workers
from mergekit_wise.merging import KEY, Mixer, Pair, TensorPlan
from mergekit_wise.merging.arithmetic import Scratch, encode
from mergekit_wise.merging.torch_backend import open_device
from mergekit_wise.models.model import Model
from mergekit_wise.models.names import HEAD, SCALE, TEXT
from mergekit_wise.models.opening import open_model
from mergekit_wise.models.pair_notes import template
from mergekit_wise.models.transform import Preprocess
from mergekit_wise.progress import Progress, silent

_AHEAD = 4
"""Batches that are decoded in advance."""


@dataclass(frozen=True, slots=True)
class Recalibration:
    """The recalibration of merged models.

    Attributes:
        dataset: the images.
        model: a module for the merged weights.
        inputs: the checkpoint's names of the tensors that the statistics depend on.
        device: where the model computes.
    """

    dataset: Dataset
    model: Model
    inputs: frozenset[str]
    device: str

    def with_record(self, metadata: Mapping[str, str], found: Mapping[str, NDArray[np.generic]]) -> dict[str, str]:
        """The metadata of a merged file, with the images and the SHA-256 of each of the tensors that were `found`."""
        origin = json.loads(metadata[KEY])
        origin["recalibrated"] = {
            "dataset": self.dataset.name,
            "images": len(self.dataset),
            "data": fingerprint(self.dataset),
            "tensors": {name: sha256(np.ascontiguousarray(values).data).hexdigest() for name, values in found.items()},
        }
        return {**metadata, KEY: json.dumps(origin)}

    def statistics(
        self, mixer: Mixer, plan: Sequence[TensorPlan], progress: Progress
    ) -> dict[str, NDArray[np.generic]]:
        """The merged file's tensors that hold statistics, by name, flattened. Raises SuiteError."""
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
        found = {}
        for name in names:
            step = steps.get(theirs.get(name, ""))
            if step is not None:
                values = state[name].cpu().numpy().reshape(-1)
                as_stored = encode(values, step.info.dtype, Scratch()) if step.info.dtype.kind == "float" else values
                found[step.info.name] = as_stored
        return found


def open_recalibration(
    names: str, root: Path | None, model: str | None, device: str, pair: Pair, plan: Sequence[TensorPlan]
) -> Recalibration:
    """A recalibration on the data set that `names` names, or the reference of a suite.

    Raises SuiteError, UsageError or ModelError now, before anything is mixed, if the merged model cannot be run on
    these images.
    """
    suite = open_suite(names, root, part="train", strict=True)
    datasets = [dataset for dataset in (suite.reference, *suite.shifts) if dataset is not None]
    if len(datasets) > 1 and suite.reference is None:
        raise UsageError(f"--recalibrate {names}: expected one data set, found {len(datasets)}.")
    opened = open_model(template(pair), model)
    batch_norms(opened.module)
    if not opened.has_own_head:
        opened.use_head(torch.zeros(1, opened.config["model_cfg"]["embed_dim"]))  # statistics do not depend on the head
    inputs = {name for name, to in opened.destinations.items() if not to.name.startswith((HEAD, TEXT, SCALE))}
    if missing := sorted(inputs - {step.info.name for step in plan}):
        raise UsageError(
            f"--recalibrate {names}: needs the whole image tower, but --only leaves out {missing[0]}. "
            "Give only one of the two options."
        )
    return Recalibration(datasets[0], opened, frozenset(inputs), device)


def recalibrate(
    module: nn.Module,
    preprocess: Preprocess,
    dataset: Dataset,
    *,
    device: torch.device,
    batch_size: int = 128,
    workers: int = 0,
    progress: Progress = silent,
) -> list[str]:
    """Set the running means and variances of `module`, on `device`, to the averages over the images' batches.

    This is torch's ``update_bn``, which was made for averaged weights. Returns the names of the buffers that are set.

    Raises ModelError if the module has no batch norm, SuiteError if an image cannot be read.
    """
    norms = batch_norms(module)
    update_bn(_images(preprocess, dataset, device, batch_size, workers, progress), module)
    module.eval()
    parts = ("running_mean", "running_var", "num_batches_tracked")
    return list(chain.from_iterable([f"{name}.{part}" for part in parts] for name in norms))


def batch_norms(module: nn.Module) -> list[str]:
    """Names of the modules in `module` that keep statistics. Raises ModelError if there are none."""
    norms = [name for name, part in module.named_modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    if not norms:
        raise ModelError("--recalibrate: the model has no batch-norm statistics. Leave the option out.")
    return norms


def _images(
    preprocess: Preprocess, dataset: Dataset, device: torch.device, batch_size: int, workers: int, progress: Progress
) -> Iterator[Tensor]:
    """Batches in a fixed random order: in the order of the files, a batch would hold images of one class."""
    order = np.random.default_rng(0).permutation(len(dataset))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    done = 0
    with closing(decoded(dataset, preprocess, batches, batch_size, workers=workers, hold=_AHEAD)) as stream:
        for batch in stream:
            if batch.bad:
                raise SuiteError(f"{dataset.title}: {batch.bad[0][1]} Remove it, and run the command again.")
            pixels = torch.from_numpy(np.array(batch.pixels[: len(batch.indices)]))
            yield preprocess.normalise(pixels.to(device))
            done += len(batch.indices)
            progress("Recalibrating", done, len(dataset), "images")
