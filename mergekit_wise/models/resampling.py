"""Resizes and crops RGB images with the bytes of Pillow, computing only the pixels that the crop keeps.

The compiled module (_resample.c) does it, for the steps that a library would have Pillow do. Knows no library's steps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pair = tuple[int, int]


class _Compiled(Protocol):
    def resample(
        self,
        pixels: tuple[object, object] | bytes,
        size: Pair,
        resized: Pair,
        corner: Pair,
        kept: Pair,
        name: str,
        rows_first: bool,
        out: NDArray[np.uint8],
    ) -> None: ...


compiled: _Compiled | None
try:
    from mergekit_wise.models import _resample as compiled  # type: ignore[attr-defined, no-redef, unused-ignore]
except ImportError:  # installed without a C compiler
    compiled = None

FILTERS = {int(Image.Resampling[name.upper()]): name for name in ("box", "bilinear", "hamming", "bicubic", "lanczos")}
"""The filters that the compiled module knows, by Pillow's numbers."""


@dataclass(frozen=True, slots=True)
class Resampling:
    """One resize and one crop of an image.

    Attributes:
        size: width and height before.
        resized: width and height after resizing.
        corner: left and top of what the crop keeps of it.
        kept: its width and height.
        name: of the filter, from `FILTERS`.
    """

    size: Pair
    resized: Pair
    corner: Pair
    kept: Pair
    name: str

    @classmethod
    def of(cls, steps: Callable[[Image.Image], Image.Image], size: Pair) -> Self | None:
        """What `steps` do to an RGB image of this width and height; None if that is anything else.

        The steps are given an image without pixels, which takes note of what is asked of it.
        """
        try:
            found = steps(_Traced(size, size, (0, 0), None))
        except _Untraceable:
            return None
        if not isinstance(found, _Traced):
            return None
        # Without a resize, no filter is used.
        return cls(size, found.resized, found.corner, found.size, found.name or "box")

    def write(self, image: Image.Image, out: NDArray[np.uint8]) -> bool:
        """Write the pixels of an RGB image of the right size, [3, H, W]; False if that has to be done by Pillow."""
        rows_first = order(self.name)
        if rows_first is None:
            return False
        self.compute(image, rows_first(self.size, self.resized), out)
        return True

    def compute(self, image: Image.Image, rows_first: bool, out: NDArray[np.uint8]) -> None:
        """Write the pixels of an RGB image of the right size, [3, H, W], whatever Pillow would do."""
        assert compiled is not None
        compiled.resample(_memory(image), self.size, self.resized, self.corner, self.kept, self.name, rows_first, out)


def _never(size: Pair, resized: Pair) -> bool:
    """Pillow 12 and earlier resize the columns first."""
    return False


def _if_much_lower(size: Pair, resized: Pair) -> bool:
    """Pillow 13 resizes the rows first where that leaves less work."""
    lost = size[1] - resized[1]
    return lost > 0 and lost > 2 * (size[0] - resized[0])


ORDERS = (_if_much_lower, _never)
"""The rules by which versions of Pillow decide whether rows are resized before columns."""

_PROBES = (
    *(((61, 47), (23, 18)), ((13, 9), (40, 31)), ((30, 5), (8, 5)), ((7, 90), (7, 64)), ((20, 60), (10, 20))),
    *(((20, 60), (10, 40)), ((20, 60), (10, 39)), ((20, 60), (30, 59)), ((20, 30), (30, 31)), ((60, 20), (20, 10))),
)
"""Sizes before and after, on both sides of every bound of a rule."""


@cache
def order(name: str) -> Callable[[Pair, Pair], bool] | None:
    """The rule of the installed Pillow, found by comparing bytes; None if a later version computes otherwise."""
    if compiled is None:
        return None
    return next((rule for rule in ORDERS if _gives_pillows_bytes(name, rule)), None)


def _gives_pillows_bytes(name: str, rule: Callable[[Pair, Pair], bool]) -> bool:
    rng = np.random.default_rng(0)
    for size, resized in _PROBES:
        image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))
        found = np.empty((3, resized[1], resized[0]), np.uint8)
        Resampling(size, resized, (0, 0), resized, name).compute(image, rule(size, resized), found)
        pillows = np.asarray(image.resize(resized, Image.Resampling[name.upper()]))
        if not np.array_equal(found, pillows.transpose(2, 0, 1)):
            return False
    return True


def _memory(image: Image.Image) -> tuple[object, object] | bytes:
    """The pixels of an RGB image, of four bytes each: Pillow's own memory where it shows it, else a copy."""
    # With another alignment, which PILLOW_ALIGNMENT sets, there are gaps between its rows.
    alignment = Image.core.get_alignment()  # type: ignore[attr-defined, unused-ignore]
    if hasattr(image, "__arrow_c_array__") and alignment == 1:
        try:
            return image.__arrow_c_array__()
        except ValueError:  # images of more than 16 MB are in several blocks
            pass
    return image.tobytes("raw", "RGBX")


class _Untraceable(Exception):
    """The steps do something else than to resize once and then to crop."""


class _Traced(Image.Image):
    """An RGB image without pixels, and how it was made of another one."""

    def __init__(self, size: Pair, resized: Pair, corner: Pair, name: str | None) -> None:
        super().__init__()
        self._mode, self._size = "RGB", size
        self.resized, self.corner, self.name = resized, corner, name

    def load(self) -> Any:
        """Refuse, as its pixels are not there."""
        raise _Untraceable

    def resize(
        self,
        size: Any,
        resample: int | None = None,
        box: tuple[float, float, float, float] | None = None,
        reducing_gap: float | None = None,
    ) -> "_Traced":
        """Take note."""
        name = FILTERS.get(-1 if resample is None else int(resample))
        if self.name is not None or name is None or box is not None or reducing_gap is not None:
            raise _Untraceable
        if self.resized != self.size:  # it was cropped before
            raise _Untraceable
        if not all(isinstance(side, int) and side > 0 for side in size):  # Pillow's error is the one to show
            raise _Untraceable
        return _Traced(tuple(size), tuple(size), (0, 0), name)

    def crop(self, box: tuple[float, float, float, float] | None = None) -> "_Traced":
        """Take note, unless it adds pixels outside the image."""
        left, top, right, bottom = (0, 0, *self.size) if box is None else map(round, box)
        if not (0 <= left < right <= self.size[0] and 0 <= top < bottom <= self.size[1]):
            raise _Untraceable
        corner = (self.corner[0] + left, self.corner[1] + top)
        return _Traced((right - left, bottom - top), self.resized, corner, self.name)

    def convert(self, mode: str | None = None, *arguments: Any, **named: Any) -> "_Traced":
        """Give the image itself, which is RGB."""
        if mode != "RGB" or arguments or named:
            raise _Untraceable
        return self

    def copy(self) -> "_Traced":
        """Give the image itself, which nothing changes."""
        return self
