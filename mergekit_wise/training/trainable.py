"""A checkpoint as something that learns, and what it learned as a checkpoint again, under the names it came with."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn import functional

from mergekit_wise.checkpoint import BY_NAME, Checkpoint, TensorInfo
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.errors import ModelError, UsageError
from mergekit_wise.evaluation.predictions import VOCABULARIES
from mergekit_wise.merging.provenance import KEY as MERGED
from mergekit_wise.merging.torch_backend import as_stored
from mergekit_wise.models.classifier import Classifier
from mergekit_wise.models.destinations import Destination, StorageArray
from mergekit_wise.models.model import Model
from mergekit_wise.models.names import HEAD, read_names
from mergekit_wise.models.opening import open_model
from mergekit_wise.models.resolved_config import CLASSNAMES_KEY, CONFIG_KEY
from mergekit_wise.models.text import encode_texts
from mergekit_wise.options import FinetuneOptions

Stored = dict[str, tuple[TensorInfo, StorageArray]]


class Towers(nn.Module):
    """Both towers of a model: images and tokens -> features of length 1 of both, [B, D], and their products' factor."""

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
    """What is trained.

    Attributes:
        source: the checkpoint it comes from.
        model: the checkpoint as a model, its weights set.
        module: the part that learns: the classifier, its head, or both towers.
        parameters: that learn, by the names of the model's module.
        labels: what each image's class is to the head, int64 [N].
        dataset: the images.
    """

    source: Checkpoint
    model: Model
    module: nn.Module
    parameters: Mapping[str, nn.Parameter]
    labels: Tensor
    dataset: Dataset

    @torch.no_grad()
    def checkpoint(self, weights: Mapping[str, Tensor]) -> Stored:
        """The source's tensors, with `weights` in place of the parameters; what does not learn has the source's bytes.

        What learned is float32, or float64 where the source is: half precision has no room for the small steps of
        fine-tuning. A head beside a text tower that learned is made anew by it.
        """
        values = dict(weights)
        places: dict[str, Destination] = dict(self.model.destinations)
        if isinstance(self.module, Towers):
            places |= (head := _head_places(self.source))
            if head:
                with _holding(self.parameters, weights):
                    weight = self.model.zeroshot_head(self.dataset.classnames, self.dataset.templates)
                values |= {f"{HEAD}weight": weight, f"{HEAD}bias": weight.new_zeros(len(weight))}
        return {name: self._stored(name, places.get(name), values) for name in self.source.tensors}

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

    def metadata(self, told: Mapping[str, str]) -> dict[str, str]:
        """What the source says of itself, and what is `told` of the fine-tuned model."""
        kept = {key: value for key, value in self.source.metadata.items() if key != MERGED}
        config = {CONFIG_KEY: json.dumps(self.model.config)} if self.model.config else {}
        return {"format": "pt", **config, **kept, **told}


def open_trainable(source: Checkpoint, dataset: Dataset, request: FinetuneOptions) -> Trainable:
    """The part of the checkpoint that learns from the data set, on the CPU, its weights set.

    Raises ModelError if there is no head, or one for other classes, or no text tower where one learns; UsageError for
    patterns that match nothing.
    """
    contrastive = request.objective == "contrastive"
    model = open_model(source, request.model, own_head=not contrastive)
    if not contrastive and not model.has_own_head:
        raise ModelError(f"{source.path}: has no classification head. {_advice(str(source.path), dataset)}")
    if contrastive:
        for name in _head_places(source):  # made anew for the same classes
            _require_classes(source, source.info(name).shape[0], dataset)
    labels = torch.from_numpy(dataset.labels) if contrastive else _labels(source, model, dataset)
    model.set_weights({name: (source.info(name), source.read(name)) for name in model.names})
    module = _learning(model, request)
    return Trainable(source, model, module, _parameters(source, model, module, request.freeze), labels, dataset)


def _learning(model: Model, request: FinetuneOptions) -> nn.Module:
    if request.objective == "contrastive":
        assert isinstance(model.module, Classifier)
        return Towers(model.module)
    return head_of(model) if request.linear else model.module


def head_of(model: Model) -> nn.Linear:
    """The linear classifier of a model. Raises ModelError if it has none."""
    module = model.module
    head = module.classification_head if isinstance(module, Classifier) else module.model.get_classifier()
    if not isinstance(head, nn.Linear):
        raise ModelError(f"{model.architecture}: its classifier is no linear layer, which --linear learns.")
    return head


def _parameters(source: Checkpoint, model: Model, module: nn.Module, freeze: Sequence[str]) -> dict[str, nn.Parameter]:
    """Those that learn; all others need no gradient from here on."""
    theirs = {place.name: name for name, place in model.destinations.items()}
    inside = {id(parameter) for parameter in module.parameters()}
    known = {name: p for name, p in model.module.named_parameters() if id(p) in inside}
    unmatched = [f for f in freeze if not any(_matches(f, name, theirs.get(name, name)) for name in known)]
    if unmatched:
        raise UsageError(
            f"--freeze {unmatched[0]}: matches no tensor that would learn, for example {next(iter(known))}."
        )
    learning = {}
    for name, parameter in model.module.named_parameters():
        # A bias that the checkpoint does not hold has no place in what is written.
        frozen = name not in theirs or any(_matches(pattern, name, theirs[name]) for pattern in freeze)
        parameter.requires_grad_(name in known and not frozen)
        if parameter.requires_grad:
            learning[name] = parameter
    if not learning:
        raise UsageError(f"--freeze {' '.join(freeze)}: nothing is left that could learn in {source.path}.")
    return learning


def _matches(pattern: str, *names: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)


def _labels(source: Checkpoint, model: Model, dataset: Dataset) -> Tensor:
    """int64 [N], as the head counts classes."""
    labels, outputs = torch.from_numpy(dataset.labels), model.classes
    columns = dataset.columns
    if columns is not None and outputs == VOCABULARIES.get(dataset.vocabulary):
        if any(len(several) != 1 for several in columns):
            raise ModelError(
                f"{dataset.title}: some of its classes are several of the head's; none of them can be learned."
            )
        return torch.tensor([column for (column,) in columns])[labels]
    _require_classes(source, outputs, dataset)
    return labels


def _require_classes(source: Checkpoint, outputs: int | None, dataset: Dataset) -> None:
    """As many classes, and the same ones in the same order, if the head says what its classes are called.

    Other words are no fault: a prompt's "oxeye daisy" may be a folder's "oxeye".
    """
    if outputs != len(dataset.classnames):
        raise ModelError(
            f"{source.path}: its head has {outputs} classes, {dataset.title} has {len(dataset.classnames)}. "
            f"{_advice('CHECKPOINT', dataset)}"
        )
    told = source.metadata.get(CLASSNAMES_KEY)
    names = json.loads(told) if told else None
    if names is None or names == list(dataset.classnames) or sorted(names) != sorted(dataset.classnames):
        return
    first = next(place for place, pair in enumerate(zip(names, dataset.classnames, strict=True)) if pair[0] != pair[1])
    raise ModelError(
        f"{source.path}: class {first} of its head is {names[first]!r}, that of {dataset.title} is "
        f"{dataset.classnames[first]!r}. {_advice('CHECKPOINT', dataset)}"
    )


def _advice(checkpoint: str, dataset: Dataset) -> str:
    if dataset.vocabulary == "imagenet" and dataset.columns is None:
        return f"Make a head for these classes first: wise zeroshot {checkpoint} --classes imagenet -o zs.safetensors"
    names = ", ".join(dataset.classnames[:3])
    return (
        f"Make a head for these classes first: wise zeroshot {checkpoint} --classes classes.txt -o zs.safetensors "
        f"(in classes.txt the {len(dataset.classnames)} names, one a line: {names} ...)"
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
