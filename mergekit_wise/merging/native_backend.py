"""The compiled form of ``arithmetic.py``, where there is one: the same bytes, several times faster."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint import DType

if TYPE_CHECKING:
    from typing import Protocol

    class _Native(Protocol):
        def mix(
            self,
            a: NDArray[np.generic],
            b: NDArray[np.generic],
            out: NDArray[np.generic],
            kinds: tuple[str, str, str],
            alpha: float,
        ) -> tuple[float, float]: ...


native: "_Native | None"
try:
    from mergekit_wise.merging import _native as native  # type: ignore[attr-defined, no-redef, unused-ignore]
except ImportError:  # installed where there was no C compiler
    native = None

KINDS = frozenset({"F32", "BF16", "F16"})


def mix_natively(
    a: NDArray[np.generic],
    b: NDArray[np.generic],
    out: NDArray[np.generic],
    dtypes: tuple[DType, DType, DType],
    alpha: float,
) -> tuple[float, float] | None:
    """Write (1 - alpha) * a + alpha * b to `out`, all carriers of `dtypes`; returns the sums of (b - a)^2 and a^2.

    None, and `out` untouched, where NumPy must do it: other dtypes, or no compiled module.
    """
    names = (dtypes[0].name, dtypes[1].name, dtypes[2].name)
    if native is None or not KINDS.issuperset(names):
        return None
    return native.mix(a, b, out, names, alpha)
