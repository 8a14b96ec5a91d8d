"""A checkpoint with another head: a new one of zeros for other classes, or the one from a file. Nothing is written."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.errors import ModelError
from mergekit_wise.models.architecture import CLASSNAMES_KEY, resolve_config
from mergekit_wise.models.head_files import HeadReading, in_memory, read_head
from mergekit_wise.models.names import HEAD, read_names
from mergekit_wise.models.timm_classifier import new_head_shapes


def with_new_head(source: Checkpoint, model: str | None, classnames: Sequence[str]) -> Checkpoint:
    """The checkpoint with a head of zeros for these classes in place of its own, if it has one.

    With zeros all classes are equally likely at first, whatever the seed. Raises ModelError.
    """
    resolved = resolve_config(source, model, with_text=False)
    if resolved.is_timm:
        architecture, settings = resolved.config["architecture"], resolved.config["pretrained_cfg"]
        shapes = new_head_shapes(source, architecture, settings, len(classnames))
    else:
        weight, bias = _head_names(source)
        shapes = {weight: (len(classnames), resolved.config["model_cfg"]["embed_dim"]), bias: (len(classnames),)}
    zeros = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    return _with(source, zeros, {CLASSNAMES_KEY: json.dumps(list(classnames))})


def with_head_of(source: Checkpoint, model: str | None, file: Checkpoint, reading: HeadReading) -> Checkpoint:
    """The checkpoint with the head from a file in place of its own, if it has one. Raises ModelError."""
    resolved = resolve_config(source, model, with_text=False)
    if resolved.is_timm:
        raise ModelError(f"{source.path}: a timm classifier has its own head, which --head does not replace.")
    head = read_head(file, resolved.config["model_cfg"]["embed_dim"], reading)
    names = dict(zip((f"{HEAD}weight", f"{HEAD}bias"), _head_names(source), strict=True))
    arrays = {names[name]: np.asarray(head.read(name)).reshape(head.info(name).shape) for name in head.tensors}
    changed = _with(source, arrays, head.metadata)
    return replace(changed, notes=(*changed.notes, *head.notes))


def without_head(source: Checkpoint) -> Checkpoint:
    """The checkpoint without its zero-shot head, and a note if it had one; both encoders are as they were."""
    theirs = {name for name, to in read_names(source).destinations.items() if to.name.startswith(HEAD)}
    if not theirs:
        return source
    note = (
        "the checkpoint's head is left out: training on captions changes the text encoder and names no classes; heads "
        "are made from class names again"
    )
    return replace(
        source,
        tensors={name: tensor for name, tensor in source.tensors.items() if name not in theirs},
        metadata={key: value for key, value in source.metadata.items() if key != CLASSNAMES_KEY},
        notes=(*source.notes, note),
    )


def _head_names(source: Checkpoint) -> tuple[str, str]:
    """The names of the head's weight and bias, or those that a head would get."""
    found = {to.name: name for name, to in read_names(source).destinations.items() if to.name.startswith(HEAD)}
    weight = found.get(f"{HEAD}weight", f"{HEAD}weight")
    return weight, weight.removesuffix("weight") + "bias"


def _with(source: Checkpoint, arrays: Mapping[str, NDArray[np.generic]], metadata: Mapping[str, str]) -> Checkpoint:
    kept = {key: value for key, value in source.metadata.items() if key != CLASSNAMES_KEY}
    tensors = {**source.tensors, **{name: in_memory(name, values) for name, values in arrays.items()}}
    return replace(source, tensors=tensors, metadata={**kept, **metadata})
