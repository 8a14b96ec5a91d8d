"""Measures variants of one model on a suite, for `evaluate` and `sweep`.

Measurements that the results file already holds are reused, and the records of a data set are written as soon as it is
complete, so that an interrupted run resumes where it stopped.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGINT
from typing import Any

from mergekit_wise.analysis import LogitDisagreement
from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.dataset import Dataset, Missing, Suite
from mergekit_wise.datasets.fingerprint import fingerprint
from mergekit_wise.datasets.subsets import companions, limited, with_pixel_limit
from mergekit_wise.errors import Interrupted, SuiteError
from mergekit_wise.evaluation.distributed import Ranks, joined
from mergekit_wise.evaluation.engine import NO_OBSERVERS
from mergekit_wise.evaluation.evaluator import Evaluator, open_evaluator
from mergekit_wise.evaluation.image_batches import is_taken_as_stored, notes_on_bad
from mergekit_wise.evaluation.pair_analysis import PairAnalysis
from mergekit_wise.evaluation.predictions import as_details, notes_on
from mergekit_wise.evaluation.variants import Variant
from mergekit_wise.options import EvaluationOptions
from mergekit_wise.results import (
    Analysis,
    Detail,
    Key,
    Record,
    Role,
    append_records,
    key_of,
    read_analyses,
    read_records,
    require_writable,
    writing_details,
)
from mergekit_wise.wording import listed, plural

Draft = Mapping[str, Any]
"""All attributes of a record that are not counted."""

Place = tuple[int, int]
"""The number of a data set and that of a variant."""

_LABELS = ("model", "alpha", "suite", "title", "role", "same_images")
"""Attributes of a record that name it or place it among others; the measurement does not depend on them."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements of a run.

    Attributes:
        records: ordered by alpha, then by data set.
        analyses: of the pair of models, by data set.
        missing: data sets of the suite that were not found.
        added: the number of records that are new.
        notes: what a reader of the records should know.
    """

    records: tuple[Record, ...]
    analyses: tuple[Analysis, ...]
    missing: tuple[Missing, ...]
    added: int
    notes: tuple[str, ...]


def measure(
    template: Checkpoint, variants: Sequence[Variant], options: EvaluationOptions, pair: PairAnalysis | None = None
) -> Measured:
    """A record of every variant on every data set of the suite, and the analyses that `pair` asks for.

    The architecture is that of `template`. Raises SuiteError, ModelError, ResultsError or UsageError.
    """
    for path in filter(None, (options.results, options.per_class, options.per_sample)):
        require_writable(path)
    notes: list[str] = []
    with (
        joined(options.device) as (ranks, device),
        open_evaluator(template, options, ranks, device, notes.append) as evaluator,
    ):
        suite, complete, parts = _open_datasets(options, with_companions=pair is not None and pair.analyze)
        on_classes = evaluator.heads.require(parts)
        notes += [note for dataset in suite.datasets for note in dataset.titled_notes]
        notes += on_classes
        drafts = _drafts(evaluator, variants, suite, complete, parts, options)
        notes += _notes_on_crops(parts, drafts)
        known, renamed = ranks.share(_known_records(drafts, options))
        results = options.results if ranks.rank == 0 else None
        _append(results, renamed)
        added, analyses = 0, []
        details_files = (options.per_class, options.per_sample) if ranks.rank == 0 else (None, None)
        with writing_details(*details_files) as files, _telling_what_is_saved(results, known, options):
            for at, dataset in enumerate(parts):
                todo = {number for number in range(len(variants)) if (at, number) not in known}
                analysis = None if pair is None else ranks.share(_known_analysis(pair, drafts[at], options))
                asked = pair if analysis is None else None
                if asked is not None:
                    todo |= asked.needed
                if todo:
                    details, found = _measure_dataset(evaluator, dataset, variants, drafts[at], sorted(todo), asked)
                    notes += notes_on_bad(dataset, details[0].bad)
                    for detail in details:
                        files.write(detail)
                    measured = zip(sorted(todo), details, strict=True)
                    new = {(at, n): detail.record for n, detail in measured if (at, n) not in known}
                    _append(results, [*new.values(), *([found] if found is not None else [])])
                    known |= new
                    added += len(new)
                    analysis = analysis or found
                analyses += [analysis] if analysis is not None else []
    order = sorted(known, key=lambda place: (-1.0 if (a := variants[place[1]].alpha) is None else a, place))
    records = tuple(known[place] for place in order)
    return Measured(records, tuple(analyses), suite.missing, added, tuple(dict.fromkeys([*notes, *notes_on(records)])))


@contextmanager
def _telling_what_is_saved(
    results: Path | None, known: Mapping[Place, Record], options: EvaluationOptions
) -> Iterator[None]:
    """Let an interruption say how many results are in the file, and whether the same command reuses them."""
    try:
        yield
    except KeyboardInterrupt as error:
        if results is None or not known:
            raise
        advice = "." if _measures_all(options) else "; run the same command to continue."
        number = error.number if isinstance(error, Interrupted) else SIGINT
        raise Interrupted(f"Interrupted. {plural(len(known), 'result')} saved in {results}{advice}", number) from error


def _open_datasets(
    options: EvaluationOptions, *, with_companions: bool
) -> tuple[Suite, tuple[Dataset, ...], tuple[Dataset, ...]]:
    """The suite, its complete data sets, followed by the companions of shifts if asked for, and the parts to use."""
    suite = open_suite(
        options.suite or "",
        options.data,
        reference=options.reference,
        strict=options.strict,
        classnames=options.classnames,
        templates=options.templates,
    )
    suite = with_pixel_limit(suite, options.max_pixels)
    complete = (*suite.datasets, *(companions(suite) if with_companions else ()))
    if options.limit is None:
        return suite, complete, complete
    return suite, complete, tuple(limited(dataset, options.limit, options.seed) for dataset in complete)


def _measure_dataset(
    evaluator: Evaluator,
    dataset: Dataset,
    variants: Sequence[Variant],
    drafts: Sequence[Draft],
    todo: Sequence[int],
    pair: PairAnalysis | None,
) -> tuple[list[Detail], Analysis | None]:
    """One pass over a data set by the variants with the numbers `todo`."""
    began, seen = time.perf_counter(), LogitDisagreement()
    observers = NO_OBSERVERS if pair is None else pair.observers(todo, seen)
    found = evaluator.predict(todo, [variants[number] for number in todo], dataset, observers)
    seconds = round((time.perf_counter() - began) / len(todo), 3)
    details = as_details(dataset, found, [drafts[number] for number in todo], seconds)
    if pair is None:
        return details, None
    seen_by_all = sum(evaluator.engine.ranks.gather(seen), LogitDisagreement())
    return details, pair.result(dataset, todo, drafts, found, seen_by_all)


def _drafts(
    evaluator: Evaluator,
    variants: Sequence[Variant],
    suite: Suite,
    complete: Sequence[Dataset],
    parts: Sequence[Dataset],
    options: EvaluationOptions,
) -> list[list[Draft]]:
    """For each data set, the draft of every variant's record."""
    data = [fingerprint(dataset) for dataset in parts]
    _require_same_data(evaluator.engine.ranks, data)
    models = []
    for number, variant in enumerate(variants):
        options.progress("hashing weights", number, len(variants), "models")
        models.append({"model": variant.model, "alpha": variant.alpha, **evaluator.identity(variant)})
    options.progress("hashing weights", len(variants), len(variants), "models")
    drafts: list[list[Draft]] = []
    preprocess = evaluator.engine.forward.preprocess
    for dataset, whole, digest in zip(parts, complete, data, strict=True):
        drawn = dataset is not whole
        facts = {
            "suite": suite.name,
            "dataset": dataset.name,
            "title": dataset.title,
            "role": _role(suite, whole),
            "data": digest,
            "prompts": evaluator.heads.prompts(dataset),
            "device": evaluator.device,
            "metric": dataset.metric.kind,
            "location": dataset.location,
            "expected": dataset.expected,
            "limit": options.limit if drawn else None,
            "seed": options.seed if drawn else None,
            "missing": tuple(part.name for part in suite.missing),
            "same_images": dataset.same_images,
        }
        stored = {"stored_crops": True} if is_taken_as_stored(dataset, preprocess) else {}
        drafts.append([facts | model | {"preprocess": model["preprocess"] | stored} for model in models])
    return drafts


def _notes_on_crops(parts: Sequence[Dataset], drafts: Sequence[Sequence[Draft]]) -> Iterator[str]:
    """Names the data sets that are stored cropped, but not to the size of the model's images."""
    again = [
        dataset.title
        for dataset, row in zip(parts, drafts, strict=True)
        if dataset.is_cropped and "stored_crops" not in row[0]["preprocess"]
    ]
    if again:
        yield (
            f"{listed(again, 3)}: stored cropped, but to another size than the model's, so images are resized and "
            "cropped again; the results are not comparable with published ones"
        )


def _role(suite: Suite, dataset: Dataset) -> Role:
    if dataset is suite.reference:
        return "reference"
    return "shift" if any(dataset is shift for shift in suite.shifts) else "companion"


def _require_same_data(ranks: Ranks, data: Sequence[str]) -> None:
    for rank, other in enumerate(ranks.gather(list(data))):
        if other != data:
            raise SuiteError(
                f"Process {rank} finds other images than process {ranks.rank}. Give --data the same data sets on "
                "every machine."
            )


def _measures_all(options: EvaluationOptions) -> bool:
    """Whether earlier results are not reused."""
    return options.redo or options.per_class is not None or options.per_sample is not None


def _known_records(
    drafts: Sequence[Sequence[Draft]], options: EvaluationOptions
) -> tuple[dict[Place, Record], list[Record]]:
    """Records that the results file holds, under their present names; and those that had other names there."""
    if _measures_all(options) or options.results is None or not options.results.exists():
        return {}, []
    held: dict[Key | None, dict[tuple[object, ...], Record]] = {}
    for record in read_records(options.results):
        if record.bad <= options.max_bad:
            held.setdefault(record.key, {})[tuple(getattr(record, label) for label in _LABELS)] = record
    known: dict[Place, Record] = {}
    renamed: list[Record] = []
    for at, row in enumerate(drafts):
        for number, draft in enumerate(row):
            labels = {label: draft[label] for label in _LABELS}
            if same := held.get(key_of(draft)):
                same_name = same.get(tuple(labels.values()))
                known[at, number] = same_name or replace(list(same.values())[-1], **labels)
                renamed += [] if same_name else [known[at, number]]
    return known, renamed


def _known_analysis(pair: PairAnalysis, drafts: Sequence[Draft], options: EvaluationOptions) -> Analysis | None:
    """The last analysis of the same pair with the same options that the results file holds."""
    if options.redo or options.results is None or not options.results.exists():
        return None
    identity = pair.identity(drafts)
    held = [a for a in read_analyses(options.results) if all(getattr(a, k) == v for k, v in identity.items())]
    return held[-1] if held else None


def _append(results: Path | None, records: Sequence[Record | Analysis]) -> None:
    if results is not None and records:
        append_records(results, records)
