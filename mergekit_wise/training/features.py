"""Features of a data set's images, computed once and cached.

Features depend on the weights of the image tower, the preprocessing, the images and the libraries. The name of a cache
file is a digest of all of these, so that a change of any leads to another file.
"""

import hashlib
import json
import os
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
from mergekit_wise.checkpoint import closing as closing_checkpoints
from mergekit_wise.checkpoint import open_checkpoint, write_safetensors
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.errors import CheckpointError, OutputError
from mergekit_wise.evaluation import Forward, Ranks
from mergekit_wise.evaluation.forward import Precision
from mergekit_wise.evaluation.image_batches import decoded, require_few
from mergekit_wise.models.model import Model
from mergekit_wise.models.transform import Preprocess
from mergekit_wise.progress import Progress
from mergekit_wise.training.checkpointer import as_stored, as_tensor
from mergekit_wise.training.images import InMemory

NAME = "features"
SUM = "sha256"
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


def cache_folder(requested: Path | None) -> Path:
    """Return the requested folder, or the default one in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME")
    return requested or (Path(home) if home else Path.home() / ".cache") / "mergekit_wise" / "features"


def features_of(model: Model, dataset: Dataset, head: nn.Module, cache: Path, how: Extraction) -> InMemory:
    """Return the inputs of a model's head, float32 [N, D], from the cache or computed and then cached.

    Raises SuiteError if more images cannot be read than may be, OutputError if the cache cannot be written.
    """
    preprocess = Preprocess.of(model.preprocess)
    facts = _facts(model, head, preprocess, dataset, how)
    path = cache / f"{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]}.safetensors"
    found = _read(path, len(dataset))
    everywhere = all(how.ranks.gather(found is not None))
    if found is not None and everywhere:
        how.note(f"using cached features: {path}")
        require_few(dataset, found.bad, how.max_bad)
        return found
    features = _computed(model, dataset, preprocess, how)
    if how.ranks.rank == 0:
        _write(path, features, facts)
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
    """Return the SHA-256 of the identities of the images' files; of the pixels of images that are not in files.

    A file that was written in the meantime has another change time (ctime), which programs cannot set, whatever its
    size and modification time. A copy of the images has another digest, so its features are computed again.
    """
    digest = hashlib.sha256()
    last: Path | None = None
    for index in range(len(dataset)):
        sample = dataset.sample(index)
        digest.update(f"{sample}\0".encode("utf-8", "surrogateescape"))
        place = _file_of(sample)
        if place is None:
            image = np.asarray(dataset.image(index))
            digest.update(f"{image.shape}".encode() + image.tobytes())
        elif place != last:  # samples in a tar file are consecutive
            digest.update(_identity(place))
        last = place
    return digest.hexdigest()


def _file_of(sample: str) -> Path | None:
    """Return the file that a sample is, or is in; None if there is none."""
    for candidate in (sample, sample.rpartition(":")[0]):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    return None


def _identity(path: Path) -> bytes:
    stat = path.stat()
    return f"{stat.st_dev} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\n".encode()


def _read(path: Path, count: int) -> InMemory | None:
    """Read cached features; return None if there are none or the file is damaged."""
    try:
        checkpoint = open_checkpoint(path)
    except CheckpointError:
        return None
    with closing_checkpoints(checkpoint):
        if set(checkpoint.tensors) != {NAME} or checkpoint.info(NAME).shape[:1] != (count,):
            return None
        values = checkpoint.read(NAME)
        if hashlib.sha256(values.view(np.uint8).data).hexdigest() != checkpoint.metadata.get(SUM):
            return None
        bad = {int(index): reason for index, reason in json.loads(checkpoint.metadata.get(BAD, "{}")).items()}
        return InMemory(as_tensor(checkpoint.info(NAME), values), bad)


def _write(path: Path, features: InMemory, facts: dict[str, object]) -> None:
    info, storage = as_stored(NAME, features.values)
    metadata = {
        SUM: hashlib.sha256(storage.view(np.uint8).data).hexdigest(),
        BAD: json.dumps(features.bad),
        "facts": json.dumps(facts),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path.parent}: cannot create this folder: {error.strerror}. Choose another one with --cache."
        ) from error
    write_safetensors(path, {NAME: (info, storage)}, metadata)
