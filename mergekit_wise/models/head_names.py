"""The names of a head's classes, where a checkpoint or a file next to it declares them. Imports no torch."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.checkpoint.bounded_json import parse_json
from mergekit_wise.errors import MismatchError
from mergekit_wise.merging.movement import head_names
from mergekit_wise.models.architecture import CLASSNAMES_KEY, TIMM_KEY, weights_folder
from mergekit_wise.wording import listed

_MAX_JSON_BYTES = 1 << 24
_NAMES_FILE = "classnames.txt"
"""One name per line, as clip-benchmark has it next to its data."""


def declared_class_names(checkpoint: Checkpoint) -> tuple[str, ...] | None:
    """The names of the head's classes: from the metadata, timm's configuration, or the files next to the weights.

    Next to the weights these are Hugging Face's ``id2label`` and timm's ``label_names`` in config.json, or
    classnames.txt. None if nothing declares them, or if all are mere numbers (``LABEL_0``).
    """
    names = _of_metadata(checkpoint.metadata) or _of_folder(weights_folder(checkpoint))
    if names is None:
        return None
    from mergekit_wise.datasets.name_matching import are_numbers

    return None if are_numbers(names) else names


def with_declared_names(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with its declared names in its metadata, which merged files inherit."""
    if CLASSNAMES_KEY in checkpoint.metadata:
        if _names(_parsed(checkpoint.metadata[CLASSNAMES_KEY].encode())) is None:
            note = f"its metadata entry {CLASSNAMES_KEY!r} is no list of names, and is not used"
            return replace(checkpoint, notes=(*checkpoint.notes, note))
        return checkpoint
    names = declared_class_names(checkpoint)
    if names is None:
        return checkpoint
    return replace(checkpoint, metadata={**checkpoint.metadata, CLASSNAMES_KEY: json.dumps(list(names))})


def with_one_order(zeroshot: Checkpoint, finetuned: Checkpoint, mixed: frozenset[str], *, can_keep: bool) -> Checkpoint:
    """The zero-shot checkpoint with the rows of its head in the order of the fine-tuned one's classes; a note says so.

    `mixed` are the tensors of which the output takes a part from both. Raises MismatchError if a head among them has
    other classes than the other checkpoint's, since rows of different classes would be mixed; it proposes --keep where
    the command has it (`can_keep`).
    """
    first, second = declared_class_names(zeroshot), declared_class_names(finetuned)
    heads = [name for name in head_names(finetuned) if name in zeroshot.tensors and name in finetuned.tensors]
    if first is None or second is None or not heads or first == second:
        return zeroshot
    shapes = {checkpoint.info(name).shape[0] for name in heads for checkpoint in (zeroshot, finetuned)}
    if shapes != {len(first)} or len(first) != len(second):
        return zeroshot  # of other heads than those that are named, or a mismatch of shapes
    from mergekit_wise.checkpoint.derived import rows, stacked  # what heads with the same names do without
    from mergekit_wise.datasets.name_matching import in_place, same_order

    order = same_order(second, first)
    if order is None:
        layers = [name.removesuffix("weight") for name in heads if name in mixed]
        if layers and in_place(first, second) < len(first) / 2:
            advice = f", or add --keep 'ft:{layers[0]}*', which leaves the head out of the mixture" if can_keep else ""
            raise MismatchError(f"{_difference(zeroshot, finetuned, layers[0])}{advice}.")
        return zeroshot
    if order == tuple(range(len(first))):
        return zeroshot
    changed = dict(zeroshot.tensors)
    for weight in heads:
        for name in (weight, f"{weight.removesuffix('weight')}bias"):
            if name in changed and changed[name].info.shape[:1] == (len(order),):
                changed[name] = stacked(name, [rows(changed[name], row, row + 1) for row in order])
    note = (
        f"its head has the same {len(order)} classes as that of {finetuned.path.name} in another order; its rows are "
        "used in the latter's order"
    )
    metadata = {**zeroshot.metadata, CLASSNAMES_KEY: json.dumps(list(second))}
    return replace(zeroshot, tensors=changed, metadata=metadata, notes=(*zeroshot.notes, note))


def _difference(zeroshot: Checkpoint, finetuned: Checkpoint, layer: str) -> str:
    """What only one of two heads has, and the way out."""
    names = [declared_class_names(checkpoint) or () for checkpoint in (zeroshot, finetuned)]
    own, theirs = (
        listed([repr(name) for name in one if name not in other], 3) or "none" for one, other in (names, names[::-1])
    )
    return (
        f"The heads ({layer}weight) have different classes, so that mixing them row by row makes no sense: only "
        f"{zeroshot.path.name} has {own}; only {finetuned.path.name} has {theirs}. Make both heads for the same classes"
    )


def _of_metadata(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    if CLASSNAMES_KEY in metadata:
        return _names(_parsed(metadata[CLASSNAMES_KEY].encode()))
    config = _parsed(metadata.get(TIMM_KEY, "").encode())
    return _of_config(config) if isinstance(config, dict) else None


def _of_folder(folder: Path | None) -> tuple[str, ...] | None:
    if folder is None:
        return None
    config = _parsed(_content(folder / "config.json"))
    names = _of_config(config) if isinstance(config, dict) else None
    if names is not None:
        return names
    lines = _content(folder / _NAMES_FILE).decode("utf-8-sig", "replace").split("\n")
    return _names([line.strip() for line in lines if line.strip()])


def _of_config(config: Mapping[str, object]) -> tuple[str, ...] | None:
    """The names in Hugging Face's or timm's configuration."""
    labels, settings = config.get("id2label"), config.get("pretrained_cfg")
    if isinstance(labels, dict):
        numbers = [str(number) for number in range(len(labels))]
        return _names([labels[number] for number in numbers]) if labels.keys() == set(numbers) else None
    own = _names(config.get("label_names"))
    return own or (_names(settings.get("label_names")) if isinstance(settings, dict) else None)


def _names(value: object) -> tuple[str, ...] | None:
    is_list = isinstance(value, list) and value and all(isinstance(name, str) and name.strip() for name in value)
    return tuple(value) if is_list and isinstance(value, list) else None


def _content(path: Path) -> bytes:
    """The bytes of a small file; none if there is no such file, or it cannot be read."""
    try:
        return path.read_bytes() if path.is_file() and path.stat().st_size <= _MAX_JSON_BYTES else b""
    except OSError:
        return b""


def _parsed(text: bytes) -> object:
    try:
        return parse_json(text) if text else None
    except (ValueError, RecursionError):
        return None
