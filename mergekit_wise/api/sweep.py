"""Every alpha over a suite, and which one to choose."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Unpack

from mergekit_wise.analysis import (
    Candidate,
    Loss,
    Recommendation,
    as_preference,
    losses,
    recommend,
)
from mergekit_wise.analysis import refine as refinement
from mergekit_wise.analysis import select_on as selected_on
from mergekit_wise.api.merge import merge_each
from mergekit_wise.checkpoint import closing
from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.dataset import Missing
from mergekit_wise.errors import SuiteError, UsageError
from mergekit_wise.evaluation import joined
from mergekit_wise.evaluation.measure import Measured, measure
from mergekit_wise.evaluation.pair_analysis import PairAnalysis
from mergekit_wise.evaluation.variants import InterpolatedWeights, Variant
from mergekit_wise.merging import Pair, check_alpha, match
from mergekit_wise.models.pair_notes import SAME, notes_on_order, notes_on_reading, template
from mergekit_wise.models.source import open_source
from mergekit_wise.options import EvalKeywords, EvalOptions
from mergekit_wise.results import Analysis, Record
from mergekit_wise.results.candidates import to_candidates

Paths = tuple[Path, ...]
DEFAULT_ALPHAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep found.

    Attributes:
        records: of all alphas on all data sets.
        candidates: what each alpha achieves.
        recommendation: the alpha to use, and why.
        losses: the best alpha of each column, and what 0.5 loses against it (the paper's Table 3).
        analyses: how the ends differ on each data set, if that was asked for.
        missing: data sets of the suite that were not there.
        added: how many records are new.
        notes: on how files were read, and what was measured.
        saved: the checkpoints that were written.
    """

    records: tuple[Record, ...]
    candidates: tuple[Candidate, ...]
    recommendation: Recommendation
    losses: tuple[Loss, ...]
    analyses: tuple[Analysis, ...]
    missing: tuple[Missing, ...]
    added: int
    notes: tuple[str, ...]
    saved: tuple[Path, ...] = ()


def sweep(
    zeroshot: str | Path,
    finetuned: str | Path,
    *,
    alphas: Sequence[float] = DEFAULT_ALPHAS,
    suite: str | None = None,
    prefer: str = "average",
    select_on: str | None = None,
    refine: bool = False,
    output_ensemble: bool = False,
    analyze: bool = False,
    save: str | None = None,
    **options: Unpack[EvalKeywords],
) -> SweepReport:
    """Evaluate ``(1 - alpha) * zeroshot + alpha * finetuned`` for every alpha, in one pass over the images.

    The weights are those that `merge` would write, bit for bit. Other arguments and errors are those of `evaluate`.

    Args:
        zeroshot: the one end, as for `merge`.
        finetuned: the other.
        alphas: mixing coefficients.
        suite: what to evaluate on, as for `evaluate`; needed. `merge_each` writes mixtures without looking at them.
        prefer: what the recommended alpha is best at: average, reference, shifts, both or no-regret; see
            `analysis.recommend`.
        select_on: the name of a data set that the alpha is chosen on, which may stand outside of the suite.
        refine: whether to add alphas around the best one until intervals cannot tell neighbours apart.
        output_ensemble: whether to evaluate (1 - alpha) f(x, theta_0) + alpha f(x, theta_1), too.
        analyze: whether to measure how the two ends differ; see `analysis.disagreement`.
        save: a path with ``{alpha}`` in it, where the mixtures are written, too.
        options: see `EvalOptions`.

    Raises:
        WiseError: as `merge` and `evaluate` do.
    """
    if suite is None:
        raise UsageError(
            "Say on what to evaluate with --suite ('wise suites' lists what there is), or where to write with --save."
        )
    tried = tuple(sorted({check_alpha(alpha, f"--alphas {alpha:g}") for alpha in alphas}))
    setting = EvalOptions(suite, **options)
    if select_on is not None:
        _require_set(select_on, setting)
    first, second = open_source(zeroshot), open_source(finetuned)
    # Processes that torchrun started can meet only once, however often is measured.
    with closing(first, second), joined(setting.device) as (ranks, _):
        work = _Sweep(match(first, second), setting, prefer, select_on, analyze, output_ensemble)
        path = save if ranks.rank == 0 else None
        saved = work.save(zeroshot, finetuned, path, tried)
        found = work.run(tried)
        while refine and (added := refinement(found.judged, work.prefer)):
            tried = tuple(sorted({*tried, *added}))
            saved += work.save(zeroshot, finetuned, path, added)
            found = work.run(tried)
        notes = (*notes_on_reading(work.pair), *notes_on_order(work.pair))
    measured, candidates = found.measured, to_candidates(found.measured.records)
    if len(candidates) > 1 and len({record.weights for record in measured.records}) == 1:
        notes += (SAME,)
    return SweepReport(
        measured.records,
        candidates,
        found.recommendation,
        losses(candidates),
        measured.analyses,
        measured.missing,
        measured.added,
        (*notes, *measured.notes),
        saved,
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """What was measured, by what the alpha is judged, and what that says."""

    measured: Measured
    judged: tuple[Candidate, ...]
    recommendation: Recommendation


class _Sweep:
    """A pair whose mixtures are measured, as often as alphas are added."""

    def __init__(
        self, pair: Pair, setting: EvalOptions, prefer: str, select_on: str | None, analyze: bool, output_ensemble: bool
    ) -> None:
        self.pair, self.setting, self.select_on = pair, setting, select_on
        self.prefer = as_preference(prefer)
        self._compared = (analyze, output_ensemble)
        self._masters = InterpolatedWeights(pair)

    def run(self, alphas: Sequence[float]) -> _Found:
        """Measure, or find measured, every alpha on the suite and on the set that it is chosen on."""
        comparison = PairAnalysis(alphas, *self._compared) if any(self._compared) else None
        measured = self._measure(alphas, self.setting, comparison)
        judged = to_candidates(measured.records)
        if self.select_on is None:
            chosen = recommend(judged, self.prefer)
        else:
            title = next((r.title for r in measured.records if r.dataset == self.select_on), None)
            if title is None:
                own = self._measure(alphas, replace(self.setting, suite=self.select_on), None)
                judged, title = to_candidates(own.records), own.records[0].title
            chosen = selected_on(judged, title)
        self.setting = replace(self.setting, redo=False)
        return _Found(measured, judged, chosen)

    def save(self, zeroshot: str | Path, finetuned: str | Path, path: str | None, alphas: Sequence[float]) -> Paths:
        """Write the mixtures, if that was asked for."""
        if path is None:
            return ()
        device, progress = self.setting.device, self.setting.progress
        reports = merge_each(zeroshot, finetuned, path, alphas, device=device, progress=progress)
        return tuple(report.output for report in reports)

    def _measure(self, alphas: Sequence[float], setting: EvalOptions, comparison: PairAnalysis | None) -> Measured:
        name = f"{self.pair.zeroshot.path.name} + {self.pair.finetuned.path.name}"
        variants = [Variant(name, alpha, partial(self._masters.read, alpha), self._masters) for alpha in alphas]
        return measure(template(self.pair), variants, setting, comparison)


def _require_set(name: str, setting: EvalOptions) -> None:
    """Raise SuiteError now if there is no such set to choose on; else it would be found out when all is measured."""
    try:
        open_suite(name, setting.data, strict=True)
    except SuiteError as error:
        suite = open_suite(setting.suite, setting.data, strict=setting.strict)
        if name not in [dataset.name for dataset in suite.datasets]:
            raise SuiteError(f"--select-on {name}: {error}") from error
