"""What a merge did, tensor by tensor, and what that says of the two models."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mergekit_wise.merging.mixing import Tally
from mergekit_wise.merging.plan import Step
from mergekit_wise.merging.sources import TensorSource


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was planned for a tensor, what happened to it, and sums over its elements if it was mixed."""

    step: Step
    source: TensorSource
    tally: Tally

    @property
    def name(self) -> str:
        """The tensor's name."""
        return self.step.info.name


def relative_distance(outcomes: Iterable[Outcome]) -> float | None:
    """|theta_1 - theta_0| / |theta_0| over all tensors that were mixed (Frobenius norms); None if there is none."""
    mixed = [outcome.tally for outcome in outcomes if outcome.source == "mixed"]
    norm = sum(tally.norm for tally in mixed)
    return math.sqrt(sum(tally.moved for tally in mixed) / norm) if norm > 0 else None
