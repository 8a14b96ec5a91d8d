"""A checkpoint as a trainable model, and the trained model as a checkpoint again, under the original names."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mergekit_wise.checkpoint import BY_NAME, Checkpoint, TensorInfo
from mergekit_wise.datasets.captions import CaptionedImages
from mergekit_wise.datasets.class_names import imagenet_classnames, notes_on_prompts, prompt_names
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.head_columns import HeadColumns, head_columns
from mergekit_wise.datasets.name_matching import are_numbers
from mergekit_wise.errors import ModelError, UsageError
from mergekit_wise.merging.provenance import KEY as MERGED
from mergekit_wise.models.architecture import CLASSNAMES_KEY, CONFIG_KEY, TIMM_KEY, config_entry
from mergekit_wise.models.classifier import Classifier
from mergekit_wise.models.destinations import Destination, StorageArray
from mergekit_wise.models.head_names import declared_class_names
from mergekit_wise.models.model import Model
from mergekit_wise.models.names import BIAS, HEAD, SCALE, TOWER, read_names
from mergekit_wise.models.opening import has_text_tower, open_model
from mergekit_wise.models.timm_classifier import TimmClassifier
from mergekit_wise.models.transform import Preprocess
from mergekit_wise.models.zero_shot_head import encode_texts
from mergekit_wise.options import FinetuneOptions
from mergekit_wise.training.checkpointer import as_stored
from mergekit_wise.training.image_texts import ClassCaptions, OwnCaptions, notes_on_length
from mergekit_wise.training.objectives import (
    MAX_LOGIT_SCALE,
    Contrastive,
    Objective,
    Supervised,
    contrastive_loss,
    sigmoid_loss,
)
from mergekit_wise.training.runtime import Runtime

Stored = dict[str, tuple[TensorInfo, StorageArray]]


class Towers(nn.Module):
    """Both towers of a model: maps images and tokens to features of both, [B, D] with rows of length 1, and scalars.

    The first scalar is the factor on the products of features, the exponential of the logit scale; models of the
    sigmoid loss have a second one, the bias that is added to the products.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    @property
    def is_sigmoid(self) -> bool:
        """Whether the model was trained with the sigmoid loss."""
        return self.classifier.logit_bias is not None

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        text, scale = self.classifier.text, self.classifier.logit_scale
        assert text is not None
        assert scale is not None
        texts = functional.normalize(encode_texts(text, tokens), dim=-1)
        bias = self.classifier.logit_bias
        return (self.classifier.encode(images), texts, scale.exp(), *([] if bias is None else [bias]))


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
        declares_config: whether the model's configuration replaces what the source's metadata says: the user chose
            another one, or its head or images are others.
        head: which of the head's classes those of the data set are.
        captions: the images' own captions, which take the place of classes; None if there are none.
    """

    source: Checkpoint
    model: Model
    module: nn.Module
    parameters: Mapping[str, nn.Parameter]
    labels: Tensor
    dataset: Dataset
    head: HeadColumns
    declares_config: bool = False
    captions: CaptionedImages | None = None

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
            sigmoid = self.module.is_sigmoid
            clamped = None if sigmoid else self.parameters.get(SCALE)
            texts = self._texts()
            _, tokens = texts(np.arange(1), 0)
            module = runtime.prepared(self.module, image, tokens)
            loss = sigmoid_loss if sigmoid else contrastive_loss
            return Contrastive(module, clamped, preprocess.normalise, texts, runtime, loss)
        example = torch.zeros(1, self.module.in_features) if isinstance(self.module, nn.Linear) else image
        normalise = torch.Tensor.float if request.linear else preprocess.normalise
        module = runtime.prepared(self.module, example)
        return Supervised(module, normalise, self.labels, runtime, request.label_smoothing, request.mixup)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the contrastive objective makes of the model and of captions; empty for other objectives."""
        if not isinstance(self.module, Towers):
            return ()
        if self.captions is None:
            return self._notes_on_loss()
        return (*self._notes_on_loss(), *notes_on_length(self.captions, self.model.tokenizer))

    def _notes_on_loss(self) -> tuple[str, ...]:
        assert isinstance(self.module, Towers)
        if self.module.is_sigmoid:
            return ("the model has a logit bias: trained with the sigmoid loss, without a bound on the logit scale",)
        scale = self.parameters.get(SCALE)
        if scale is None or scale.item() <= MAX_LOGIT_SCALE + 1e-4:
            return ()
        return (
            f"the logit scale is {scale.item():.4g}, above CLIP's bound of ln 100 = {MAX_LOGIT_SCALE:.4g}, to which it "
            f"is clamped after each step; --freeze {SCALE} keeps it as it is",
        )

    def _texts(self) -> ClassCaptions | OwnCaptions:
        if self.captions is not None:
            return OwnCaptions(self.captions.captions, self.model.tokenizer)
        names, templates = prompt_names(self.dataset.classnames), self.dataset.templates
        texts = [template.replace("{}", name) for name in names for template in templates]
        return ClassCaptions(self.labels, self.model.tokenizer(texts).view(len(names), len(templates), -1))

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
        part = (part.T if place.transposed else part).cpu()  # first: Apple's GPUs have no float64
        return as_stored(name, part.reshape(info.shape).to(dtype))

    def metadata(self, facts: Mapping[str, str]) -> dict[str, str]:
        """Return the source's metadata, completed by `facts` about the fine-tuned model."""
        kept = {key: value for key, value in self.source.metadata.items() if key != MERGED}
        if self.declares_config:
            kept = {key: value for key, value in kept.items() if key not in (CONFIG_KEY, TIMM_KEY)}
        return {"format": "pt", **config_entry(self.model.config), **self._names(), **kept, **facts}

    @property
    def named_source(self) -> Checkpoint:
        """The source, which also declares the names of the classes that its head is trained for."""
        return replace(self.source, metadata={**self._names(), **self.source.metadata})

    def _names(self) -> dict[str, str]:
        """Return the metadata entry with the names of the classes that the head was trained for, if all were."""
        names = self.dataset.classnames
        if self.contrastive or self.head.columns is not None or len(names) != self.model.classes or are_numbers(names):
            return {}
        return {CLASSNAMES_KEY: json.dumps(list(names))}


def open_trainable(
    source: Checkpoint, dataset: Dataset, request: FinetuneOptions, captions: CaptionedImages | None = None
) -> Trainable:
    """Open the part of the checkpoint that is trained on the data set, on the CPU.

    Raises ModelError if there is no head, if it has other classes, or if the contrastive objective finds no text tower;
    UsageError for `--freeze` patterns that match nothing.
    """
    contrastive = request.objective == "contrastive"
    model = open_model(source, request.model, own_head=not contrastive, image_size=request.image_size)
    if not contrastive and not model.has_own_head:
        raise ModelError(f"{source.path}: has no classification head. {_advice(source, dataset)}")
    head = HeadColumns(None)
    if contrastive:
        _require_loss(source, model)
        for name in _head_places(source):  # made anew for the same classes
            head = _columns(source, source.info(name).shape[0], declared_class_names(source), dataset)
    else:
        head = _columns(source, model.classes, model.class_names, dataset)
    labels = torch.from_numpy(dataset.labels)
    if head.columns is not None and not contrastive:
        labels = torch.tensor([column for (column,) in head.columns])[labels]
    model.set_weights({name: (source.info(name), source.read(name)) for name in model.names})
    module = _trained_module(model, request)
    chosen = request.model is not None or request.image_size is not None or request.new_head
    parameters = _parameters(source, model, module, request.freeze)
    declares = chosen or _another_size(source, model)
    return Trainable(source, model, module, parameters, labels, dataset, head, declares, captions)


def _another_size(source: Checkpoint, model: Model) -> bool:
    """Whether the model's images have another size than the metadata says: that of its position embedding."""
    text = source.metadata.get(CONFIG_KEY)
    if text is None or "model_cfg" not in model.config:
        return False
    said = json.loads(text)["model_cfg"]["vision_cfg"].get("image_size")
    return bool(said != model.config["model_cfg"]["vision_cfg"].get("image_size"))


def _require_loss(source: Checkpoint, model: Model) -> None:
    """Raise ModelError unless it is clear which loss the model was pre-trained with."""
    sigmoid = model.config["model_cfg"].get("init_logit_bias") is not None
    if sigmoid and BIAS not in model.names.values():
        raise ModelError(
            f"{source.path}: its configuration is that of a model of the sigmoid loss, whose {BIAS} it does not hold. "
            "Give the checkpoint with its bias."
        )


def _trained_module(model: Model, request: FinetuneOptions) -> nn.Module:
    if request.objective == "contrastive":
        assert isinstance(model.module, Classifier)
        return Towers(model.module)
    return head_of(model) if request.linear else model.module


def head_of(model: Model) -> nn.Linear:
    """Return the linear classifier of a model whose weights are set. Raises ModelError if it has none."""
    module, (height, width) = model.module, Preprocess.of(model.preprocess).size
    if isinstance(module, Classifier):
        head = module.classification_head
    else:
        assert isinstance(module, TimmClassifier)
        noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
        head = module.linear_head(noise.to(next(module.parameters()).device))
    if head is None:
        raise ModelError(
            f"{model.architecture}: --linear and --lp-ft need a model whose logits are one linear layer of its "
            "features, and this one does more with them. Leave the option out."
        )
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
            f"{_advice(source, dataset)}"
        )
    else:
        found = head_columns(dataset, outputs, None)
    if any(len(several) != 1 for several in found.columns or ()):
        raise ModelError(
            f"{dataset.title}: some of its classes are several of the head's classes, so it cannot be trained on."
        )
    return found


def _advice(source: Checkpoint, dataset: Dataset) -> str:
    """How to get a head for the classes of the data: by their names if the model has a text tower, else a new one."""
    reading = read_names(source)
    new = "start from a new head with --new-head, first with --linear, which trains the head alone"
    if not reading.part(TOWER):  # a classifier of timm's
        return f"It has no text tower to make another head with: {new}."
    whole = has_text_tower(reading)
    command = f"wise zeroshot {source.source if whole else 'CHECKPOINT'} --classes"
    where = "" if whole else ", where CHECKPOINT has the text tower, which this file lacks"
    if dataset.vocabulary == "imagenet" and dataset.columns is None:
        advice = f"First make a head for these classes: {command} imagenet -o zs.safetensors{where}"
    else:
        names = ", ".join(dataset.classnames[:3])
        advice = (
            f"First make a head for these classes: {command} classes.txt -o zs.safetensors{where} "
            f"(classes.txt holds the {len(dataset.classnames)} names, one per line: {names} ...)"
        )
    return advice if whole else f"{advice}; or {new}"


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
