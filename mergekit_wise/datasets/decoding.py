"""Decode image files. This module knows nothing of folders, tars or labels."""

import struct
import warnings
import zlib
from io import BytesIO

from PIL import Image, UnidentifiedImageError

from mergekit_wise.errors import SuiteError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
"""Formats that are decoded, recognised by content. Not all of Pillow's: for EPS it would start Ghostscript."""

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
"""Extensions of image files, in lower case."""

MAX_PIXELS = 89_478_485
"""The most pixels of an image: Pillow's bound, beyond which it only warns. A short file can declare any number."""

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
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def decode(data: bytes, where: str, border: int = 0) -> Image.Image:
    """Decode an image to RGB and crop `border` pixels on each side.

    EXIF rotation is ignored, as in torchvision's loader. Raises SuiteError, naming `where`, if the bytes are not an
    image or are truncated, or if the image would take gigabytes to decode or to resize.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(BytesIO(data), formats=FORMATS)
        with opened:
            _require_bounded(opened.size, where)
            image = opened.convert("RGB")
    except _DECODING_ERRORS as error:
        raise SuiteError(
            f"{where}: expected an image, found {len(data):,} bytes that cannot be decoded ({_reason(error)}). "
            "Download or unpack the file again."
        ) from error
    if not border:
        return image
    width, height = image.size
    if min(width, height) <= 2 * border:
        raise SuiteError(f"{where}: an image of {width} x {height} pixels has no {border} pixels of border to crop.")
    return image.crop((border, border, width - border, height - border))


def _require_bounded(size: tuple[int, int], where: str) -> None:
    short, long = sorted(size)
    if short * long > MAX_PIXELS:
        raise SuiteError(
            f"{where}: an image of {size[0]:,} x {size[1]:,} pixels is larger than the limit of {MAX_PIXELS:,} pixels. "
            "Scale it down."
        )
    if long > MAX_RATIO * short:
        raise SuiteError(
            f"{where}: one side of this image of {size[0]:,} x {size[1]:,} pixels is more than {MAX_RATIO} times as "
            "long as the other. Crop it."
        )


def _reason(error: BaseException) -> str:
    # Pillow's message names only the buffer in memory.
    return "no known format" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
