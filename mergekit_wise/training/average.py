"""The exponential moving average of weights over the steps of a run. Knows no model and no optimiser."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class Average:
    """``average = decay * average + (1 - decay) * weights`` after every step, beginning with the first weights."""

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], decay: float) -> None:
        self._decay = decay
        self._parameters = {name: parameter for name, parameter in parameters if parameter.requires_grad}
        self.tensors = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        """The averages, by the parameters' names."""

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights as they are now into account."""
        weights = [parameter.detach() for parameter in self._parameters.values()]
        torch._foreach_lerp_(list(self.tensors.values()), weights, 1 - self._decay)

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from earlier averages."""
        for name, average in self.tensors.items():
            average.copy_(tensors[name])
