"""Images without labels in a sweep: the same pass over them as over a data set, but no record: nothing is counted.

Of what models answer, the predicted class, the confidence and the entropy are kept; numbers that need a label are not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mergekit_wise.analysis import NUMBERS, Answers, stacked
from mergekit_wise.datasets.dataset import Dataset, Metric, Suite
from mergekit_wise.datasets.subsets import Draw, limited, with_pixel_limit
from mergekit_wise.datasets.unlabelled import open_each_unlabelled, with_classes_of
from mergekit_wise.errors import UsageError
from mergekit_wise.evaluation.evaluator import Evaluator
from mergekit_wise.evaluation.known_results import Draft
from mergekit_wise.evaluation.predictions import as_answers
from mergekit_wise.evaluation.variants import Variant
from mergekit_wise.options import EvaluationOptions
from mergekit_wise.results import AnswerStore, key_of
from mergekit_wise.wording import listed, plural

ROLE = "unlabelled"

_NEEDS_LABEL = [NUMBERS.index(name) for name in ("nll", "brier")]


@dataclass(frozen=True, slots=True)
class UnlabelledSets:
    """Sets of images as they were found, and the parts of them that are used."""

    complete: tuple[Dataset, ...] = ()
    parts: tuple[Dataset, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was ignored or left out, with the titles of the sets."""
        return tuple(note for part in self.parts for note in part.titled_notes)


def open_sets(paths: Sequence[Path], suite: Suite, options: EvaluationOptions, draw: Draw) -> UnlabelledSets:
    """The images at `paths` with the classes of the suite's reference, drawn from as --limit says.

    Raises UsageError if the suite has no reference, or if images would be read twice or are the reference's, and what
    `open_unlabelled` raises.
    """
    if not paths:
        return UnlabelledSets()
    reference = suite.reference
    if reference is None:
        raise UsageError(
            "--unlabelled: estimates need a reference with labels, and none was found. Name one with --reference."
        )
    for path in paths if reference.location else ():
        _require_apart(path, reference)
    opened = open_each_unlabelled(paths, suite.datasets)
    named = Suite("", None, tuple(with_classes_of(each, reference) for each in opened))
    complete = with_pixel_limit(named, options.max_pixels).shifts
    if options.limit is None:
        return UnlabelledSets(complete, complete)
    return UnlabelledSets(complete, tuple(limited(each, options.limit, options.seed, draw) for each in complete))


def _require_apart(path: Path, reference: Dataset) -> None:
    """Raise UsageError if the images are the reference's, whose accuracy is measured."""
    place, known = path.resolve(), Path(reference.location).resolve()
    if place.is_relative_to(known) or known.is_relative_to(place):
        raise UsageError(
            f"--unlabelled {path}: holds images of the reference {reference.title} ({reference.location}), on which "
            "the accuracy is measured. Name other images."
        )


def notes_on_copies(sets: Sequence[Dataset], drafts: Sequence[Sequence[Draft]]) -> list[str]:
    """Names sets that are the same one twice, as after a folder was copied."""
    titles: dict[str, list[str]] = {}
    for dataset, row in zip(sets, drafts, strict=True):
        titles.setdefault(row[0]["data"], []).append(dataset.title)
    return [
        f"{listed(copies)}: the same unlabelled images, which count {len(copies)} times"
        for copies in titles.values()
        if len(copies) > 1
    ]


def known_answers(
    sets: Sequence[Dataset], drafts: Sequence[Sequence[Draft]], store: AnswerStore | None, *, redo: bool
) -> Mapping[tuple[int, int], Answers]:
    """What earlier runs kept, by the numbers of the set and of the variant.

    Answers that lack an unreadable image are not used, so that each run says which images are unreadable.
    """
    if store is None or redo:
        return {}
    found = {}
    for at, (dataset, row) in enumerate(zip(sets, drafts, strict=True)):
        example = _no_answers(dataset)
        for number, draft in enumerate(row):
            answers = store.load_unlabelled(key_of(draft), example)
            if answers is not None and len(answers.images) == len(dataset):
                found[at, number] = answers
    return found


def answers_without_labels(
    evaluator: Evaluator,
    dataset: Dataset,
    variants: Sequence[Variant],
    drafts: Sequence[Draft],
    known: Mapping[int, Answers],
    store: AnswerStore | None,
) -> tuple[Answers, list[str]]:
    """What all variants answer, those that are not `known` in one pass over the images; and notes on images.

    New answers are written to `store`. Raises what `Engine.predict` raises.
    """
    todo = [number for number in range(len(variants)) if number not in known]
    notes: list[str] = []
    answered = dict(known)
    if todo:
        predicted = evaluator.predict(todo, [variants[number] for number in todo], dataset)
        found = as_answers(dataset, predicted, ROLE)
        found.numbers[:, _NEEDS_LABEL] = np.nan
        for row, number in enumerate(todo):
            answered[number] = found.of_models([row])
            if store is not None:
                store.save_unlabelled(key_of(drafts[number]), answered[number])
        from mergekit_wise.evaluation.image_batches import notes_on_bad

        notes += notes_on_bad(dataset, predicted.bad)
    answers = stacked([answered[number] for number in range(len(variants))])
    if unsound := int((answers.classes < 0).any(axis=0).sum()):
        notes.append(
            f"{dataset.title}: the logits of {plural(unsound, 'image')} are infinite or NaN at some alphas, which "
            "counts as wrong there. Try --precision fp32, or check the weights with 'wise inspect'."
        )
    return answers, notes


def _no_answers(dataset: Dataset) -> Answers:
    """Names a data set to `AnswerStore`."""
    none = np.zeros(0, np.int64)
    numbers = np.zeros((0, len(NUMBERS), 0), np.float32)
    classes = np.zeros((0, 0), np.int32)
    outputs = len(dataset.classnames)
    return Answers(dataset.name, dataset.title, ROLE, Metric(), outputs, none, none, "", classes, numbers)
