"""Fitted baselines of effective robustness for ImageNet's shifts. Knows the numbers alone."""

from collections.abc import Mapping
from types import MappingProxyType

from mergekit_wise.analysis.robustness import Baseline, TwoPieces

SOURCE = (
    "imagenet-testbed (Taori et al., NeurIPS 2020), standard models of at least 55 % on ImageNet, "
    "without those on parts of the data (aws, batch64, subsample)"
)
"""The models: trained on ImageNet alone, without robustness interventions."""


def _line(shift: str, classes: str, a: float, b: float, r2: float | None = None, models: int | None = None) -> Baseline:
    reference = f"ImageNet, {classes}" if classes else "ImageNet"
    return Baseline(a, b, r2, shift=shift, reference=reference, models=models, source=SOURCE)


BASELINES: Mapping[str, Baseline] = MappingProxyType(
    {
        "imagenet-v2": _line("ImageNet-V2", "", 0.9232, -0.4977, 0.996, 85),
        "imagenet-sketch": _line("ImageNet-Sketch", "", 1.0709, -2.3701, 0.869, 85),
        "imagenet-r": _line("ImageNet-R", "R's classes", 0.6368, -2.1077, 0.889, 80),
        "objectnet": _line("ObjectNet", "ObjectNet's classes", 0.9809, -1.9283, 0.953, 85),
        "imagenet-a": _line("ImageNet-A", "A's classes", 1.9900, -7.6325, 0.828, 84),
    }
)
"""By data set: least squares on logit axes. The reference says on which classes of ImageNet's validation images the
model's accuracy is to be taken."""

IMAGENET_A = TwoPieces(
    0.9186,
    below=_line("ImageNet-A", "A's classes", 0.6894, -5.1400),
    above=_line("ImageNet-A", "A's classes", 2.9560, -10.2774),
)
"""ImageNet-A in two pieces, which fit better: its images are those that fooled a ResNet-50, and the line breaks at that
model's accuracy, 91.86 %. Fitted apart, the pieces do not meet there: beta jumps up by 1.2 percentage points."""
