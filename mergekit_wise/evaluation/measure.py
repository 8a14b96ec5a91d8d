"""Measures variants of one model on a suite, for `evaluate` and `sweep`.

Measurements that the results file already holds are reused, and the records of a data set are written as soon as it is
complete, so that an interrupted run resumes where it stopped.
"""

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mergekit_wise import launcher
from mergekit_wise.analysis import Answers, LogitDisagreement, Point, calibrations, stacked
from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.datasets.catalog import ROOT_VARIABLE, open_suite
from mergekit_wise.datasets.dataset import Dataset, Missing, Suite
from mergekit_wise.datasets.fingerprint import fingerprint
from mergekit_wise.datasets.in_memory import with_all_classes
from mergekit_wise.datasets.subsets import Draw, companions, limited, with_pixel_limit
from mergekit_wise.errors import Interrupted, OutputError, ResultsError, SuiteError, Unsaved, UsageError
from mergekit_wise.evaluation.distributed import Ranks, joined
from mergekit_wise.evaluation.evaluator import Evaluator, open_evaluator
from mergekit_wise.evaluation.known_results import Draft, Place, known_analysis, known_records, may_reuse, measures_all
from mergekit_wise.evaluation.own_modules import notes_on_reuse, require_transformable
from mergekit_wise.evaluation.pair_analysis import PairAnalysis
from mergekit_wise.evaluation.predictions import as_answers, as_details, notes_on
from mergekit_wise.evaluation.unlabelled import answers_without_labels, known_answers, notes_on_copies, open_sets
from mergekit_wise.evaluation.variants import Variant
from mergekit_wise.models.model import Model
from mergekit_wise.options import EvaluationOptions
from mergekit_wise.progress import Whole
from mergekit_wise.results import (
    Analysis,
    AnswerStore,
    Detail,
    Record,
    Role,
    append_records,
    read_records,
    require_writable,
    writing_details,
)
from mergekit_wise.results.identity import GENERATING
from mergekit_wise.wording import listed, plural

EVALUATED_AGAIN = "evaluated again, because only the counts were kept, and estimates need the answers for each image"

NOWHERE = Point(())
"""Sorts before every known place in a sweep."""


NO_RESULTS = "Interrupted. No result was saved yet; run the same command again."

FEW = 10
"""Images of a class with fewer of which nothing is known of how its F1 varies."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements of a run.

    Attributes:
        records: ordered by alpha, then by data set.
        analyses: of the pair of models, by data set.
        answers: for each data set, what all variants, in their order, answered; data sets without it are left out.
        unlabelled: the same for each set of images without labels, of which there is no record.
        missing: data sets of the suite that were not found.
        added: the number of records that are new.
        notes: what a reader of the records should know.
    """

    records: tuple[Record, ...]
    analyses: tuple[Analysis, ...]
    answers: tuple[Answers, ...]
    missing: tuple[Missing, ...]
    added: int
    notes: tuple[str, ...]
    unlabelled: tuple[Answers, ...] = ()

    def __repr__(self) -> str:
        sets = len({record.dataset for record in self.records})
        return f"<{type(self).__name__}: {plural(len(self.records), 'record')} on {plural(sets, 'data set')}>"


def measure(
    template: Checkpoint,
    variants: Sequence[Variant],
    options: EvaluationOptions,
    pair: PairAnalysis | None = None,
    unlabelled: Sequence[Path] = (),
) -> Measured:
    """A record of every variant on every data set of the suite, and the analyses that `pair` asks for.

    Also what the variants answer for images without labels at the paths `unlabelled`: for comparing it with what they
    answer for labelled ones, which is then evaluated again where only the counts are known.

    The architecture is that of `template`. Raises SuiteError, ModelError, ResultsError, OutputError or UsageError;
    Unsaved, with what was measured before, if a file cannot be written.
    """
    if options.balanced and options.limit is None:
        raise UsageError("--balanced decides how --limit draws images, and no --limit is given. Leave one out.")
    require_outputs(options)
    notes: list[str] = []
    overall = Whole(options.progress)
    options = replace(options, progress=overall)
    with ExitStack() as stack:
        ranks, device = stack.enter_context(joined(options.device))
        # Opened before the model, so that a missing data set is reported at once, and a transform can be tried.
        opened = _open_suite(options, ranks)
        examples = opened.datasets[0]
        evaluator = stack.enter_context(open_evaluator(template, options, ranks, device, notes.append, examples))
        suite = _with_all_classes(opened, evaluator.model)
        complete, parts = _parts(suite, options, with_companions=pair is not None and pair.analyze)
        require_transformable(parts, options)
        notes += notes_on_reuse(options)
        without_labels = open_sets(unlabelled, suite, options, _draw(options))
        on_classes = evaluator.heads.require(parts)
        require_outside((options.per_class, options.per_sample), (*suite.datasets, *without_labels.complete))
        notes += [note for dataset in parts[: len(suite.datasets)] for note in dataset.titled_notes]
        notes += without_labels.notes
        notes += on_classes
        notes += _notes_on_rare_classes(parts)
        if not may_reuse(options):  # everything will be measured: report a model that does not fit before hashing
            evaluator.open()
        every, whole = (*parts, *without_labels.parts), (*complete, *without_labels.complete)
        every_draft = _drafts(evaluator, variants, suite, whole, every, options)
        drafts, own_drafts = every_draft[: len(parts)], every_draft[len(parts) :]
        notes += _notes_on_crops(parts, drafts)
        notes += notes_on_copies(without_labels.parts, own_drafts)
        notes += _notes_on_copies(suite.datasets, drafts)
        known, renamed, reasons = ranks.share(known_records(drafts, options))
        notes += reasons
        results = options.results if ranks.rank == 0 else None
        store = AnswerStore.beside(options.results) if options.results is not None and options.answers else None
        answered = ranks.share({} if store is None else _known_answers(store, known))
        completed = _with_calibration(known, answered)
        known |= completed
        kept = ranks.share(known_answers(without_labels.parts, own_drafts, store, redo=options.redo))
        estimated: list[Answers] = []
        added: list[Place] = []
        analyses: list[Analysis] = []

        def found_so_far() -> Measured:
            order = sorted(known, key=lambda place: (variants[place[1]].point or NOWHERE, place))
            records = tuple(known[place] for place in order)
            said = tuple(dict.fromkeys([*notes, *notes_on(records)]))
            answers = _complete_answers(answered, len(parts), len(variants))
            return Measured(records, tuple(analyses), answers, suite.missing, len(added), said, tuple(estimated))

        details_files = (options.per_class, options.per_sample) if ranks.rank == 0 else (None, None)
        with (
            keeping(found_so_far),
            writing_details(*details_files) as files,
            telling_what_is_saved(results, known, options),
        ):
            _append(results, [*renamed, *completed.values()])
            jobs = []
            for at, dataset in enumerate(parts):
                todo = {number for number in range(len(variants)) if (at, number) not in known}
                if unlabelled and at < len(suite.datasets):
                    unanswered = {n for n in range(len(variants)) if (at, n) not in answered} - todo
                    notes += [f"{dataset.title}: {EVALUATED_AGAIN}"] if unanswered else []
                    todo |= unanswered
                analysis = None if pair is None else ranks.share(known_analysis(pair, drafts[at], options))
                asked = pair if analysis is None else None
                if asked is not None:
                    todo |= asked.needed
                jobs.append((at, dataset, todo, analysis, asked))
            overall.begin(
                "evaluating", {each.title: len(each) * len(todo) for _, each, todo, *_ in jobs if todo}, "images"
            )
            for at, dataset, todo, analysis, asked in jobs:
                if todo:
                    from mergekit_wise.evaluation.image_batches import notes_on_bad

                    details, answers, found = _measure_dataset(
                        evaluator, dataset, variants, drafts[at], sorted(todo), asked
                    )
                    notes += notes_on_bad(dataset, details[0].bad)
                    measured = {(at, n): detail.record for n, detail in zip(sorted(todo), details, strict=True)}
                    new = {place: record for place, record in measured.items() if place not in known}
                    known |= new
                    for row, place in enumerate(measured):
                        answered[place] = answers.of_models([row])
                        if store is not None and ranks.rank == 0:
                            store.save(known[place], answered[place])
                    # Records first: details can be made again from nothing but time.
                    _append(results, [*new.values(), *([found] if found is not None else [])])
                    added += new
                    for detail in details:
                        files.write(detail)
                    analysis = analysis or found
                analyses += [analysis] if analysis is not None else []
            for at, dataset in enumerate(without_labels.parts):
                there = {number: each for (place, number), each in kept.items() if place == at}
                saved = store if ranks.rank == 0 else None
                found_there, said = answers_without_labels(evaluator, dataset, variants, own_drafts[at], there, saved)
                estimated.append(found_there)
                notes += said
    return found_so_far()


def _known_answers(store: AnswerStore, known: Mapping[Place, Record]) -> dict[Place, Answers]:
    """The answers behind known records."""
    found = {place: store.load([record]) for place, record in known.items()}
    return {place: answers for place, answers in found.items() if answers is not None}


def _with_calibration(known: Mapping[Place, Record], answered: Mapping[Place, Answers]) -> dict[Place, Record]:
    """The known records of earlier versions, which lack calibration, completed from the answers."""
    found = {place: calibrations(answers)[0] for place, answers in answered.items() if not known[place].calibration}
    return {
        place: replace(known[place], calibration=each.values, reliability=each.bins)
        for place, each in found.items()
        if each.values
    }


def _complete_answers(answered: Mapping[Place, Answers], datasets: int, variants: int) -> tuple[Answers, ...]:
    """The answers of all variants, for each data set on which all of them are known."""
    found = []
    for at in range(datasets):
        row = [answered[at, number] for number in range(variants) if (at, number) in answered]
        if len(row) == variants:
            found.append(stacked(row))
    return tuple(found)


def require_outside(outputs: Iterable[Path | None], datasets: Iterable[Dataset]) -> None:
    """Raise OutputError if an output would replace a file in the folder of a data set."""
    existing = [path for path in outputs if path is not None and path.is_file()]
    for path in existing:
        for dataset in datasets:
            if dataset.location and path.resolve().is_relative_to(Path(dataset.location).resolve()):
                raise OutputError(
                    f"{path}: exists in the folder of the data set {dataset.title} and would be replaced. Choose "
                    "another file."
                )


def require_outputs(options: EvaluationOptions) -> None:
    """Raise ResultsError now if a file cannot be written, or if the results file holds something else."""
    for path in filter(None, (options.results, options.per_class, options.per_sample)):
        require_writable(path)
    if (
        options.results is not None
        and options.answers
        and AnswerStore.beside(options.results).folder == options.results
    ):
        raise ResultsError(
            f"{options.results}: the folder with the answers for each image would have this name. Choose another name "
            "with --results, or leave the answers out with --no-answers."
        )
    if options.results is not None and options.results.is_file():
        read_records(options.results)


@contextmanager
def keeping(found: Callable[[], Measured]) -> Iterator[None]:
    """Let an error of a file that cannot be written carry what was measured."""
    try:
        yield
    except ResultsError as error:
        measured = found()
        if not measured.records:
            raise
        raise Unsaved(str(error), measured) from error


@contextmanager
def telling_what_is_saved(
    results: Path | None, known: Collection[object], options: EvaluationOptions
) -> Iterator[None]:
    """Let an interruption say how many results are in the file, and whether the same command reuses them."""
    try:
        yield
    except KeyboardInterrupt as error:
        if results is None and options.results is not None:  # the first process says it
            raise
        if results is None or not known:
            raise Interrupted.of(error, NO_RESULTS) from error
        advice = "." if measures_all(options) else "; run the same command to continue."
        text = f"Interrupted. {plural(len(known), 'result')} saved in {results}{advice}"
        raise Interrupted.of(error, text) from error


def _open_suite(options: EvaluationOptions, ranks: Ranks) -> Suite:
    def opening() -> Suite:
        return open_suite(
            options.suite or "",
            options.data,
            reference=options.reference,
            strict=options.strict,
            classnames=options.classnames,
            templates=options.templates,
            keep=options.cache,
        )

    places = tuple(map(str, (options.data, options.suite, options.reference, os.environ.get(ROOT_VARIABLE))))
    return with_pixel_limit(ranks.opened(places, opening), options.max_pixels)


def _with_all_classes(suite: Suite, model: Model) -> Suite:
    """The suite with as many classes as the model's own head has, where labels have no names."""
    if not model.has_own_head or model.classes is None:
        return suite
    reference = None if suite.reference is None else with_all_classes(suite.reference, model.classes)
    return replace(
        suite, reference=reference, shifts=tuple(with_all_classes(each, model.classes) for each in suite.shifts)
    )


def _parts(
    suite: Suite, options: EvaluationOptions, *, with_companions: bool
) -> tuple[tuple[Dataset, ...], tuple[Dataset, ...]]:
    """The suite's complete data sets, followed by the companions of shifts if asked for, and the parts to use."""
    complete = (*suite.datasets, *(companions(suite) if with_companions else ()))
    if options.limit is None:
        return complete, complete
    return complete, tuple(limited(each, options.limit, options.seed, _draw(options)) for each in complete)


def _draw(options: EvaluationOptions) -> Draw:
    return "balanced" if options.balanced else "proportional"


def _measure_dataset(
    evaluator: Evaluator,
    dataset: Dataset,
    variants: Sequence[Variant],
    drafts: Sequence[Draft],
    todo: Sequence[int],
    pair: PairAnalysis | None,
) -> tuple[list[Detail], Answers, Analysis | None]:
    """One pass over a data set by the variants with the numbers `todo`."""
    began, seen = time.perf_counter(), LogitDisagreement()
    observers = None if pair is None else pair.observers(todo, seen)
    found = evaluator.predict(todo, [variants[number] for number in todo], dataset, observers)
    seconds = round((time.perf_counter() - began) / len(todo), 3)
    details = as_details(dataset, found, [drafts[number] for number in todo], seconds)
    answers = as_answers(dataset, found, drafts[0]["role"])
    if pair is None:
        return details, answers, None
    seen_by_all = sum(evaluator.ranks.gather(seen), LogitDisagreement())
    return details, answers, pair.result(dataset, todo, drafts, found, seen_by_all)


def _drafts(
    evaluator: Evaluator,
    variants: Sequence[Variant],
    suite: Suite,
    complete: Sequence[Dataset],
    parts: Sequence[Dataset],
    options: EvaluationOptions,
) -> list[list[Draft]]:
    """For each data set, the draft of every variant's record."""
    data = _fingerprints(evaluator.ranks, parts)
    models = []
    for number, variant in enumerate(variants):
        options.progress("hashing weights", number, len(variants), "models")
        models.append({"model": variant.model, **place_of(variant), **evaluator.identity(variant)})
    pair = _pair(evaluator, variants)
    options.progress("hashing weights", len(variants), len(variants), "models")
    drafts: list[list[Draft]] = []
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
            "draw": _draw(options) if drawn else "",
            "columns": evaluator.heads.columns(dataset),
            "pair": pair,
            "missing": tuple(part.name for part in suite.missing),
            "same_images": dataset.same_images,
            "max_pixels": options.max_pixels,
        }
        stored = {"stored_crops": True} if _is_taken_as_stored(dataset, evaluator) else {}
        drafts.append(
            [
                model
                | facts
                | {
                    "preprocess": model["preprocess"] | stored,
                    "versions": _versions(model["versions"], dataset),
                }
                for model in models
            ]
        )
    return drafts


def _is_taken_as_stored(dataset: Dataset, evaluator: Evaluator) -> bool:
    """Whether images are neither resized nor cropped; see `image_batches.is_taken_as_stored`."""
    if not dataset.is_cropped:
        return False
    from mergekit_wise.evaluation.image_batches import is_taken_as_stored

    return is_taken_as_stored(dataset, evaluator.preprocess)


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


def _notes_on_rare_classes(parts: Sequence[Dataset]) -> Iterator[str]:
    """Says where the interval of macro F1 cannot be trusted."""
    for dataset in parts:
        counts = np.bincount(dataset.labels)
        rare = int(((counts > 0) & (counts < FEW)).sum())
        if dataset.metric.kind == "macro-f1" and rare:
            classes = plural(int((counts > 0).sum()), "class")
            few = f"{rare} of {classes} have fewer than {FEW} images"
            yield f"{dataset.title}: {few}, so the interval of macro F1 is too narrow"


def _notes_on_copies(datasets: Sequence[Dataset], drafts: Sequence[Sequence[Draft]]) -> Iterator[str]:
    """Names data sets that are the same one twice, as after a path was copied."""
    titles: dict[str, list[str]] = {}
    for dataset, row in zip(datasets, drafts, strict=False):  # companions follow, which repeat the reference on purpose
        titles.setdefault(row[0]["data"], []).append(dataset.title)
    for copies in titles.values():
        if len(copies) > 1:
            yield f"{listed(copies)}: the same images and labels, which count {len(copies)} times"


def place_of(variant: Variant) -> Draft:
    """Where a variant lies in a sweep, as records have it."""
    point = variant.point
    if point is None:
        return {"alpha": None, "point": (), "rule": variant.rule}
    return {"alpha": point.alpha, "point": () if point.alpha is not None else point.values, "rule": variant.rule}


def _pair(evaluator: Evaluator, variants: Sequence[Variant]) -> str:
    """The fingerprints of the two models whose mixtures the variants are; empty for a single checkpoint.

    Each is that of the mixture with the sweep's rules, but alpha 0 or 1 for every tensor that is mixed.
    """
    first = variants[0]
    if first.interpolated is None:
        return ""
    ends = [replace(first, rules=first.rules.at_end(alpha)) for alpha in (0.0, 1.0)]
    return "+".join(evaluator.identity(end)["weights"] for end in ends)


def _versions(versions: Mapping[str, str], dataset: Dataset) -> dict[str, str]:
    """The versions that a number depends on: that of random numbers only where images are made of them."""
    generated = (dataset.size is None and dataset.content is None) or dataset.corrupt is not None
    return {name: version for name, version in versions.items() if generated or name != GENERATING}


def _role(suite: Suite, dataset: Dataset) -> Role:
    if dataset is suite.reference:
        return "reference"
    return "shift" if any(dataset is shift for shift in suite.shifts) else "companion"


def _fingerprints(ranks: Ranks, datasets: Sequence[Dataset]) -> list[str]:
    """The fingerprint of each data set, the same in all processes. Raises SuiteError if machines hold other images.

    One process of each machine looks at the files: they may be a million, on a disk of the network. Of images in memory
    each process has its own.
    """
    looks = launcher.local_rank() in (0, None) or any(dataset.content is not None for dataset in datasets)
    with ranks.agreeing():
        own = [fingerprint(dataset) for dataset in datasets] if ranks.rank == 0 or looks else None
    first, *others = ranks.gather(own)
    assert first is not None
    for rank, other in enumerate(others, 1):
        if other not in (None, first):
            raise SuiteError(
                f"Process {rank} finds other images than process 0. Give --data the same data sets on every machine."
            )
    return first


def _append(results: Path | None, records: Sequence[Record | Analysis]) -> None:
    if results is not None and records:
        append_records(results, records)
