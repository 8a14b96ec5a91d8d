"""What a reader must know before comparing: records that are not comparable, and measurements that are missing.

Knows measurements and comparisons; changes nothing.
"""

from collections.abc import Callable, Iterable, Sequence

from mergekit_wise.report.comparison import Comparison, Curve
from mergekit_wise.report.series import described
from mergekit_wise.report.table import listed
from mergekit_wise.results import At, Measurement, Reading

SAME_EVERYWHERE = {
    "data": "images",
    "limit": "numbers of images",
    "seed": "random seeds for --limit",
    "draw": "draws of images (proportional or --balanced)",
}
"""Details that must agree for numbers to be comparable, and what to call them if they differ."""

DEFECTS = {
    "bad": "could not be read and {} not counted",
    "unsound": "had infinite or NaN outputs and {} counted as wrong",
}


def warnings(reading: Reading, comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """Sentences, the most important first."""
    shown = [row for comparison in comparisons for curve in comparison.curves for row in curve.rows.values()]
    curves = [curve for comparison in comparisons for curve in comparison.curves]
    found = [*_mixed_sources(comparisons), *_series(curves), *_repeated(curves)]
    found += [*_versions(shown), *_unmatched(reading, curves)]
    for comparison in comparisons:
        found += _of_suite(comparison)
        where = f"{comparison.suite}, " if len(comparisons) > 1 else ""
        found += (where + warning for curve in comparison.curves for warning in _of_curve(curve))
    return tuple(dict.fromkeys(found))


def _mixed_sources(comparisons: Sequence[Comparison]) -> Iterable[str]:
    if len(comparisons) > 1:
        names = listed(comparison.suite for comparison in comparisons)
        yield f"The records belong to {len(comparisons)} suites ({names}), shown separately. --suite NAME selects one."
    for comparison in comparisons:
        models: dict[str, list[str]] = {}
        for curve in comparison.curves:
            models.setdefault(curve.source, []).append(curve.model)
        for source, found in models.items():
            if len(set(found)) > 1:
                kinds = f"{len(set(found))} models ({listed(dict.fromkeys(found))})"
                yield f"{source} holds {kinds} on {comparison.suite}, shown separately."


def _series(curves: Sequence[Curve]) -> Iterable[str]:
    """Models that were measured in more than one way."""
    found: dict[str, list[tuple[str, int]]] = {}
    name = ""
    for curve in curves:
        name = name if curve.label else curve.name
        images = {row.dataset: row.total for row in curve.rows.values()}
        found.setdefault(name, []).append((curve.label, sum(images.values())))
    yield from (described(name, series) for name, series in found.items() if len(series) > 1)


def _repeated(curves: Sequence[Curve]) -> Iterable[str]:
    twice = dict.fromkeys(f"{_place(curve, alpha)} on {name}" for curve in curves for alpha, name in curve.repeated)
    if twice:
        yield f"Measured more than once with different results; the latest record is used: {listed(twice)}."


def _unmatched(reading: Reading, curves: Sequence[Curve]) -> Iterable[str]:
    """Analyses without a record of the same models and images."""
    used = [finding for curve in curves for finding in curve.findings.values()]
    known = {(f.source, f.suite, f.dataset, f.zeroshot, f.finetuned, f.data) for f in used}
    found = reading.findings
    lost = [f for f in found if (f.source, f.suite, f.dataset, f.zeroshot, f.finetuned, f.data) not in known]
    if lost:
        yield f"The analysis of {listed(dict.fromkeys(f.title for f in lost))} has no matching record and is left out."


def _versions(measurements: Sequence[Measurement]) -> Iterable[str]:
    found: dict[str, dict[str, None]] = {}
    for row in measurements:
        for library, version in row.versions.items():
            found.setdefault(library, {})[version] = None
    mixed = [f"{library} {listed(versions)}" for library, versions in found.items() if len(versions) > 1]
    if mixed:
        yield f"The records were made with different versions, which may change numbers: {'; '.join(mixed)}."


def _of_suite(comparison: Comparison) -> Iterable[str]:
    rows = [row for curve in comparison.curves for row in curve.rows.values()]
    main = [row for curve in comparison.curves if not curve.label for row in curve.rows.values()]
    if comparison.reference is None:
        yield f"{comparison.suite}: no reference was measured, so there are no plots of shifts against it."
    references = [column.title for column in comparison.columns if column.role == "reference"]
    if len(references) > 1:
        yield f"{comparison.suite} has {len(references)} references; shifts are plotted against {references[0]}."
    left_out = [c.title for c in comparison.columns if c.role == "shift" and c.name not in comparison.averaged]
    if left_out:
        yield f"{comparison.suite}: not every model was measured on {listed(left_out)}; left out of averages."
    yield from _differences(main, lambda row: str(row.total), "numbers of images")
    yield from _differences(main, lambda row: row.metric, "metrics")
    for field, name in SAME_EVERYWHERE.items():
        yield from _differences(main, _detail(field), name)
    yield from _incomplete(rows)


def _detail(field: str) -> Callable[[Measurement], str]:
    return lambda row: row.details.get(field, "")


def _differences(rows: Iterable[Measurement], value_of: Callable[[Measurement], str], name: str) -> Iterable[str]:
    """Data sets that were measured in more than one way."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        found.setdefault(row.title, {})[value_of(row)] = None
    mixed = {title: [value or "none" for value in values] for title, values in found.items() if len(values) > 1}
    if mixed:
        values = listed(next(iter(mixed.values())))
        yield f"Records of {listed(mixed)} have different {name} ({values}) and cannot be compared."


def _incomplete(rows: Sequence[Measurement]) -> Iterable[str]:
    """Data sets with images that are missing, unreadable or without a valid output; of several counts, the largest."""
    limited: dict[str, dict[str, None]] = {}
    found: dict[str, None] = {}
    largest: dict[tuple[str, str], int] = {}
    for row in rows:
        expected, limit = row.details.get("expected", ""), row.details.get("limit", "")
        if limit:
            limited.setdefault(limit, {})[row.title] = None
        elif expected.isdecimal() and int(expected) != row.total:
            found[f"{row.title}: {row.total:,} images; the complete data set has {int(expected):,}."] = None
        for field in DEFECTS:
            if (count := row.details.get(field, "")).isdecimal():
                largest[row.title, field] = max(largest.get((row.title, field), 0), int(count))
        if missing := row.details.get("missing"):
            found[f"Data sets of the suite {row.suite} that were not found: {missing}."] = None
    yield from (f"Random subset of at most {limit} images: {listed(titles)}." for limit, titles in limited.items())
    yield from found
    for (title, field), number in largest.items():
        images, verb = ("1 image", "is") if number == 1 else (f"{number:,} images", "are")
        yield f"{title}: {images} {DEFECTS[field].format(verb)}."


def _of_curve(curve: Curve) -> Iterable[str]:
    rows = list(curve.rows.values())
    if curve.has_ends and len(curve.mixtures) > 1:
        for endpoint, name in curve.ends.items():
            if endpoint not in curve.mixtures:
                yield f"{curve.name}: alpha {endpoint:g} ({name}) was not measured, so nothing is compared with it."
    titles = {row.dataset: row.title for row in rows}
    missing = [
        f"{_place(curve, a)} on {title}"
        for a in curve.alphas
        for name, title in titles.items()
        if (a, name) not in curve.rows
    ]
    if missing:
        yield f"{curve.name}: not measured: {listed(missing)}."


def _place(curve: Curve, at: At) -> str:
    point = curve.point(at)
    return "an unknown alpha" if point is None else str(point)
