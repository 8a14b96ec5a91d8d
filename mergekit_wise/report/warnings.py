"""What a reader must know before comparing: records that do not belong together, and those that are missing.

Knows measurements and comparisons; says, and changes nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from mergekit_wise.report.comparison import Comparison, Curve
from mergekit_wise.report.measurement import Measurement
from mergekit_wise.report.reading import Reading

ENDS = {0.0: "zero-shot", 1.0: "fine-tuned"}

SAME_EVERYWHERE = {"data": "other images", "limit": "another number of images", "seed": "images drawn in another way"}
SAME_IN_A_CURVE = {
    "prompts": "other class names or templates",
    "head": "another head",
    "architecture": "another architecture",
    "precision": "another precision",
}
"""Details of a record, and what it means if they differ."""


DEFECTS = {
    "bad": "images that could not be read and are not in the counts",
    "unsound": "images whose outputs were infinite or no numbers, which count as wrong",
}


def remarks(reading: Reading, comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """Sentences, in the order in which they matter."""
    measurements = reading.measurements
    found = [*_mixtures(comparisons), *_repeated(measurements), *_versions(measurements), *_alone(reading)]
    for comparison in comparisons:
        found += _suite(comparison)
        where = f"{comparison.suite}, " if len(comparisons) > 1 else ""
        found += (where + said for curve in comparison.curves for said in _curve(curve))
    return tuple(dict.fromkeys(found))


def _mixtures(comparisons: Sequence[Comparison]) -> Iterable[str]:
    if len(comparisons) > 1:
        names = _list(comparison.suite for comparison in comparisons)
        yield f"The records are of {len(comparisons)} suites ({names}): each by itself. --suite NAME draws one."
    for comparison in comparisons:
        models: dict[str, list[str]] = {}
        for curve in comparison.curves:
            models.setdefault(curve.source, []).append(curve.model)
        for source, found in models.items():
            if len(set(found)) > 1:
                kinds = f"{len(set(found))} models ({_list(dict.fromkeys(found))})"
                yield f"{source} holds {kinds} on {comparison.suite}: each is drawn by itself."


def _repeated(measurements: Sequence[Measurement]) -> Iterable[str]:
    counts = Counter((m.source, m.model, m.suite, m.alpha, m.dataset) for m in measurements)
    twice = [key for key, count in counts.items() if count > 1]
    if twice:
        shown = _list(f"{_alpha(key[3])} on {key[4]}" for key in twice)
        yield f"Measured more than once, of which the latest counts: {shown}."


def _alone(reading: Reading) -> Iterable[str]:
    """Findings that no record stands beside."""
    known = {(row.source, row.suite, row.dataset): None for row in reading.measurements}
    lost = [f for f in reading.findings if (f.source, f.suite, f.dataset) not in known]
    if lost:
        yield f"An analysis of {_list(dict.fromkeys(f.title for f in lost))} has no record beside it: left out."


def _versions(measurements: Sequence[Measurement]) -> Iterable[str]:
    found: dict[str, dict[str, None]] = {}
    for row in measurements:
        for library, version in row.versions.items():
            found.setdefault(library, {})[version] = None
    mixed = [f"{library} {_list(versions)}" for library, versions in found.items() if len(versions) > 1]
    if mixed:
        yield f"The records were made with different versions, which may change numbers: {'; '.join(mixed)}."


def _suite(comparison: Comparison) -> Iterable[str]:
    rows = [row for curve in comparison.curves for row in curve.rows.values()]
    if comparison.reference is None:
        yield f"{comparison.suite}: no reference was measured, so shifts are not drawn against one."
    references = [column.title for column in comparison.columns if column.role == "reference"]
    if len(references) > 1:
        yield f"{comparison.suite} has {len(references)} references; {references[0]} is the one that is drawn against."
    left_out = [c.title for c in comparison.columns if c.role == "shift" and c.name not in comparison.averaged]
    if left_out:
        yield f"{comparison.suite}: not every model was measured on {_list(left_out)}: left out of averages."
    yield from _differences(rows, lambda row: str(row.total), "another number of images")
    yield from _differences(rows, lambda row: row.metric, "another metric")
    for field, meaning in SAME_EVERYWHERE.items():
        yield from _differences(rows, lambda row, field=field: row.details.get(field, ""), meaning)  # type: ignore[misc]
    yield from _incomplete(rows)


def _differences(rows: Iterable[Measurement], what: Callable[[Measurement], str], meaning: str) -> Iterable[str]:
    """Data sets that were measured in more than one way."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        found.setdefault(row.title, {})[what(row)] = None
    mixed = {title: [way or "none" for way in ways] for title, ways in found.items() if len(ways) > 1}
    if mixed:
        ways = _list(next(iter(mixed.values())))
        yield f"Some records of {_list(mixed)} are of {meaning} ({ways}): they cannot be compared."


def _incomplete(rows: Sequence[Measurement]) -> Iterable[str]:
    """Data sets of which images are missing, unreadable or without an answer; of several numbers, the largest."""
    limited: dict[str, dict[str, None]] = {}
    said: dict[str, None] = {}
    most: dict[tuple[str, str], int] = {}
    for row in rows:
        expected, limit = row.details.get("expected", ""), row.details.get("limit", "")
        if limit:
            limited.setdefault(limit, {})[row.title] = None
        elif expected.isdecimal() and int(expected) != row.total:
            said[f"{row.title}: {row.total:,} images of {int(expected):,} in the complete data set."] = None
        for field in DEFECTS:
            if (count := row.details.get(field, "")).isdecimal():
                most[row.title, field] = max(most.get((row.title, field), 0), int(count))
        if missing := row.details.get("missing"):
            said[f"Of the suite {row.suite} these data sets were not there: {missing}."] = None
    yield from (
        f"A part of the images alone, with --limit {limit}: {_list(titles)}." for limit, titles in limited.items()
    )
    yield from said
    yield from (f"{title}: {DEFECTS[field]}: {count:,}." for (title, field), count in most.items())


def _curve(curve: Curve) -> Iterable[str]:
    rows = list(curve.rows.values())
    if len(curve.mixtures) > 1:
        for end, name in ENDS.items():
            if end not in curve.mixtures:
                yield f"{curve.name}: alpha {end:g} ({name}) was not measured, so nothing is compared with it."
    datasets = dict.fromkeys(row.dataset for row in rows)
    holes = [f"{_alpha(a)} on {name}" for a in curve.alphas for name in datasets if (a, name) not in curve.rows]
    if holes:
        yield f"{curve.name}: not measured: {_list(holes)}."
    for alpha in curve.alphas:
        weights = {row.weights for row in rows if row.alpha == alpha and row.weights}
        if len(weights) > 1:
            yield f"{curve.name}: {_alpha(alpha)} was measured with different weights ({_list(sorted(weights))})."
    for field, meaning in SAME_IN_A_CURVE.items():
        yield from (
            f"{curve.name}: {said}"
            for said in _differences(rows, lambda row, field=field: row.details.get(field, ""), meaning)  # type: ignore[misc]
        )


def _alpha(alpha: float | None) -> str:
    return "an unknown alpha" if alpha is None else f"alpha {alpha:g}"


def _list(words: Iterable[str], most: int = 6) -> str:
    found = list(words)
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")
