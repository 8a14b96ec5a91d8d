"""What was measured, and how: for each curve what all its records share, and tables of what they do not.

Knows curves; shows every detail that a record has, known or not.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from mergekit_wise.report.comparison import Comparison, Curve
from mergekit_wise.report.measurement import Measurement
from mergekit_wise.report.sheet import EMPTY, Cell, Row, Sheet, alpha_text

NAMES = {
    "data": "images (digest)",
    "prompts": "class names and templates (digest)",
    "missing": "data sets that were missing",
}
Rows = Sequence[Measurement]


def shared_facts(curve: Curve) -> tuple[tuple[str, str], ...]:
    """Name and value of what is the same in all records of a curve, and its versions."""
    rows = tuple(curve.rows.values())
    found = [("model", curve.model), ("file of results", curve.source)]
    for key in _keys(rows):
        values = _values(rows, key)
        if len(values) == 1:
            found.append((_name(key), values[0]))
        elif _varies_by(rows, key) is None:
            found.append((_name(key), _some(values)))
    libraries = {library: None for row in rows for library in row.versions}
    versions = (f"{library} {_some(_each(row.versions.get(library, '?') for row in rows))}" for library in libraries)
    found.append(("versions", ", ".join(versions) or "not told"))
    seconds = sum(row.seconds for row in rows)
    if seconds:
        found.append(("time", f"{seconds:,.0f} s for {len(rows)} measurements"))
    return tuple(found)


def dataset_sheet(comparison: Comparison, curve: Curve) -> Sheet:
    """A row a data set: its images, and the details that differ between data sets."""
    rows = tuple(curve.rows.values())
    keys = [key for key in _keys(rows) if _varies_by(rows, key) == "dataset"]
    lines = []
    for column in comparison.columns:
        of_set = [row for row in rows if row.dataset == column.name]
        if not of_set:
            continue
        totals = _each(f"{row.total:,}" for row in of_set)
        images = Cell(_some(totals), number=float(of_set[0].total))
        seconds = sum(row.seconds for row in of_set)
        lines.append(
            Row(
                (
                    Cell(column.title),
                    Cell(column.name),
                    Cell(column.role),
                    Cell(_some(_each(row.metric for row in of_set))),
                    images,
                    *(Cell(_some(_values(of_set, key))) for key in keys),
                    Cell(f"{seconds:,.1f}", number=seconds) if seconds else EMPTY,
                )
            )
        )
    columns = ("Data set", "name", "role", "metric", "images", *map(_name, keys), "seconds")
    return Sheet(f"Data sets of {curve.name}", columns, 1, tuple(lines))


def weights_sheet(curve: Curve) -> Sheet:
    """A row an alpha: the fingerprint of its weights, and the details that differ between alphas."""
    rows = tuple(curve.rows.values())
    keys = [key for key in _keys(rows) if _varies_by(rows, key) == "alpha"]
    lines = []
    for alpha in curve.alphas:
        of_alpha = [row for row in rows if row.alpha == alpha]
        weights = _some(_each(row.weights or "not told" for row in of_alpha))
        number = float("nan") if alpha is None else alpha
        cells = (Cell(_some(_values(of_alpha, key))) for key in keys)
        lines.append(Row((Cell(alpha_text(alpha), number=number), Cell(weights), *cells)))
    columns = ("α", "weights (SHA-256, shortened)", *map(_name, keys))
    return Sheet(f"Weights of {curve.name}", columns, 1, tuple(lines))


def _keys(rows: Rows) -> list[str]:
    return _each(key for row in rows for key in row.details)


def _values(rows: Rows, key: str) -> list[str]:
    return _each(row.details.get(key, "–") for row in rows)


def _varies_by(rows: Rows, key: str) -> str | None:
    """What settles a detail that is not the same in all records: the data set or the alpha; None for neither."""
    if len(_values(rows, key)) == 1:
        return None
    ways: Mapping[str, Callable[[Measurement], Hashable]] = {
        "dataset": lambda row: row.dataset,
        "alpha": lambda row: row.alpha,
    }
    for name, group in ways.items():
        found: dict[Hashable, set[str]] = {}
        for row in rows:
            found.setdefault(group(row), set()).add(row.details.get(key, "–"))
        if all(len(values) == 1 for values in found.values()):
            return name
    return None


def _name(key: str) -> str:
    return NAMES.get(key, key.replace("_", " "))


def _each(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))


def _some(words: Sequence[str], most: int = 4) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
