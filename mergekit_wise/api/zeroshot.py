"""The first step of the recipe: class names become a head, and image tower and head one checkpoint to fine-tune."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mergekit_wise.checkpoint import (
    BY_NAME,
    Checkpoint,
    TensorInfo,
    closing,
    refuse_overwriting,
    require_folder,
    write_safetensors,
)
from mergekit_wise.datasets.class_names import read_classnames, read_templates
from mergekit_wise.merging.torch_backend import open_device
from mergekit_wise.models.destinations import StorageArray, converted_tensors
from mergekit_wise.models.model import Model
from mergekit_wise.models.names import HEAD, TOWER
from mergekit_wise.models.opening import open_model
from mergekit_wise.models.resolved_config import CLASSNAMES_KEY, CONFIG_KEY
from mergekit_wise.models.source import open_source
from mergekit_wise.progress import Progress, silent

IMAGENET = "imagenet"
TEMPLATES = {"openai": "imagenet"}
"""What templates are called here, where the data sets know them by another name."""


@dataclass(frozen=True, slots=True)
class ZeroShotReport:
    """What was written: the file, the architecture and who told it, class names, templates, notes on the source."""

    output: Path
    architecture: str
    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    notes: tuple[str, ...]


def zeroshot(
    checkpoint: str | Path,
    output: Path,
    *,
    classes: str | Path | Sequence[str] = IMAGENET,
    templates: str | Path | Sequence[str] | None = None,
    model: str | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> ZeroShotReport:
    """Write the image tower of `checkpoint`, and the head that its text tower makes of class names.

    The tower's bytes are the checkpoint's own, under open_clip's names (``visual.*``). The head is float32:
    ``classification_head.weight`` [C, D] and a ``bias`` [C] of zeros. The metadata holds the architecture, so that
    nothing else that reads the file needs to be told.

    Args:
        checkpoint: with both towers.
        output: the safetensors file to write.
        classes: ``imagenet``, a file with one name a line, or the names.
        templates: ``openai`` (80), ``simple`` (7), a file with one a line, or the templates, with {} for the name. By
            default openai's for ``imagenet``, else "a photo of a {}.".
        model: the architecture, where the checkpoint does not say it.
        device: where the text tower runs.
        progress: called as work goes on.

    Raises:
        CheckpointError, ModelError, SuiteError, UsageError, OutputError: what is wrong, and what to do.
    """
    require_folder(output)
    names = read_classnames(classes)
    if templates is None:
        templates = "imagenet" if classes == IMAGENET else "plain"
    prompts = read_templates(TEMPLATES.get(templates, templates) if isinstance(templates, str) else templates)
    open_device(device)
    source = open_source(checkpoint)
    with closing(source):
        refuse_overwriting(output, tuple(file.path for file in source.files))
        opened = open_model(source, model, own_head=False)
        tensors = _tower(source, opened) | _head(source, opened, names, prompts, device, progress)
        metadata = {"format": "pt", CONFIG_KEY: json.dumps(opened.config), CLASSNAMES_KEY: json.dumps(list(names))}
        write_safetensors(output, tensors, metadata)
        return ZeroShotReport(output, opened.architecture, names, prompts, source.notes)


Tensors = dict[str, tuple[TensorInfo, StorageArray]]


def _tower(source: Checkpoint, opened: Model) -> Tensors:
    return converted_tensors(
        source, {name: to for name, to in opened.destinations.items() if to.name.startswith(TOWER)}
    )


def _head(
    source: Checkpoint,
    opened: Model,
    classnames: Sequence[str],
    templates: Sequence[str],
    device: str,
    progress: Progress,
) -> Tensors:
    asked = (name for name, place in opened.destinations.items() if not place.name.startswith(TOWER))
    opened.set_weights({name: (source.info(name), source.read(name)) for name in asked})
    opened.module.to(device)
    weight = opened.zeroshot_head(classnames, templates, progress).cpu().numpy()
    arrays = {f"{HEAD}weight": weight, f"{HEAD}bias": 0 * weight[:, 0]}
    return {name: (TensorInfo(name, BY_NAME["F32"], array.shape), array) for name, array in arrays.items()}
