"""The models that are measured, with what sets their weights, and the fingerprints that tell them apart.

A sweep's variants are mixtures of one pair of checkpoints. Each is mixed from the two checkpoints, never from the
previous alpha, which would accumulate rounding errors, and has the values that the merged file would hold, rounding to
its dtype included.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.analysis import Point
from mergekit_wise.checkpoint import Checkpoint, TensorInfo
from mergekit_wise.merging import Fishers, Mixer, Pair, Rules, TensorPlan, make_plan, open_backend
from mergekit_wise.merging.rules import Side
from mergekit_wise.models.model import Model
from mergekit_wise.progress import Progress

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mergekit_wise.evaluation.recalibration import Recalibration, Statistics

TensorData = tuple[TensorInfo, NDArray[np.generic]]
"""A tensor's name, dtype and shape, and its elements in its dtype's storage, flattened or not."""


@dataclass(slots=True)
class InterpolatedWeights:
    """Sets the weights of mixtures of `pair`, whatever their rules, in a model.

    What is not the same in all mixtures is mixed on the model's device from both versions, which are kept there in the
    dtypes of the files; a tensor is copied into the model only if the mixture before had another one. `fishers` weights
    elements; with `recalibration`, each mixture that was prepared has batch-norm statistics of its own.
    """

    pair: Pair
    fishers: Fishers | None = None
    recalibration: Recalibration | None = None
    _model: Model | None = None
    _sides: dict[tuple[str, Side], Tensor] = field(default_factory=dict)
    _installed: dict[str, object] = field(default_factory=dict)
    _statistics: dict[Rules, Statistics] = field(default_factory=dict)
    _plans: dict[Rules, Mapping[str, TensorPlan]] = field(default_factory=dict)
    _digests: dict[TensorPlan, str] = field(default_factory=dict)
    _equal: dict[str, bool] = field(default_factory=dict)

    def prepare(self, every: Iterable[Rules], progress: Progress) -> tuple[str, ...]:
        """Estimate the batch-norm statistics of mixtures, if they are recalibrated; returns notes on the images."""
        if self.recalibration is None:
            return ()
        notes: list[str] = []
        for rules in every:
            if rules not in self._statistics:
                plan = tuple(self._plan(rules).values())
                self._statistics[rules] = self.recalibration.statistics(self._mixer, plan, progress)
            notes += self.recalibration.notes(self._statistics[rules])
        return tuple(dict.fromkeys(notes))

    def read(self, rules: Rules, name: str) -> TensorData:
        """A tensor of a mixture, mixed on the CPU."""
        step, estimated = self._plan(rules)[name], self._estimated(rules)
        return step.info, estimated[name] if name in estimated else self._mixer.whole(step)

    def digest(self, rules: Rules, name: str) -> str:
        """The digest of that tensor; what is the same in several mixtures is hashed once."""
        if name in self._estimated(rules):
            return tensor_digest(self.read(rules, name))
        step = self._constant(self._plan(rules)[name])
        if step not in self._digests:
            self._digests[step] = tensor_digest(self.read(rules, name))
        return self._digests[step]

    def install(self, model: Model, rules: Rules) -> None:
        """Set the weights of `model` to a mixture."""
        if self._model is not model:
            self._sides.clear()
            self._installed.clear()
            self._model = model
        plan, wanted = self._plan(rules), self._wanted(rules)
        changed = {name for name in plan if name in model.names and self._installed.get(name) != wanted[name]}
        device = next(model.module.parameters()).device
        estimated = self._estimated(rules)
        model.set_weights(
            {
                name: self.read(rules, name)
                if name in estimated
                else (plan[name].info, self._mixed(self._constant(plan[name]), device))
                for name in changed
            }
        )
        self._installed.update({name: wanted[name] for name in changed})

    def forget(self) -> None:
        """Take nothing for granted of the weights that the model has now."""
        self._installed.clear()

    def varying(self, model: Model, every: Iterable[Rules]) -> set[str]:
        """The checkpoint's names of those tensors of the model that are not the same in all of these mixtures."""
        wanted = [self._wanted(rules) for rules in every]
        return {name for name in wanted[0] if name in model.names and len({each[name] for each in wanted}) > 1}

    def _wanted(self, rules: Rules) -> Mapping[str, object]:
        """What decides the values of each tensor of a mixture, for comparisons."""
        estimated = self._estimated(rules)
        return {name: rules if name in estimated else self._constant(step) for name, step in self._plan(rules).items()}

    def _estimated(self, rules: Rules) -> Mapping[str, NDArray[np.generic]]:
        """The tensors of a mixture that were estimated on images rather than mixed."""
        return self._statistics[rules].tensors if self.recalibration is not None else {}

    @property
    def _mixer(self) -> Mixer:
        return Mixer(self.pair, open_backend("cpu"), self.fishers)

    def _plan(self, rules: Rules) -> Mapping[str, TensorPlan]:
        if rules not in self._plans:
            self._plans[rules] = {step.info.name: step for step in make_plan(self.pair, rules)}
        return self._plans[rules]

    def _constant(self, step: TensorPlan) -> TensorPlan:
        """The same plan for all mixtures in which a tensor has the same values."""
        if step.action == "mix" and not self._is_equal(step):
            return step
        action = "choose" if self._is_equal(step) else step.action
        return replace(step, action=action, alpha=0.0, frozen_tolerance=None)

    def _is_equal(self, step: TensorPlan) -> bool:
        """Whether both checkpoints hold the tensor with the same bytes."""
        name, sides = step.info.name, (self.pair.zeroshot, self.pair.finetuned)
        if name not in self._equal:
            comparable = all(name in side.tensors and side.info(name).shape == step.info.shape for side in sides)
            self._equal[name] = comparable and self._mixer.source(replace(step, action="choose")) == "equal"
        return self._equal[name]

    def _mixed(self, step: TensorPlan, device: torch.device) -> Tensor:
        """The tensor that a plan gives, on the device if it is mixed or was before."""
        from mergekit_wise.merging.torch_backend import EXACT_DTYPES, as_tensor, mixture, torch_dtype

        name, out = step.info.name, step.info.dtype
        if step.action in ("zeroshot", "finetuned"):
            side: Side = "zeroshot" if step.action == "zeroshot" else "finetuned"
            if (name, side) in self._sides and self._sides[name, side].dtype == torch_dtype(out):
                return self._sides[name, side]
        elif step.action == "mix":
            dtypes = (self.pair.zeroshot.info(name).dtype, self.pair.finetuned.info(name).dtype, out)
            frozen = step.frozen_tolerance is not None and self._mixer.source(step) != "mixed"
            weighted = self.fishers is not None and name in self.fishers.zeroshot.tensors
            if EXACT_DTYPES.issuperset(dtype.name for dtype in dtypes) and not frozen and not weighted:
                first, second = self._side(name, "zeroshot", device), self._side(name, "finetuned", device)
                return mixture(first, second, torch_dtype(out), step.alpha)
        return as_tensor(step.info, self._mixer.whole(step))

    def _side(self, name: str, side: Side, device: torch.device) -> Tensor:
        """One side's tensor, kept on the device."""
        from mergekit_wise.merging.torch_backend import as_tensor

        if (name, side) not in self._sides:
            checkpoint = self.pair.zeroshot if side == "zeroshot" else self.pair.finetuned
            tensor = as_tensor(checkpoint.info(name), checkpoint.read(name))
            self._sides[name, side] = tensor.to(device)
        return self._sides[name, side]


@dataclass(frozen=True, slots=True)
class Variant:
    """A model to measure.

    Attributes:
        model: its name in records.
        point: where it lies in a sweep, if that is known.
        read: returns the tensor of a name.
        interpolated: sets the weights of mixtures faster than reading them does; None if that is not needed.
        rules: of the mixture that `interpolated` sets.
        rule: the rules besides those of `point`, as options of ``wise merge``, for records.
    """

    model: str
    point: Point | None
    read: Callable[[str], TensorData]
    interpolated: InterpolatedWeights | None = None
    rules: Rules = field(default_factory=Rules)
    rule: str = ""

    @classmethod
    def mixed(cls, model: str, weights: InterpolatedWeights, point: Point, rules: Rules, rule: str = "") -> Variant:
        """A mixture of a pair."""
        return cls(model, point, partial(weights.read, rules), weights, rules, rule)

    def digest(self, name: str) -> str:
        """The digest of the tensor with this name."""
        if self.interpolated is not None:
            return self.interpolated.digest(self.rules, name)
        return tensor_digest(self.read(name))


@dataclass(slots=True)
class Installer:
    """Sets the weights of variants in a model, one after the other; those that are set already are kept.

    Until weights are written, decoding processes share their memory pages.
    """

    model: Model
    _installed: Variant | None = None

    def __call__(self, variant: Variant) -> None:
        """Set the weights of a variant."""
        if variant is self._installed:
            return
        before, self._installed = self._installed, None
        if variant.interpolated is not None:
            if before is None or before.interpolated is not variant.interpolated:
                variant.interpolated.forget()  # what others have set since
            variant.interpolated.install(self.model, variant.rules)
        else:
            self.model.set_weights({name: variant.read(name) for name in self.model.names})
        self._installed = variant


def reader(source: Checkpoint) -> Callable[[str], TensorData]:
    """A function that returns the checkpoint's tensor of a name."""
    return lambda name: (source.info(name), source.read(name))


def checkpoint_fingerprint(source: Checkpoint, names: Collection[str]) -> str:
    """The `weights_fingerprint` of these tensors of a checkpoint."""
    read = reader(source)
    return weights_fingerprint(names, lambda name: tensor_digest(read(name)))


def weights_fingerprint(names: Collection[str], digest: Callable[[str], str]) -> str:
    """The first 16 hexadecimal digits of SHA-256 over the names of tensors and their digests.

    `digest` is called by several threads: hashing takes most of the time before a model can be recognised.
    """
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        digests = zip(sorted(names), pool.map(digest, sorted(names)), strict=True)
        lines = "".join(f"{name} {digest}\n" for name, digest in digests)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def tensor_digest(tensor: TensorData) -> str:
    """SHA-256 over dtype, shape and bytes of a tensor."""
    info, storage = tensor
    digest = hashlib.sha256(f"{info.dtype} {info.shape}\n".encode())
    digest.update(np.ascontiguousarray(storage).view(np.uint8).data)
    return digest.hexdigest()
