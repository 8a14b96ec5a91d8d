"""What the results file holds of the measurements that a run needs, and why it does not hold the others.

Knows records and drafts of them; measures nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mergekit_wise.evaluation.pair_analysis import PairAnalysis
from mergekit_wise.options import EvaluationOptions
from mergekit_wise.results import Analysis, Key, Record, changes, key_of, read_analyses, read_records
from mergekit_wise.results.identity import IDENTITY
from mergekit_wise.wording import listed, plural

Draft = Mapping[str, Any]
"""All attributes of a record that are not counted."""

Place = tuple[int, int]
"""The number of a data set and that of a variant."""

_LABELS = ("model", "alpha", "point", "rule", "suite", "title", "role", "pair", "same_images")
"""Attributes of a record that name it; the measurement does not depend on them."""

_NAMES = ("model", "alpha", "point", "rule", "suite", "dataset")


def measures_all(options: EvaluationOptions) -> bool:
    """Whether earlier results are not reused."""
    return options.redo or options.per_class is not None or options.per_sample is not None


def may_reuse(options: EvaluationOptions) -> bool:
    """Whether there is a results file whose measurements may be reused."""
    return options.results is not None and options.results.is_file() and not measures_all(options)


def known_records(
    drafts: Sequence[Sequence[Draft]], options: EvaluationOptions
) -> tuple[dict[Place, Record], list[Record], list[str]]:
    """Records that the results file holds, under their present names, and those of them that had other names there.

    Also sentences that say why records of the same models on the same data sets are not used.
    """
    if options.results is None or not may_reuse(options):
        return {}, [], []
    records = read_records(options.results)
    held: dict[Key | None, dict[tuple[object, ...], Record]] = {}
    for record in sorted(records, key=lambda record: -record.bad):  # of the same measurement, the most complete
        # Another limit may let other images be read; where all were read, it changes nothing.
        if record.bad <= options.max_bad and (not record.bad or record.max_pixels == options.max_pixels):
            held.setdefault(record.key, {})[tuple(getattr(record, label) for label in _LABELS)] = record
    roles = {tuple(getattr(record, name) for name in _NAMES): record.role for record in records}
    known: dict[Place, Record] = {}
    renamed: list[Record] = []
    reasons: dict[str, dict[str, int]] = {}
    for at, row in enumerate(drafts):
        for number, draft in enumerate(row):
            labels = {label: draft[label] for label in _LABELS}
            if same := held.get(key_of(draft)):
                same_name = same.get(tuple(labels.values()))
                known[at, number] = same_name or replace(list(same.values())[-1], **labels)
                # A report takes the latest role for that of the data set.
                is_latest = roles.get(tuple(draft[name] for name in _NAMES)) == draft["role"]
                renamed += [] if same_name and is_latest else [known[at, number]]
            elif reason := _reason(draft, records):
                titles = reasons.setdefault(reason, {})
                titles[draft["title"]] = titles.get(draft["title"], 0) + 1
    return known, renamed, [f"{listed(titles)}: measured again: {reason}." for reason, titles in reasons.items()]


def _reason(draft: Draft, records: Sequence[Record]) -> str:
    """Why no record of the same model on the same data set can be used; empty if there is none."""
    named = [
        record
        for record in records
        if all(getattr(record, name) == draft[name] for name in ("model", "alpha", "point", "rule", "dataset"))
        # Folders in two places may have the same name.
        and (record.suite == draft["suite"] or record.location == draft["location"])
    ]
    told = [record for record in reversed(named) if record.data]
    if not told:
        return "the earlier result does not say what it depends on" if named else ""
    nearest = min(told, key=lambda record: _distance(record, draft))
    found = changes({name: getattr(nearest, name) for name in IDENTITY}, draft)
    return ", ".join(found) or f"it lacks {plural(nearest.bad, 'unreadable image')}, more than --max-bad allows"


def _distance(record: Record, draft: Draft) -> int:
    """How many attributes differ that the measurement depends on."""
    here = key_of({name: getattr(record, name) for name in IDENTITY})
    return sum(one != other for one, other in zip(here, key_of(draft), strict=True))


def known_analysis(pair: PairAnalysis, drafts: Sequence[Draft], options: EvaluationOptions) -> Analysis | None:
    """The last analysis of the same pair with the same options that the results file holds."""
    if options.redo or options.results is None or not options.results.is_file():
        return None
    identity = pair.identity(drafts)
    held = [a for a in read_analyses(options.results) if all(getattr(a, k) == v for k, v in identity.items())]
    return held[-1] if held else None
