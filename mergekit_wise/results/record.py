"""What a results file holds: measurements of models on data sets, and analyses of how two models differ.

A record carries everything that its number depends on. Knows no file and no model.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from typing import Any, Literal, Protocol

from mergekit_wise.analysis import UNMEASURED, Bins, Candidate, Estimate, Point, clopper_pearson
from mergekit_wise.results.identity import IDENTITY, Key, key_of
from mergekit_wise.wording import plural, shown

Role = Literal["reference", "shift", "companion"]
"""A companion is the reference restricted to the classes of a shift, and is part of no average."""

ANALYSIS = "analysis"
"""Value of ``kind`` in an analysis' line of a results file; a record's line has no ``kind``."""

ENSEMBLE = "output-space ensemble at "
"""What the names of the values that belong to output-space ensembles begin with; the alpha follows."""


@dataclass(frozen=True, slots=True)
class Record:
    """What one model achieves on one data set. Records of earlier versions lack the attributes that have a default.

    Attributes:
        model: file name of the checkpoint, or of both checkpoints of a sweep.
        weights: SHA-256, shortened, of the weights that were evaluated.
        alpha: the mixing coefficient, if it is known.
        suite, dataset, title, role: what the model was evaluated on, and the data set's role in the suite.
        correct, total: top-1 counts; of an evaluator that scores items, None and how many there are; None and 1 of one
            that gives a score alone.
        versions: of the libraries that the number depends on.
        seconds: time for this data set.
        top5: how often the label is among the five best; None if there are no more than five classes, or if images have
            several labels.
        metric: the name of the reported number, `value` the number, in [0, 1], and `interval` its 95 % interval. By
            default the accuracy and its Clopper-Pearson interval.
        values: other numbers in [0, 1] by name; `worst` is the name of the worst group, if that is reported.
        calibration: of `analysis.CALIBRATION`, the numbers that are defined, by name; empty in records of earlier
            versions, and where the logits of an image are not finite.
        reliability: with them, the `analysis.calibration.Bins` of the reliability diagram; else empty.
        architecture: of the model, and how it is known; `preprocess`: the transforms of its images.
        head: where the head comes from; `prompts`: a digest of the class names and templates it was made of.
        precision, device: what it was computed in and on.
        data: a digest of the data set's images and labels.
        location: where the images were; `expected`: how many the complete data set has.
        limit, seed: how many images were drawn of the data set, and with which seed; None if all were used.
        draw: how they were drawn, "proportional" or "balanced" (as earlier versions did); empty if all were used.
        columns: a digest of the head's outputs that stand for the data set's classes; empty if each output is a class.
        point: the parameters that a sweep varied, with their values, unless alpha alone was varied; else empty.
        rule: the other merging rules, as options of ``wise merge``; empty if every tensor is mixed with one alpha.
        pair: of a mixture in a sweep, the fingerprints of the weights of both models, joined by a plus sign.
        bad: images that could not be read and are not in the counts.
        unsound: images whose logits were infinite or NaN; they count as wrong.
        missing: data sets of the suite that were not found.
        same_images: equal for data sets that are made of the same images; empty for images of its own.
        max_pixels: the limit beyond which images were unreadable; None for the usual one.
        evaluator: of one's own, which measured this: a command line or the name of a function; else empty. `data` is
            then a digest of all that the evaluator says its numbers depend on.
        reported: the names of all data sets that the evaluator reported together.
    """

    model: str
    weights: str
    alpha: float | None
    suite: str
    dataset: str
    title: str
    role: Role
    correct: int | None
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
    same_images: str = ""
    max_pixels: int | None = None
    draw: str = ""
    columns: str = ""
    pair: str = ""
    point: tuple[tuple[str, float], ...] = ()
    rule: str = ""
    calibration: Mapping[str, float] = field(default_factory=dict)
    reliability: Bins = ()
    evaluator: str = ""
    reported: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.limit is not None and not self.draw:
            object.__setattr__(self, "draw", "balanced")
        if isnan(self.value):
            object.__setattr__(self, "value", self.accuracy)
        if isnan(self.interval[0]) and self.correct is not None:
            object.__setattr__(self, "interval", clopper_pearson(self.correct, self.total))

    def __repr__(self) -> str:
        where = "" if self.at is None else f", {self.at}"
        what = f"{self.metric} {100 * self.value:.1f} % on {self.dataset} ({self.role}, {plural(self.total, 'image')})"
        return f"<Record: {shown(self.model)}{where}, {shown(what, 120)}>"

    @property
    def accuracy(self) -> float:
        """Share of the images that are classified correctly; the number itself where nothing is counted."""
        return self.value if self.correct is None else self.correct / self.total

    @property
    def result(self) -> Estimate:
        """The reported number with its interval."""
        return Estimate(self.value, *self.interval)

    @property
    def at(self) -> Point | None:
        """Where the mixture lies in its sweep; None if that is not known."""
        if self.point:
            return Point(self.point)
        return None if self.alpha is None else Point.of_alpha(self.alpha)

    @property
    def key(self) -> Key | None:
        """Equal for two measurements of the same thing; None for records of earlier versions, which hold too little."""
        return key_of({name: getattr(self, name) for name in IDENTITY}) if self.data else None


@dataclass(frozen=True, slots=True)
class Analysis:
    """How the zero-shot and the fine-tuned model, and mixtures of them, differ on a data set.

    Attributes:
        model: file names of both checkpoints.
        zeroshot, finetuned: fingerprints of their weights.
        suite, dataset, title, role, data: the data set, as in a `Record`.
        setting: a digest of everything else that the numbers depend on.
        measurement: `setting_of` the records on the same data set; empty in analyses of earlier versions.
        images: how many.
        values: the numbers by name; NaN if the predictions leave a number undefined.
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
    measurement: str = ""

    def __repr__(self) -> str:
        numbers = plural(len(self.values), "number")
        return f"<Analysis: {shown(self.model)}, {numbers} on {shown(self.dataset)} ({plural(self.images, 'image')})>"

    @property
    def key(self) -> Key:
        """Equal for two analyses of the same thing."""
        return (self.zeroshot, self.finetuned, self.dataset, self.data, self.setting, *sorted(self.values))


class Measured(Protocol):
    """Counts and the reported number of one model on one data set."""

    @property
    def correct(self) -> int | None:
        """Images that are classified correctly; None where nothing is counted."""

    @property
    def total(self) -> int:
        """All images that were counted."""

    @property
    def result(self) -> Estimate:
        """The reported number with its interval."""

    @property
    def same_images(self) -> str:
        """Equal for data sets that are made of the same images; empty for images of its own."""


def as_candidate(point: Point, names: Sequence[str], rows: Sequence[Measured], *, with_reference: bool) -> Candidate:
    """What one mixture achieves on named data sets, of which the first is the reference if there is one."""
    counts = tuple((row.correct or 0, row.total) for row in rows)  # with a result each, the totals alone are used
    results = tuple(row.result for row in rows)
    same_images = tuple(row.same_images for row in rows)
    if not with_reference:
        return Candidate(point, UNMEASURED, counts, ("reference", *names), (None, *results), ("", *same_images))
    return Candidate(point, counts[0], counts[1:], tuple(names), results, same_images)


def to_candidates(records: Sequence[Record]) -> tuple[Candidate, ...]:
    """One candidate per mixture of a sweep, ascending, from the records of the reference and of the shifts."""
    found = []
    for point in points_of(records):
        references, shifts = (
            [record for record in records if (record.at, record.role) == (point, role)]
            for role in ("reference", "shift")
        )
        rows = [*references, *shifts]
        names = column_names(records)
        found.append(as_candidate(point, [names[row.dataset] for row in rows], rows, with_reference=bool(references)))
    return tuple(found)


def points_of(records: Iterable[Record]) -> tuple[Point, ...]:
    """Where the mixtures lie that were measured, each once, ascending."""
    return tuple(sorted({record.at for record in records if record.at is not None}))


def column_names(records: Iterable[Record]) -> dict[str, str]:
    """What the data sets of records are called in tables: their titles, with their names where titles are the same."""
    titles = {record.dataset: record.title for record in records}
    return {
        name: f"{title} ({name})" if list(titles.values()).count(title) > 1 else title for name, title in titles.items()
    }
