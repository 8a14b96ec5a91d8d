"""Effective robustness: accuracy under shift beyond what accuracy on the reference predicts (the paper, section 2).

Knows accuracies and lines; knows no models and no files. scipy is imported inside functions: it takes 0.1 s.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mergekit_wise.analysis.estimate import Counts, Estimate, combined

Axis = Literal["logit", "probit"]
Numbers = NDArray[np.float64]


def to_axis(accuracy: ArrayLike, axis: Axis, images: ArrayLike) -> Numbers:
    """Accuracies in [0, 1] transformed to the axis on which baselines are straight lines.

    The transforms of 0 and 1 are infinite, so an accuracy closer to them than half an image of `images` is moved to
    that distance.
    """
    from scipy.special import logit, ndtri

    margin = 0.5 / np.asarray(images, np.float64)
    inside = np.clip(np.asarray(accuracy, np.float64), margin, 1 - margin)
    transformed: Numbers = logit(inside) if axis == "logit" else ndtri(inside)
    return transformed


def from_axis(transformed: ArrayLike, axis: Axis) -> Numbers:
    """The accuracies, in (0, 1), that `to_axis` transforms to these values."""
    from scipy.special import expit, ndtr

    values = np.asarray(transformed, np.float64)
    accuracy: Numbers = expit(values) if axis == "logit" else ndtr(values)
    return accuracy


@dataclass(frozen=True, slots=True)
class Baseline:
    """beta(x) = from_axis(a * to_axis(x) + b): the accuracy under shift expected of a model of accuracy x.

    Attributes:
        a, b: slope and intercept on the axis.
        axis: logit (the paper) or probit (Taori et al., Miller et al.).
        reference: the images that x is the accuracy on.
        fitted: the lowest and the highest x of the models that the line was fitted to. Beyond it, nothing is known.
    """

    a: float
    b: float
    axis: Axis = "logit"
    reference: str = "the reference"
    fitted: tuple[float, float] = (0.0, 1.0)

    @property
    def bends(self) -> tuple[float, ...]:
        """The accuracies on the reference at which the line may jump: none."""
        return ()

    def expected(self, accuracy: ArrayLike, images: ArrayLike = 1_000_000) -> Numbers:
        """Expected accuracies under shift for accuracies on the reference, each measured on so many images."""
        return from_axis(self.a * to_axis(accuracy, self.axis, images) + self.b, self.axis)


@dataclass(frozen=True, slots=True)
class TwoPieces:
    """A baseline with a bend: `below` up to an accuracy of `split` on the reference, `above` beyond it.

    The pieces were fitted separately, so beta may jump at the split.
    """

    split: float
    below: Baseline
    above: Baseline

    @property
    def axis(self) -> Axis:
        """The axis of both pieces."""
        return self.below.axis

    @property
    def reference(self) -> str:
        """The images that x is the accuracy on."""
        return self.below.reference

    @property
    def fitted(self) -> tuple[float, float]:
        """The lowest and the highest x of the models that the pieces were fitted to."""
        return self.below.fitted[0], self.above.fitted[1]

    @property
    def bends(self) -> tuple[float, ...]:
        """The accuracies on the reference at which the line may jump."""
        return (self.split,)

    def expected(self, accuracy: ArrayLike, images: ArrayLike = 1_000_000) -> Numbers:
        """Expected accuracies under shift for accuracies on the reference, each measured on so many images."""
        below, above = self.below.expected(accuracy, images), self.above.expected(accuracy, images)
        return np.where(np.asarray(accuracy) <= self.split, below, above)


@dataclass(frozen=True, slots=True)
class AverageBaseline:
    """The mean of several lines over the same reference: the accuracy expected on the average of their shifts."""

    parts: tuple["Line", ...]

    @property
    def axis(self) -> Axis:
        """The axis of the first part."""
        return self.parts[0].axis

    @property
    def reference(self) -> str:
        """The images that x is the accuracy on."""
        return self.parts[0].reference

    @property
    def fitted(self) -> tuple[float, float]:
        """The range of x in which models of every part are known."""
        return max(part.fitted[0] for part in self.parts), min(part.fitted[1] for part in self.parts)

    @property
    def bends(self) -> tuple[float, ...]:
        """The accuracies on the reference at which a part may jump, ascending."""
        return tuple(sorted({bend for part in self.parts for bend in part.bends}))

    def expected(self, accuracy: ArrayLike, images: ArrayLike = 1_000_000) -> Numbers:
        """Expected averages for accuracies on the reference, each measured on so many images."""
        mean: Numbers = np.mean([part.expected(accuracy, images) for part in self.parts], axis=0)
        return mean


Line = Baseline | TwoPieces | AverageBaseline

_A = "ImageNet, A's classes"
_RANGE = (0.5652, 0.8473)

BASELINES: Mapping[str, Line] = MappingProxyType(
    {
        # R^2 0.996, 85 models
        "imagenet-v2": Baseline(0.9232, -0.4977, reference="ImageNet", fitted=_RANGE),
        # R^2 0.869, 85 models
        "imagenet-sketch": Baseline(1.0709, -2.3701, reference="ImageNet", fitted=_RANGE),
        # R^2 0.889, 80 models
        "imagenet-r": Baseline(0.6368, -2.1077, reference="ImageNet, R's classes", fitted=(0.7691, 0.9650)),
        # R^2 0.953, 85 models
        "objectnet": Baseline(0.9809, -1.9283, reference="ImageNet, ObjectNet's classes", fitted=(0.5661, 0.8830)),
        # 33 and 51 models. The split is at ResNet-50, whose errors made the data set; one line would have R^2 0.828.
        "imagenet-a": TwoPieces(
            0.9186,
            Baseline(0.6894, -5.1400, reference=_A, fitted=(0.7615, 0.9173)),
            Baseline(2.9560, -10.2774, reference=_A, fitted=(0.9194, 0.9690)),
        ),
    }
)
"""Baselines of ImageNet's shifts by data set: least-squares lines on logit axes.

Source: imagenet-testbed (Taori et al., NeurIPS 2020), the standard models (trained on ImageNet alone, without
robustness interventions) of at least 55 % on ImageNet, without those trained on parts of the data (aws, batch64,
subsample).
`reference` names the classes of ImageNet's validation images on which a model's accuracy is taken.
"""

IMAGENET_BASELINES: Mapping[str, Line] = MappingProxyType(
    {
        "imagenet-v2": BASELINES["imagenet-v2"],
        "imagenet-sketch": BASELINES["imagenet-sketch"],
        # R^2 0.877, 80 models
        "imagenet-r": Baseline(0.9116, -1.5999, reference="ImageNet", fitted=_RANGE),
        # R^2 0.941, 85 models
        "objectnet": Baseline(1.1993, -2.0243, reference="ImageNet", fitted=_RANGE),
        # 33 and 51 models. ResNet-50 has 76.13 % on all classes.
        "imagenet-a": TwoPieces(
            0.7613,
            Baseline(0.9516, -4.5977, reference="ImageNet", fitted=(_RANGE[0], 0.7587)),
            Baseline(5.3997, -9.4381, reference="ImageNet", fitted=(0.7620, _RANGE[1])),
        ),
    }
)
"""Lines of the same models over ImageNet as a whole, for plots against it and for averages of shifts.

Those of `BASELINES` fit better, because accuracy on a shift's classes says more about the shift.
"""


def effective_robustness(shift: Counts, reference: Counts, baseline: Line) -> Estimate:
    """rho(f) = Acc_shift(f) - beta(Acc_ref(f)), in [-1, 1], with its 95 % interval.

    The interval is derived from the Clopper-Pearson intervals of both accuracies, the reference's mapped through beta;
    the baseline itself is taken as exact. An accuracy of 0 or 1 on the reference counts as half an image inside.

    Args:
        shift: correct and total under the shift.
        reference: correct and total on the images that the baseline names: for ImageNet-R, ImageNet-A and ObjectNet
            these are ImageNet's images of their classes.
        baseline: the line that predicts accuracy under the shift.
    """
    known, images = Estimate.of_counts(reference), reference[1]
    value, *bounds = (float(baseline.expected(x, images)) for x in (known.value, known.low, known.high))
    # At a jump between two pieces, or on a falling line, the bounds may change sides.
    expected = Estimate(value, min(value, *bounds), max(value, *bounds))
    return combined([(1, Estimate.of_counts(shift)), (-1, expected)])
