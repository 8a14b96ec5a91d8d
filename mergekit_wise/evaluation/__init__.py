"""Module(s) x data set -> tallies. One pass over the images, however many alphas."""

from mergekit_wise.evaluation.one_pass import Tally, count_correct

__all__ = ["Tally", "count_correct"]
