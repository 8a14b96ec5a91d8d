"""Makes of two checkpoints a pair that a sweep can measure: a head for the side that lacks it, rules for the rest.

A model with both encoders beside a fine-tuned classifier gets the head that ``wise zeroshot`` makes. Tensors that no
evaluation needs are copied from one side where they cannot be mixed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from mergekit_wise.api.zeroshot import prompts_of, zeroshot
from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.datasets.given import DatasetInMemory
from mergekit_wise.datasets.in_memory import open_labelled
from mergekit_wise.errors import ModelError, UsageError
from mergekit_wise.evaluation.evaluator import needed_names
from mergekit_wise.evaluation.own_modules import to_call
from mergekit_wise.merging import Naming, Pair, Rules, unmixable, unresolved
from mergekit_wise.merging.patterns import choose_patterns
from mergekit_wise.merging.rules import Side
from mergekit_wise.models.head_names import declared_class_names
from mergekit_wise.models.merge_command import command_line
from mergekit_wise.models.names import HEAD, read_names
from mergekit_wise.models.opening import has_text_tower
from mergekit_wise.models.pairing import match, open_pair
from mergekit_wise.option_types import Source, Weights, run
from mergekit_wise.options import SweepOptions, ZeroshotOptions
from mergekit_wise.wording import fold_names, listed, plural

WITH_HEAD = "zs-head.safetensors"
"""The file of the zero-shot model with the head that was made for it."""


@dataclass(frozen=True, slots=True)
class ZeroShot:
    """The zero-shot side of a sweep.

    Attributes:
        source: the checkpoint.
        command: the line that makes the checkpoint, if it was made for this sweep; else empty.
        notes: on how it was made.
    """

    source: Weights
    command: str = ""
    notes: tuple[str, ...] = ()


@contextmanager
def zero_shot_side(options: SweepOptions, naming: Naming, rules: Rules) -> Iterator[ZeroShot]:
    """The zero-shot side, with a head made from class names if the fine-tuned side has a head and it has none.

    The names are those that the fine-tuned head declares, else those of the reference or of the first shift, if their
    number is that of the head's classes. The file lies in a temporary folder. Where no names fit, the side stays as it
    is. Raises what `zeroshot` raises.
    """
    made = _head_to_make(options, naming, rules)
    if made is None:
        yield ZeroShot(options.zeroshot)
        return
    with TemporaryDirectory(prefix="wise-") as folder:
        report = run(zeroshot, replace(made, output=Path(folder, WITH_HEAD)))
        origin = made.head_of or made.dataset or ("a list" if isinstance(made.classes, tuple) else made.classes)
        note = (
            f"{options.zeroshot} has no classification head: one was made for the "
            f"{plural(len(report.classnames), 'class')} of {origin} with {plural(len(report.templates), 'template')}"
            f" ({report.templates[0]!r}{', ...' if len(report.templates) > 1 else ''}), and is mixed with that of "
            f"{options.finetuned}"
        )
        yield ZeroShot(report.output, command_line("zeroshot", made), (note, *report.notes))


def match_to_measure(
    first: Checkpoint, second: Checkpoint, rules: Rules, naming: Naming, options: SweepOptions
) -> tuple[Pair, Rules, tuple[str, ...]]:
    """The pair, the rules with those for tensors that no evaluation needs and that cannot be mixed, and notes on them.

    Raises MismatchError for all other differences, UsageError if the rules leave out what the evaluation needs.
    """
    every = dict.fromkeys((*first.tensors, *second.tensors))
    names = tuple(name for name in every if rules.wants(name))
    found = unresolved(first, second, names, rules)
    if not found and not rules.only and not unmixable(Pair(first, second, names), rules):
        return match(first, second, rules, naming, command="sweep"), rules, ()
    try:
        needed = needed_names(replace(second, tensors={**first.tensors, **second.tensors}), options)
    except ModelError:  # the mismatch says what it is made of
        needed = frozenset(every)
    if missing := sorted(needed.difference(names)):
        raise UsageError(
            f"--only leaves out {missing[0]}, which the evaluation needs. Add --only patterns for all that it needs, "
            "or leave --only out."
        )
    unneeded: dict[Side, list[str]] = {
        "zeroshot": [name for name in found.only_zeroshot if name not in needed],
        "finetuned": [name for name in (*found.only_finetuned, *found.shapes) if name not in needed],
    }
    rules = _keeping(rules, unneeded, every)
    pair = match(first, second, rules, naming, command="sweep")
    if refused := [name for name in unmixable(pair, rules) if name not in needed]:
        rules = _keeping(rules, {"finetuned": refused}, every)
        unneeded["finetuned"] += refused
    notes = tuple(
        f"{plural(len(kept), 'tensor')} that the evaluation does not need {'differs' if len(kept) == 1 else 'differ'}; "
        f"a merged file has {'it' if len(kept) == 1 else 'them'} from {side.path.name}: {listed(fold_names(kept))}"
        for side, kept in zip((first, second), unneeded.values(), strict=True)
        if kept
    )
    return pair, rules, notes


def _head_to_make(options: SweepOptions, naming: Naming, rules: Rules) -> ZeroshotOptions | None:
    """How ``wise zeroshot`` makes the head that the zero-shot side lacks; None if it lacks none, or no names fit."""
    if options.head is not None or to_call(options) is not None:
        return None
    opening = open_pair(options.zeroshot, options.finetuned, naming, base=options.base, mmap=options.mmap)
    with opening as (first, second, _):
        try:
            ours, theirs = read_names(first), read_names(second)
        except ModelError:  # reported where the model is built
            return None
        head = next((name for name, to in theirs.destinations.items() if to.name == f"{HEAD}weight"), None)
        if head is None or f"{HEAD}weight" in ours.shapes or not has_text_tower(ours):
            return None
        if rules.kept(head) or not rules.wants(head):
            return None
        classes, declared = second.info(head).shape[0], declared_class_names(second)
    made = ZeroshotOptions(
        options.zeroshot,
        WITH_HEAD,
        templates=options.templates,
        model=options.model,
        image_size=options.image_size,
        device=options.device,
        mmap=options.mmap,
        progress=options.progress,
    )
    place = options.reference or options.suite
    if (place is not None and options.templates is None) or declared is None:
        made = _for_classes_of(place, made, options)
    if declared is not None:
        return replace(made, head_of=(options.soup or (options.finetuned,))[0]) if len(declared) == classes else None
    if place is None:
        return None
    if options.classnames is not None:
        made = replace(made, classes=options.classnames, dataset=None, data=None)
    return made if len(prompts_of(made)[0]) == classes else None


def _for_classes_of(place: Source | None, made: ZeroshotOptions, options: SweepOptions) -> ZeroshotOptions:
    """The head of the classes of a data set by name, or of one in memory."""
    if isinstance(place, DatasetInMemory):
        first = next(iter(open_labelled(place).values()))
        return replace(made, classes=first.classnames)
    return replace(made, dataset=None if place is None else str(place), data=options.data)


def _keeping(rules: Rules, names: dict[Side, list[str]], every: dict[str, None]) -> Rules:
    """The rules, with such that copy tensors from one side, before all others."""
    keep = [
        (side, pattern)
        for side, some in names.items()
        if some
        for pattern in choose_patterns(some, every.keys() - set(some))
    ]
    return replace(rules, keep=(*keep, *rules.keep))
