"""Variants of one model over a suite, as records: what `evaluate` and `sweep` have in common.

What a results file already holds is not measured again, and the records of a data set are written as soon as they are
there, so that a run that was stopped goes on where it was.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.dataset import Dataset, Missing, Suite
from mergekit_wise.datasets.fingerprint import fingerprint
from mergekit_wise.datasets.limit import limited
from mergekit_wise.datasets.subsets import companions
from mergekit_wise.errors import SuiteError
from mergekit_wise.evaluation import Ranks, joined
from mergekit_wise.evaluation.evaluator import Evaluator, Variant, open_evaluator
from mergekit_wise.evaluation.observers import NOTHING
from mergekit_wise.evaluation.pair_analysis import Comparison
from mergekit_wise.evaluation.scoring import as_details, remarks
from mergekit_wise.options import EvaluationOptions
from mergekit_wise.results import (
    Analysis,
    DetailFiles,
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

Draft = Mapping[str, Any]
"""All attributes of a record but what is counted."""

LABELS = ("model", "alpha", "suite", "title", "role")
"""What a record is called; the number does not depend on it."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Records by alpha, then data set; comparisons by data set; data sets that were not there; and so on.

    `added` is how many records are new, `notes` what to know.
    """

    records: tuple[Record, ...]
    analyses: tuple[Analysis, ...]
    missing: tuple[Missing, ...]
    added: int
    notes: tuple[str, ...]


def measure(
    template: Checkpoint,
    variants: Sequence[Variant],
    setting: EvaluationOptions,
    comparison: Comparison | None = None,
) -> Measured:
    """Records of every variant on every data set of the suite; `template` tells the architecture.

    Raises SuiteError, ModelError, ResultsError or UsageError: what is wrong, and what to do.
    """
    for path in filter(None, (setting.results, setting.per_class, setting.per_sample)):
        require_writable(path)
    notes: list[str] = []
    with (
        joined(setting.device) as (ranks, device),
        open_evaluator(template, setting, ranks, device, notes.append) as evaluator,
    ):
        suite, whole = _open(setting, with_companions=comparison is not None and comparison.analyze)
        parts = _limited(whole, setting)
        evaluator.heads.require(parts)
        drafts = _drafts(evaluator, variants, suite, whole, parts, setting)
        known, renamed = ranks.share(_known(drafts, setting))
        results = setting.results if ranks.rank == 0 else None
        _append(results, renamed)
        added, analyses = 0, []
        details = (setting.per_class, setting.per_sample) if ranks.rank == 0 else (None, None)
        with writing_details(*details) as files:
            for at, dataset in enumerate(parts):
                work = _Work(dataset, variants, drafts[at], comparison)
                held = found = ranks.share(work.known_analysis(setting))
                todo = [number for number in range(len(variants)) if (at, number) not in known]
                if comparison is not None and found is None:
                    todo = sorted({*todo, *comparison.needed})
                if todo:
                    records, found = work.measured(evaluator, todo, found, files, notes)
                    new = {(at, n): record for n, record in zip(todo, records, strict=True) if (at, n) not in known}
                    _append(results, [*new.values(), *([found] if found is not None and held is None else [])])
                    known |= new
                    added += len(new)
                analyses += [found] if found is not None else []
    order = sorted(known, key=lambda place: (-1.0 if (a := variants[place[1]].alpha) is None else a, place))
    notes += remarks([known[place] for place in order])
    return Measured(
        tuple(known[place] for place in order), tuple(analyses), suite.missing, added, tuple(dict.fromkeys(notes))
    )


def _open(setting: EvaluationOptions, *, with_companions: bool) -> tuple[Suite, tuple[Dataset, ...]]:
    """The suite and its data sets; after them the reference's parts with the classes of shifts, if asked for."""
    suite = open_suite(
        str(setting.suite),
        setting.data,
        strict=setting.strict,
        classnames=setting.classnames,
        templates=setting.templates,
    )
    return suite, (*suite.datasets, *(companions(suite) if with_companions else ()))


def _limited(datasets: Sequence[Dataset], setting: EvaluationOptions) -> tuple[Dataset, ...]:
    """Those parts of data sets that were asked for."""
    limit = setting.limit
    return tuple(datasets) if limit is None else tuple(limited(dataset, limit, setting.seed) for dataset in datasets)


def _role(suite: Suite, dataset: Dataset) -> Role:
    if dataset is suite.reference:
        return "reference"
    return "shift" if any(dataset is shift for shift in suite.shifts) else "companion"


def _drafts(
    evaluator: Evaluator,
    variants: Sequence[Variant],
    suite: Suite,
    datasets: Sequence[Dataset],
    parts: Sequence[Dataset],
    setting: EvaluationOptions,
) -> list[list[Draft]]:
    """For each data set, for each variant."""
    data = [fingerprint(dataset) for dataset in parts]
    _require_same_data(evaluator.engine.ranks, parts, data)
    models = []
    for number, variant in enumerate(variants):
        setting.progress("fingerprints of weights", number, len(variants), "models")
        models.append({"model": variant.model, "alpha": variant.alpha, **evaluator.identity(variant)})
    setting.progress("fingerprints of weights", len(variants), len(variants), "models")
    drafts: list[list[Draft]] = []
    for dataset, whole, digest in zip(parts, datasets, data, strict=True):
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
            "limit": setting.limit if drawn else None,
            "seed": setting.seed if drawn else None,
            "missing": tuple(part.name for part in suite.missing),
        }
        drafts.append([facts | model for model in models])
    return drafts


def _require_same_data(ranks: Ranks, parts: Sequence[Dataset], data: Sequence[str]) -> None:
    for rank, other in enumerate(ranks.everyone(list(data))):
        if other != data:
            raise SuiteError(
                f"Process {rank} finds other images than process {ranks.rank} does. Give --data the same data sets on "
                "every machine."
            )


Place = tuple[int, int]
"""Numbers of a data set and of a variant."""


def _known(drafts: Sequence[Sequence[Draft]], setting: EvaluationOptions) -> tuple[dict[Place, Record], list[Record]]:
    """What the results file already holds, under the names that it has now; and those that had others there."""
    again = setting.redo or setting.per_class is not None or setting.per_sample is not None
    if again or setting.results is None or not setting.results.exists():
        return {}, []
    held: dict[Key | None, dict[tuple[object, ...], Record]] = {}
    for record in read_records(setting.results):
        if record.bad <= setting.max_bad:
            held.setdefault(record.key, {})[tuple(getattr(record, label) for label in LABELS)] = record
    known: dict[Place, Record] = {}
    renamed: list[Record] = []
    for at, row in enumerate(drafts):
        for number, draft in enumerate(row):
            labels = {label: draft[label] for label in LABELS}
            if same := held.get(key_of(draft)):
                held_so = same.get(tuple(labels.values()))
                known[at, number] = held_so or replace(list(same.values())[-1], **labels)
                renamed += [] if held_so else [known[at, number]]
    return known, renamed


@dataclass(frozen=True, slots=True)
class _Work:
    """One data set, all variants and what their records begin with, and what is compared."""

    dataset: Dataset
    variants: Sequence[Variant]
    drafts: Sequence[Draft]
    comparison: Comparison | None

    def known_analysis(self, setting: EvaluationOptions) -> Analysis | None:
        if self.comparison is None or setting.redo or setting.results is None or not setting.results.exists():
            return None
        identity = self.comparison.over(self.dataset, range(len(self.variants)), self.drafts).identity
        held = [a for a in read_analyses(setting.results) if all(getattr(a, k) == v for k, v in identity.items())]
        return held[-1] if held else None

    def measured(
        self, evaluator: Evaluator, todo: Sequence[int], analysis: Analysis | None, files: DetailFiles, notes: list[str]
    ) -> tuple[list[Record], Analysis | None]:
        began = time.perf_counter()
        comparing = None
        if self.comparison is not None and analysis is None:
            comparing = self.comparison.over(self.dataset, todo, self.drafts)
        beside = NOTHING if comparing is None else comparing.beside
        found = evaluator.predict(todo, [self.variants[number] for number in todo], self.dataset, beside)
        seconds = round((time.perf_counter() - began) / len(todo), 3)
        details = as_details(self.dataset, found, [self.drafts[number] for number in todo], seconds)
        notes += [f"{self.dataset.title}: {reason} It is not counted." for reason in found.bad.values()]
        for detail in details:
            files.write(detail)
        if comparing is not None:
            analysis = comparing.result(found, evaluator.engine.ranks)
        return [detail.record for detail in details], analysis


def _append(results: Path | None, records: Sequence[Record | Analysis]) -> None:
    if results is not None and records:
        append_records(results, records)
