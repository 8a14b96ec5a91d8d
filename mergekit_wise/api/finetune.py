"""Fine-tuning: the first step of the recipe, from a zero-shot checkpoint to one that is worth mixing with it."""

import os
from pathlib import Path

from mergekit_wise.checkpoint import closing, refuse_overwriting, require_folder
from mergekit_wise.declaration import takes
from mergekit_wise.evaluation import joined
from mergekit_wise.models.source import open_source
from mergekit_wise.options import FinetuneOptions
from mergekit_wise.training.data import open_training_data
from mergekit_wise.training.session import Epoch, Stopped
from mergekit_wise.training.trainable import open_trainable
from mergekit_wise.training.trainer import FinetuneReport, Job

__all__ = ["Epoch", "FinetuneOptions", "FinetuneReport", "Stopped", "finetune"]


@takes(FinetuneOptions)
def finetune(request: FinetuneOptions) -> FinetuneReport:
    """Fine-tune `checkpoint` on `data` and write what comes of it to `output`, as safetensors.

    The output has the names and the metadata of the checkpoint, so that it can be mixed with it and evaluated as it
    is. It is there whole or not at all. The same seed gives the same bytes on the same machine, however often the run
    was stopped. What the options mean stands at `FinetuneOptions`; `note` hears of each epoch and of what was decided.

    Raises:
        UsageError: an option makes no sense, or an earlier run left a state that does not fit.
        CheckpointError, SuiteError: an input cannot be read.
        ModelError: no model can be made, or its head has other classes than the data.
        NonFiniteError: the loss is no longer a number; the message names the last good checkpoint.
        OutputError: a file cannot be written.
        Stopped: someone interrupted it; the same call goes on.
    """
    output, log = Path(request.output), request.log
    for path in filter(None, (output, log)):
        require_folder(path)
    # Asked for by CUDA's matrix products when they must be the same every time; read when the first is computed.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    source = open_source(request.checkpoint)
    with closing(source), joined(request.device) as (ranks, device):
        refuse_overwriting(output, tuple(file.path for file in source.files))
        dataset, remarks = open_training_data(request)
        job = Job(
            request, open_trainable(source, dataset, request), dataset, ranks, device, request.progress, request.note
        )
        for remark in (*source.notes, *remarks):
            job.remark(remark)
        return job.done()
