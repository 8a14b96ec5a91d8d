"""Recomputes the batch-norm statistics of a mixture on images.

Mixed weights have activations that neither model had, so the average of the two models' statistics does not describe
them.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.fingerprint import fingerprint
from mergekit_wise.datasets.subsets import with_pixel_limit
from mergekit_wise.errors import ModelError, UsageError
from mergekit_wise.evaluation.forward import autocast, place, within_memory
from mergekit_wise.evaluation.image_batches import decoded, default_workers, notes_on_bad, require_few
from mergekit_wise.merging import KEY, Mixer, Pair, Rules, TensorPlan, make_plan
from mergekit_wise.merging.arithmetic import Scratch, encode
from mergekit_wise.merging.torch_backend import open_device, send
from mergekit_wise.models.model import Model
from mergekit_wise.models.names import BIAS, HEAD, SCALE, TEXT
from mergekit_wise.models.opening import open_model
from mergekit_wise.models.pair_notes import template
from mergekit_wise.models.transform import Preprocess
from mergekit_wise.options import MergeOptions, SweepOptions
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
        max_bad: how many images may be unreadable.
        images: the decoded images, which several mixtures need.
    """

    dataset: Dataset
    model: Model
    inputs: frozenset[str]
    device: str
    max_bad: int = 0
    images: "_Kept" = field(default_factory=lambda: _Kept())

    def with_record(self, metadata: Mapping[str, str], found: "Statistics") -> dict[str, str]:
        """The metadata of a merged file, with the images and the SHA-256 of each of the tensors that were `found`."""
        origin = json.loads(metadata[KEY])
        origin["recalibrated"] = {
            "dataset": self.dataset.name,
            "images": len(self.dataset) - len(found.bad),
            "data": fingerprint(self.dataset),
            "tensors": {
                name: sha256(np.ascontiguousarray(values).data).hexdigest() for name, values in found.tensors.items()
            },
        }
        return {**metadata, KEY: json.dumps(origin)}

    def notes(self, found: "Statistics") -> list[str]:
        """What was decided when the images were opened and read."""
        return [*self.dataset.titled_notes, *notes_on_bad(self.dataset, found.bad)]

    def statistics(self, mixer: Mixer, plan: Sequence[TensorPlan], progress: Progress) -> "Statistics":
        """The statistics of a merged model. Raises SuiteError."""
        model, device = self.model, open_device(self.device)
        steps = {step.info.name: step for step in plan}
        model.set_weights({name: (steps[name].info, mixer.whole(steps[name])) for name in self.inputs})
        place(model.module, device)
        names, bad = recalibrate(
            model.module,
            Preprocess.of(model.preprocess),
            self.dataset,
            device=device,
            workers=default_workers(),
            max_bad=self.max_bad,
            progress=progress,
            kept=self.images,
        )
        state, theirs = model.module.state_dict(), {module: name for name, module in model.names.items()}
        found = {}
        for name in names:
            step = steps.get(theirs.get(name, ""))
            if step is not None:
                values = state[name].cpu().numpy().reshape(-1).copy()  # the next mixture's go into the same memory
                as_stored = encode(values, step.info.dtype, Scratch()) if step.info.dtype.kind == "float" else values
                found[step.info.name] = as_stored
        return Statistics(found, bad)


@dataclass(frozen=True, slots=True)
class Statistics:
    """The merged file's `tensors` that hold statistics, by name, flattened; and why each unreadable image is, by index.

    Unreadable images are in no average.
    """

    tensors: Mapping[str, NDArray[np.generic]]
    bad: Mapping[int, str]


def open_recalibration(options: MergeOptions | SweepOptions, pair: Pair, plan: Sequence[TensorPlan]) -> Recalibration:
    """A recalibration on the data set that ``--recalibrate`` names, or the reference of a suite.

    Raises SuiteError, UsageError or ModelError now, before anything is mixed, if the merged model cannot be run on
    these images.
    """
    names = options.recalibrate or ""
    keep = options.cache if isinstance(options, SweepOptions) else True
    suite = open_suite(names, options.data, use="recalibrate", strict=True, keep=keep)
    suite = with_pixel_limit(suite, options.max_pixels)
    datasets = [dataset for dataset in (suite.reference, *suite.shifts) if dataset is not None]
    if len(datasets) > 1 and suite.reference is None:
        raise UsageError(f"--recalibrate {names}: expected one data set, found {len(datasets)}.")
    # A model of all tensors, so that what --only leaves out is missed by its name.
    shared = pair.zeroshot.tensors.keys() & pair.finetuned.tensors.keys() if options.only else set()
    alike = [name for name in shared if pair.zeroshot.info(name).shape == pair.finetuned.info(name).shape]
    whole = replace(pair, names=tuple(dict.fromkeys([*pair.names, *alike])))
    opened = open_model(template(pair, make_plan(whole, Rules()) if options.only else plan), options.model)
    batch_norms(opened.module)
    if not opened.has_own_head:
        opened.use_head(torch.zeros(1, opened.config["model_cfg"]["embed_dim"]))  # statistics do not depend on the head
    inputs = {name for name, to in opened.destinations.items() if not to.name.startswith((HEAD, TEXT, SCALE, BIAS))}
    if missing := sorted(inputs - {step.info.name for step in plan}):
        raise UsageError(
            f"--recalibrate {names}: needs the whole image tower, but --only leaves out {missing[0]}. "
            "Give only one of the two options."
        )
    return Recalibration(datasets[0], opened, frozenset(inputs), options.device, options.max_bad)


def recalibrate(
    module: nn.Module,
    preprocess: Preprocess,
    dataset: Dataset,
    *,
    device: torch.device,
    batch_size: int = 128,
    workers: int = 0,
    max_bad: int = 0,
    progress: Progress = silent,
    kept: "_Kept | None" = None,
) -> tuple[list[str], dict[int, str]]:
    """Set the running means and variances of `module`, on `device`, to the averages over the images' batches.

    This is torch's ``update_bn``, which was made for averaged weights. Returns the names of the buffers that are set,
    and why each unreadable image is, by index. Images that `kept` holds are not decoded again.

    Raises ModelError if the module has no batch norm, or if a batch does not fit into memory, SuiteError if more than
    `max_bad` images cannot be read.
    """
    norms = batch_norms(module)
    images = _Images(preprocess, dataset, device, batch_size, workers, max_bad, progress, kept or _Kept(0))
    full = f"--recalibrate: a batch of {batch_size} images does not fit into the memory of {device}. Use --device cpu."
    with within_memory(full), autocast("fp32", device):
        update_bn(images, module)
    module.eval()
    parts = ("running_mean", "running_var", "num_batches_tracked")
    return list(chain.from_iterable([f"{name}.{part}" for part in parts] for name in norms)), images.bad


def batch_norms(module: nn.Module) -> list[str]:
    """Names of the modules in `module` that keep statistics. Raises ModelError if there are none."""
    norms = [name for name, part in module.named_modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    if not norms:
        raise ModelError("--recalibrate: the model has no batch-norm statistics. Leave the option out.")
    return norms


@dataclass(slots=True)
class _Kept:
    """Decoded images, uint8, for the next mixture: all of them, or none where they take more than `room` bytes."""

    room: int = 1 << 30
    batches: list[NDArray[np.uint8]] = field(default_factory=list)
    bad: dict[int, str] = field(default_factory=dict)
    is_complete: bool = False

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """Keep a batch if there is room for it, and else no batch at all."""
        self.room -= pixels.nbytes
        if self.room >= 0:
            self.batches.append(pixels)
        else:
            self.batches.clear()


@dataclass(frozen=True, slots=True)
class _Images:
    """Batches in a fixed random order: in the order of the files, a batch would hold images of one class."""

    preprocess: Preprocess
    dataset: Dataset
    device: torch.device
    batch_size: int
    workers: int
    max_bad: int
    progress: Progress
    kept: _Kept

    @property
    def bad(self) -> dict[int, str]:
        """Why each unreadable image is, by index."""
        return self.kept.bad

    def __iter__(self) -> Iterator[Tensor]:
        """Normalised images, float32 [n, 3, H, W], without unreadable ones, which are collected in `bad`."""
        if self.kept.is_complete:
            yield from map(self._normalised, self.kept.batches)
            return
        dataset, size, workers = self.dataset, self.batch_size, self.workers
        order = np.random.default_rng(0).permutation(len(dataset))
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        done = 0
        with closing(decoded(dataset, self.preprocess, batches, size, workers=workers, hold=_AHEAD)) as stream:
            for batch in stream:
                self.bad.update(batch.bad)
                require_few(dataset, self.bad, self.max_bad)
                good = np.flatnonzero(~np.isin(batch.indices, list(self.bad)))
                if len(good):
                    self.kept.add(pixels := batch.pixels[good])
                    yield self._normalised(pixels)
                done += len(batch.indices)
                self.progress("Recalibrating", done, len(dataset), "images")
        self.kept.is_complete = self.kept.room >= 0

    def _normalised(self, pixels: NDArray[np.uint8]) -> Tensor:
        return self.preprocess.normalise(send(torch.from_numpy(pixels), self.device))
