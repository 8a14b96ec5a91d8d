"""Any task: what an evaluator of one's own is given, a mixture, and what it gives back, results of data sets.

Knows no image, no model's architecture and no command: an evaluator builds and runs whatever it needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.evaluation.variants import Variant

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What one model achieves on one data set of a task: scores in [0, 1], larger is better.

    Exactly one of `items`, the counts and `score` is given.

    Attributes:
        dataset: its name, unique within the run.
        metric: the name of the number: "recall@1", "mIoU", "accuracy".
        items: float64 [N], one score per item, the same items in the same order for every model; the number is their
            mean. None if items have no scores.
        correct, total: counts in place of items.
        score: the number itself, where there are neither items nor counts.
        values: further numbers in [0, 1] by name.
        title: for tables; by default the name.
    """

    dataset: str
    metric: str
    items: NDArray[np.float64] | None = None
    correct: int | None = None
    total: int | None = None
    score: float | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    title: str = ""


class Mixture:
    """One model of a run, in the form that an evaluator wants. To be used as a context, which removes its file.

    Attributes:
        variant: its weights: ``variant.read(name)``, ``variant.digest(name)``, ``variant.interpolated`` sets them.
        template: a checkpoint with the names, shapes and metadata of the mixture.
        coming: the variants that will be evaluated after this one, in this order, so that what all have in common need
            be done only once.
    """

    def __init__(
        self,
        variant: Variant,
        template: Checkpoint,
        file: Callable[[], AbstractContextManager[Path]],
        state_dict: Callable[[], Mapping[str, torch.Tensor]],
        into: Callable[[torch.nn.Module], object],
    ) -> None:
        self.variant, self.template = variant, template
        self.coming: Sequence[Variant] = ()
        self._open_file, self._make_state, self._set = file, state_dict, into
        self._file: Path | None = None
        self._state: Mapping[str, torch.Tensor] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Mixture:
        """The mixture; nothing is mixed yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the file, if there is one."""
        self._file = self._state = None
        self._stack.close()

    @property
    def file(self) -> Path:
        """A merged file, with the bytes that ``wise merge`` writes; written when it is first asked for."""
        if self._file is None:
            self._file = self._stack.enter_context(self._open_file())
        return self._file

    @property
    def state_dict(self) -> Mapping[str, torch.Tensor]:
        """The merged tensors by name, on the device of the inputs; mixed when they are first asked for."""
        if self._state is None:
            self._state = self._make_state()
        return self._state

    def into(self, module: torch.nn.Module) -> torch.nn.Module:
        """The module with the weights of the mixture, set in place; see `api.interpolate`."""
        self._set(module)
        return module


class ModelTask(ABC):
    """A `TaskEvaluator` that builds the model by itself, and gets a checkpoint of it before anything is measured."""

    @abstractmethod
    def open(self, template: Checkpoint, note: Callable[[str], object]) -> None:
        """Build the model that checkpoints like `template` hold; `note` is called with what a reader should know.

        It is called before `identity` is asked for, and again before more mixtures of the same model come. Raises
        ModelError if the checkpoint holds no model for this task.
        """


@runtime_checkable
class TaskEvaluator(Protocol):
    """Measures one model of a task after the other.

    Attributes:
        identity: everything that its numbers depend on besides the weights, as a text: a run that is resumed reuses
            what it has measured only where this is the same.
        name: of the suite, in records.
        reference: the name of the data set that is the reference; empty if none is.
        title: what evaluates, for messages and reports.
    """

    @property
    def identity(self) -> str:
        """See the class."""

    @property
    def name(self) -> str:
        """See the class."""

    @property
    def reference(self) -> str:
        """See the class."""

    @property
    def title(self) -> str:
        """See the class."""

    def __call__(self, mixture: Mixture) -> Sequence[TaskResult]:
        """What the mixture achieves on each data set; the same data sets, and items, for every mixture.

        Raises SuiteError or ModelError if it cannot be evaluated.
        """
