"""Heads that come in files of their own: wise zeroshot's, torch's, scikit-learn's and open_clip's.

Whatever the file, the head becomes ``classification_head.weight`` [C, D] and ``classification_head.bias`` [C], with
notes on what was assumed. Knows no model but the number D of its features.
"""

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint import BY_NAME, Checkpoint, TensorInfo, closing
from mergekit_wise.checkpoint.derived import InMemory
from mergekit_wise.errors import CheckpointError, ModelError
from mergekit_wise.merging.arithmetic import Scratch, decode
from mergekit_wise.models.architecture import CLASSNAMES_KEY, normalizes
from mergekit_wise.models.names import HEAD
from mergekit_wise.models.source import open_source
from mergekit_wise.wording import plural

MAX_BYTES = 1 << 30
"""Of the arrays in a file of NumPy's."""

_NUMPY = b"\x93NUMPY"
_WEIGHTS = (f"{HEAD}weight", "coef_", "weight")
"""Names, or ends of names, of a head's matrix, the surest first; scikit-learn's is ``coef_``."""


@dataclass(frozen=True, slots=True)
class HeadReading:
    """What the user says about the file of a head; None where the file decides.

    Attributes:
        features: "normalized" or "raw": the features that the head is applied to.
        rows: "classes" or "features": what the rows of its matrix are.
    """

    features: str | None = None
    rows: str | None = None


AS_DECLARED = HeadReading()


@contextmanager
def open_head(source: str | Path, *, mmap: bool = True) -> Iterator[Checkpoint]:
    """Open the file of a head: any checkpoint, or an .npz or .npy file of NumPy's. Raises CheckpointError."""
    arrays = _numpy_arrays(Path(source))
    checkpoint = open_source(source, mmap=mmap) if arrays is None else _of_arrays(Path(source), arrays)
    with closing(checkpoint):
        yield checkpoint


def read_head(file: Checkpoint, features: int, reading: HeadReading = AS_DECLARED) -> Checkpoint:
    """The head in a file as a weight [C, D] and a bias [C], float32, with notes on how it was read.

    A head of two classes with one row (scikit-learn's) gets a row of zeros for the first class, so that its softmax
    has scikit-learn's probabilities. Raises ModelError if the head is not unambiguous, or is not for so many features.
    """
    name = _weight_name(file)
    weight, notes = _float32(file, name), []
    bias_name = _bias_name(file, name)
    bias = None if bias_name is None else _float32(file, bias_name).reshape(-1)
    if weight.ndim == 1 and name.endswith("coef_"):
        weight = weight[None]
    if _is_transposed(file, name, weight.shape, features, reading, known=bias is not None or name != "weight"):
        weight = weight.T
        notes.append(
            f"its matrix {list(weight.T.shape)} has a column for each class, as open_clip's, and is transposed"
        )
    if len(weight) == 1:
        weight = np.concatenate([0 * weight, weight])
        bias = None if bias is None else np.concatenate([0 * bias, bias])
        notes.append("it has one row, so two classes: the first one gets a row of zeros, as in a logistic regression")
    bias = np.zeros(len(weight), np.float32) if bias is None else bias
    bias = np.broadcast_to(bias, (len(weight),)) if bias.shape == (1,) else bias
    if len(bias) != len(weight):
        raise ModelError(f"{file.path}: its head has {plural(len(weight), 'class')}, but a bias of {len(bias)}.")
    normalized = reading.features == "normalized" if reading.features is not None else normalizes(file, "")
    declared = reading.features is None and any(key.endswith("normalize") for key in file.metadata)
    how = "normalised features" if normalized else "features that are not normalised"
    origin = "its metadata" if declared else "" if reading.features else "--head-features raw for others"
    if name != f"{HEAD}weight" or not normalized or reading.features:
        notes.append(f"it is applied to {how}{f' ({origin})' if origin else ''}")
    if "classes_" in file.tensors:
        _require_counted(file.path, file.read("classes_"))
    classes = _class_names(file)
    metadata = {f"{HEAD}normalize": "true" if normalized else "false"}
    if classes:
        metadata[CLASSNAMES_KEY] = json.dumps(classes)
    arrays = {f"{HEAD}weight": weight, f"{HEAD}bias": bias}
    return replace(
        file,
        tensors={key: in_memory(key, value) for key, value in arrays.items()},
        metadata=metadata,
        notes=(*file.notes, *(f"{file.path.name}: {note}" for note in notes)),
    )


def in_memory(name: str, values: NDArray[np.generic]) -> InMemory:
    """A tensor, float32, with these values."""
    flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    return InMemory(TensorInfo(name, BY_NAME["F32"], values.shape), flat)


def _weight_name(file: Checkpoint) -> str:
    """The name of the head's matrix."""
    matrices = [name for name, tensor in file.tensors.items() if len(tensor.info.shape) == 2]
    for ending in _WEIGHTS:
        found = [
            n for n, t in file.tensors.items() if _is(n, ending) and len(t.info.shape) in (1 + (ending != "coef_"), 2)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            break
    if len(matrices) == 1:
        return matrices[0]
    raise ModelError(
        f"{file.path}: expected one weight [classes, features] of a head, found {len(matrices)}. "
        "Give the file of a linear classifier: a weight and a bias, scikit-learn's coef_ and intercept_, or what wise "
        "zeroshot writes."
    )


def _bias_name(file: Checkpoint, weight: str) -> str | None:
    candidates = [
        weight[: len(weight) - len(own)] + bias
        for own, bias in (("weight", "bias"), ("coef_", "intercept_"))
        if weight.endswith(own)
    ]
    return next((name for name in candidates if name in file.tensors), None)


def _is_transposed(
    file: Checkpoint, name: str, shape: tuple[int, ...], features: int, reading: HeadReading, *, known: bool
) -> bool:
    """Whether the matrix is [features, classes]."""
    if features not in shape or 0 in shape:
        raise ModelError(f"{file.path}: expected a head for {features} features, found one of shape {list(shape)}.")
    if reading.rows is not None:
        transposed = reading.rows == "features"
        if shape[0 if transposed else 1] != features:
            raise ModelError(
                f"--head-rows {reading.rows}: {file.path} holds a matrix {list(shape)}, and the model has {features} "
                "features. Leave the option out."
            )
        return transposed
    # Of a matrix with a bias, and under the names of libraries that have no other layout, rows are classes.
    if shape[0] == shape[1] and not known:
        raise ModelError(
            f"{file.path}: its head {name!r} has as many classes as features, {features}, so its shape does not show "
            "what its rows are. Add --head-rows classes (torch.nn.Linear) or --head-rows features (open_clip)."
        )
    return shape[1] != features


def _class_names(file: Checkpoint) -> list[str] | None:
    """The names that the file gives its classes."""
    stored = file.metadata.get(CLASSNAMES_KEY)
    try:
        names = json.loads(stored) if stored else None
    except (ValueError, RecursionError):
        return None
    return list(map(str, names)) if isinstance(names, list) else None


def _require_counted(path: Path, classes: NDArray[np.generic]) -> None:
    """Raise ModelError unless scikit-learn's labels are the numbers of classes."""
    if not np.array_equal(classes, np.arange(classes.size)):
        raise ModelError(
            f"{path}: its classes_ are {', '.join(map(str, classes[:4]))} ..., not 0, 1, 2 ... in order, so it is not "
            "known which class of the data each is. Save their names in an .npz file: classes_=array([NAME, ...])."
        )


def _float32(file: Checkpoint, name: str) -> NDArray[np.float32]:
    info = file.info(name)
    numbers = decode(file.read(name).reshape(-1), info.dtype, np.float32, Scratch(), 0)
    return np.array(numbers, np.float32).reshape(info.shape)


def _is(name: str, ending: str) -> bool:
    return name == ending or name.endswith("." + ending)


def _numpy_arrays(path: Path) -> Mapping[str, NDArray[np.generic]] | None:
    """The arrays of an .npz or .npy file, by name; None for a file of another kind. Nothing is unpickled."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        single = file.read(len(_NUMPY)) == _NUMPY
    size = path.stat().st_size
    if not single:
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile, EOFError):
            return None
        if not members or not all(member.filename.endswith(".npy") for member in members):
            return None
        size = sum(member.file_size for member in members)
    if size > MAX_BYTES:
        raise CheckpointError(f"{path}: holds {size:,} bytes of arrays; {MAX_BYTES:,} is the limit for a head.")
    try:
        loaded = np.load(path, allow_pickle=False)
        return {"weight": loaded} if single else {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, MemoryError) as error:
        raise CheckpointError(
            f"{path}: not readable as arrays of numbers and texts ({str(error).splitlines()[0]}). Save class names as "
            "texts: classes_=model.classes_.astype(str)."
        ) from error


def _of_arrays(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> Checkpoint:
    numbers = {name: np.asarray(a, np.float32) for name, a in arrays.items() if a.dtype.kind == "f"}
    names = arrays.get("classes_")
    metadata = {}
    if names is not None and names.dtype.kind == "U":
        metadata[CLASSNAMES_KEY] = json.dumps([str(name) for name in names.reshape(-1)])
    elif names is not None:
        _require_counted(path, names.reshape(-1))
    tensors = {name: in_memory(name, array) for name, array in numbers.items()}
    return Checkpoint(path, "NumPy arrays", tensors, metadata, "")
