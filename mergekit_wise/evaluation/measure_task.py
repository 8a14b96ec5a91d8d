"""Measures the mixtures of a sweep, or one model, with an evaluator of one's own, for `sweep` and `evaluate`.

As in `measure`, what the results file already holds is reused, and the records of a model are written as soon as it is
evaluated, those of all data sets together.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mergekit_wise import __version__
from mergekit_wise.analysis import Answers, stacked
from mergekit_wise.analysis.answers import of_items
from mergekit_wise.analysis.paired import evidence
from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.errors import SuiteError, Unsaved, UsageError
from mergekit_wise.evaluation.known_results import Draft
from mergekit_wise.evaluation.measure import (
    NOWHERE,
    Measured,
    keeping,
    place_of,
    require_outputs,
    telling_what_is_saved,
)
from mergekit_wise.evaluation.own_evaluator import Mixture, ModelTask, TaskEvaluator, TaskResult
from mergekit_wise.evaluation.task_results import count_of, require_same
from mergekit_wise.evaluation.variants import Variant, weights_fingerprint
from mergekit_wise.options import EvaluationOptions, SweepOptions
from mergekit_wise.results import AnswerStore, Record, Role, append_records, read_records
from mergekit_wise.results.identity import MEASUREMENT
from mergekit_wise.wording import listed, plural, shown

UNPAIRED = (
    'the evaluator gives no score for each item ("items"), so mixtures are compared by their intervals alone, which '
    "shows much less"
)

Place = tuple[int, str]
"""The number of a variant and the name of a data set."""

ROLES = ("reference", "shift")

NAMES = ("model", "alpha", "point", "rule", "suite", "pair")
"""What a record is called besides its data set; a report shows the latest of each name."""


def measure_task(
    evaluator: TaskEvaluator,
    template: Checkpoint,
    variants: Sequence[Variant],
    mixture: Callable[[Variant], Mixture],
    options: EvaluationOptions,
) -> Measured:
    """A record of every variant on every data set that the evaluator reports.

    Args:
        evaluator: is called once for each variant that the results file does not hold.
        template: has the tensors by which a variant is known.
        variants: a model each.
        mixture: makes of a variant what the evaluator gets.
        options: `reference`, `select_on`, `results`, `answers`, `redo` and `progress` are used.

    Raises:
        SuiteError: the evaluator failed at once.
        Unsaved: it failed later, or a file cannot be written; with what was measured before.
        ModelError: it builds the model by itself, and cannot.
        UsageError: it does not report the data sets that the options name.
        ResultsError: as `measure`.
    """
    require_outputs(options)
    notes: list[str] = []
    if isinstance(evaluator, ModelTask):
        evaluator.open(template, notes.append)
    drafts = _drafts(evaluator, template, variants, options)
    known, renamed, reasons = _known(drafts, evaluator, options)
    notes += reasons
    store = AnswerStore.beside(options.results) if options.results is not None and options.answers else None
    loaded = {} if store is None else {place: store.load([record]) for place, record in known.items()}
    answered = {place: answers for place, answers in loaded.items() if answers is not None}
    added: list[Record] = []

    def found_so_far() -> Measured:
        def order(place: Place) -> Any:
            return variants[place[0]].point or NOWHERE, place[0], ROLES.index(known[place].role)

        records = tuple(known[place] for place in sorted(known, key=order))
        answers = tuple(_complete_answers(answered, known, len(variants)))
        said = [UNPAIRED] if len(variants) > 1 and options.answers and not answered else []
        return Measured(records, (), answers, (), len(added), tuple(dict.fromkeys((*notes, *said))))

    with keeping(found_so_far), telling_what_is_saved(options.results, known, options):
        _append(options, renamed)
        todo = [number for number in range(len(variants)) if not any(place[0] == number for place in known)]
        for done, number in enumerate(todo):
            options.progress("evaluating", done, len(todo), "models")
            began = time.perf_counter()
            try:
                with mixture(variants[number]) as given:
                    given.coming = [variants[each] for each in todo[done + 1 :]]
                    results = tuple(evaluator(given))
                require_same(results, _facts(known.values()), evaluator.title)
            except SuiteError as error:
                if not known:
                    raise
                raise Unsaved(f"{error}\n{_kept(len(known), options)}", found_so_far()) from error
            seconds = round((time.perf_counter() - began) / len(results), 3)
            found = [_scored(result, drafts[number], evaluator.reference, seconds, results) for result in results]
            known |= {(number, record.dataset): record for record, _ in found}
            answered |= {(number, record.dataset): answers for record, answers in found if answers is not None}
            for record, answers in found:
                if store is not None and answers is not None:
                    store.save(record, answers)
            _append(options, [record for record, _ in found])
            added += [record for record, _ in found]
            _require_named(known.values(), evaluator, options)
        options.progress("evaluating", len(todo), len(todo), "models")
        _require_named(known.values(), evaluator, options)
    return found_so_far()


def _drafts(
    evaluator: TaskEvaluator, template: Checkpoint, variants: Sequence[Variant], options: EvaluationOptions
) -> list[Draft]:
    """What the records of each variant hold besides what its evaluation gives."""
    names = tuple(template.tensors)
    first, pair = variants[0], ""
    fingerprints = []
    for number, variant in enumerate(variants):
        options.progress("hashing weights", number, len(variants), "models")
        fingerprints.append(weights_fingerprint(names, variant.digest))
    if first.interpolated is not None:
        ends = [replace(first, rules=first.rules.at_end(alpha)) for alpha in (0.0, 1.0)]
        pair = "+".join(weights_fingerprint(names, end.digest) for end in ends)
    options.progress("hashing weights", len(variants), len(variants), "models")
    identity = f"{MEASUREMENT}\n{evaluator.identity}"
    shared = {
        "suite": evaluator.name,
        "pair": pair,
        "data": hashlib.sha256(identity.encode("utf-8", "replace")).hexdigest()[:16],
        "evaluator": evaluator.title,
        "versions": {"mergekit_wise": __version__, "measurement": MEASUREMENT},
    }
    return [
        {"model": variant.model, **place_of(variant), "weights": weights, **shared}
        for variant, weights in zip(variants, fingerprints, strict=True)
    ]


def _known(
    drafts: Sequence[Draft], evaluator: TaskEvaluator, options: EvaluationOptions
) -> tuple[dict[Place, Record], list[Record], list[str]]:
    """Records that the results file holds, under their present names, those that had others, and why some are not used.

    Those of a variant are used together or not at all, because a run may have been stopped between two of them.
    """
    if options.redo or options.results is None or not options.results.is_file():
        return {}, [], []
    held = [record for record in read_records(options.results) if record.evaluator]
    latest = {(*(getattr(record, label) for label in NAMES), record.dataset): record for record in held}
    known: dict[Place, Record] = {}
    renamed: list[Record] = []
    reasons: dict[str, None] = {}
    for number, draft in enumerate(drafts):
        same = [record for record in held if (record.weights, record.data) == (draft["weights"], draft["data"])]
        last = {record.dataset: record for record in same}
        if not last or not all(last.keys() == set(record.reported) for record in last.values()):
            reasons |= dict.fromkeys(_reason(draft, held))
            continue
        for name, record in last.items():
            labels = {label: draft[label] for label in NAMES}
            now = replace(record, **labels, role=_role(name, evaluator.reference))
            known[number, name] = now
            renamed += [] if latest.get((*(draft[label] for label in NAMES), name)) == now else [now]
    return known, renamed, [f"Measured again: {reason}." for reason in reasons]


def _reason(draft: Draft, held: Sequence[Record]) -> Iterator[str]:
    """Why no record of a model of the same name is used."""
    names = ("model", "alpha", "point", "rule", "evaluator")
    named = [record for record in held if all(getattr(record, name) == draft[name] for name in names)]
    if named and all(record.data != draft["data"] for record in named):
        yield f"{draft['evaluator']}: the evaluator, or a file that its command names, changed"
    elif named and all(record.weights != draft["weights"] for record in named):
        yield "the weights changed"


def _scored(
    result: TaskResult, draft: Draft, reference: str, seconds: float, together: Sequence[TaskResult]
) -> tuple[Record, Answers | None]:
    """The record of a result, and the scores of its items if it has any."""
    facts: dict[str, Any] = {
        **draft,
        "dataset": result.dataset,
        "title": result.title or result.dataset,
        "role": _role(result.dataset, reference),
        "metric": result.metric,
        "values": dict(result.values),
        "seconds": seconds,
        "reported": tuple(each.dataset for each in together),
        "correct": result.correct,
        "total": count_of(result),
    }
    if result.items is None:
        return Record(**facts) if result.score is None else Record(**facts, value=result.score), None
    answers = of_items(result.dataset, facts["title"], facts["role"], result.items)
    if answers.metric.kind == "top-1":
        return Record(**{**facts, "correct": int(result.items.sum())}), answers
    # With a role in the comparison, whatever it is in the suite.
    alone = evidence([replace(answers, role="shift")], {result.dataset: result.dataset}).estimate(0, 0)
    interval = max(0.0, alone.low), min(1.0, alone.high)
    return Record(**facts, value=float(result.items.mean()), interval=interval), answers


def _complete_answers(
    answered: Mapping[Place, Answers], known: Mapping[Place, Record], variants: int
) -> Iterator[Answers]:
    """The answers of all variants on each data set for which all are known, with its present role."""
    roles = {name: record.role for (_, name), record in known.items()}
    for name, role in sorted(roles.items(), key=lambda each: ROLES.index(each[1])):
        row = [answered[number, name] for number in range(variants) if (number, name) in answered]
        if len(row) == variants:
            yield replace(stacked(row), role=role)


def _require_named(records: Iterable[Record], evaluator: TaskEvaluator, options: EvaluationOptions) -> None:
    """Raise UsageError if the evaluator does not report a data set that the options name."""
    found = [record.dataset for record in records]
    selected = options.select_on if isinstance(options, SweepOptions) else None
    for option, name in (("--reference", evaluator.reference), ("--select-on", selected)):
        if name and name not in found:
            raise UsageError(
                f"{option} {shown(name)}: {evaluator.title} reports no data set of this name, but "
                f"{listed(map(shown, dict.fromkeys(found)))}. Name one of these."
            )


def _facts(records: Iterable[Record]) -> dict[str, tuple[str, int]]:
    return {record.dataset: (record.metric, record.total) for record in records}


def _role(name: str, reference: str) -> Role:
    return "reference" if name == reference else "shift"


def _kept(records: int, options: EvaluationOptions) -> str:
    if options.results is None:
        return f"{plural(records, 'result')} measured before."
    advice = "" if options.redo else "; run the same command to continue"
    return f"{plural(records, 'result')} saved in {options.results}{advice}."


def _append(options: EvaluationOptions, records: Sequence[Record]) -> None:
    if options.results is not None and records:
        append_records(options.results, records)
