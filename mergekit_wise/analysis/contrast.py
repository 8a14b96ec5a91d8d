"""How models differ from one of them on the same data sets, paired where the answers for each image are known.

Knows answers and numbers only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mergekit_wise.analysis.answers import Answers
from mergekit_wise.analysis.candidate import BOTH, SHIFTS
from mergekit_wise.analysis.estimate import Estimate, combined
from mergekit_wise.analysis.paired import Evidence, evidence, mcnemar

SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class Results:
    """What V models achieve on one data set.

    Attributes:
        column: its name in tables.
        role: "reference" or "shift"; any other data set is in no average.
        results: of each model, on the images that it could read.
        answers: of the same models, for the images that all could read; None if they are not known.
        same_images: as in a `Candidate`.
    """

    column: str
    role: str
    results: tuple[Estimate, ...]
    answers: Answers | None = None
    same_images: str = ""


@dataclass(frozen=True, slots=True)
class Contrast:
    """One model compared with another in one column: a data set or an average.

    Attributes:
        column: a data set's name, "average of shifts" or "average of both".
        is_average: whether it is one of the two averages.
        model: the number of the model that is compared.
        first, second: what the model that it is compared with achieves, and what it achieves itself.
        difference: `second` minus `first`, with its 95 % interval.
        p: of McNemar's exact test, where both were compared image by image in top-1 accuracy; else None.
        paired: whether they were compared image by image; else the interval takes their errors for independent.
    """

    column: str
    is_average: bool
    model: int
    first: float
    second: float
    difference: Estimate
    p: float | None
    paired: bool

    @property
    def significant(self) -> bool:
        """Whether the two can be told apart: by the test at 5 %, else by the interval."""
        if self.p is not None:
            return self.p < SIGNIFICANT
        return self.difference.low > 0 or self.difference.high < 0

    @property
    def better(self) -> str:
        """The better one: "first", "second", or "" if they cannot be told apart."""
        return "" if not self.significant else "second" if self.difference.value > 0 else "first"


def contrasts(sets: Sequence[Results], base: int = 0) -> tuple[Contrast, ...]:
    """Every model compared with number `base` on each data set and in the averages: column by column, in this order."""
    alone = [each for each in sets if each.role not in ("reference", "shift")]
    main = [each for role in ("reference", "shift") for each in sets if each.role == role]
    found = [contrast for each in main for contrast in _on_one(each, base)]
    found += _averages(main, found, base)
    return (*found, *(contrast for each in alone for contrast in _on_one(each, base)))


def _on_one(each: Results, base: int) -> list[Contrast]:
    others = [model for model in range(len(each.results)) if model != base]
    if each.answers is None:
        return [
            Contrast(
                each.column,
                False,
                model,
                each.results[base].value,
                each.results[model].value,
                combined([(1.0, each.results[model]), (-1.0, each.results[base])]),
                None,
                paired=False,
            )
            for model in others
        ]
    answers = each.answers
    found = evidence([replace(answers, role="shift")], {answers.dataset: each.column})
    right = answers.right if answers.metric.kind == "top-1" else None
    return [
        _paired(
            found,
            0,
            base,
            model,
            None
            if right is None
            else mcnemar(int((right[base] & ~right[model]).sum()), int((right[model] & ~right[base]).sum())),
        )
        for model in others
    ]


def _averages(main: Sequence[Results], found: Sequence[Contrast], base: int) -> list[Contrast]:
    """The averages of the shifts, and of these and the reference: from the same resamples, if all answers are known."""
    answers = [replace(each.answers, role=each.role) for each in main if each.answers is not None]
    shifts = [each for each in main if each.role == "shift"]
    has_reference = len(shifts) < len(main)
    columns = [SHIFTS] * (len(shifts) > 1) + [BOTH] * (has_reference and len(shifts) > 0)
    if not columns:
        return []
    others = [model for model in range(len(main[0].results)) if model != base]
    if len(answers) == len(main):
        drawn = evidence(answers, {each.dataset: each.dataset for each in answers})
        places = [drawn.columns.index(column) for column in columns]
        return [_paired(drawn, place, base, model, None, is_average=True) for place in places for model in others]
    averages = []
    for column in columns:
        weights = [_weight(column, each.role, len(shifts)) for each in main]
        for number, model in enumerate(others):
            each = [found[place * len(others) + number] for place in range(len(main))]
            averages.append(
                Contrast(
                    column,
                    True,
                    model,
                    sum(weight * one.first for weight, one in zip(weights, each, strict=True)),
                    sum(weight * one.second for weight, one in zip(weights, each, strict=True)),
                    combined(
                        [(weight, one.difference) for weight, one in zip(weights, each, strict=True)],
                        [one.same_images for one in main],
                    ),
                    None,
                    paired=False,
                )
            )
    return averages


def _weight(column: str, role: str, shifts: int) -> float:
    """The weight of a data set in an average."""
    share = 1.0 if column == SHIFTS else 0.5
    return share / shifts if role == "shift" else 1.0 - share


def _paired(
    found: Evidence, place: int, base: int, model: int, p: float | None, *, is_average: bool = False
) -> Contrast:
    values = found.values[place]
    difference = found.difference(place, model, base)
    return Contrast(
        found.columns[place], is_average, model, float(values[base]), float(values[model]), difference, p, paired=True
    )
