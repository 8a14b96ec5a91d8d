"""Which weights a result is of."""

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint import TensorInfo

Weights = Mapping[str, tuple[TensorInfo, NDArray[np.generic]]]


def weights_fingerprint(weights: Weights) -> str:
    """SHA-256, its first 16 hex digits, over names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, (info, carrier) in sorted(weights.items()):
        digest.update(f"{name} {info.dtype} {info.shape}\n".encode())
        digest.update(np.ascontiguousarray(carrier).view(np.uint8).data)
    return digest.hexdigest()[:16]
