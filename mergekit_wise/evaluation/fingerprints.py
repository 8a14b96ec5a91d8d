"""Which weights a result is of."""

import hashlib
import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint import Checkpoint, TensorInfo

TensorData = tuple[TensorInfo, NDArray[np.generic]]
"""What a tensor is, and its elements as its dtype's storage, flattened or not."""


def tensor_digest(tensor: TensorData) -> str:
    """SHA-256 over dtype, shape and bytes."""
    info, storage = tensor
    digest = hashlib.sha256(f"{info.dtype} {info.shape}\n".encode())
    digest.update(np.ascontiguousarray(storage).view(np.uint8).data)
    return digest.hexdigest()


def reader(source: Checkpoint) -> Callable[[str], TensorData]:
    """What gives the tensor of a name."""
    return lambda name: (source.info(name), source.read(name))


def checkpoint_fingerprint(source: Checkpoint, names: Collection[str]) -> str:
    """The `weights_fingerprint` of these tensors."""
    read = reader(source)
    return weights_fingerprint(names, lambda name: tensor_digest(read(name)))


def weights_fingerprint(names: Collection[str], digest: Callable[[str], str]) -> str:
    """SHA-256, its first 16 hex digits, over the names of tensors and what `digest` says of each.

    `digest` is called by threads: hashing is the slowest step before a model can be told from another.
    """
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        digests = zip(sorted(names), pool.map(digest, sorted(names)), strict=True)
        lines = "".join(f"{name} {digest}\n" for name, digest in digests)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]
