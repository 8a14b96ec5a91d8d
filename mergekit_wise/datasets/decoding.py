"""Decode image files. This module knows nothing of folders, tars or labels."""

import struct
import zlib
from io import BytesIO

from PIL import Image, UnidentifiedImageError

from mergekit_wise.errors import SuiteError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
"""Formats that are decoded, recognised by content. Not all of Pillow's: for EPS it would start Ghostscript."""

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
"""Extensions of image files, in lower case."""

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
    image or are truncated.
    """
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as opened:
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


def _reason(error: BaseException) -> str:
    # Pillow's message names only the buffer in memory.
    return "no known format" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
