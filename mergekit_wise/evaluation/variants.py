"""The models that are measured, with what sets their weights, and the fingerprints that tell them apart.

A sweep's variants are mixtures of one pair of checkpoints. Each is mixed from the two checkpoints, never from the
previous alpha, which would accumulate rounding errors, and has the values that the merged file would hold, rounding to
its dtype included.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.analysis import Point
from mergekit_wise.checkpoint import Checkpoint, TensorInfo
from mergekit_wise.cores import usable_cores
from mergekit_wise.errors import ModelError
from mergekit_wise.merging import Fishers, Mixer, Pair, Rules, TensorPlan, make_plan, open_backend
from mergekit_wise.merging.rules import Side
from mergekit_wise.models.model import Model
from mergekit_wise.progress import Progress

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mergekit_wise.evaluation.recalibration import Recalibration, Statistics

_SIDES: tuple[Side, ...] = ("zeroshot", "finetuned")

_NARROW = frozenset({"F16", "BF16", "F32"})
"""Dtypes of which tensors of a float32 model are mixed many at once."""

_TOGETHER = 1 << 22
"""Elements that are mixed at once; as many are held a second time."""

TensorData = tuple[TensorInfo, NDArray[np.generic]]
"""A tensor's name, dtype and shape, and its elements in its dtype's storage, flattened or not."""


@dataclass(slots=True)
class InterpolatedWeights:
    """Sets the weights of mixtures of `pair`, whatever their rules, in a model.

    What is not the same in all mixtures is mixed on the model's device, into the model, from both versions, which are
    kept there in the dtypes of the files, or on the CPU if memory runs out; a tensor is set only if the mixture before
    had another one. `fishers` weights elements; with `recalibration`, each mixture that was prepared has batch-norm
    statistics of its own.
    """

    pair: Pair
    fishers: Fishers | None = None
    recalibration: Recalibration | None = None
    _model: Model | None = None
    _home: torch.device | None = None
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

    def install(self, model: Model, rules: Rules, note: Callable[[str], object] = str) -> None:
        """Set the weights of `model` to a mixture.

        `note` is called with a sentence if memory runs out on the device; from then on, it holds the model alone.
        Raises ModelError if that does not help.
        """
        from mergekit_wise.merging.torch_backend import is_memory_error

        device = next(model.module.parameters()).device
        if self._model is not model:
            self._sides.clear()
            self._installed.clear()
            self._model, self._home = model, device
        plan, wanted = self._plan(rules), self._wanted(rules)
        changed = [name for name in plan if name in model.names and self._installed.get(name) != wanted[name]]
        try:
            self._set(model, rules, changed, device)
            full = False
        except RuntimeError as error:
            if not is_memory_error(error):
                raise
            full = True
        if full:  # not in the handler, where the traceback would keep alive what filled the memory
            self._make_room(device, note)
            self.install(model, rules, note)
            return
        self._installed.update({name: wanted[name] for name in changed})

    def _set(self, model: Model, rules: Rules, changed: Sequence[str], device: torch.device) -> None:
        """Set the tensors with these names."""
        from mergekit_wise.merging.torch_backend import mix_into, send, torch_dtype

        plan, estimated = self._plan(rules), self._estimated(rules)
        steps = {name: self._constant(plan[name]) for name in changed if name not in estimated}
        places = model.places()
        together = [
            step
            for name, step in steps.items()
            if name in places and self._is_mixed_on(device, step) and _NARROW.issuperset(self._dtypes(step))
        ]
        for batch in _batches(together, self._dtypes):
            targets = [places[step.info.name] for step in batch]
            first, second = (
                [
                    send(self._side(step.info.name, side), device).view(to.shape)
                    for step, to in zip(batch, targets, strict=True)
                ]
                for side in _SIDES
            )
            mix_into(targets, first, second, torch_dtype(batch[0].info.dtype), batch[0].alpha)
        done = {step.info.name for step in together}
        model.set_weights(
            {
                name: self.read(rules, name)
                if name in estimated
                else (plan[name].info, self._mixed(steps[name], device))
                for name in changed
                if name not in done
            }
        )

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

    def _dtypes(self, step: TensorPlan) -> tuple[str, str, str]:
        """The names of the dtypes of both sides and of the mixture."""
        name = step.info.name
        return self.pair.zeroshot.info(name).dtype.name, self.pair.finetuned.info(name).dtype.name, step.info.dtype.name

    def _is_mixed_on(self, device: torch.device, step: TensorPlan) -> bool:
        """Whether a tensor is mixed on the device, where that gives the same values as on the CPU."""
        from mergekit_wise.merging.torch_backend import exact_dtypes

        if step.action != "mix" or not exact_dtypes(device).issuperset(self._dtypes(step)):
            return False
        if self.fishers is not None and step.info.name in self.fishers.zeroshot.tensors:
            return False
        return step.frozen_tolerance is None or self._mixer.source(step) == "mixed"

    def _mixed(self, step: TensorPlan, device: torch.device) -> Tensor:
        """The tensor that a plan gives, on the device if it is mixed or was before."""
        from mergekit_wise.merging.torch_backend import as_tensor, mixture, torch_dtype

        name, out = step.info.name, torch_dtype(step.info.dtype)
        if step.action in ("zeroshot", "finetuned"):
            side: Side = "zeroshot" if step.action == "zeroshot" else "finetuned"
            if (name, side) in self._sides and self._sides[name, side].dtype == out:
                return self._sides[name, side]
        elif self._is_mixed_on(device, step):
            return mixture(self._side(name, "zeroshot"), self._side(name, "finetuned"), out, step.alpha)
        return as_tensor(step.info, self._mixer.whole(step))

    def _side(self, name: str, side: Side) -> Tensor:
        """One side's tensor, kept where it is."""
        from mergekit_wise.merging.torch_backend import as_tensor, send

        if (name, side) not in self._sides:
            checkpoint = self.pair.zeroshot if side == "zeroshot" else self.pair.finetuned
            tensor = as_tensor(checkpoint.info(name), checkpoint.read(name))
            assert self._home is not None  # since the first `install`
            self._sides[name, side] = send(tensor, self._home)
        return self._sides[name, side]

    def _make_room(self, device: torch.device, note: Callable[[str], object]) -> None:
        """Keep the two checkpoints in the memory of the CPU from now on. Raises ModelError if they are there."""
        import torch

        from mergekit_wise.merging.torch_backend import release

        if self._home is None or self._home.type == "cpu":
            raise ModelError(
                f"The memory of {device} holds the model, but not a part of its next weights beside it. Use "
                f"{'a machine with more memory' if device.type == 'cpu' else '--device cpu'}."
            )
        self._home = torch.device("cpu")
        self._sides.clear()
        note(f"the memory of {device} ran out: both checkpoints stay in the CPU's, and are sent again for each mixture")
        release(device)


def _batches(steps: Iterable[TensorPlan], key: Callable[[TensorPlan], object]) -> Iterator[list[TensorPlan]]:
    """The steps in groups with the same alpha and `key`, each of few enough elements that a copy of them is no burden.

    A larger tensor is a group of its own.
    """
    for _, alike in groupby(sorted(steps, key=lambda step: str(key(step))), lambda step: (step.alpha, key(step))):
        batch: list[TensorPlan] = []
        for step in alike:
            if batch and sum(each.info.count for each in batch) + step.info.count > _TOGETHER:
                yield batch
                batch = []
            batch.append(step)
        yield batch


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
    note: Callable[[str], object] = str
    _installed: Variant | None = None

    def __call__(self, variant: Variant) -> None:
        """Set the weights of a variant."""
        if variant is self._installed:
            return
        before, self._installed = self._installed, None
        if variant.interpolated is not None:
            if before is None or before.interpolated is not variant.interpolated:
                variant.interpolated.forget()  # what others have set since
            variant.interpolated.install(self.model, variant.rules, self.note)
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
    with ThreadPoolExecutor(min(usable_cores(), 8)) as pool:
        digests = zip(sorted(names), pool.map(digest, sorted(names)), strict=True)
        lines = "".join(f"{name} {digest}\n" for name, digest in digests)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def tensor_digest(tensor: TensorData) -> str:
    """SHA-256 over dtype, shape and bytes of a tensor."""
    info, storage = tensor
    digest = hashlib.sha256(f"{info.dtype} {info.shape}\n".encode())
    digest.update(np.ascontiguousarray(storage).view(np.uint8).data)
    return digest.hexdigest()
