"""The mean corruption error against its definition and AlexNet's own."""

import numpy as np
import pytest

from mergekit_wise.analysis.corruption_error import ALEXNET_ERRORS, mean_corruption_error

# The same numbers as AugMix's evaluation has them (ALEXNET_ERR), in the order noise, blur, weather, digital.
NOISE = ["gaussian_noise", "shot_noise", "impulse_noise"]
BLUR = ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur"]
WEATHER = ["snow", "frost", "fog", "brightness"]
DIGITAL = ["contrast", "elastic_transform", "pixelate", "jpeg_compression"]
AUGMIX = (
    "0.886428, 0.894468, 0.922640, 0.819880, 0.826268, 0.785948, 0.798360, "
    "0.866816, 0.826572, 0.819324, 0.564592, 0.853204, 0.646056, 0.717840, 0.606500"
)


def test_alexnet_makes_an_error_of_one():
    """Severities whose mean is AlexNet's published error give an mCE of 1."""
    errors = {name: [mean - 0.05, mean - 0.02, mean, mean + 0.02, mean + 0.05] for name, mean in ALEXNET_ERRORS.items()}
    found = mean_corruption_error(errors)
    assert found == pytest.approx(1)


def test_alexnets_errors_are_those_that_others_divide_by():
    """The divisors are the published ones, so that numbers are comparable."""
    listed = dict(zip([*NOISE, *BLUR, *WEATHER, *DIGITAL], map(float, AUGMIX.split(", ")), strict=True))
    assert dict(ALEXNET_ERRORS) == listed


def test_it_is_the_mean_of_ratios_of_sums():
    """The mCE is the mean of the ratios of summed errors (equation of the paper's section 3.2)."""
    rng = np.random.default_rng(0)
    errors = {name: rng.random(5).tolist() for name in ALEXNET_ERRORS}
    ratios = [sum(five) / (5 * ALEXNET_ERRORS[name]) for name, five in errors.items()]
    assert mean_corruption_error(errors) == pytest.approx(sum(ratios) / 15)


@pytest.mark.parametrize("errors", [{}, {"gaussian_noise": [0.5] * 4}, {"speckle_noise": [0.5] * 5}])
def test_what_has_no_corruption_error_is_refused(errors):
    """No corruption, four severities and an unknown corruption are errors."""
    with pytest.raises(ValueError, match="five errors"):
        mean_corruption_error(errors)
