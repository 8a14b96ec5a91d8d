"""What a user can ask of an evaluation, as they would write it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from mergekit_wise.errors import UsageError
from mergekit_wise.progress import Progress, silent

Words = str | Path | Sequence[str] | None

ZERO_SHOT = "zero-shot"
"""What `head` is for a head of class names, even where the checkpoint has one of its own."""


class EvaluationOptions(TypedDict, total=False):
    """The options of `evaluate` and `sweep`, named as on the command line. See `Setting`."""

    data: Path | None
    strict: bool
    classnames: Words
    templates: Words
    limit: int | None
    seed: int
    model: str | None
    head: str | Path | None
    device: str
    precision: str
    batch_size: int
    workers: int | None
    max_bad: int
    results: Path | None
    redo: bool
    per_class: Path | None
    per_sample: Path | None
    progress: Progress


@dataclass(frozen=True, slots=True)
class Setting:
    """On what models are evaluated, and how.

    Attributes:
        suite: names of suites and data sets, or paths, with commas between them.
        data: the folder under which data sets are looked for; None: what ``WISE_DATA`` names.
        strict: whether a missing data set is an error.
        classnames, templates: in place of those of the data sets, for zero-shot heads and tables: files or lists.
        limit, seed: how many images of each data set are taken, balanced by class, and with what they are drawn; None:
            all.
        model: the architecture, where the checkpoint does not say it.
        head: the file of a head to use, or ``zero-shot`` for one of class names; None: the checkpoint's own, or, where
            it has none, one of class names.
        device: a torch device.
        precision: fp32, bf16, fp16, or auto: fp32 on the CPU, bf16 or fp16 on CUDA.
        batch_size: images at a time; another number changes nothing beyond rounding.
        workers: processes that decode images; None: one a core, at most 8.
        max_bad: how many images of a data set may be unreadable.
        results: a JSON Lines file that records are appended to; what stands there is not measured again.
        redo: measure also what stands there.
        per_class: a CSV file for the accuracy of each class.
        per_sample: a JSON Lines file for the prediction of each image. With either, everything is measured.
        progress: called as work goes on.
    """

    suite: str = "digits"
    data: Path | None = None
    strict: bool = False
    classnames: Words = None
    templates: Words = None
    limit: int | None = None
    seed: int = 0
    model: str | None = None
    head: str | Path | None = None
    device: str = "cpu"
    precision: str = "auto"
    batch_size: int = 128
    workers: int | None = None
    max_bad: int = 0
    results: Path | None = None
    redo: bool = False
    per_class: Path | None = None
    per_sample: Path | None = None
    progress: Progress = silent

    def __post_init__(self) -> None:
        """Raises UsageError for a number that makes no sense."""
        for name in ("data", "results", "per_class", "per_sample"):
            if isinstance(value := getattr(self, name), str):  # from Python
                object.__setattr__(self, name, Path(value))
        lowest = {"limit": 1, "batch_size": 1, "workers": 0, "max_bad": 0, "seed": 0}
        for name, least in lowest.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name.replace('_', '-')} {value}: expected {least} or more.")
