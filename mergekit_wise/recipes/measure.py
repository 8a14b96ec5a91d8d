"""Variants of one model over a suite, as records: what `evaluate` and `sweep` have in common."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from mergekit_wise import __version__
from mergekit_wise.checkpoint import Checkpoint, TensorInfo
from mergekit_wise.errors import ModelError
from mergekit_wise.evaluation import count_correct
from mergekit_wise.merging.torch_arithmetic import open_device
from mergekit_wise.models.classifier import Classifier, build_classifier, set_weights
from mergekit_wise.progress import Progress
from mergekit_wise.results import Record
from mergekit_wise.suites.catalog import open_suite
from mergekit_wise.suites.dataset import Suite

Weights = Mapping[str, tuple[TensorInfo, NDArray[np.generic]]]


@dataclass(frozen=True, slots=True)
class Variant:
    """A model to measure: what records call it, its alpha, and how to get its weights."""

    model: str
    alpha: float | None
    weights: Callable[[], Weights]


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and with what a suite is evaluated."""

    suite: str
    model: str | None
    device: str
    batch_size: int
    progress: Progress


def measure(template: Checkpoint, variants: Sequence[Variant], setting: Setting) -> tuple[Record, ...]:
    """Records of every variant on every data set of the suite; `template` tells the architecture.

    Raises SuiteError, or ModelError if no module can be built or the suite has other classes than the head.
    """
    suite = open_suite(setting.suite)
    classifier, transform = build_classifier(template, setting.model)
    _require_classes(template, classifier, suite)
    classifier.to(open_device(setting.device))
    fingerprints = [_fingerprint(variant.weights()) for variant in variants]
    records: list[Record] = []
    for dataset in (suite.reference, *suite.shifts):
        began = time.perf_counter()
        tallies = count_correct(
            classifier,
            [partial(_set, classifier, variant) for variant in variants],
            dataset,
            transform,
            batch_size=setting.batch_size,
            device=setting.device,
            progress=setting.progress,
        )
        seconds = round((time.perf_counter() - began) / len(variants), 3)
        records += [
            Record(
                model=variant.model,
                weights=fingerprint,
                alpha=variant.alpha,
                suite=suite.name,
                dataset=dataset.name,
                title=dataset.title,
                role="reference" if dataset is suite.reference else "shift",
                correct=tally.correct,
                total=tally.total,
                versions=_versions(),
                seconds=seconds,
            )
            for variant, fingerprint, tally in zip(variants, fingerprints, tallies, strict=True)
        ]
    return tuple(sorted(records, key=lambda r: -1.0 if r.alpha is None else r.alpha))


def _set(classifier: Classifier, variant: Variant) -> None:
    set_weights(classifier, variant.weights())


def _require_classes(template: Checkpoint, classifier: Classifier, suite: Suite) -> None:
    classes = classifier.classification_head.out_features
    wanted = len(suite.reference.classnames)
    if classes != wanted:
        raise ModelError(
            f"{template.path}: its head has {classes} classes, the suite {suite.name!r} has {wanted}. "
            "Evaluate on a suite of the classes that the head was made for."
        )


def _fingerprint(weights: Weights) -> str:
    """SHA-256, its first 16 hex digits, over names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, (info, carrier) in sorted(weights.items()):
        digest.update(f"{name} {info.dtype} {info.shape}\n".encode())
        digest.update(np.ascontiguousarray(carrier).view(np.uint8).data)
    return digest.hexdigest()[:16]


def _versions() -> dict[str, str]:
    libraries = {name: version(name) for name in ("torch", "open_clip_torch", "numpy", "pillow")}
    return {"mergekit_wise": __version__, **libraries}
