"""Effective robustness: accuracy under shift beyond what accuracy on the reference predicts (the paper, section 2).

Knows accuracies and lines; knows no models and no files. scipy is imported where it is needed: it takes 0.1 s.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mergekit_wise.analysis.estimate import Counts, Estimate, combined

Axis = Literal["logit", "probit"]
Numbers = NDArray[np.float64]


def to_axis(accuracy: ArrayLike, axis: Axis, images: ArrayLike) -> Numbers:
    """Accuracies in [0, 1] on the axis on which lines are straight.

    0 and 1 have no place there: what is nearer to them than half an image of `images` is moved there.
    """
    from scipy.special import logit, ndtri

    margin = 0.5 / np.asarray(images, np.float64)
    inside = np.clip(np.asarray(accuracy, np.float64), margin, 1 - margin)
    place: Numbers = logit(inside) if axis == "logit" else ndtri(inside)
    return place


def from_axis(place: ArrayLike, axis: Axis) -> Numbers:
    """The accuracies, in (0, 1), at places of an axis."""
    from scipy.special import expit, ndtr

    accuracy: Numbers = expit(np.asarray(place, np.float64)) if axis == "logit" else ndtr(np.asarray(place, np.float64))
    return accuracy


@dataclass(frozen=True, slots=True)
class Baseline:
    """beta(x) = from_axis(a * to_axis(x) + b): the accuracy under shift that a model of accuracy x is expected to have.

    Attributes:
        a, b: slope and intercept on the axis.
        r2: the share of the variance that the line explains, on the axis; None where it is not known.
        axis: logit or probit.
        shift, reference: what the line predicts, and from what.
        models: how many it was fitted to; None where that is not known.
        source: where they come from.
        a_interval, b_interval: 95 % bootstrap intervals over models; None where they are not known.
        draws: slopes and intercepts of the bootstrap, for `band`.
    """

    a: float
    b: float
    r2: float | None = None
    axis: Axis = "logit"
    shift: str = ""
    reference: str = ""
    models: int | None = None
    source: str = ""
    a_interval: tuple[float, float] | None = None
    b_interval: tuple[float, float] | None = None
    draws: tuple[tuple[float, float], ...] = ()

    def expected(self, accuracy: ArrayLike, images: ArrayLike = 1_000_000) -> Numbers:
        """What is expected at accuracies on the reference, which were measured on so many images."""
        return from_axis(self.a * to_axis(accuracy, self.axis, images) + self.b, self.axis)

    def band(self, accuracy: ArrayLike, images: ArrayLike = 1_000_000) -> tuple[Numbers, Numbers] | None:
        """95 % bootstrap interval of beta at accuracies [...]; None without draws."""
        if not self.draws:
            return None
        a, b = np.array(self.draws).T
        places = np.multiply.outer(to_axis(accuracy, self.axis, images), a) + b
        low, high = np.percentile(from_axis(places, self.axis), [2.5, 97.5], axis=-1)
        return low, high


@dataclass(frozen=True, slots=True)
class TwoPieces:
    """A baseline that breaks: `below` up to an accuracy of `split` on the reference, `above` beyond it.

    The pieces were fitted apart, so beta may jump at the split.
    """

    split: float
    below: Baseline
    above: Baseline

    def expected(self, accuracy: ArrayLike, images: ArrayLike = 1_000_000) -> Numbers:
        """What is expected at accuracies on the reference, which were measured on so many images."""
        first, second = self.below.expected(accuracy, images), self.above.expected(accuracy, images)
        return np.where(np.asarray(accuracy) <= self.split, first, second)


def effective_robustness(shift: Counts, reference: Counts, baseline: Baseline | TwoPieces) -> Estimate:
    """rho(f) = Acc_shift(f) - beta(Acc_ref(f)), in [-1, 1], with its 95 % interval.

    The interval is made of the Clopper-Pearson intervals of both accuracies, the reference's carried through beta;
    the baseline is taken as given (`Baseline.band` tells how sure it is). An accuracy of 0 or 1 on the reference
    counts as half an image inside.

    Args:
        shift: correct and total under the shift.
        reference: correct and total on the axis that the baseline names: for ImageNet-R, ImageNet-A and ObjectNet
            that is ImageNet restricted to their classes.
        baseline: what is expected.
    """
    known, images = Estimate.of_counts(reference), reference[1]
    ends = [float(baseline.expected(x, images)) for x in (known.low, known.value, known.high)]
    # Sorted: at a jump of two pieces, or with a falling line, the ends may change sides.
    expected = Estimate(ends[1], min(ends), max(ends))
    return combined([(1, Estimate.of_counts(shift)), (-1, expected)])
