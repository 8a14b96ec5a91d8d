"""A model on its device with its heads and its engine, opened once for every variant and every data set."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.errors import UsageError
from mergekit_wise.evaluation.dataset_heads import Heads
from mergekit_wise.evaluation.distributed import Ranks
from mergekit_wise.evaluation.engine import NO_OBSERVERS, Engine, Observers
from mergekit_wise.evaluation.forward import Forward, choose_precision, place
from mergekit_wise.evaluation.image_batches import default_workers
from mergekit_wise.evaluation.predictions import Predictions
from mergekit_wise.evaluation.variants import Variant, checkpoint_fingerprint, weights_fingerprint
from mergekit_wise.merging.torch_backend import open_device
from mergekit_wise.models.head_files import HeadReading, open_head
from mergekit_wise.models.model import Model
from mergekit_wise.models.opening import open_model
from mergekit_wise.models.transform import Preprocess
from mergekit_wise.options import ZERO_SHOT_HEAD, ModelOptions
from mergekit_wise.results.identity import installed_versions


@dataclass(slots=True)
class Evaluator:
    """Predicts with variants of a model."""

    model: Model
    heads: Heads
    engine: Engine
    _installed: Variant | None = None

    def predict(
        self, numbers: Sequence[int], variants: Sequence[Variant], dataset: Dataset, observers: Observers = NO_OBSERVERS
    ) -> Predictions:
        """The predictions of `variants`, which `heads` knows by their `numbers`; see `Engine.predict`."""
        setters = self.heads.setters(numbers, [partial(self._install, variant) for variant in variants], dataset)
        return self.engine.predict(
            setters,
            dataset,
            self.heads.outputs(dataset),
            names=self.model.class_names,
            same_tower=len(variants) > 1 and self._only_head_varies(variants),
            observers=observers,
        )

    def _only_head_varies(self, variants: Sequence[Variant]) -> bool:
        """Whether the features of all mixtures are the same, and logits are one linear layer of them."""
        first, model = variants[0], self.model
        if first.interpolated is None or not model.has_own_head:
            return False
        varying = first.interpolated.varying(model, [variant.rules for variant in variants])
        if not all(model.names[name] in model.head_names for name in varying):
            return False
        self._install(first)  # a model can be asked only with weights
        return self.engine.forward.splits()

    def identity(self, variant: Variant) -> dict[str, Any]:
        """The attributes of a variant's records that are the same for all data sets and that numbers depend on."""
        return {
            "weights": weights_fingerprint(self.model.names, variant.digest),
            "architecture": self.model.architecture,
            "preprocess": dict(self.model.preprocess),
            "head": self.heads.name,
            "precision": self.engine.forward.precision,
            "versions": installed_versions(),
        }

    @property
    def device(self) -> str:
        """The device, for people."""
        device = self.engine.forward.device
        return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)

    def _install(self, variant: Variant) -> None:
        # Weights that are set already are kept: until they are written, decoding processes share their memory pages.
        if variant is self._installed:
            return
        self._installed = None
        if variant.interpolated is not None:
            variant.interpolated.install(self.model, variant.rules)
        else:
            self.model.set_weights({name: variant.read(name) for name in self.model.names})
        self._installed = variant


@contextmanager
def open_evaluator(
    template: Checkpoint, options: ModelOptions, ranks: Ranks, device: str, note: Callable[[str], None]
) -> Iterator[Evaluator]:
    """An evaluator on `device` for checkpoints like `template`. Raises ModelError, CheckpointError, UsageError."""
    with _head_file(options) as file:
        model = _open_model(template, options, file)
        for text in model.notes:
            note(text)
        if model.has_own_head and options.templates is not None:
            raise UsageError(
                f"--templates: {template.path.name} has its own head ({model.head}), which does not use templates. "
                "Leave the option out, or build a head from class names with --head zero-shot."
            )
        name = model.head
        if file is not None:
            name = f"{file.path.name} {checkpoint_fingerprint(file, file.tensors)}{model.manner}"
    place(model.module, found := open_device(device))
    engine = Engine(
        Forward(
            model.module,
            Preprocess.of(model.preprocess),
            found,
            choose_precision(options.precision, found),
            note,
        ),
        options.batch_size,
        default_workers() if options.workers is None else options.workers,
        options.max_bad,
        ranks,
        options.progress,
    )
    yield Evaluator(model, Heads(model, name, options.progress, note), engine)


def needed_names(template: Checkpoint, options: ModelOptions) -> frozenset[str]:
    """The names of the tensors that an evaluation with these options needs. Raises ModelError, CheckpointError."""
    with _head_file(options) as file:
        return frozenset(_open_model(template, options, file).names)


def _open_model(template: Checkpoint, options: ModelOptions, head: Checkpoint | None) -> Model:
    return open_model(
        template,
        options.model,
        head=head,
        reading=HeadReading(options.head_features, options.head_rows),
        own_head=str(options.head) != ZERO_SHOT_HEAD,
        image_size=options.image_size,
    )


@contextmanager
def _head_file(options: ModelOptions) -> Iterator[Checkpoint | None]:
    if options.head is None or str(options.head) == ZERO_SHOT_HEAD:
        for name in ("head_features", "head_rows"):
            if getattr(options, name) is not None:
                raise UsageError(
                    f"--{name.replace('_', '-')} says how the head in a file is read. Add --head FILE, or leave it out."
                )
        yield None
        return
    with open_head(options.head, mmap=options.mmap) as source:
        yield source
