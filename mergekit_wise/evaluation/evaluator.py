"""A model where it computes, with what feeds it: opened once, used for every variant and every data set."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import torch

from mergekit_wise import __version__
from mergekit_wise.checkpoint import Checkpoint, closing
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.errors import UsageError
from mergekit_wise.evaluation import Engine, Forward, Predictions, Ranks, choose_precision, default_workers, place
from mergekit_wise.evaluation.fingerprints import TensorData, checkpoint_fingerprint, tensor_digest, weights_fingerprint
from mergekit_wise.evaluation.heads import Heads
from mergekit_wise.evaluation.interpolated_weights import InterpolatedWeights
from mergekit_wise.evaluation.observers import NOTHING, Observers
from mergekit_wise.merging.torch_backend import open_device
from mergekit_wise.models.model import Model
from mergekit_wise.models.opening import open_model
from mergekit_wise.models.source import open_source
from mergekit_wise.models.transform import Preprocess
from mergekit_wise.options import ZERO_SHOT_HEAD, EvaluationOptions

LIBRARIES = ("torch", "torchvision", "open_clip_torch", "timm", "numpy", "pillow")


@dataclass(frozen=True, slots=True)
class Variant:
    """A model to measure.

    Attributes:
        model: what records call it.
        alpha: the mixing coefficient, where it is known.
        read: gives the tensor of a name.
        interpolated: sets the weights of mixtures faster than reading them does; None where that is not needed.
    """

    model: str
    alpha: float | None
    read: Callable[[str], TensorData]
    interpolated: InterpolatedWeights | None = None

    def digest(self, name: str) -> str:
        """Of the tensor with this name."""
        if self.interpolated is not None and self.alpha is not None:
            return self.interpolated.digest(self.alpha, name)
        return tensor_digest(self.read(name))


@dataclass(slots=True)
class Evaluator:
    """What it takes to measure variants of a model."""

    model: Model
    heads: Heads
    engine: Engine
    _standing: Variant | None = None

    def predict(
        self, numbers: Sequence[int], variants: Sequence[Variant], dataset: Dataset, beside: Observers = NOTHING
    ) -> Predictions:
        """The predictions of `variants`, which are known by their `numbers`, and of the ensembles `beside` them."""
        setters = [partial(self._set, variant) for variant in variants]
        complete = self.heads.setters(numbers, setters, dataset)
        interpolated = variants[0].interpolated
        same_tower = len(variants) > 1 and interpolated is not None and interpolated.only_head_varies(self.model)
        outputs = self.heads.outputs(dataset)
        return self.engine.predict(complete, dataset, outputs, same_tower=same_tower, beside=beside)

    def identity(self, variant: Variant) -> dict[str, Any]:
        """What a number depends on of the model and the machine, whatever the data set."""
        forward = self.engine.forward
        return {
            "weights": weights_fingerprint(self.model.names, variant.digest),
            "architecture": self.model.architecture,
            "preprocess": dict(self.model.preprocess),
            "head": self.heads.name,
            "precision": forward.precision,
            "versions": {"mergekit_wise": __version__, **{name: version(name) for name in LIBRARIES}},
        }

    @property
    def device(self) -> str:
        """Where it computes, for people."""
        device = self.engine.forward.device
        return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)

    def _set(self, variant: Variant) -> None:
        # Setting weights that stand would be paid for twice: processes that decode share their pages until then.
        if variant is self._standing:
            return
        self._standing = None
        if variant.interpolated is not None and variant.alpha is not None:
            variant.interpolated.install(self.model, variant.alpha)
        else:
            self.model.set_weights({name: variant.read(name) for name in self.model.names})
        self._standing = variant


@contextmanager
def open_evaluator(
    template: Checkpoint, setting: EvaluationOptions, ranks: Ranks, device: str, note: Callable[[str], None]
) -> Iterator[Evaluator]:
    """A evaluator for checkpoints like `template`, on `device`. Raises ModelError, CheckpointError, UsageError."""
    with _head_file(setting) as file:
        own_head = str(setting.head) != ZERO_SHOT_HEAD
        model = open_model(template, setting.model, head=file, own_head=own_head)
        if model.has_own_head and setting.templates is not None:
            raise UsageError(
                f"--templates: {template.path.name} has a head of its own ({model.head}), which no template changes. "
                "Leave the option out, or ask for a head of class names with --head zero-shot."
            )
        name = model.head
        if file is not None:
            name = f"{file.path.name} {checkpoint_fingerprint(file, file.tensors)}{model.manner}"
    place(model.module, found := open_device(device))
    precision = choose_precision(setting.precision, found)
    engine = Engine(
        Forward(model.module, Preprocess.of(model.preprocess), found, precision, note),
        setting.batch_size,
        default_workers() if setting.workers is None else setting.workers,
        setting.max_bad,
        ranks,
        setting.progress,
    )
    yield Evaluator(model, Heads(model, name, setting.progress), engine)


@contextmanager
def _head_file(setting: EvaluationOptions) -> Iterator[Checkpoint | None]:
    if setting.head is None or str(setting.head) == ZERO_SHOT_HEAD:
        yield None
        return
    source = open_source(setting.head)
    with closing(source):
        yield source
