"""Every alpha over a suite, and which one to choose."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mergekit_wise.analysis import Candidate, Recommendation, recommend
from mergekit_wise.checkpoint import closing
from mergekit_wise.merging import Mixer, Pair, Rules, check_alpha, make_plan, match, open_engine
from mergekit_wise.models.classifier import weight_names
from mergekit_wise.progress import Progress, silent
from mergekit_wise.recipes.measure import Setting, Variant, Weights, measure
from mergekit_wise.recipes.source import open_source
from mergekit_wise.results import Record, append_records

DEFAULT_ALPHAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True, slots=True)
class SweepReport:
    """Records of all alphas, what each achieves, which is recommended, and notes on how the files were read."""

    records: tuple[Record, ...]
    candidates: tuple[Candidate, ...]
    recommendation: Recommendation
    notes: tuple[str, ...]


def sweep(
    zeroshot: str | Path,
    finetuned: str | Path,
    *,
    alphas: Sequence[float] = DEFAULT_ALPHAS,
    suite: str = "digits",
    model: str | None = None,
    device: str = "cpu",
    batch_size: int = 128,
    results: Path | None = None,
    progress: Progress = silent,
) -> SweepReport:
    """Evaluate ``(1 - alpha) * zeroshot + alpha * finetuned`` for every alpha, without writing a checkpoint.

    The weights are those that `merge` would write, bit for bit. Arguments and errors are those of `merge` and
    `evaluate`.
    """
    alphas = tuple(check_alpha(alpha) for alpha in alphas)
    first, second = open_source(zeroshot), open_source(finetuned)
    with closing(first, second):
        pair = match(first, second)
        wanted = set(weight_names(pair.finetuned))
        variants = [
            Variant(
                f"{pair.zeroshot.path.name} + {pair.finetuned.path.name}",
                alpha,
                partial(mixture, pair, wanted, alpha),
            )
            for alpha in alphas
        ]
        setting = Setting(suite, model, device, batch_size, progress)
        records = measure(pair.finetuned, variants, setting)
        notes = (*pair.zeroshot.notes, *pair.finetuned.notes)
    if results is not None:
        append_records(results, records)
    candidates = to_candidates(records)
    return SweepReport(records, candidates, recommend(candidates), notes)


def mixture(pair: Pair, wanted: set[str], alpha: float) -> Weights:
    """The `wanted` tensors of the mixture in memory: the bytes that a merged file would hold."""
    mixer = Mixer(pair, open_engine("cpu"))
    return {
        step.info.name: (step.info, mixer.whole(step))
        for step in make_plan(pair, Rules(alpha))
        if step.info.name in wanted
    }


def to_candidates(records: Sequence[Record]) -> tuple[Candidate, ...]:
    """Group records by alpha: counts on the reference and on the shifts."""
    alphas = sorted({record.alpha for record in records if record.alpha is not None})
    return tuple(_candidate(alpha, [r for r in records if r.alpha == alpha]) for alpha in alphas)


def _candidate(alpha: float, records: Sequence[Record]) -> Candidate:
    (reference,) = (r for r in records if r.role == "reference")
    shifts = tuple((r.correct, r.total) for r in records if r.role == "shift")
    return Candidate(alpha, (reference.correct, reference.total), shifts)
