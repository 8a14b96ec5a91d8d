"""The models that are measured, with what sets their weights, and the fingerprints that tell them apart.

A sweep's variants are mixtures of one pair of checkpoints. Each is mixed from the two checkpoints, never from the
previous alpha, which would accumulate rounding errors, and has the values that the merged file would hold, rounding to
its dtype included.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mergekit_wise.checkpoint import Checkpoint, TensorInfo
from mergekit_wise.merging import Mixer, Pair, Rules, TensorPlan, make_plan, open_backend
from mergekit_wise.merging.torch_backend import EXACT_DTYPES, as_tensor, mixture, torch_dtype
from mergekit_wise.models.model import Model

TensorData = tuple[TensorInfo, NDArray[np.generic]]
"""A tensor's name, dtype and shape, and its elements in its dtype's storage, flattened or not."""


@dataclass(slots=True)
class InterpolatedWeights:
    """Sets the weights of mixtures of `pair` in a model.

    Tensors that are equal in both checkpoints are set once. Of the others both versions are kept on the model's device,
    in the dtypes of the files. `frozen_tolerance` is that of the merge whose weights these are.
    """

    pair: Pair
    frozen_tolerance: float | None = None
    _model: Model | None = None
    _endpoints: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    _plans: dict[float, Mapping[str, TensorPlan]] = field(default_factory=dict)
    _digests: dict[str, str] = field(default_factory=dict)

    def read(self, alpha: float, name: str) -> TensorData:
        """A tensor of the mixture at `alpha`, mixed on the CPU."""
        step = self._plan(alpha)[name]
        return step.info, self._mixer.whole(step)

    def digest(self, alpha: float, name: str) -> str:
        """The digest of that tensor; a tensor that is equal in both checkpoints is hashed once for all alphas."""
        if name in self._digests:
            return self._digests[name]
        digest = tensor_digest(self.read(alpha, name))
        if self._mixer.source(self._plan(0.5)[name]) == "equal":
            self._digests[name] = digest
        return digest

    def install(self, model: Model, alpha: float) -> None:
        """Set the weights of `model` to the mixture at `alpha`."""
        self._load(model)
        plan = self._plan(alpha)
        model.set_weights(
            {name: (plan[name].info, self._mixed(plan[name], *both)) for name, both in self._endpoints.items()}
        )

    def only_head_varies(self, model: Model) -> bool:
        """Whether the image tower is equal in both checkpoints, as after fine-tuning a linear classifier."""
        self._load(model)
        return model.has_own_head and all(model.names[name] in model.head_names for name in self._endpoints)

    @property
    def _mixer(self) -> Mixer:
        return Mixer(self.pair, open_backend("cpu"))

    def _load(self, model: Model) -> None:
        if self._model is model:
            return
        device = next(model.module.parameters()).device
        equal: dict[str, tuple[TensorInfo, Tensor]] = {}
        # At 0.5 every tensor is mixed that can be.
        for name, step in self._plan(0.5).items():
            if name not in model.names:
                continue
            zeroshot, finetuned = self.pair.zeroshot, self.pair.finetuned
            if self._mixer.source(step) == "equal":
                equal[name] = (zeroshot.info(name), _tensor(zeroshot, name))
            else:
                self._endpoints[name] = (_tensor(zeroshot, name).to(device), _tensor(finetuned, name).to(device))
        model.set_weights(equal)
        self._model = model

    def _plan(self, alpha: float) -> Mapping[str, TensorPlan]:
        if alpha not in self._plans:
            rules = Rules(alpha, frozen_tolerance=self.frozen_tolerance)
            self._plans[alpha] = {step.info.name: step for step in make_plan(self.pair, rules)}
        return self._plans[alpha]

    def _mixed(self, step: TensorPlan, zeroshot: Tensor, finetuned: Tensor) -> Tensor:
        name, out = step.info.name, step.info.dtype
        if step.action != "mix":
            side = zeroshot if step.action == "zeroshot" else finetuned
            return side if side.dtype == torch_dtype(out) else as_tensor(step.info, self._mixer.whole(step))
        dtypes = (self.pair.zeroshot.info(name).dtype, self.pair.finetuned.info(name).dtype, out)
        frozen = step.frozen_tolerance is not None and self._mixer.source(step) != "mixed"
        if EXACT_DTYPES.issuperset(dtype.name for dtype in dtypes) and not frozen:
            return mixture(zeroshot, finetuned, torch_dtype(out), step.alpha)
        return as_tensor(step.info, self._mixer.whole(step))


@dataclass(frozen=True, slots=True)
class Variant:
    """A model to measure.

    Attributes:
        model: its name in records.
        alpha: the mixing coefficient, if it is known.
        read: returns the tensor of a name.
        interpolated: sets the weights of mixtures faster than reading them does; None if that is not needed.
    """

    model: str
    alpha: float | None
    read: Callable[[str], TensorData]
    interpolated: InterpolatedWeights | None = None

    def digest(self, name: str) -> str:
        """The digest of the tensor with this name."""
        if self.interpolated is not None and self.alpha is not None:
            return self.interpolated.digest(self.alpha, name)
        return tensor_digest(self.read(name))


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


def _tensor(side: Checkpoint, name: str) -> Tensor:
    return as_tensor(side.info(name), side.read(name))
