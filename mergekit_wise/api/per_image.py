"""What an alpha for each image achieves in a sweep (DaWin), from the answers at the swept alphas alone."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mergekit_wise.analysis import Point
from mergekit_wise.analysis.dynamic_gain import ENDS, DynamicGain, dynamic_gains
from mergekit_wise.errors import UsageError
from mergekit_wise.evaluation.measure import Measured
from mergekit_wise.results.dynamic import dynamic_entry, new_entries
from mergekit_wise.results.record import column_names
from mergekit_wise.results.store import append_entries
from mergekit_wise.wording import listed


def require_ends(points: Sequence[Point]) -> None:
    """Raise UsageError unless a sweep varies alpha alone, and 0 and 1 are among its alphas."""
    alphas = [point.alpha for point in points]
    if None in alphas:
        raise UsageError(
            "--dynamic chooses an alpha for each image, and this sweep varies other parameters. Leave it out."
        )
    if missing := [f"{end:g}" for end in ENDS if end not in alphas]:
        raise UsageError(f"--dynamic compares the models at alpha 0 and 1: add alpha {' and '.join(missing)}.")


def per_image(measured: Measured, points: Sequence[Point], note: Callable[[str], object]) -> tuple[DynamicGain, ...]:
    """The gains of 3 mixtures for each data set, and of an alpha for every image; none without all images' answers.

    `note` is called with the reason, and with what the numbers mean.
    """
    answered = {each.dataset for each in measured.answers}
    wanted = {record.dataset: record.title for record in measured.records if record.role != "companion"}
    if missing := [title for name, title in wanted.items() if name not in answered]:
        note(
            f"--dynamic: the answers for each image of {listed(missing, 3)} are not kept, so that nothing can be said "
            "of an alpha for each image; --redo measures them again"
        )
        return ()
    alphas = [point.alpha for point in points if point.alpha is not None]
    note(
        "--dynamic: the mixtures are fitted to each data set's images, without their labels, and each image is "
        "answered at the nearest alpha of the sweep"
    )
    return dynamic_gains(measured.answers, alphas, column_names(measured.records))


def write_per_image(path: Path, gains: Sequence[DynamicGain], measured: Measured) -> None:
    """Add the gains to the results file, unless they are there. Raises ResultsError if it cannot be written."""
    records = [record for record in measured.records if record.role != "companion"]
    names = column_names(measured.records)
    append_entries(path, new_entries(path, [dynamic_entry(gain, records, names) for gain in gains]))
