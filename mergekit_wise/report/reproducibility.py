"""How the numbers were measured: for each curve the details that all its records share, and tables of the others.

Knows curves; shows every detail that a record has, also those that this version does not know.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from mergekit_wise.report.comparison import Comparison, Curve
from mergekit_wise.report.table import EMPTY, Cell, Row, Table, alpha_text, listed
from mergekit_wise.results import Measurement

NAMES = {
    "data": "data (digest)",
    "prompts": "class names and templates (digest)",
    "missing": "data sets that were not found",
}
Rows = Sequence[Measurement]


def shared_facts(curve: Curve) -> tuple[tuple[str, str], ...]:
    """Name and value of the details that are the same in all records of a curve, with its versions and total time."""
    rows = tuple(curve.rows.values())
    found = [("model", curve.model), ("results file", curve.source)]
    found += [("swept", ", ".join(curve.swept))] if not curve.has_ends else []
    found += [("merging rules", curve.rule)] if curve.rule else []
    for key in _keys(rows):
        values = _values(rows, key)
        if len(values) == 1 or _determined_by(rows, key) is None:
            found.append((_name(key), _listed(values)))
    libraries = dict.fromkeys(library for row in rows for library in row.versions)
    versions = (f"{library} {_listed(row.versions.get(library, '?') for row in rows)}" for library in libraries)
    found.append(("versions", ", ".join(versions) or "not recorded"))
    seconds = sum(row.seconds for row in rows)
    if seconds:
        found.append(
            ("time", f"{seconds:,.0f} s for {len(rows)} {'measurement' if len(rows) == 1 else 'measurements'}")
        )
    return tuple(found)


def dataset_table(comparison: Comparison, curve: Curve) -> Table:
    """A row per data set: its images, and the details that differ between data sets."""
    rows = tuple(curve.rows.values())
    keys = [key for key in _keys(rows) if _determined_by(rows, key) == "dataset"]
    body = []
    for column in comparison.columns:
        of_set = [row for row in rows if row.dataset == column.name]
        if not of_set:
            continue
        seconds = sum(row.seconds for row in of_set)
        cells = (
            Cell(column.title),
            Cell(column.name),
            Cell(column.role),
            Cell(_listed(row.metric for row in of_set)),
            Cell(_listed(f"{row.total:,}" for row in of_set), number=float(of_set[0].total)),
            *(Cell(_listed(_values(of_set, key))) for key in keys),
            Cell(f"{seconds:,.1f}", number=seconds) if seconds else EMPTY,
        )
        body.append(Row(cells))
    counted = "items" if all("evaluator" in row.details for row in rows) else "images"
    columns = ("Data set", "name", "role", "metric", counted, *map(_name, keys), "seconds")
    return Table(columns, tuple(body), title=f"Data sets of {curve.name}")


def weights_table(curve: Curve) -> Table:
    """A row per alpha: the fingerprint of its weights, and the details that differ between alphas."""
    rows = tuple(curve.rows.values())
    keys = [key for key in _keys(rows) if _determined_by(rows, key) == "alpha"]
    body = []
    for alpha in curve.alphas:
        of_alpha = [row for row in rows if row.at == alpha]
        weights = _listed(row.weights or "not recorded" for row in of_alpha)
        number = alpha if isinstance(alpha, float) else float("nan")
        details = (Cell(_listed(_values(of_alpha, key))) for key in keys)
        body.append(Row((Cell(alpha_text(alpha), number=number), Cell(weights), *details)))
    columns = (curve.symbol, "weights (SHA-256, shortened)", *map(_name, keys))
    return Table(columns, tuple(body), title=f"Weights of {curve.name}")


def _keys(rows: Rows) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row.details))


def _values(rows: Rows, key: str) -> list[str]:
    """The different values of a detail."""
    return list(dict.fromkeys(row.details.get(key, "–") for row in rows))


def _determined_by(rows: Rows, key: str) -> str | None:
    """Whether a detail depends on the data set alone or on the alpha alone; None if on neither or if constant."""
    if len(_values(rows, key)) == 1:
        return None
    groupings: Mapping[str, Callable[[Measurement], Hashable]] = {
        "dataset": lambda row: row.dataset,
        "alpha": lambda row: row.at,
    }
    for name, group in groupings.items():
        found: dict[Hashable, set[str]] = {}
        for row in rows:
            found.setdefault(group(row), set()).add(row.details.get(key, "–"))
        if all(len(values) == 1 for values in found.values()):
            return name
    return None


def _name(key: str) -> str:
    return NAMES.get(key, key.replace("_", " "))


def _listed(words: Iterable[str]) -> str:
    """The different words, cut short after four."""
    return listed(dict.fromkeys(words), most=4)
