"""Build a zero-shot classifier: a head from class names, and image tower and head as one checkpoint to fine-tune."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mergekit_wise.api.result_object import ResultObject
from mergekit_wise.cache import Cache
from mergekit_wise.checkpoint import (
    BY_NAME,
    Checkpoint,
    TensorInfo,
    closing,
    refuse_overwriting,
    require_folder,
    write_checkpoint,
)
from mergekit_wise.checkpoint.formats import planner_of
from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.class_names import (
    Note,
    imagenet_classnames,
    notes_on_prompts,
    read_classnames,
    read_templates,
    unheard,
)
from mergekit_wise.errors import CheckpointError, UsageError
from mergekit_wise.models.architecture import CLASSNAMES_KEY, CONFIG_KEY
from mergekit_wise.models.destinations import StorageArray, converted_tensors
from mergekit_wise.models.head_names import declared_class_names
from mergekit_wise.models.model import Model
from mergekit_wise.models.names import HEAD, TOWER
from mergekit_wise.models.opening import open_model
from mergekit_wise.models.source import open_source
from mergekit_wise.option_types import takes
from mergekit_wise.options import ZeroshotOptions
from mergekit_wise.wording import plural


@dataclass(frozen=True, slots=True, repr=False)
class ZeroShotReport(ResultObject):
    """The file that was written, the architecture with its source, class names, templates, and notes on the input."""

    output: Path
    architecture: str
    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    notes: tuple[str, ...]

    def _summary(self) -> str:
        made = f"{plural(len(self.classnames), 'class')} x {plural(len(self.templates), 'template')}"
        return f"{self.output.name}, {self.architecture}, {made}"


@takes(ZeroshotOptions)
def zeroshot(options: ZeroshotOptions) -> ZeroShotReport:
    """Write the image encoder of a checkpoint, and the head that its text encoder makes from class names.

    The encoder's bytes are the checkpoint's own, under open_clip's names (``visual.*``). The head is float32:
    ``classification_head.weight`` [C, D] and a ``bias`` [C] of zeros. The metadata holds the architecture, so that
    no later command needs --model.

    Raises:
        CheckpointError, ModelError, SuiteError, UsageError, OutputError: what is wrong, and what to do.
    """
    output = Path(options.output)
    require_folder(output)
    planner_of(output)
    notes: list[str] = []
    names, prompts = prompts_of(options, notes.append)
    notes += notes_on_prompts(names)
    from mergekit_wise.merging.torch_backend import open_device

    open_device(options.device)
    source = open_source(options.checkpoint, mmap=options.mmap)
    with closing(source):
        refuse_overwriting(output, tuple(file.path for file in source.files))
        opened = open_model(source, options.model, own_head=False, image_size=options.image_size)
        head = _head(source, opened, names, prompts, options, notes)
        metadata = {"format": "pt", CONFIG_KEY: json.dumps(opened.config), CLASSNAMES_KEY: json.dumps(list(names))}
        write_checkpoint(output, _tower(source, opened) | head, metadata)
        return ZeroShotReport(output, opened.architecture, names, prompts, (*source.notes, *notes))


def prompts_of(options: ZeroshotOptions, note: Note = unheard) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The class names and the templates of the head. Raises SuiteError, CheckpointError or UsageError."""
    given = [name for name in ("head_of", "dataset") if getattr(options, name) is not None]
    if given and options.classes != "imagenet":
        flag = given[0].replace("_", "-")
        raise UsageError(f"--classes and --{flag} both say what the classes are. Give only one of the two.")
    # The reference is what a model is fine-tuned for.
    dataset = None
    if options.dataset is not None:
        dataset = open_suite(options.dataset, options.data, keep=options.cache).datasets[0]
    for sentence in () if dataset is None else dataset.titled_notes:
        note(sentence)
    if options.head_of is not None:
        names = _names_of_head(options.head_of, mmap=options.mmap)
    else:
        names = read_classnames(options.classes, note) if dataset is None else dataset.classnames
    if options.templates is None and dataset is not None:
        return names, dataset.templates
    default = "openai" if names == imagenet_classnames() else "plain"
    return names, read_templates(options.templates or default, note)


def _names_of_head(source: str | Path, *, mmap: bool) -> tuple[str, ...]:
    checkpoint = open_source(source, mmap=mmap)
    with closing(checkpoint):
        names = declared_class_names(checkpoint)
    if names is None:
        raise CheckpointError(
            f"--head-of {source}: does not name the classes of its head. Give them with --classes FILE."
        )
    return names


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
    options: ZeroshotOptions,
    notes: list[str],
) -> Tensors:
    asked = (name for name, place in opened.destinations.items() if not place.name.startswith(TOWER))
    opened.set_weights({name: (source.info(name), source.read(name)) for name in asked})
    opened.module.to(options.device)
    cache = Cache.open(notes.append) if options.cache else None
    weight = opened.zeroshot_head(classnames, templates, options.progress, notes.append, cache).cpu().numpy()
    arrays = {f"{HEAD}weight": weight, f"{HEAD}bias": 0 * weight[:, 0]}
    return {name: (TensorInfo(name, BY_NAME["F32"], array.shape), array) for name, array in arrays.items()}
