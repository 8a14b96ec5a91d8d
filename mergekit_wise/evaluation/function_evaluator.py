"""A Python function of a model's weights, as an evaluator of any task."""

import functools
import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mergekit_wise.evaluation.own_evaluator import Mixture, TaskResult
from mergekit_wise.evaluation.task_results import parse_results


@dataclass(frozen=True, slots=True)
class FunctionEvaluator:
    """Calls a function with each mixture: with a module if there is one, else with a state dict.

    Attributes:
        function: returns what `parse_results` takes.
        module: makes the module whose weights are set in place and which the function gets, for each mixture; None for
            state dicts. What a function does to a module, such as training mode, is then gone with the next one.
        name: of the suite, and `title`: that of the function.
        identity: the function's qualified name, a digest of its source where that is known, and the version.
        reference: the name of the data set that is the reference; empty if none is.
    """

    function: Callable[[Any], Any]
    module: Callable[[], torch.nn.Module] | None
    name: str
    identity: str
    reference: str = ""

    @classmethod
    def of(
        cls,
        function: Callable[[Any], Any],
        module: Callable[[], torch.nn.Module] | None,
        version: str = "",
        reference: str = "",
    ) -> "FunctionEvaluator":
        """The evaluator that calls a function; `version` is part of its identity."""
        inner: Any = function
        while isinstance(inner, functools.partial):
            inner = inner.func
        inner = inspect.unwrap(inner)
        named = inner if inspect.isroutine(inner) or inspect.isclass(inner) else type(inner)
        name = str(getattr(named, "__name__", type(named).__name__))
        qualified = f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', name)}"
        return cls(function, module, name, "\n".join([qualified, _source(named), version]), reference)

    @property
    def title(self) -> str:
        """The function's name."""
        return f"{self.name}()"

    def __call__(self, mixture: Mixture) -> Sequence[TaskResult]:
        """What the function returns, checked. Raises SuiteError, and what the function raises."""
        argument = mixture.state_dict if self.module is None else mixture.into(self.module())
        return parse_results(self.function(argument), self.title, self.name)


def _source(function: Any) -> str:
    """A digest of the text of a function or class; empty where there is no text, as for what is typed at a prompt."""
    try:
        return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()
    except (OSError, TypeError):
        return ""
