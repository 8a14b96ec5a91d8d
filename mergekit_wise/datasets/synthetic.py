"""Corrupted copies of any data set, made while it is read: no download, and not ImageNet-C.

The corruption comes after resizing and cropping, ImageNet-C's before; so its numbers are not to be compared with
published ones of ImageNet-C, and the data sets say so. Knows nothing of models.
"""

import zlib
from dataclasses import dataclass, replace

import numpy as np

from mergekit_wise.datasets.corruptions import CHANGES, Pixels, corrupt
from mergekit_wise.datasets.dataset import Dataset, Suite
from mergekit_wise.errors import SuiteError

SYNTHETIC = "synthetic"
"""What comes before the colon and the name of a data set."""

NOTE = "synthetic: not comparable with published ImageNet-C numbers"
SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True, slots=True)
class Corruption:
    """One corruption in one severity, from 1 to 5. Raises SuiteError if there is none of that name or severity."""

    name: str
    severity: int

    def __post_init__(self) -> None:
        if self.name not in CHANGES or self.severity not in SEVERITIES:
            raise SuiteError(
                f"There is no corruption {self.name!r} of severity {self.severity}. Known, each from 1 to 5: "
                f"{', '.join(CHANGES)}."
            )

    def __call__(self, pixels: Pixels, seed: int) -> Pixels:
        """The image under this corruption, uint8 [H, W, 3] both ways; `seed` is the image's, for example its number.

        Image, corruption and severity have random numbers of their own, whatever was corrupted before.
        """
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode()), self.severity])
        return corrupt(self.name, self.severity, pixels, rng)


@dataclass(frozen=True, slots=True)
class _Numbered:
    """A corruption as a data set wants it: the image's number seeds it."""

    corruption: Corruption

    def __call__(self, index: int, pixels: Pixels) -> Pixels:
        return self.corruption(pixels, index)


def corrupted(dataset: Dataset, corruption: Corruption) -> Dataset:
    """`dataset` with `corruption` after resizing and cropping. Raises SuiteError if it is a corrupted one already."""
    if dataset.corrupt is not None:
        raise SuiteError(f"{dataset.title}: is corrupted already; a second corruption on top of it is not supported.")
    name, severity = corruption.name, corruption.severity
    return replace(
        dataset,
        name=f"{dataset.name}-synthetic-{name}-{severity}",
        title=f"{dataset.title}, synthetic {name.replace('_', ' ')} {severity}",
        location=f"{dataset.location} ({NOTE})".strip(),
        corrupt=_Numbered(corruption),
    )


def synthetic_suite(suite: Suite) -> Suite:
    """Every corruption in every severity of a suite's reference, or of its only data set.

    Raises SuiteError if the suite has several data sets and no reference.
    """
    base = suite.reference or (suite.shifts[0] if len(suite.shifts) == 1 else None)
    if base is None:
        raise SuiteError(
            f"{SYNTHETIC}:{suite.name}: expected one data set to corrupt, found {len(suite.shifts)}. Name one of them: "
            f"{', '.join(dataset.name for dataset in suite.shifts)}."
        )
    shifts = tuple(corrupted(base, Corruption(name, severity)) for name in CHANGES for severity in SEVERITIES)
    return Suite(f"{SYNTHETIC}:{suite.name}", base, shifts, suite.missing)
