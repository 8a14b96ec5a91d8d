"""Records by alpha: the candidates that one is chosen from."""

from collections.abc import Sequence

from mergekit_wise.analysis import UNMEASURED, Candidate, Estimate
from mergekit_wise.results.record import Record


def to_candidates(records: Sequence[Record]) -> tuple[Candidate, ...]:
    """Group records by alpha: counts and what is reported, on the reference and on the shifts."""
    alphas = sorted({record.alpha for record in records if record.alpha is not None})
    return tuple(_candidate(alpha, [r for r in records if r.alpha == alpha]) for alpha in alphas)


def _candidate(alpha: float, records: Sequence[Record]) -> Candidate:
    references, shifts = ([r for r in records if r.role == role] for role in ("reference", "shift"))
    counts = [(r.correct, r.total) for r in (*references, *shifts)]
    names = tuple(r.title for r in (*references, *shifts))
    estimates = tuple(_estimate(r) for r in (*references, *shifts))
    if not references:
        return Candidate(alpha, UNMEASURED, tuple(counts), ("reference", *names), (None, *estimates))
    return Candidate(alpha, counts[0], tuple(counts[1:]), names, estimates)


def _estimate(record: Record) -> Estimate | None:
    return None if record.metric == "top-1" else Estimate(record.value, *record.interval)
