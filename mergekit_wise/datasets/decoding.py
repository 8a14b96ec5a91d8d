"""Decode image files to 8 bits RGB. This module knows nothing of folders, tars or labels."""

import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from mergekit_wise.datasets.image_formats import (
    BY_ENDING,
    HEAD_BYTES,
    ending_of,
    supported,
    unread_format,
)
from mergekit_wise.datasets.web_pages import is_web_page
from mergekit_wise.errors import SuiteError

MAX_PIXELS = 89_478_485
"""The most pixels of an image, unless `pixel_limit` is used: the bound beyond which Pillow warns."""

MAX_RATIO = 500
"""The most that one side may be longer than the other: resized by its shorter side, an image grows by the square."""

# Raised by Pillow's decoders for damaged files.
_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    AssertionError,
    NotImplementedError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)

_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes with more than 8 bits a channel: all are grey. Colours of 16 bits become 8 when they are read."""

_BITS, _PHOTOMETRIC, _SIGN, _LOWEST, _HIGHEST = 258, 262, 339, 340, 341
"""Tags of TIFF: bits per sample, what zero means, the kind of numbers, and the smallest and largest sample."""


@contextmanager
def pixel_limit(most: int) -> Iterator[None]:
    """Let `decode` accept images of up to `most` pixels: Pillow's own bound, which also holds inside its decoders."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = most
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def decode(data: bytes, where: str, border: int = 0) -> Image.Image:
    """Decode an image to RGB and crop `border` pixels on each side; of several frames, the first.

    `where` is the path or the name of the file, by whose ending formats without a mark of their own are recognised.
    Images of at most 8 bits are converted as by torchvision's loader. Deeper ones are scaled to 8 bits, of which the
    loader keeps only the darkest 256 values. EXIF rotation is ignored, as in torchvision's loader.

    Raises SuiteError, naming `where`, if the bytes are not an image or are truncated, if the range of its values is
    not known, or if the image would take gigabytes to decode or to resize.
    """
    own = BY_ENDING.get(ending_of(where))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # What is larger than the limit is refused below, or inside a decoder, as for the parts of an icon.
            opened = Image.open(BytesIO(data), formats=(*supported(), own) if own else supported())
            with opened:
                _require_bounded(opened.size, where)
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                image = _rgb(opened, where)
    except _DECODING_ERRORS as error:
        raise SuiteError(_undecodable(data, where, error)) from error
    if not border:
        return image
    width, height = image.size
    if min(width, height) <= 2 * border:
        raise SuiteError(f"{where}: an image of {width} x {height} pixels has no {border} pixels of border to crop.")
    return image.crop((border, border, width - border, height - border))


def _rgb(image: Image.Image, where: str) -> Image.Image:
    if image.mode == "RGB":
        image.load()
        return image  # `convert` would copy it
    if image.mode not in _DEEP:
        return image.convert("RGB")
    values = np.asarray(image)
    if image.mode == "F":
        scaled = _scaled_floats(values, image, where)
    else:
        bits = _bits(image, where)
        if values.size and not 0 <= values.min() <= values.max() < 1 << bits:
            raise SuiteError(
                f"{where}: expected whole numbers of {bits} bits, found values from {values.min()} to "
                f"{values.max()}. Save the image with 8 or 16 bits."
            )
        # The highest bits, as Pillow takes them of the colours of a 16-bit image.
        scaled = (values >> (bits - 8)).astype(np.uint8)
    if _tag(image, _PHOTOMETRIC) == 0:  # zero is white; Pillow turns this around for 8 bits only
        scaled = 255 - scaled
    return Image.fromarray(scaled).convert("RGB")


def _bits(image: Image.Image, where: str) -> int:
    """The bits of the whole numbers that white has. Pillow scales those of PNG, PPM and JPEG 2000 to 16."""
    if image.format in ("PNG", "PPM") or (image.mode != "I" and image.format != "TIFF"):
        return 16
    bits, signed = _tag(image, _BITS) or 32, _tag(image, _SIGN) == 2
    if bits > 16:
        raise SuiteError(
            f"{where}: holds whole numbers of {bits} bits, of which it is not known which one is white. Save the image "
            "with 8 or 16 bits."
        )
    return int(bits) - signed


def _scaled_floats(values: NDArray[np.float32], image: Image.Image, where: str) -> NDArray[np.uint8]:
    """From 0 for black to 1 for white, or in the range that a TIFF file states."""
    low, high = _tag(image, _LOWEST), _tag(image, _HIGHEST)
    if low is None or high is None or not low < high:
        low, high = 0.0, 1.0
    if not (np.isfinite(values).all() and low <= values.min() and values.max() <= high):
        found = "NaN or infinity" if not np.isfinite(values).all() else f"{values.min():g} to {values.max():g}"
        raise SuiteError(
            f"{where}: expected fractions from {low:g} (black) to {high:g} (white), found {found}. Scale the image, "
            "and save it with 8 or 16 bits."
        )
    scaled: NDArray[np.uint8] = np.rint((values - low) * (255 / (high - low))).astype(np.uint8)
    return scaled


def _tag(image: Image.Image, number: int) -> float | None:
    """The value, or the first of several, of a tag of a TIFF file; None if it is another file, or lacks the tag."""
    found = image.tag_v2.get(number) if isinstance(image, TiffImagePlugin.TiffImageFile) else None
    return found[0] if isinstance(found, tuple) else found


def _require_bounded(size: tuple[int, int], where: str) -> None:
    short, long = sorted(size)
    if short * long > _limit():
        raise SuiteError(_too_large(where, f"{size[0]:,} x {size[1]:,} pixels", short * long))
    if long > MAX_RATIO * short:
        raise SuiteError(
            f"{where}: one side of this image of {size[0]:,} x {size[1]:,} pixels is more than {MAX_RATIO} times as "
            "long as the other. Crop it, or remove it."
        )


def _limit() -> int:
    return Image.MAX_IMAGE_PIXELS or MAX_PIXELS


def _too_large(where: str, size: str, pixels: int) -> str:
    return (
        f"{where}: an image of {size} is larger than the limit of {_limit():,} pixels. Scale it down, or read it with "
        f"--max-pixels {pixels}."
    )


def _undecodable(data: bytes, where: str, error: BaseException) -> str:
    head = data[:HEAD_BYTES]
    if kind := unread_format(head, ending_of(where)):
        return f"{where}: expected an image, found {kind}."
    if is_web_page(head):
        return f"{where}: expected an image, found a web page that was saved in its place. Download the file again."
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        pixels = int(re.findall(r"\d+", str(error))[0])  # Pillow's sentence is all that there is
        return _too_large(where, f"{pixels:,} pixels", pixels)
    return (
        f"{where}: expected an image, found {len(data):,} bytes that cannot be decoded ({_reason(error)}). "
        "Download or unpack the file again."
    )


def _reason(error: BaseException) -> str:
    # Pillow's message names only the buffer in memory.
    return "no known format" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
