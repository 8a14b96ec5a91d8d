"""What a model says of images, and how that looks in Python."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mergekit_wise.api.result_object import ResultObject
from mergekit_wise.report.frames import prediction_rows
from mergekit_wise.report.table import Table
from mergekit_wise.report.terminal_tables import prediction_table
from mergekit_wise.results.predictions import Prediction
from mergekit_wise.wording import listed, plural


@dataclass(frozen=True, slots=True, repr=False)
class PredictReport(ResultObject):
    """What a model, or a pair of models, says of images.

    Attributes:
        predictions: of each image, in the order of their files.
        classnames: the names of the classes by number; empty if they have none.
        mixtures: each alpha, and how many images it served; empty for a single checkpoint.
        architecture, head, precision, device: of the model, for people.
        notes: on how files were read, and what was decided.
        output: the file that was written; None without.
    """

    predictions: tuple[Prediction, ...]
    classnames: tuple[str, ...]
    mixtures: tuple[tuple[float, int], ...]
    architecture: str
    head: str
    precision: str
    device: str
    notes: tuple[str, ...]
    output: Path | None = None

    def _summary(self) -> str:
        counts = Counter(each.text for each in self.predictions)
        classes = listed((f"{name} {count:,}" for name, count in counts.most_common(3)), 3)
        more = f" and {len(counts) - 3:,} more classes" if len(counts) > 3 else ""
        return f"{plural(len(self.predictions), 'image')}, {classes}{more}"

    def _entry(self) -> Mapping[str, Any]:
        return {
            "predictions": [each.entry for each in self.predictions],
            "classnames": self.classnames,
            "mixtures": self.mixtures,
            "architecture": self.architecture,
            "head": self.head,
            "precision": self.precision,
            "device": self.device,
            "output": self.output,
            "notes": self.notes,
        }

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        return prediction_rows(self.predictions)

    def _tables(self) -> Sequence[Table]:
        return [replace(prediction_table(self.predictions, with_alpha=bool(self.mixtures)), title="Predictions")]
