"""Numbers in, numbers out: intervals, averages, the choice of alpha. Knows no torch, no files, no terminal."""

from mergekit_wise.analysis.choice import Candidate, Recommendation, recommend
from mergekit_wise.analysis.intervals import clopper_pearson

__all__ = ["Candidate", "Recommendation", "clopper_pearson", "recommend"]
