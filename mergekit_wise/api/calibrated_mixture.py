"""What a sweep needs to write its recommended mixture calibrated, and the lines that do the same."""

from dataclasses import replace
from pathlib import Path

from mergekit_wise.api.calibrate import calibration_dataset
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.errors import UsageError
from mergekit_wise.evaluation.distributed import Ranks
from mergekit_wise.models.merge_command import command_line, merge_command
from mergekit_wise.options import CalibrateOptions, MergeOptions, SweepOptions

_UNNEEDED = ("mmap", "progress", "batch_size", "workers", "cache_images", "cache")
_BEFORE = ("merged", "wise-ft", "mixture")


def calibration_of(options: SweepOptions) -> CalibrateOptions | None:
    """How `calibrate` calibrates the mixture that a sweep writes; None if it does not. Raises UsageError."""
    if options.calibrate is None:
        return None
    if options.output is None:
        raise UsageError("--calibrate is for the mixture that -o writes. Add -o FILE, or leave --calibrate out.")
    heads = {"--head": options.head, "--head-features": options.head_features, "--head-rows": options.head_rows}
    for option, value in heads.items():
        if value is not None:
            raise UsageError(
                f"--calibrate divides the head of the mixture, and {option} evaluates with another one. Leave one out."
            )
    return CalibrateOptions(
        before_calibration(options),
        options.output,
        on=options.calibrate,
        data=options.data,
        classnames=options.classnames,
        templates=options.templates,
        limit=options.limit,
        seed=options.seed,
        model=options.model,
        image_size=options.image_size,
        device=options.device,
        precision=options.precision,
        batch_size=options.batch_size,
        workers=options.workers,
        cache_images=options.cache_images,
        max_bad=options.max_bad,
        max_pixels=options.max_pixels,
        cache=options.cache,
        mmap=options.mmap,
        progress=options.progress,
    )


def require_calibratable(calibration: CalibrateOptions, ranks: Ranks) -> Dataset:
    """The data set, found now rather than when everything is measured. Raises SuiteError or UsageError."""
    if ranks.size > 1:
        raise UsageError("--calibrate runs in one process. Start wise sweep without torchrun, or calibrate afterwards.")
    return calibration_dataset(calibration)


def before_calibration(options: SweepOptions) -> Path:
    """The name of the mixture before it is calibrated, that of no input and not the output's."""
    taken = {str(options.zeroshot), str(options.finetuned), str(options.output)}
    ending = Path(options.output or "").suffix
    return next(Path(name + ending) for name in _BEFORE if name + ending not in taken)


def two_commands(merge: MergeOptions, calibration: CalibrateOptions) -> str:
    """The lines that merge and calibrate, to copy into a shell."""
    merged = merge_command(replace(merge, output=str(calibration.checkpoint)))
    return f"{merged} && {command_line('calibrate', calibration, without=_UNNEEDED)}"
