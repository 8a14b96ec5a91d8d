"""Validation during fine-tuning: the fine-tuned model, and the merged model at alpha 0.5, on a suite."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mergekit_wise.analysis import Candidate, Point
from mergekit_wise.checkpoint import Checkpoint, closing
from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.dataset import Dataset, Suite
from mergekit_wise.datasets.subsets import with_pixel_limit
from mergekit_wise.evaluation import Ranks
from mergekit_wise.evaluation.evaluator import Evaluator, open_evaluator
from mergekit_wise.evaluation.image_batches import notes_on_bad
from mergekit_wise.evaluation.predictions import as_details
from mergekit_wise.evaluation.variants import InterpolatedWeights, Variant
from mergekit_wise.merging import Rules
from mergekit_wise.models.pairing import match
from mergekit_wise.models.source import open_source
from mergekit_wise.options import EvalOptions
from mergekit_wise.results import Record, to_candidates

ALPHAS = (0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Validation:
    """Accuracies of the `merged` model (alpha 0.5) and of the `finetuned` model on each data set of a suite."""

    merged: Candidate
    finetuned: Candidate

    def __str__(self) -> str:
        """Format the accuracies as one line."""
        parts = []
        if self.finetuned.has_reference:
            parts.append(f"reference {_pair(self.finetuned.reference_accuracy, self.merged.reference_accuracy)}")
        if self.finetuned.shifts:
            parts.append(f"shifts {_pair(self.finetuned.shift_accuracy, self.merged.shift_accuracy)}")
        return ", ".join(parts)

    def entry(self) -> dict[str, dict[str, float]]:
        """Return the accuracies for the log, by model and data set; a reference that was not measured is left out."""
        return {
            name: {
                title: estimate.value
                for title, estimate in list(zip(candidate.names, candidate.measured, strict=True))[
                    0 if candidate.has_reference else 1 :
                ]
            }
            for name, candidate in (("alpha 0.5", self.merged), ("fine-tuned", self.finetuned))
        }


@dataclass(frozen=True, slots=True)
class Validator:
    """Measures checkpoints on a suite."""

    evaluator: Evaluator
    suite: Suite
    zeroshot: Checkpoint
    note: Callable[[str], None]

    def __call__(self, checkpoint: Path) -> Validation:
        """Measure a fine-tuned checkpoint. Raises the errors of an evaluation."""
        finetuned = open_source(checkpoint)
        with closing(finetuned):
            interpolated = InterpolatedWeights(match(self.zeroshot, finetuned))
            # Read for each use: keeping both checkpoints on the device would take memory that training needs.
            variants = [
                Variant("", Point.of_alpha(alpha), partial(interpolated.read, Rules(alpha))) for alpha in ALPHAS
            ]
            self.evaluator.heads.forget()  # the text towers of an earlier epoch
            records: list[Record] = []
            for dataset in self.suite.datasets:
                found = self.evaluator.predict(range(len(variants)), variants, dataset)
                for text in notes_on_bad(dataset, found.bad):
                    self.note(text)
                role = "reference" if dataset is self.suite.reference else "shift"
                facts = {"suite": self.suite.name, "dataset": dataset.name, "title": dataset.title, "role": role}
                drafts = [{"model": "", "weights": "", "alpha": alpha, **facts} for alpha in ALPHAS]
                records += [detail.record for detail in as_details(dataset, found, drafts, 0.0)]
        return Validation(*to_candidates(records))


@contextmanager
def open_validator(
    zeroshot: Checkpoint,
    options: EvalOptions,
    ranks: Ranks,
    device: str,
    note: Callable[[str], None],
    named: Callable[[Dataset], Dataset] = lambda dataset: dataset,
) -> Iterator[Validator]:
    """Open a validator for checkpoints fine-tuned from `zeroshot`; `named` gives data sets the names of training.

    Raises SuiteError, ModelError.
    """
    with open_evaluator(zeroshot, options, ranks, device, note) as evaluator:
        suite = open_suite(options.suite or "", options.data, use="validate")
        suite = with_pixel_limit(suite, options.max_pixels)
        reference = None if suite.reference is None else named(suite.reference)
        suite = replace(suite, reference=reference, shifts=tuple(map(named, suite.shifts)))
        on_classes = evaluator.heads.require(suite.datasets)
        for text in (*(text for dataset in suite.datasets for text in dataset.titled_notes), *on_classes):
            note(text)
        for missing in suite.missing:
            note(f"{missing.title}: not found, skipped in validation")
        yield Validator(evaluator, suite, zeroshot, note)


def _pair(own: float, mixed: float) -> str:
    return f"{100 * own:.1f} % ({100 * mixed:.1f} % at alpha 0.5)"
