"""A checkpoint as a trainable model, and the trained model as a checkpoint again, under the original names."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn import functional

from mergekit_wise.checkpoint import BY_NAME, Checkpoint, TensorInfo
from mergekit_wise.datasets.class_names import imagenet_classnames, notes_on_prompts, prompt_names
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.head_columns import HeadColumns, head_columns
from mergekit_wise.datasets.name_matching import are_numbers
from mergekit_wise.errors import ModelError, UsageError
from mergekit_wise.merging.provenance import KEY as MERGED
from mergekit_wise.models.architecture import CLASSNAMES_KEY, CONFIG_KEY
from mergekit_wise.models.classifier import Classifier
from mergekit_wise.models.destinations import Destination, StorageArray
from mergekit_wise.models.head_names import declared_class_names
from mergekit_wise.models.model import Model
from mergekit_wise.models.names import HEAD, read_names
from mergekit_wise.models.opening import open_model
from mergekit_wise.models.transform import Preprocess
from mergekit_wise.models.zero_shot_head import encode_texts
from mergekit_wise.options import FinetuneOptions
from mergekit_wise.training.checkpointer import as_stored
from mergekit_wise.training.objectives import Contrastive, Objective, Supervised
from mergekit_wise.training.runtime import Runtime

Stored = dict[str, tuple[TensorInfo, StorageArray]]


class Towers(nn.Module):
    """Both towers of a model: maps images and tokens to features of both, [B, D] with rows of length 1, and the scale.

    The scale, a scalar, is the factor on the products of features: the exponential of the logit scale.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        text, scale = self.classifier.text, self.classifier.logit_scale
        assert text is not None
        assert scale is not None
        texts = functional.normalize(encode_texts(text, tokens), dim=-1)
        return self.classifier.encode(images), texts, scale.exp()


@dataclass(frozen=True, slots=True)
class Trainable:
    """A model that is trained.

    Attributes:
        source: the zero-shot checkpoint.
        model: the model of the checkpoint, with its weights.
        module: the trained part: the classifier, its head, or both towers.
        parameters: the trained parameters, by their names in the model's module.
        labels: index of each image's class in the head, or for the contrastive objective in the data set, int64 [N].
        dataset: the training images.
        head: which of the head's classes those of the data set are.
    """

    source: Checkpoint
    model: Model
    module: nn.Module
    parameters: Mapping[str, nn.Parameter]
    labels: Tensor
    dataset: Dataset
    head: HeadColumns

    @property
    def on_classes(self) -> tuple[str, ...]:
        """Notes on how the classes of the data set are those of the head."""
        notes = [*self.head.notes, *(notes_on_prompts(self.dataset.classnames) if self.contrastive else ())]
        return tuple(f"{self.dataset.title}: {note}" for note in notes)

    @property
    def contrastive(self) -> bool:
        """Whether both towers are trained."""
        return isinstance(self.module, Towers)

    def objective(self, request: FinetuneOptions, runtime: Runtime, preprocess: Preprocess) -> Objective:
        """Return the objective of the module, wrapped for several processes; `preprocess` normalises pixels."""
        image = torch.zeros(1, 3, *preprocess.size)
        if isinstance(self.module, Towers):
            scale = self.module.classifier.logit_scale
            assert scale is not None
            captions = self._captions()
            module = runtime.distributed(self.module, image, captions[0, :1])
            return Contrastive(module, scale, preprocess.normalise, self.labels, captions, runtime)
        example = torch.zeros(1, head_of(self.model).in_features) if request.linear else image
        normalise = torch.Tensor.float if request.linear else preprocess.normalise
        module = runtime.distributed(self.module, example)
        return Supervised(module, normalise, self.labels, runtime, request.label_smoothing, request.mixup)

    def _captions(self) -> Tensor:
        """Return the tokens of each class in each template, int64 [C, T, L]."""
        names, templates = prompt_names(self.dataset.classnames), self.dataset.templates
        texts = [template.replace("{}", name) for name in names for template in templates]
        return self.model.tokenizer(texts).view(len(names), len(templates), -1)

    @torch.no_grad()
    def checkpoint(self, weights: Mapping[str, Tensor]) -> Stored:
        """Return the source's tensors with `weights` in place of the parameters; all others keep the source's bytes.

        Trained tensors are float32, or float64 if the source's are: half precision is too coarse for the small steps
        of fine-tuning. If the text tower was trained, a head in the source is made anew by it.
        """
        values = dict(weights)
        places: dict[str, Destination] = dict(self.model.destinations)
        if isinstance(self.module, Towers):
            places |= (head := _head_places(self.source))
            if head:
                with _holding(self.parameters, weights):
                    weight = self.model.zeroshot_head(self._head_classes(), self.dataset.templates)
                values |= {f"{HEAD}weight": weight, f"{HEAD}bias": weight.new_zeros(len(weight))}
        return {name: self._stored(name, places.get(name), values) for name in self.source.tensors}

    def _head_classes(self) -> tuple[str, ...]:
        """Return the names of the head's classes in its order: the data set's, and its own for all others."""
        own, columns = self.dataset.classnames, self.head.columns
        if columns is None:
            return own
        names = list(declared_class_names(self.source) or imagenet_classnames())
        for name, (column,) in zip(own, columns, strict=True):
            names[column] = name
        return tuple(names)

    def _stored(
        self, name: str, place: Destination | None, values: Mapping[str, Tensor]
    ) -> tuple[TensorInfo, StorageArray]:
        info = self.source.info(name)
        if place is None or place.name not in values:
            return info, self.source.read(name)
        value = values[place.name].detach()
        part = value.chunk(place.parts)[place.part] if place.parts > 1 else value
        dtype = torch.float64 if info.dtype is BY_NAME["F64"] else torch.float32
        return as_stored(name, (part.T if place.transposed else part).reshape(info.shape).to(dtype))

    def metadata(self, facts: Mapping[str, str]) -> dict[str, str]:
        """Return the source's metadata, completed by `facts` about the fine-tuned model."""
        kept = {key: value for key, value in self.source.metadata.items() if key != MERGED}
        config = {CONFIG_KEY: json.dumps(self.model.config)} if self.model.config else {}
        return {"format": "pt", **config, **self._names(), **kept, **facts}

    def _names(self) -> dict[str, str]:
        """Return the metadata entry with the names of the classes that the head was trained for, if all were."""
        names = self.dataset.classnames
        if self.contrastive or self.head.columns is not None or len(names) != self.model.classes or are_numbers(names):
            return {}
        return {CLASSNAMES_KEY: json.dumps(list(names))}


def open_trainable(source: Checkpoint, dataset: Dataset, request: FinetuneOptions) -> Trainable:
    """Open the part of the checkpoint that is trained on the data set, on the CPU.

    Raises ModelError if there is no head, if it has other classes, or if the contrastive objective finds no text tower;
    UsageError for `--freeze` patterns that match nothing.
    """
    contrastive = request.objective == "contrastive"
    model = open_model(source, request.model, own_head=not contrastive)
    if not contrastive and not model.has_own_head:
        raise ModelError(f"{source.path}: has no classification head. {_advice(str(source.path), dataset)}")
    head = HeadColumns(None)
    if contrastive:
        for name in _head_places(source):  # made anew for the same classes
            head = _columns(source, source.info(name).shape[0], declared_class_names(source), dataset)
    else:
        head = _columns(source, model.classes, model.class_names, dataset)
    labels = torch.from_numpy(dataset.labels)
    if head.columns is not None and not contrastive:
        labels = torch.tensor([column for (column,) in head.columns])[labels]
    model.set_weights({name: (source.info(name), source.read(name)) for name in model.names})
    module = _trained_module(model, request)
    return Trainable(source, model, module, _parameters(source, model, module, request.freeze), labels, dataset, head)


def _trained_module(model: Model, request: FinetuneOptions) -> nn.Module:
    if request.objective == "contrastive":
        assert isinstance(model.module, Classifier)
        return Towers(model.module)
    return head_of(model) if request.linear else model.module


def head_of(model: Model) -> nn.Linear:
    """Return the linear classifier of a model. Raises ModelError if it has none."""
    module = model.module
    head = module.classification_head if isinstance(module, Classifier) else module.model.get_classifier()
    if not isinstance(head, nn.Linear):
        raise ModelError(f"{model.architecture}: --linear needs a linear layer as the classifier.")
    return head


def _parameters(source: Checkpoint, model: Model, module: nn.Module, freeze: Sequence[str]) -> dict[str, nn.Parameter]:
    """Return the trained parameters; all others no longer require a gradient."""
    theirs = {place.name: name for name, place in model.destinations.items()}
    inside = {id(parameter) for parameter in module.parameters()}
    known = {name: p for name, p in model.module.named_parameters() if id(p) in inside}
    unmatched = [f for f in freeze if not any(_matches(f, name, theirs.get(name, name)) for name in known)]
    if unmatched:
        raise UsageError(
            f"--freeze {unmatched[0]}: matches no trained tensor. Their names are like {next(iter(known))}."
        )
    trained = {}
    for name, parameter in model.module.named_parameters():
        # A bias that the checkpoint does not hold cannot be written either.
        frozen = name not in theirs or any(_matches(pattern, name, theirs[name]) for pattern in freeze)
        parameter.requires_grad_(name in known and not frozen)
        if parameter.requires_grad:
            trained[name] = parameter
    if not trained:
        raise UsageError(f"--freeze {' '.join(freeze)}: no tensor of {source.path} is left to train.")
    return trained


def _matches(pattern: str, *names: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)


def _columns(source: Checkpoint, outputs: int | None, names: Sequence[str] | None, dataset: Dataset) -> HeadColumns:
    """How the data set's classes are read off the head; each must be one class of the head, and none another's."""
    found = HeadColumns(None)
    if outputs is not None and (names is not None or dataset.columns is not None):
        found = head_columns(dataset, outputs, names)
    elif outputs != len(dataset.classnames):
        raise ModelError(
            f"{dataset.title} has {len(dataset.classnames)} classes, the head of {source.path} has {outputs}. "
            f"{_advice('CHECKPOINT', dataset)}"
        )
    else:
        found = head_columns(dataset, outputs, None)
    if any(len(several) != 1 for several in found.columns or ()):
        raise ModelError(
            f"{dataset.title}: some of its classes are several of the head's classes, so it cannot be trained on."
        )
    return found


def _advice(checkpoint: str, dataset: Dataset) -> str:
    if dataset.vocabulary == "imagenet" and dataset.columns is None:
        return f"First make a head for these classes: wise zeroshot {checkpoint} --classes imagenet -o zs.safetensors"
    names = ", ".join(dataset.classnames[:3])
    return (
        f"First make a head for these classes: wise zeroshot {checkpoint} --classes classes.txt -o zs.safetensors "
        f"(classes.txt holds the {len(dataset.classnames)} names, one per line: {names} ...)"
    )


def _head_places(source: Checkpoint) -> dict[str, Destination]:
    return {name: place for name, place in read_names(source).destinations.items() if place.name.startswith(HEAD)}


@contextmanager
def _holding(parameters: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> Iterator[None]:
    """While the block runs, the parameters have these values."""
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.copy_(before[name])
