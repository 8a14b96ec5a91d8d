"""How well a model's confidence says whether it is right: calibration and selective accuracy. Knows numbers only.

Right is what the data set's own metric counts as right, image by image; the confidence is the largest probability.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.analysis.answers import Answers

BINS = 15
COVERAGE = 0.8
"""The share of the images, the most confident ones, whose accuracy is a `CALIBRATION` number."""

CALIBRATION = ("ece", "adaptive-ece", "nll", "brier", "auroc", "accuracy-at-80")
"""The numbers: the expected calibration error with bins of equal width, and with bins of equally many images; the
negative log-likelihood in nats, and the Brier score in [0, 2], means over the images; the area under the ROC curve of
being right by confidence; the accuracy on the most confident 80 % of the images."""

Bins = tuple[tuple[int, int, float], ...]
"""For each of the `BINS` of equal width: the number of images, how many are right, and the sum of their confidences."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """The calibration of one model on one data set.

    Attributes:
        values: of `CALIBRATION` those that are defined, by name. NLL and Brier score are not where images have several
            right classes, or where the NLL is infinite; AUROC is not where all images are right, or none.
        bins: of the reliability diagram.
    """

    values: Mapping[str, float]
    bins: Bins


UNKNOWN = Calibration({}, ())
"""Of a model whose logits are not finite for every image: no number would be that of all images."""


def calibrations(answers: Answers) -> tuple[Calibration, ...]:
    """The calibration of each of the V models."""
    numbers = (answers.number(name).astype(np.float64) for name in ("confidence", "nll", "brier"))
    one_label = answers.metric.accepted is None
    return tuple(
        calibration(right, confidence, *((nll, brier) if one_label else (None, None)))
        for right, confidence, nll, brier in zip(answers.right, *numbers, strict=True)
    )


def calibration(
    right: NDArray[np.bool_], confidence: Numbers, nll: Numbers | None = None, brier: Numbers | None = None
) -> Calibration:
    """The calibration of N answers: whether each is right, bool [N], its confidence, and the label's NLL and Brier.

    float64 [N]; NaN for an image without finite logits, which leaves everything undefined, as having no image does.
    """
    if len(right) == 0 or not np.isfinite(confidence).all():
        return UNKNOWN
    bins = bins_of(confidence)
    found = {
        "ece": calibration_error(right, confidence, bins),
        "adaptive-ece": calibration_error(right, confidence, equal_mass_bins(confidence)),
        "nll": None if nll is None else float(nll.mean()),
        "brier": None if brier is None else float(brier.mean()),
        "auroc": auroc(right, confidence),
        "accuracy-at-80": accuracy_at(right, confidence),
    }
    counts = (np.bincount(bins, minlength=BINS), np.bincount(bins[right], minlength=BINS))
    sums = np.bincount(bins, weights=confidence, minlength=BINS)
    return Calibration(
        {name: value for name, value in found.items() if value is not None and np.isfinite(value)},
        tuple((int(n), int(k), float(total)) for n, k, total in zip(*counts, sums, strict=True)),
    )


def bins_of(confidence: Numbers) -> NDArray[np.int64]:
    """The bin of each image, int64 [N] in [0, 15): (0, 1/15], (1/15, 2/15], ... as in Guo et al., ICML 2017.

    Libraries differ on the edges themselves, which hardly any confidence but 1 hits: it belongs to the last bin here.
    """
    edges = np.arange(1, BINS) / BINS
    return np.searchsorted(edges, confidence, side="left").astype(np.int64)


def equal_mass_bins(confidence: Numbers) -> NDArray[np.int64]:
    """The same with bins of equally many images, by confidence; equal confidences share the bin of the first one."""
    below = np.searchsorted(np.sort(confidence), confidence, side="left")
    return (below * BINS // len(confidence)).astype(np.int64)


def calibration_error(right: NDArray[np.bool_], confidence: Numbers, bins: NDArray[np.int64]) -> float:
    """The mean over the images of the gap, in each bin, between the share of right answers and the mean confidence."""
    gaps = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(right))


def auroc(right: NDArray[np.bool_], confidence: Numbers) -> float | None:
    """The probability that a right answer is more confident than a wrong one; ties count half.

    None if all answers are right, or none is.
    """
    hits, misses = int(right.sum()), int((~right).sum())
    if not hits or not misses:
        return None
    ordered = np.sort(confidence[~right])
    below = np.searchsorted(ordered, confidence[right], side="left").sum(dtype=np.float64)
    not_above = np.searchsorted(ordered, confidence[right], side="right").sum(dtype=np.float64)
    return float((below + not_above) / 2 / hits / misses)


def accuracy_at(right: NDArray[np.bool_], confidence: Numbers, coverage: float = COVERAGE) -> float:
    """The share of right answers among the most confident images, a share `coverage` of all, rounded up.

    Of equally confident images at the limit, each counts with the share of them that fits, whatever their order.
    """
    kept = min(len(right), int(np.ceil(round(coverage * len(right), 9))))
    limit = np.sort(confidence)[-kept]
    above, at = confidence > limit, confidence == limit
    share = (kept - above.sum()) / at.sum()
    return float((right[above].sum() + share * right[at].sum()) / kept)


def pooled(each: Iterable[Bins]) -> Bins:
    """The bins of several data sets' images together; none if one of them has none."""
    found = list(each)
    if not found or not all(found):
        return ()
    sums = np.array(found).sum(axis=0)
    return tuple((int(images), int(hits), float(total)) for images, hits, total in sums)


def averaged(each: Sequence[Mapping[str, float]], name: str) -> float | None:
    """The mean over data sets of one of the numbers; None if it is undefined on one of them, or there is none."""
    values = [values.get(name) for values in each]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
