"""How the two ends of a sweep, and mixtures of them, differ on a data set."""

from collections.abc import Mapping
from dataclasses import dataclass

ANALYSIS = "analysis"
"""What ``kind`` is in the line of a results file."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """Numbers that stand beside the accuracies of a sweep.

    Attributes:
        model: file names of both ends.
        zeroshot, finetuned: fingerprints of their weights.
        suite, dataset, title, role, data: what was looked at, as in a `Record`.
        setting: a digest of all else that the numbers depend on.
        images: how many.
        values: the numbers by name.
    """

    model: str
    zeroshot: str
    finetuned: str
    suite: str
    dataset: str
    title: str
    role: str
    data: str
    setting: str
    images: int
    values: Mapping[str, float]

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for two analyses of the same thing."""
        return (self.zeroshot, self.finetuned, self.dataset, self.data, self.setting, *sorted(self.values))
