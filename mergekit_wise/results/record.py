"""What was measured, with everything that the number depends on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isnan, nan
from typing import Any, Literal

from mergekit_wise.analysis import clopper_pearson

Role = Literal["reference", "shift", "companion"]
"""A companion is the reference restricted to the classes of a shift, and counts in no average."""
Key = tuple[str, ...]

IDENTITY = (
    "weights",
    "architecture",
    "preprocess",
    "head",
    "prompts",
    "precision",
    "versions",
    "dataset",
    "data",
    "metric",
    "limit",
    "seed",
)
"""What the number depends on."""


@dataclass(frozen=True, slots=True)
class Record:
    """What one model achieves on one data set. Records of earlier versions lack what has a default.

    Attributes:
        model: file name of the checkpoint, or of both ends of a sweep.
        weights: SHA-256, shortened, of the weights that were evaluated.
        alpha: the mixing coefficient, where it is known.
        suite, dataset, title, role: what was evaluated, and which part it plays.
        correct, total: top-1 counts.
        versions: of the libraries that the number depends on.
        seconds: time for this data set.
        top5: how often the label is among the best five; None where there are no more classes than that.
        metric: the name of what is reported, `value` what it is, in [0, 1], and `interval` its 95 %. Where they are not
            told: the accuracy, and Clopper-Pearson's interval of it.
        values: other numbers in [0, 1] by name; `worst` is the name of the worst group, where that is reported.
        architecture: of the model, and how it is known; `preprocess`, what becomes of images before it sees them.
        head: where the head comes from, and `prompts` a digest of the class names and templates it was made of.
        precision, device: in what, and on what, it was computed.
        data: a digest of the data set's images and labels.
        location: where the images were, and `expected` how many the complete data set has.
        limit, seed: how many images were drawn of the data set, and with what; None where all were taken.
        bad: images that could not be read and are not in the counts.
        unsound: images for which the logits were infinite or NaN; they count as wrong.
        missing: data sets of the suite that were not there.
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
    top5: int | None = None
    metric: str = "top-1"
    value: float = nan
    values: Mapping[str, float] = field(default_factory=dict)
    worst: str = ""
    interval: tuple[float, float] = (nan, nan)
    architecture: str = ""
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    head: str = ""
    prompts: str = ""
    precision: str = ""
    device: str = ""
    data: str = ""
    location: str = ""
    expected: int | None = None
    limit: int | None = None
    seed: int | None = None
    bad: int = 0
    unsound: int = 0
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isnan(self.value):
            object.__setattr__(self, "value", self.accuracy)
        if isnan(self.interval[0]):
            object.__setattr__(self, "interval", clopper_pearson(self.correct, self.total))

    @property
    def accuracy(self) -> float:
        """Share of the images that are classified right."""
        return self.correct / self.total

    @property
    def key(self) -> Key | None:
        """Equal for two measurements of the same thing; None for records of earlier versions, which say too little."""
        return key_of({name: getattr(self, name) for name in IDENTITY}) if self.data else None


def key_of(facts: Mapping[str, Any]) -> Key:
    """The key of the record that will have these attributes, among them all of `IDENTITY`."""
    return tuple(json.dumps(facts[name], sort_keys=True) for name in IDENTITY)
