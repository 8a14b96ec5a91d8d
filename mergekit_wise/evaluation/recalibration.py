"""Batch-norm statistics of a mixture, estimated again. Knows no file and no alpha."""

from collections.abc import Iterator
from contextlib import closing
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.errors import ModelError, SuiteError
from mergekit_wise.evaluation.decoding import decoded
from mergekit_wise.models.transform import Preprocess
from mergekit_wise.progress import Progress, silent

AHEAD = 4
"""Batches that are decoded before they are asked for."""


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

    Mixed weights have activations that neither source had, so mixed statistics do not describe them; torch's
    ``update_bn``, made for averaged weights, is what sets them. Returns the names of the buffers that it sets.

    Raises ModelError if there is no batch norm, SuiteError if an image cannot be read.
    """
    norms = batch_norms(module)
    update_bn(_images(preprocess, dataset, device, batch_size, workers, progress), module)
    module.eval()
    parts = ("running_mean", "running_var", "num_batches_tracked")
    return list(chain.from_iterable([f"{name}.{part}" for part in parts] for name in norms))


def batch_norms(module: nn.Module) -> list[str]:
    """Names of the parts of `module` that keep statistics. Raises ModelError if there are none."""
    norms = [name for name, part in module.named_modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    if not norms:
        raise ModelError("--recalibrate: the model has no batch-norm statistics. Leave the option out.")
    return norms


def _images(
    preprocess: Preprocess, dataset: Dataset, device: torch.device, batch_size: int, workers: int, progress: Progress
) -> Iterator[Tensor]:
    """In a fixed random order: in that of the files, a batch would hold images of one class."""
    order = np.random.default_rng(0).permutation(len(dataset))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    done = 0
    with closing(decoded(dataset, preprocess, batches, batch_size, workers=workers, hold=AHEAD)) as stream:
        for batch in stream:
            if batch.bad:
                raise SuiteError(f"{dataset.title}: {batch.bad[0][1]} Remove it, and recalibrate again.")
            pixels = torch.from_numpy(np.array(batch.pixels[: len(batch.indices)]))
            yield preprocess.normalise(pixels.to(device))
            done += len(batch.indices)
            progress("Recalibrating", done, len(dataset), "images")
