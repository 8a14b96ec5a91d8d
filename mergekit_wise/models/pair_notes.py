"""The pair of a merge: notes on its two checkpoints, and the one that the model is built from. Imports no torch."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mergekit_wise.checkpoint import Checkpoint, DType
from mergekit_wise.errors import ModelError
from mergekit_wise.merging import Pair, Rules, TensorPlan, described_by
from mergekit_wise.merging.rules import Side
from mergekit_wise.models.architecture import CLASSNAMES_KEY, ResolvedConfig, declared_config, with_declared_config
from mergekit_wise.models.open_clip_configs import preprocess_differences
from mergekit_wise.wording import plural

FINETUNED = "mergekit_wise_finetune"
"""The metadata entry that holds, as JSON, how a checkpoint was fine-tuned."""

BATCH_NORM = (
    "batch-norm statistics were mixed like weights, but a merged model's statistics are not the average of the two "
    "models' statistics; --recalibrate DATASET recomputes them on images, ideally the training images"
)

SAME = "both checkpoints have identical weights; alpha has no effect"


def notes_on_reading(pair: Pair) -> Iterator[str]:
    """What was removed or ignored when the two checkpoints were opened."""
    for side in (pair.zeroshot, pair.finetuned):
        # The notes of a soup name its members.
        yield from (note if side.soup is not None else f"{side.path.name}: {note}" for note in side.notes)


def notes_on_order(pair: Pair) -> Iterator[str]:
    """A note if the zero-shot checkpoint records that it was fine-tuned, and the fine-tuned one does not."""
    first, second = pair.zeroshot, pair.finetuned
    if FINETUNED in first.metadata and FINETUNED not in second.metadata:
        yield (
            f"{first.path.name}, given as the zero-shot checkpoint, records that it was fine-tuned, and "
            f"{second.path.name} does not: if they are swapped, alpha 0 is the fine-tuned model and 1 the zero-shot one"
        )


def notes_on_preprocessing(pair: Pair, kept: Side) -> Iterator[str]:
    """A note if both checkpoints declare how images are preprocessed, and differ; that of the side `kept` is used."""
    first, second = _declared(pair.zeroshot), _declared(pair.finetuned)
    if first is None or second is None or first.is_timm != second.is_timm:
        return
    found = _timm_differences(first, second) if first.is_timm else _differences(first, second)
    if found:
        used = {"zeroshot": pair.zeroshot, "finetuned": pair.finetuned}[kept]
        yield f"preprocessing differs ({'; '.join(found)}): that of {used.path.name} is used"


def _declared(checkpoint: Checkpoint) -> ResolvedConfig | None:
    try:
        return declared_config(checkpoint)
    except ModelError:  # where it is needed, it is reported
        return None


def _differences(first: ResolvedConfig, second: ResolvedConfig) -> list[str]:
    sizes = [side.config["model_cfg"]["vision_cfg"].get("image_size", 224) for side in (first, second)]
    found = preprocess_differences(first.config["preprocess_cfg"], second.config["preprocess_cfg"])
    if sizes[0] != sizes[1]:
        found = [("image_size", *sizes), *found]
    return [_difference(*each) for each in found]


def _timm_differences(first: ResolvedConfig, second: ResolvedConfig) -> list[str]:
    """Of what both declare; the rest is the same, because it is timm's."""
    one, other = first.config["pretrained_cfg"], second.config["pretrained_cfg"]
    keys = ("input_size", "test_input_size", "interpolation", "mean", "std", "crop_pct", "test_crop_pct", "crop_mode")
    both = [(key, one[key], other[key]) for key in keys if key in one and key in other]
    return [_difference(*each) for each in both if each[1] != each[2]]


def _difference(key: str, zeroshot: object, finetuned: object) -> str:
    return f"{key}: {zeroshot} and {finetuned}"


def notes_on_plan(pair: Pair, rules: Rules, plan: Sequence[TensorPlan]) -> Iterator[str]:
    """What is not mixed because of ``--keep``, and which tensors are mixed although their dtypes differ."""
    total = sum(step.info.count for step in plan)
    for side, path in (("zeroshot", pair.zeroshot.path), ("finetuned", pair.finetuned.path)):
        kept = [step.info for step in plan if step.action == side and rules.kept(step.info.name) == side]
        if kept:
            count = sum(info.count for info in kept)
            share = f"{100 * count / max(total, 1):.1f} % of the output"
            yield (
                f"{plural(len(kept), 'tensor')} ({plural(count, 'parameter')}, {share}) "
                f"{'is' if len(kept) == 1 else 'are'} copied from {path.name}, not mixed, because of --keep"
            )
    groups: dict[tuple[DType, ...], list[TensorPlan]] = {}
    for step in plan:
        if step.action == "mix" and differ_in_dtype(pair, step.info.name):
            dtypes = (side.tensors[step.info.name].saved_as for side in (pair.zeroshot, pair.finetuned))
            groups.setdefault((*dtypes, step.info.dtype), []).append(step)
    for (first, second, output), steps in groups.items():
        note = (
            f"{plural(len(steps), 'tensor')} {'is' if len(steps) == 1 else 'are'} {first} in {pair.zeroshot.path.name} "
            f"and {second} in {pair.finetuned.path.name}, and {output} in the output"
        )
        if output.itemsize == 8:
            note += ", which doubles the size of the file"
        yield note if rules.dtype else f"{note}; --dtype sets another dtype"


def notes_on_batch_norm(pair: Pair, plan: Sequence[TensorPlan]) -> Iterator[str]:
    """A note if batch-norm statistics that differ are mixed; reads them."""
    mixed = [step.info.name for step in plan if step.action == "mix" and step.info.name.endswith("running_var")]
    if any(pair.zeroshot.read(name).tobytes() != pair.finetuned.read(name).tobytes() for name in mixed):
        yield BATCH_NORM


def differ_in_dtype(pair: Pair, name: str) -> bool:
    """Whether the two checkpoints hold the tensor in different dtypes."""
    return pair.zeroshot.tensors[name].saved_as != pair.finetuned.tensors[name].saved_as


def template(pair: Pair, plan: Sequence[TensorPlan]) -> Checkpoint:
    """What a merged file holds, as far as a model is built from it: the names and shapes of `plan`, and metadata.

    It is the checkpoint that describes the merged model (`described_by`). What that does not declare is the other
    one's: the configuration, and the names of the classes, whose rows are mixed with its own.
    """
    sides = (pair.finetuned, pair.zeroshot)
    own, other = sides if described_by(pair, plan) == "finetuned" else sides[::-1]
    held = {**other.tensors, **own.tensors}
    tensors = {
        step.info.name: held[step.info.name]
        if held[step.info.name].info.shape == step.info.shape
        else other.tensors[step.info.name]
        for step in plan
    }
    names = other.metadata.get(CLASSNAMES_KEY)
    own = replace(own, tensors=tensors)
    if names is not None and CLASSNAMES_KEY not in own.metadata:
        own = replace(own, metadata={**own.metadata, CLASSNAMES_KEY: names})
    if declared_config(own):
        return own
    return with_declared_config(own, declared_config(other))
