"""A model with its heads and its engine, opened once for every variant and every data set.

What identifies a measurement is known at once. The module is built, and torch imported, when something is predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast

from mergekit_wise.cache import Cache
from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.errors import UsageError
from mergekit_wise.evaluation.dataset_heads import Heads
from mergekit_wise.evaluation.distributed import Ranks
from mergekit_wise.evaluation.own_modules import is_mixture, require_size, to_call, tried_transform
from mergekit_wise.evaluation.variants import Installer, Variant, checkpoint_fingerprint, weights_fingerprint
from mergekit_wise.models.head_files import HeadReading, open_head
from mergekit_wise.models.model import Model
from mergekit_wise.models.opening import resolve_model
from mergekit_wise.options import ZERO_SHOT_HEAD, ModelOptions
from mergekit_wise.results.identity import installed_versions
from mergekit_wise.wording import plural

if TYPE_CHECKING:
    import torch

    from mergekit_wise.evaluation.constant_prefix import ConstantPrefix
    from mergekit_wise.evaluation.engine import Engine, Observers
    from mergekit_wise.evaluation.forward import Precision
    from mergekit_wise.evaluation.image_batches import Preprocessing
    from mergekit_wise.evaluation.predictions import Predictions
    from mergekit_wise.models.own_transform import OwnTransform


@dataclass
class Evaluator:
    """Predicts with variants of a model.

    Attributes:
        model: whose module is built when it is needed.
        heads: for each data set.
        ranks: of the processes that compute together.
        options: of the engine: device, precision, batch size, workers.
        device_name: as torch names the device.
        note: called with what is decided on the way.
        transform: the user's own, in place of the preprocessing that the model declares.
    """

    model: Model
    heads: Heads
    ranks: Ranks
    options: ModelOptions
    device_name: str
    note: Callable[[str], None]
    transform: OwnTransform | None = None
    _prefixes: dict[frozenset[str], ConstantPrefix | None] = field(default_factory=dict)

    def open(self) -> None:
        """Build the engine now, for its errors."""
        _ = self.engine

    @cached_property
    def engine(self) -> Engine:
        """The model on its device, ready to compute. Raises ModelError if it does not fit, UsageError."""
        from mergekit_wise.evaluation.engine import Engine
        from mergekit_wise.evaluation.forward import Forward, place
        from mergekit_wise.evaluation.image_batches import default_workers
        from mergekit_wise.evaluation.image_cache import ImageCache
        from mergekit_wise.models.called_module import CalledModule

        options, precision = self.options, self.precision
        if not isinstance(self.model.module, CalledModule):  # which stays where its owner put it
            place(self.model.module, self._device)
        return Engine(
            Forward(self.model.module, self.preprocess, self._device, precision, self.note),
            options.batch_size,
            default_workers() if options.workers is None else options.workers,
            options.max_bad,
            self.ranks,
            options.progress,
            images=ImageCache.open(self.note) if options.cache_images else None,
        )

    def predict(
        self,
        numbers: Sequence[int],
        variants: Sequence[Variant],
        dataset: Dataset,
        observers: Observers | None = None,
        *,
        sharing: bool = True,
    ) -> Predictions:
        """The predictions of `variants`, which `heads` knows by their `numbers`; see `Engine.predict`.

        With `sharing`, the first part of the forward pass is computed once for all mixtures where no weight varies.
        """
        from mergekit_wise.evaluation.engine import NO_OBSERVERS

        engine = self.engine
        setters = self.heads.setters(numbers, [partial(self._install, variant) for variant in variants], dataset)
        return engine.predict(
            setters,
            dataset,
            self.heads.outputs(dataset),
            names=self.model.class_names,
            prefix=self._prefix(variants, setters) if sharing and len(variants) > 1 else None,
            observers=NO_OBSERVERS if observers is None else observers,
        )

    def _prefix(self, variants: Sequence[Variant], setters: Sequence[Callable[[], None]]) -> ConstantPrefix | None:
        """The part of the forward pass that is the same for all mixtures, which is said once."""
        from mergekit_wise.models.called_module import CalledModule

        first, model = variants[0], self.model
        if isinstance(model.module, CalledModule):  # nothing is known of its forward pass
            return None
        if first.interpolated is None or any(each.interpolated is not first.interpolated for each in variants):
            return None
        names = first.interpolated.varying(model, [variant.rules for variant in variants])
        varying = frozenset(model.names[name] for name in names)
        if varying not in self._prefixes:
            setters[0]()  # a head must be there before its tensors have names
            heads = frozenset() if model.has_own_head else model.head_names
            found = self.engine.forward.constant_prefix(setters, varying | heads)
            if found is not None:
                self.engine.forward.note(_on(found, len(variants)))
            self._prefixes[varying] = found
        return self._prefixes[varying]

    def identity(self, variant: Variant) -> dict[str, Any]:
        """The attributes of a variant's records that are the same for all data sets and that numbers depend on."""
        return {
            "weights": weights_fingerprint(self.model.names, variant.digest),
            "architecture": self.model.architecture,
            "preprocess": dict(self.model.preprocess),
            "head": self.heads.name,
            "precision": self.precision,
            "versions": installed_versions(),
        }

    @cached_property
    def preprocess(self) -> Preprocessing:
        """How images are prepared. Raises ModelError for what the model's library would refuse."""
        if self.transform is not None:
            return self.transform
        from mergekit_wise.models.transform import Preprocess

        return Preprocess.of(self.model.preprocess)

    @property
    def precision(self) -> Precision:
        """The precision that is computed in; see `choose_precision`. Raises UsageError without the device."""
        if self.options.precision != "auto":
            return cast("Precision", self.options.precision)
        if self._is_cpu:
            return "fp32"  # as `choose_precision` says, without torch
        from mergekit_wise.evaluation.forward import choose_precision

        return choose_precision("auto", self._device)

    @property
    def device(self) -> str:
        """The device, for people."""
        if self._is_cpu:
            return self.device_name
        import torch

        device = self._device
        return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)

    @property
    def _is_cpu(self) -> bool:
        return self.device_name.partition(":")[0] == "cpu"

    @cached_property
    def _device(self) -> torch.device:
        from mergekit_wise.merging.torch_backend import open_device

        return open_device(self.device_name)

    @cached_property
    def _install(self) -> Installer:
        return Installer(self.model, self.note)


def _on(prefix: ConstantPrefix, mixtures: int) -> str:
    """How much of the model is computed once, for people."""
    which = f"the first {prefix.blocks} of {plural(prefix.total, prefix.unit)}"
    if prefix.blocks == prefix.total:
        which = f"all {plural(prefix.total, prefix.unit)} of the image encoder"
    return f"{which} are the same in all {mixtures} mixtures and are computed once"


@contextmanager
def open_evaluator(
    template: Checkpoint,
    options: ModelOptions,
    ranks: Ranks,
    device: str,
    note: Callable[[str], None],
    examples: Dataset | None = None,
) -> Iterator[Evaluator]:
    """An evaluator on `device` for checkpoints like `template`. Raises ModelError, CheckpointError, UsageError.

    A transform of the user's is tried on an image of `examples`. With it, a module of the user's that gives logits is
    called itself, on its own device; it is in evaluation mode until the block ends.
    """
    require_cache(options)
    transform = tried_transform(options, examples)
    module = to_call(options)
    if module is not None and transform is not None:
        from mergekit_wise.models.called import copied, device_of, evaluating, open_called

        with evaluating(module):
            own = copied(module) if is_mixture(options) else module
            with evaluating(own):
                model = open_called(own, template, transform, holds=own is module)
                heads = Heads(model, model.head, options.progress, note)
                yield Evaluator(model, heads, ranks, options, str(device_of(own)), note, transform)
        return
    with _head_file(options) as file:
        model = _resolved(template, options, file)
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
    if transform is not None:
        from mergekit_wise.models.transform import Preprocess

        require_size(transform, Preprocess.of(model.preprocess).size, template)
        model = replace(model, preprocess=transform.facts)
    cache = Cache.open(note) if options.cache else None
    heads = Heads(model, name, options.progress, note, cache)
    yield Evaluator(model, heads, ranks, options, device, note, transform)


def require_cache(options: ModelOptions) -> None:
    """Raise UsageError if images are to be kept, and nothing is."""
    if options.cache_images and not options.cache:
        raise UsageError("--cache-images keeps decoded images, and --no-cache keeps nothing. Leave one of them out.")


def needed_names(template: Checkpoint, options: ModelOptions) -> frozenset[str]:
    """The names of the tensors that an evaluation with these options needs. Raises ModelError, CheckpointError."""
    if to_call(options) is not None:
        return frozenset(template.tensors)
    with _head_file(options) as file:
        return frozenset(_resolved(template, options, file).names)


def _resolved(template: Checkpoint, options: ModelOptions, head: Checkpoint | None) -> Model:
    return resolve_model(
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
