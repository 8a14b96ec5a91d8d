"""Explains why two checkpoints are not a pair, and which options would make them one."""

from collections.abc import Sequence

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.merging import Differences
from mergekit_wise.wording import fold_names


def explain_mismatch(zeroshot: Checkpoint, finetuned: Checkpoint, found: Differences) -> str:
    """The text of the error about two aligned checkpoints that differ in what was `found`."""
    lines = [f"{zeroshot.path} and {finetuned.path} do not hold the same tensors:"]
    for checkpoint, names in ((zeroshot, found.only_zeroshot), (finetuned, found.only_finetuned)):
        if names:
            lines.append(f"  only in {checkpoint.path.name} ({len(names)}):")
            lines += [f"    {line}" for line in fold_names(names)]
    if found.shapes:
        lines.append(f"  of different shape ({len(found.shapes)}):")
        lines += [
            f"    {name}: {list(zeroshot.info(name).shape)} and {list(finetuned.info(name).shape)}"
            for name in found.shapes
        ]
    return "\n".join([*lines, *_advice(zeroshot, finetuned, found)])


def _advice(zeroshot: Checkpoint, finetuned: Checkpoint, found: Differences) -> list[str]:
    """The options that would resolve the differences, if most names are shared; else what to do instead."""
    different = len(found.only_zeroshot) + len(found.only_finetuned) + len(found.shapes)
    shared = len(zeroshot.tensors.keys() & finetuned.tensors.keys())
    if different > shared:
        notes = [f"{side.path.name}: {note}" for side in (zeroshot, finetuned) for note in side.notes]
        return [*notes, "Give two checkpoints of the same model; 'wise diff' compares them."]
    options = [f"--keep zs:{pattern}" for pattern in _patterns(found.only_zeroshot, zeroshot)]
    options += [f"--keep ft:{pattern}" for pattern in _patterns(found.only_finetuned, finetuned)]
    options += [f"--keep ft:{name}" for name in found.shapes[:4]]
    return [
        "To take these tensors from one side (zs: zero-shot, ft: fine-tuned), add: " + " ".join(options),
        "To leave them out, name the tensors to write: --only PATTERN. Tensors are never cropped or broadcast.",
    ]


def _patterns(names: Sequence[str], checkpoint: Checkpoint) -> list[str]:
    """A few shell patterns that match these names and no others of the file."""
    patterns: dict[str, None] = {}
    for name in names:
        head = name.split(".")[0] + "."
        alone = "." in name and all(other in names for other in checkpoint.tensors if other.startswith(head))
        patterns[f"'{head}*'" if alone else name] = None
    return list(patterns)
