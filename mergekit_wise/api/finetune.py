"""Fine-tuning: from a zero-shot checkpoint to one that is worth merging with it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Unpack

from mergekit_wise.checkpoint import closing, refuse_overwriting, require_folder
from mergekit_wise.evaluation import joined
from mergekit_wise.models.source import open_source
from mergekit_wise.options import FinetuneKeywords, FinetuneOptions
from mergekit_wise.progress import Progress, silent
from mergekit_wise.training.data import open_training_data
from mergekit_wise.training.trainable import open_trainable
from mergekit_wise.training.trainer import Epoch, FinetuneReport, Stopped, Trainer

__all__ = ["Epoch", "FinetuneOptions", "FinetuneReport", "Stopped", "finetune"]


def finetune(
    checkpoint: str | Path,
    data: str | Path,
    output: str | Path,
    *,
    progress: Progress = silent,
    note: Callable[[str], object] = str,
    **options: Unpack[FinetuneKeywords],
) -> FinetuneReport:
    """Fine-tune `checkpoint` on `data` and write the result to `output`, as safetensors.

    The output has the tensor names and the metadata of the checkpoint, so that it can be merged with it and evaluated
    as it is. It is written atomically. The same seed gives the same bytes on the same machine, however often the run
    was interrupted. `FinetuneOptions` describes the options; `note` is called with a line for each epoch and decision.

    Raises:
        UsageError: options are invalid or contradict each other, or a saved state belongs to another run.
        CheckpointError, SuiteError: an input cannot be read.
        ModelError: the checkpoint is no model that can be trained, or its head has other classes than the data.
        NonFiniteError: the loss or its gradient is not finite; the message names the last good checkpoint.
        OutputError: a file cannot be written.
        Stopped: the run was interrupted; the same call resumes it.
    """
    request = FinetuneOptions(checkpoint, data, Path(output), **options)
    for path in filter(None, (request.output, request.log)):
        require_folder(path)
    # Deterministic matrix products on CUDA need this; it is read when the first one is computed.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    source = open_source(request.checkpoint)
    with closing(source), joined(request.device) as (ranks, device):
        refuse_overwriting(request.output, tuple(file.path for file in source.files))
        dataset, notes = open_training_data(request)
        trainer = Trainer(request, open_trainable(source, dataset, request), dataset, ranks, device, progress, note)
        for text in (*source.notes, *notes):
            trainer.note(text)
        return trainer.run()
