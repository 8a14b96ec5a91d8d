"""Both ends of a sweep where the model computes, from which the weights of every alpha are set in place.

Never from one alpha to the next, which would pile up roundings: each mixture is made of the two ends, and holds what
the merged file would hold, rounding to its dtype included.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from mergekit_wise.checkpoint import Checkpoint, TensorInfo
from mergekit_wise.evaluation.fingerprints import TensorData, tensor_digest
from mergekit_wise.merging import Mixer, Pair, Rules, TensorPlan, make_plan, open_backend
from mergekit_wise.merging.torch_backend import EXACT_DTYPES, as_tensor, mixture, torch_dtype
from mergekit_wise.models.model import Model

HEAD = "classification_head."


@dataclass(slots=True)
class InterpolatedWeights:
    """Sets the weights of mixtures of `pair` in a model.

    What is equal at both ends is set once; of the rest both ends are kept on the model's device, in the dtypes of the
    files.
    """

    pair: Pair
    _model: Model | None = None
    _ends: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    _plans: dict[float, Mapping[str, TensorPlan]] = field(default_factory=dict)
    _digests: dict[str, str] = field(default_factory=dict)

    def read(self, alpha: float, name: str) -> TensorData:
        """A tensor of the mixture at `alpha`, mixed on the CPU."""
        step = self._plan(alpha)[name]
        return step.info, self._mixer.whole(step)

    def digest(self, alpha: float, name: str) -> str:
        """Of that tensor; what is equal at both ends is looked at once for all mixtures."""
        if name in self._digests:
            return self._digests[name]
        digest = tensor_digest(self.read(alpha, name))
        if self._mixer.source(self._plan(0.5)[name]) == "equal":
            self._digests[name] = digest
        return digest

    def install(self, model: Model, alpha: float) -> None:
        """Make `model` the mixture at `alpha`."""
        self._load(model)
        plan = self._plan(alpha)
        model.set_weights(
            {name: (plan[name].info, self._value(plan[name], *ends)) for name, ends in self._ends.items()}
        )

    def only_head_varies(self, model: Model) -> bool:
        """Whether the image tower is the same at both ends, as after fine-tuning a linear classifier."""
        self._load(model)
        has_head = hasattr(model.module, "classification_head") and model.has_own_head
        return has_head and all(model.names[name].startswith(HEAD) for name in self._ends)

    @property
    def _mixer(self) -> Mixer:
        return Mixer(self.pair, open_backend("cpu"))

    def _load(self, model: Model) -> None:
        if self._model is model:
            return
        device = next(model.module.parameters()).device
        same: dict[str, tuple[TensorInfo, Tensor]] = {}
        # At 0.5 every tensor is mixed that can be.
        for name, step in self._plan(0.5).items():
            if name not in model.names:
                continue
            if self._mixer.source(step) == "equal":
                same[name] = (self.pair.zeroshot.info(name), _tensor(self.pair.zeroshot, name))
            else:
                zeroshot, finetuned = (_tensor(side, name) for side in (self.pair.zeroshot, self.pair.finetuned))
                self._ends[name] = (zeroshot.to(device), finetuned.to(device))
        model.set_weights(same)
        self._model = model

    def _plan(self, alpha: float) -> Mapping[str, TensorPlan]:
        if alpha not in self._plans:
            self._plans[alpha] = {step.info.name: step for step in make_plan(self.pair, Rules(alpha))}
        return self._plans[alpha]

    def _value(self, step: TensorPlan, zeroshot: Tensor, finetuned: Tensor) -> Tensor:
        if step.action != "mix":
            return zeroshot if step.action == "zeroshot" else finetuned
        name, out = step.info.name, step.info.dtype
        dtypes = (self.pair.zeroshot.info(name).dtype, self.pair.finetuned.info(name).dtype, out)
        if EXACT_DTYPES.issuperset(dtype.name for dtype in dtypes):
            return mixture(zeroshot, finetuned, torch_dtype(out), step.alpha)
        mixed = self._mixer.whole(step)
        return as_tensor(step.info, mixed)


def _tensor(side: Checkpoint, name: str) -> Tensor:
    return as_tensor(side.info(name), side.read(name))
