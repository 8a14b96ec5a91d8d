"""A Python function of a model's weights, as an evaluator of any task."""

import functools
import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from types import CellType
from typing import Any

import numpy as np
import torch

from mergekit_wise.evaluation.own_evaluator import Mixture, TaskResult
from mergekit_wise.evaluation.task_results import parse_results

DEPTH = 8
"""Lists in lists of values that belong to a function; one may hold itself."""


@dataclass(frozen=True, slots=True)
class FunctionEvaluator:
    """Calls a function with each mixture: with a module if there is one, else with a state dict.

    Attributes:
        function: returns what `parse_results` takes.
        module: makes the module whose weights are set in place and which the function gets, for each mixture; None for
            state dicts. What a function does to a module, such as training mode, is then gone with the next one.
        name: of the suite, and `title`: that of the function.
        identity: the function's qualified name, a digest of its source where that is known, the plain values and
            arrays that it was given beforehand (by `functools.partial`, as defaults, in a closure, in its object), and
            the version.
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
        given: list[str] = []
        while isinstance(inner, functools.partial):
            given += [_told(inner.args), _told(inner.keywords)]
            inner = inner.func
        inner = inspect.unwrap(inner)
        named = inner if inspect.isroutine(inner) or inspect.isclass(inner) else type(inner)
        name = str(getattr(named, "__name__", type(named).__name__))
        qualified = f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', name)}"
        return cls(
            function, module, name, "\n".join([qualified, _source(named), *given, *_held(inner), version]), reference
        )

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


def _held(function: Any) -> list[str]:
    """What a function or a callable object was given before it is called, as texts."""
    if inspect.ismethod(function):
        return [_told(_attributes(function.__self__)), *_held(function.__func__)]
    if inspect.isfunction(function):
        closed = [_told(cell) for cell in map(_content, function.__closure__ or ())]
        return [_told(function.__defaults__), _told(function.__kwdefaults__), *closed]
    return [_told(_attributes(function))]


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _attributes(holder: Any) -> dict[str, Any]:
    return {} if isinstance(holder, torch.nn.Module) else dict(getattr(holder, "__dict__", {}))


def _told(value: Any, depth: int = DEPTH) -> str:
    """A plain value as a text, an array as a digest, and of any other its type, as its contents are not known."""
    if value is None or isinstance(value, bool | int | float | str | bytes | PurePath):
        return repr(value)
    if isinstance(value, list | tuple) and depth:
        return f"[{', '.join(_told(each, depth - 1) for each in value)}]"
    if isinstance(value, set | frozenset) and depth:
        return f"{{{', '.join(sorted(_told(each, depth - 1) for each in value))}}}"
    if isinstance(value, dict) and depth:
        pairs = ((_told(key, depth - 1), _told(each, depth - 1)) for key, each in value.items())
        return f"{{{', '.join(map(': '.join, pairs))}}}"
    if isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta:
        array = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return f"{tuple(value.shape)} {value.dtype} {hashlib.sha256(array.tobytes()).hexdigest()}"
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return f"{value.shape} {value.dtype} {digest}"
    if inspect.isfunction(value):
        return f"{value.__module__}.{value.__qualname__} {_source(value)}"
    return f"{type(value).__module__}.{type(value).__qualname__}"
