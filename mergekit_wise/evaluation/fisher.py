"""The diagonal of a model's Fisher information on images. Knows no file; merging/fisher.py uses what it computes.

Images are differentiated one at a time: the square of a batch's mean gradient is another number. Gradients of several
images at once (`torch.func.vmap`) would take the memory of as many models, less than halve the time on a CPU, and are
not defined for every module.
"""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mergekit_wise.checkpoint import BY_NAME, Checkpoint, TensorInfo
from mergekit_wise.checkpoint.tensors import StorageArray
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.errors import ModelError, SuiteError
from mergekit_wise.evaluation.evaluator import Evaluator
from mergekit_wise.evaluation.forward import is_memory_error, whole_float32
from mergekit_wise.evaluation.image_batches import CHUNK, decoded, require_few
from mergekit_wise.evaluation.predictions import choose_columns, class_logits
from mergekit_wise.evaluation.variants import reader
from mergekit_wise.models.destinations import Destination
from mergekit_wise.models.model import forget_computed

Kind = Literal["true", "empirical"]


@dataclass(frozen=True, slots=True)
class Fisher:
    """The diagonal of the Fisher information of one model.

    Attributes:
        tensors: float32, flattened, under the checkpoint's names and in its shapes; each element is the mean over the
            images of the squared derivative of log p(y | x) with respect to that weight.
        constant: the checkpoint's other tensors, on which log p(y | x) does not depend, or not differentiably.
        images: how many could be read.
        bad: why each unreadable image is, by its index.
    """

    tensors: Mapping[str, tuple[TensorInfo, StorageArray]]
    constant: tuple[str, ...]
    images: int
    bad: Mapping[int, str]


def fisher_information(evaluator: Evaluator, source: Checkpoint, dataset: Dataset, kind: Kind, seed: int) -> Fisher:
    """The diagonal Fisher information of a checkpoint on a data set (Matena and Raffel, NeurIPS 2022, section 3).

    The true Fisher information takes y from the model's own p(y | x), one draw for each image, which depends on `seed`
    and the image's index alone; the empirical one takes the label. A head that is not in the checkpoint is a constant.

    Raises:
        ModelError: logits or gradients are not finite, or not even one image fits into memory.
        SuiteError: more images are unreadable than allowed, or labels do not determine y.
    """
    model, engine = evaluator.model, evaluator.engine
    device, preprocess = engine.forward.device, engine.forward.preprocess
    read = reader(source)
    (install,) = evaluator.heads.setters(
        [0], [lambda: model.set_weights({name: read(name) for name in model.names})], dataset
    )
    install()
    columns = choose_columns(dataset, evaluator.heads.outputs(dataset), model.class_names)
    columns = None if columns is None else columns.to(device)
    log_probability = _LogProbability(source, dataset, columns, kind, seed)
    sums = SquaredGradients(model.module, sorted({to.name for to in model.destinations.values()}))
    bad: dict[int, str] = {}
    order = np.arange(len(dataset))
    batches = [order[start : start + CHUNK] for start in range(0, len(order), CHUNK)]
    stream = decoded(dataset, preprocess, batches, CHUNK, workers=engine.workers, hold=4 * max(1, engine.workers))
    with closing(stream), _in_float32(device):
        for batch in stream:
            bad.update(batch.bad)
            require_few(dataset, bad, engine.max_bad)
            for row, index in enumerate(map(int, batch.indices)):
                if index in bad:
                    continue
                image = preprocess.normalise(torch.from_numpy(batch.pixels[row : row + 1]).to(device))
                _within_memory(partial(sums.add, image, partial(log_probability, index)), device)
                engine.progress("Fisher information", index + 1, len(dataset), "images")
    found = {
        name: _as_stored(source.info(name), to, sums.mean(to.name))
        for name, to in model.destinations.items()
        if to.name in sums.sums
    }
    spoiled = [name for name, (_, values) in found.items() if not np.isfinite(values).all()]
    if spoiled:
        raise ModelError(
            f"{source.path}: the gradients of {spoiled[0]} are infinite or NaN, so it has no Fisher information. Check "
            f"the weights with 'wise inspect {source.path}'."
        )
    return Fisher(found, tuple(name for name in source.tensors if name not in found), sums.count, bad)


@dataclass(slots=True)
class SquaredGradients:
    """Sums the squares of gradients, in float64, over images that are given one at a time.

    Attributes:
        module: images [1, 3, H, W] -> logits [1, C], in evaluation mode.
        names: of the module's tensors; those that are no parameters, or have no gradient, get no sum.
        sums: float64 by name, in the module's shapes, on its device where that has float64.
        count: the number of images.
    """

    module: nn.Module
    names: list[str]
    sums: dict[str, Tensor] = field(default_factory=dict)
    count: int = 0

    def add(self, image: Tensor, log_probability: Callable[[Tensor], Tensor]) -> None:
        """Add the squared gradient of what `log_probability`, a number, makes of the logits of one image."""
        named = dict(self.module.named_parameters(remove_duplicate=False))
        parameters = {name: named[name] for name in self.names if name in named and named[name].requires_grad}
        forget_computed(self.module)  # what the image before left has a graph that is gone
        with torch.enable_grad():
            value = log_probability(self.module(image))
        gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is None:
                continue
            wide = (gradient.cpu() if gradient.device.type == "mps" else gradient).double()
            if name in self.sums:
                self.sums[name].addcmul_(wide, wide)
            else:
                self.sums[name] = wide.square()
        self.count += 1

    def mean(self, name: str) -> Tensor:
        """The sum of a tensor divided by the number of images."""
        return self.sums[name] / self.count


def draw(logits: NDArray[np.floating], seed: int, index: int) -> int:
    """A class drawn from the softmax of logits [K]; the same for the same seed and index of the image."""
    wide = logits.astype(np.float64)
    shares = np.cumsum(np.exp(wide - wide.max()))
    position = np.random.default_rng([seed, index]).random() * shares[-1]
    # The last class of a rounded sum may have no share; the first that exceeds the position always has one.
    return int(min(np.searchsorted(shares, position, side="right"), np.searchsorted(shares, shares[-1])))


def _as_stored(info: TensorInfo, to: Destination, values: Tensor) -> tuple[TensorInfo, StorageArray]:
    """The module's values as the checkpoint's tensor: its part of them, in its orientation and shape."""
    part = values.chunk(to.parts)[to.part] if to.parts > 1 else values
    if to.transposed:
        part = part.reshape(tuple(reversed(info.shape))).T
    elements: StorageArray = part.reshape(-1).float().cpu().numpy()
    return TensorInfo(info.name, BY_NAME["F32"], info.shape), elements


@dataclass(frozen=True, slots=True)
class _LogProbability:
    """log p(y | x) of an image by its index, and of its logits [1, C], where `kind` says what y is."""

    source: Checkpoint
    dataset: Dataset
    columns: Tensor | None
    kind: Kind
    seed: int

    def __call__(self, index: int, logits: Tensor) -> Tensor:
        (of_classes,) = class_logits(logits, self.columns)
        sample, title = self.dataset.sample(index), self.dataset.title
        if not bool((of_classes < torch.inf).all()):  # -inf is the logit of a class that the head lacks
            raise ModelError(
                f"{self.source.path}: the logits of {sample} of {title} are infinite or NaN. Check the weights with "
                f"'wise inspect {self.source.path}'."
            )
        label = int(self.dataset.labels[index])
        if self.kind == "empirical" and of_classes[label] == -torch.inf:
            name = self.dataset.classnames[label]
            raise SuiteError(
                f"{title}: {sample} is labelled {name!r}, for which the head has no output. Use --kind true."
            )
        if self.kind == "true":
            label = draw(of_classes.detach().cpu().numpy(), self.seed, index)
        chosen: Tensor = of_classes.log_softmax(dim=0)[label]
        return chosen


def _within_memory(compute: Callable[[], None], device: torch.device) -> None:
    try:
        compute()
        return
    except RuntimeError as error:
        if not is_memory_error(error):
            raise
    gc.collect()
    raise ModelError(
        f"The gradients of one image, and their sums in float64, do not fit into the memory of {device}. Use "
        "--device cpu."
    )


@contextmanager
def _in_float32(device: torch.device) -> Iterator[None]:
    """Without the roundings of TF32, and on CUDA with kernels that give the same bits every time."""
    with ExitStack() as stack:
        if device.type == "cuda":  # pragma: no cover: needs a GPU
            flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
            stack.enter_context(flags)
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(whole_float32())
        yield
