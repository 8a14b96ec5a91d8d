"""What was measured, with everything that the number depends on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mergekit_wise.analysis import clopper_pearson

Role = Literal["reference", "shift"]


@dataclass(frozen=True, slots=True)
class Record:
    """The accuracy of one model on one data set.

    Attributes:
        model: file name of the checkpoint, or of both ends of a sweep.
        weights: SHA-256, shortened, of the weights that were evaluated.
        alpha: the mixing coefficient, where it is known.
        suite, dataset, title, role: what was evaluated, and which part it plays.
        correct, total: top-1 counts.
        versions: of the libraries that the number depends on.
        seconds: time for this data set.
    """

    model: str
    weights: str
    alpha: float | None
    suite: str
    dataset: str
    title: str
    role: Role
    correct: int
    total: int
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def accuracy(self) -> float:
        """Share of the images that are classified right."""
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Clopper-Pearson interval of the accuracy."""
        return clopper_pearson(self.correct, self.total)
