"""What a sweep found, and how that looks in Python."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergekit_wise.analysis import Answers, Candidate, Choice, Loss, Recommendation
from mergekit_wise.analysis.dynamic_gain import DynamicGain
from mergekit_wise.api.calibrate import CalibrateReport
from mergekit_wise.api.estimation import WithoutLabels, estimates_entry
from mergekit_wise.api.result_object import ResultObject
from mergekit_wise.datasets.dataset import Missing
from mergekit_wise.report.figures import sweep_figure
from mergekit_wise.report.frames import record_rows
from mergekit_wise.report.table import Table, percent
from mergekit_wise.report.terminal_tables import loss_table, loss_title, sweep_table, sweep_title
from mergekit_wise.results import Analysis, Record, as_entry
from mergekit_wise.wording import plural

if TYPE_CHECKING:
    from mergekit_wise.report.figures import Figure


@dataclass(frozen=True, slots=True, repr=False)
class SweepReport(ResultObject):
    """What a sweep found.

    Attributes:
        records: of all alphas on all data sets.
        candidates: what each alpha achieves.
        choice: the alpha to use and why, and how the others compare with 0.5.
        analyses: how the two models differ on each data set, if requested.
        missing: data sets of the suite that were not found.
        added: how many records are new.
        notes: on how files were read, and what was measured.
        saved: the checkpoints that were written.
        answers: for each image, by data set, with a row for each mixture in ascending order; without the data sets
            whose results were reused from a file that holds no answers.
        without_labels: what is estimated on images without labels; None if there are none.
        dynamic: what an alpha for each image achieves, if requested.
        merge_command: the line of ``wise merge`` that makes the recommended mixture, and of ``wise calibrate`` if it
            was calibrated.
        calibrated: how the mixture that was written was calibrated, if requested.
    """

    records: tuple[Record, ...]
    candidates: tuple[Candidate, ...]
    choice: Choice
    analyses: tuple[Analysis, ...]
    missing: tuple[Missing, ...]
    added: int
    notes: tuple[str, ...]
    saved: tuple[Path, ...] = ()
    answers: tuple[Answers, ...] = ()
    without_labels: WithoutLabels | None = None
    dynamic: tuple[DynamicGain, ...] = ()
    merge_command: str = ""
    calibrated: CalibrateReport | None = None

    @property
    def recommendation(self) -> Recommendation:
        """The alpha to use, and why."""
        return self.choice.recommendation

    @property
    def losses(self) -> tuple[Loss, ...]:
        """The best alpha of each column, and the loss at alpha 0.5 (the paper's Table 3)."""
        return self.choice.losses

    def plot(self) -> "Figure":
        """The figure that `plot` writes: shifts against the reference for every mixture, or a map of a grid's.

        It is not shown, and pyplot does not know of it. Raises ResultsError if no reference or no shift was measured.
        """
        return sweep_figure(self.records, self.recommendation)

    def _summary(self) -> str:
        chosen = next(each for each in self.candidates if each.point == self.recommendation.point)
        named = (("reference", chosen.reference_accuracy), ("shifts", chosen.shift_accuracy))
        numbers = ", ".join(f"{name} {percent(value)} %" for name, value in named if not isnan(value))
        sets = len({record.dataset for record in self.records})
        measured = f"{plural(len(self.candidates), 'mixture')} on {plural(sets, 'data set')}"
        return f"{measured}, recommended {chosen.point} ({numbers})"

    def _entry(self) -> Mapping[str, Any]:
        point, reason = self.recommendation.point, self.recommendation.reason
        found: dict[str, Any] = {
            "recommended": {"alpha": point.alpha, "point": dict(point.values), "reason": reason},
            "merge": self.merge_command,
            # A point is the list of its values.
            "choice": asdict(self.choice, dict_factory=lambda items: dict(items).get("values", dict(items))),
            "records": list(map(as_entry, self.records)),
        }
        if self.calibrated is not None:
            found["calibrated"] = {"on": self.calibrated.dataset, **self.calibrated.numbers}
        if self.dynamic:
            found["dynamic"] = list(map(asdict, self.dynamic))
        if self.analyses:
            found["analyses"] = list(map(as_entry, self.analyses))
        return found if self.without_labels is None else found | estimates_entry(self.without_labels)

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        return record_rows(self.records)

    def _tables(self) -> Sequence[Table]:
        shown = [record for record in self.records if record.role != "companion"]
        table = sweep_table(self.candidates, shown, self.recommendation.point)
        return [
            replace(table, title=sweep_title(shown, self.records[0].suite)),
            replace(loss_table(self.losses), title=loss_title(self.losses)),
        ]
