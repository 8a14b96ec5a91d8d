"""Records as rows of text, for a terminal, a page or a paper. Knows nothing of how they are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

from mergekit_wise.analysis import Candidate
from mergekit_wise.analysis.corruption_error import ALEXNET_ERRORS, SEVERITIES, mean_corruption_error
from mergekit_wise.checkpoint import TensorInfo
from mergekit_wise.merging import Movement, TensorPlan
from mergekit_wise.results import Record


@dataclass(frozen=True, slots=True)
class Table:
    """Column heads and rows, all texts; ``marked`` says which rows stand out."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: tuple[bool, ...]


def accuracy_table(records: Sequence[Record], missing: int = 0) -> Table:
    """One row a data set: what it reports, the 95 % interval of that, top-1 counts, top-5; then the shifts' average.

    What a data set reports other than top-1 is named behind its title. ``missing``: how many data sets were not there.
    """
    rows = [
        (
            r.title if r.metric == "top-1" else f"{r.title} ({r.metric})",
            percent(r.value),
            interval(r.interval),
            f"{r.correct}/{r.total}",
            "" if r.top5 is None else percent(r.top5 / r.total),
        )
        for r in records
    ]
    corruption = corruption_error(records)
    if corruption is not None:
        rows.append(("Mean corruption error (AlexNet 100)", percent(corruption), "", "", ""))
    shifts = [r.value for r in records if r.role == "shift"]
    if len(shifts) > 1:
        name = f"Average of {len(shifts)} shifts" + (f", {missing} sets missing" if missing else "")
        rows.append((name, percent(sum(shifts) / len(shifts)), "", "", ""))
    marked = tuple(index >= len(records) for index in range(len(rows)))
    return Table(("Data set", "Result", "95 % interval", "Correct", "Top-5"), tuple(rows), marked)


def corruption_error(records: Sequence[Record]) -> float | None:
    """ImageNet-C's mCE of one model; None unless all 15 corruptions were measured at all five severities."""
    errors: dict[str, list[float]] = {}
    for record in records:
        suite, _, rest = record.dataset.partition("imagenet-c-")
        if rest and not suite:
            errors.setdefault(rest.rpartition("-")[0], []).append(1 - record.accuracy)
    whole = errors.keys() == ALEXNET_ERRORS.keys() and all(len(five) == SEVERITIES for five in errors.values())
    return mean_corruption_error(errors).mean if whole else None


def sweep_table(candidates: Sequence[Candidate], records: Sequence[Record], recommended: float) -> Table:
    """One row an alpha: the reference, every shift, the shifts' average, and the average of both."""
    titles = {r.title: "Ref." if r.role == "reference" else r.title for r in records}
    rows = []
    for candidate in candidates:
        cells = {r.title: percent(r.value) for r in records if r.alpha == candidate.alpha}
        averages = (percent(candidate.shift_accuracy), percent(candidate.average))
        rows.append((f"{candidate.alpha:g}", *(cells[title] for title in titles), *averages))
    return Table(
        ("alpha", *titles.values(), "Avg shifts", "Avg both"),
        tuple(rows),
        tuple(candidate.alpha == recommended for candidate in candidates),
    )


def tensor_table(tensors: Sequence[TensorInfo]) -> Table:
    """One row a tensor: name, dtype, shape, bytes."""
    rows = tuple((i.name, str(i.dtype), _shape(i.shape), f"{i.nbytes:,}") for i in tensors)
    return Table(("Tensor", "dtype", "Shape", "Bytes"), rows, (False,) * len(rows))


def plan_table(steps: Sequence[TensorPlan]) -> Table:
    """One row a tensor of a merge to come: its dtype and shape, and what it gets."""
    what = {
        "mix": "alpha {:g}",
        "choose": "fine-tuned where they differ",
        "zeroshot": "zero-shot",
        "finetuned": "fine-tuned",
    }
    rows = tuple((s.info.name, str(s.info.dtype), _shape(s.info.shape), what[s.action].format(s.alpha)) for s in steps)
    return Table(("Tensor", "dtype", "Shape", "Gets"), rows, (False,) * len(rows))


def movement_table(movements: Sequence[Movement]) -> Table:
    """One row a tensor: how far it moved, relative to its norm, and the cosine between before and after."""
    rows = tuple((m.name, _number(m.relative), _number(m.cosine)) for m in movements)
    return Table(("Tensor", "|b - a| / |a|", "Cosine"), rows, (False,) * len(rows))


def class_table(head: Movement) -> Table:
    """One row a class of a head: the cosine between its weights before and after."""
    rows = tuple((str(index), _number(cosine)) for index, cosine in enumerate(head.by_class))
    return Table(("Class", "Cosine"), rows, (False,) * len(rows))


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def percent(share: float) -> str:
    """A share as per cent with one decimal; nothing for NaN."""
    return "" if share != share else f"{100 * share:.1f}"


def interval(ends: tuple[float, float]) -> str:
    """Both ends of an interval, in per cent."""
    return f"{percent(ends[0])} - {percent(ends[1])}"
