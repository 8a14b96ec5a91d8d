"""The mean corruption error (mCE) of ImageNet-C. Knows errors by corruption; knows no images."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

SEVERITIES = 5

ALEXNET_ERRORS: Mapping[str, float] = MappingProxyType(
    {
        "gaussian_noise": 0.886428,
        "shot_noise": 0.894468,
        "impulse_noise": 0.922640,
        "defocus_blur": 0.819880,
        "glass_blur": 0.826268,
        "motion_blur": 0.785948,
        "zoom_blur": 0.798360,
        "snow": 0.866816,
        "frost": 0.826572,
        "fog": 0.819324,
        "brightness": 0.564592,
        "contrast": 0.853204,
        "elastic_transform": 0.646056,
        "pixelate": 0.717840,
        "jpeg_compression": 0.606500,
    }
)
"""AlexNet's top-1 error on ImageNet-C, the mean of the five severities of each corruption, in [0, 1].

Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
ICLR 2019, as in the authors' repository.
"""


def mean_corruption_error(errors: Mapping[str, Sequence[float]]) -> float:
    """ImageNet-C's mCE: each corruption's error summed over its severities and divided by AlexNet's, then averaged.

    Returns the mean as a share: 1 is AlexNet's.

    Args:
        errors: top-1 errors in [0, 1] of the five severities, by corruption. The mean over fewer than 15 corruptions
            cannot be compared with published values.

    Raises:
        ValueError: no corruption, an unknown one, or one without five severities.
    """
    wrong = [name for name, five in errors.items() if name not in ALEXNET_ERRORS or len(five) != SEVERITIES]
    if wrong or not errors:
        raise ValueError(f"expected five errors for each of ImageNet-C's corruptions; wrong: {wrong or 'none given'}")
    return sum(float(np.mean(five)) / ALEXNET_ERRORS[name] for name, five in errors.items()) / len(errors)
