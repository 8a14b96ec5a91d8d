"""Predictions for images without classes, a line each: JSON Lines or CSV. Knows no model and no image."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mergekit_wise.results.details import no_formula
from mergekit_wise.wording import shown

COLUMNS = ("file", "class", "name", "probability", "alpha", "error")
"""The first columns of the CSV file; those of the next most probable classes follow."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one image.

    Attributes:
        file: the image's path below what was given, or its name in a tar.
        classes: the numbers of the most probable classes, the most probable one first; empty if there is an error.
        probabilities: of these classes.
        names: of these classes; empty if the classes have none.
        alpha: of the mixture that predicted; None for a single checkpoint.
        error: why there is no prediction; else empty.
    """

    file: str
    classes: tuple[int, ...] = ()
    probabilities: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    alpha: float | None = None
    error: str = ""

    @property
    def ranking(self) -> list[tuple[int, str | None, float]]:
        """Number, name and probability of each class."""
        names = self.names or (None,) * len(self.classes)
        return list(zip(self.classes, names, self.probabilities, strict=True))

    @property
    def entry(self) -> dict[str, object]:
        """The prediction for JSON; ``top`` lists the classes if there are several."""
        line: dict[str, object] = {"file": self.file}
        if self.error:
            return line | {"error": self.error}
        entries = [{"class": one, "name": name, "probability": share} for one, name, share in self.ranking]
        line |= entries[0]
        line |= {} if self.alpha is None else {"alpha": self.alpha}
        return line | ({"top": entries} if len(entries) > 1 else {})

    @property
    def text(self) -> str:
        """The most probable class for people: its name, or its number if it has none."""
        return "no prediction" if self.error else (self.names or tuple(map(str, self.classes)))[0]

    def __repr__(self) -> str:
        what = f"{self.text} {100 * self.probabilities[0]:.1f} %" if self.probabilities else self.text
        return f"<Prediction: {shown(self.file)}, {shown(what)}>"


def as_json_lines(predictions: Iterable[Prediction]) -> Iterator[str]:
    """A JSON object for each image, without line feeds."""
    return (json.dumps(each.entry) for each in predictions)


def as_csv(predictions: Sequence[Prediction]) -> str:
    """A table with a row for each image; no cell is a formula for spreadsheets."""
    ranks = range(2, 1 + max((len(each.classes) for each in predictions), default=1))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow((*COLUMNS, *(f"{name}_{rank}" for rank in ranks for name in COLUMNS[1:4])))
    for each in predictions:
        cells = [cell for one, name, share in each.ranking for cell in (one, no_formula(name or ""), share)]
        cells += [""] * (3 * (1 + len(ranks)) - len(cells))
        alpha = "" if each.alpha is None or each.error else each.alpha
        rows.writerow((no_formula(each.file), *cells[:3], alpha, no_formula(each.error), *cells[3:]))
    return text.getvalue()
