"""Features of a data set's images, computed once and cached.

Features depend on the weights of the image tower, the preprocessing, the images and the libraries. The key of an entry
holds a digest of all of these, so that a change of any leads to another entry.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mergekit_wise import __version__
from mergekit_wise.cache import Cache, key_of
from mergekit_wise.checkpoint.checked_array import read_checked, write_checked
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.fingerprint import images_identity, served_identity
from mergekit_wise.errors import SuiteError
from mergekit_wise.evaluation import Forward, Ranks
from mergekit_wise.evaluation.forward import Precision
from mergekit_wise.evaluation.image_batches import decoded, require_few
from mergekit_wise.models.model import Model
from mergekit_wise.models.transform import Preprocess
from mergekit_wise.progress import Progress
from mergekit_wise.training.checkpointer import as_stored
from mergekit_wise.training.images import InMemory

BAD = "unreadable"


class _Encoder(nn.Module):
    """Returns a model's features instead of its logits."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.module.encode(images)  # type: ignore[operator]
        return features


@dataclass(frozen=True, slots=True)
class Extraction:
    """How features are computed: `batch_size` images at a time, as in an evaluation.

    Of the images, `max_bad` may be unreadable. Those of more than `max_pixels` are; None is the default limit.
    """

    device: torch.device
    precision: Precision
    workers: int
    max_bad: int
    max_pixels: int | None
    batch_size: int
    ranks: Ranks
    progress: Progress
    note: Callable[[str], None]


def features_of(model: Model, dataset: Dataset, head: nn.Module, cache: Cache, how: Extraction) -> InMemory:
    """Return the inputs of a model's head, float32 [N, D], from the cache or computed and then cached.

    Raises SuiteError if more images cannot be read than may be.
    """
    preprocess = Preprocess.of(model.preprocess)
    facts = _facts(model, head, preprocess, dataset, how)
    key = key_of(f"{model.architecture.partition(' (')[0]}, {dataset.name}", facts)
    path = cache.find("features", key)
    found = None if path is None else _read(path, len(dataset))
    everywhere = all(how.ranks.gather(found is not None))
    if found is not None and everywhere:
        how.note(f"using cached features: {path}")
        require_few(dataset, found.bad, how.max_bad)
        return found
    features = _computed(model, dataset, preprocess, how)
    if how.ranks.rank == 0 and cache.make_room(features.values.nbytes):
        with cache.storing("features", key) as path:
            write_checked(path, features.values.numpy(), {BAD: json.dumps(features.bad), "facts": json.dumps(facts)})
    return features


def _computed(model: Model, dataset: Dataset, preprocess: Preprocess, how: Extraction) -> InMemory:
    forward = Forward(_Encoder(model.module), preprocess, how.device, how.precision, how.note)
    features, bad = np.zeros((0, 0), np.float32), dict[int, str]()
    with how.ranks.agreeing():
        for indices, values, unreadable in _parts(forward, dataset, how):
            if not features.size:
                features = np.zeros((len(dataset), values.shape[1]), np.float32)
            features[indices] = values
            bad |= unreadable
            require_few(dataset, bad, how.max_bad)
    every_bad = {index: reason for theirs in how.ranks.gather(bad) for index, reason in theirs.items()}
    require_few(dataset, every_bad, how.max_bad)
    columns = max(how.ranks.gather(features.shape[1]))
    if not features.size:  # fewer batches than processes
        features = np.zeros((len(dataset), columns), np.float32)
    # One process has the bits of a row, and the others zeros: their sum is exact, also for -0 and NaN.
    together = how.ranks.total(features.view(np.int32)).view(np.float32)
    return InMemory(torch.from_numpy(together), every_bad)


def _parts(
    forward: Forward, dataset: Dataset, how: Extraction
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], dict[int, str]]]:
    starts = range(0, len(dataset), how.batch_size)[how.ranks.rank :: how.ranks.size]
    batches = [np.arange(start, min(start + how.batch_size, len(dataset))) for start in starts]
    preprocess, total, done = forward.preprocess, sum(map(len, batches)), 0
    with closing(decoded(dataset, preprocess, batches, how.batch_size, workers=how.workers, hold=4)) as stream:
        for batch in stream:
            pixels = torch.from_numpy(batch.pixels[: len(batch.indices)]).to(how.device)
            with torch.inference_mode():
                features = forward(pixels).cpu().numpy()
            yield batch.indices, features, dict(batch.bad)
            done += len(batch.indices)
            how.progress("features", done, total, "images")


def _facts(
    model: Model, head: nn.Module, preprocess: Preprocess, dataset: Dataset, how: Extraction
) -> dict[str, object]:
    libraries = ("torch", "torchvision", "open_clip_torch", "timm", "pillow")
    return {
        "weights": _digest_of_weights(model.module, head),
        "architecture": [
            model.architecture.partition(" (")[0] + model.manner,
            json.dumps(model.config.get("model_cfg"), sort_keys=True),
        ],
        "transform": {**asdict(preprocess), "is_cropped": dataset.is_cropped, "max_pixels": how.max_pixels},
        "data": digest_of_images(dataset),
        "precision": how.precision,
        "device": how.device.type,
        "versions": {"mergekit_wise": __version__, **{name: version(name) for name in libraries}},
    }


def _digest_of_weights(module: nn.Module, head: nn.Module) -> str:
    """Return the SHA-256 of the weights that features depend on: all but the head's."""
    inside = {id(tensor) for tensor in (*head.parameters(), *head.buffers())}
    digest = hashlib.sha256()
    for name, tensor in sorted((*module.named_parameters(), *module.named_buffers()), key=lambda pair: pair[0]):
        if id(tensor) not in inside:
            info, storage = as_stored(name, tensor)
            digest.update(f"{name} {info.dtype} {info.shape}\n".encode())
            digest.update(storage.view(np.uint8).data)
    return digest.hexdigest()


def digest_of_images(dataset: Dataset) -> str:
    """Return the identity of the images' files; where it is unknown, the SHA-256 of pixels and of the data set's name.

    A copy of the images has another digest, so its features are computed again.
    """
    known = images_identity(dataset) or served_identity(dataset)
    if known is not None:
        return known
    digest = hashlib.sha256(dataset.name.encode("utf-8", "surrogateescape"))  # which says how images are changed
    for index in range(len(dataset)):
        try:
            image = np.asarray(dataset.image(index))
            digest.update(f"{image.shape}".encode() + image.tobytes())
        except SuiteError as error:
            digest.update(str(error).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _read(path: Path, count: int) -> InMemory | None:
    """Read cached features; return None if the file is damaged."""
    found = read_checked(path)
    if found is None or found[0].shape[:1] != (count,):
        return None
    bad = {int(index): reason for index, reason in json.loads(found[1].get(BAD, "{}")).items()}
    return InMemory(torch.from_numpy(found[0]), bad)
