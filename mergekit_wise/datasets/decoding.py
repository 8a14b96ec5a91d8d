"""Bytes of an image file -> pixels. Knows nothing of folders, tars or labels."""

import struct
import zlib
from io import BytesIO

from PIL import Image, UnidentifiedImageError

from mergekit_wise.errors import SuiteError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
"""What is decoded, told by the content. Not all that Pillow knows: for EPS it would start Ghostscript."""

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
"""What the name of an image ends with, in lower case."""

# What Pillow's decoders raise on damaged files.
_DAMAGE = (
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
    """The image in RGB, less `border` pixels on each side. Turned by no EXIF tag, as torchvision's loader does.

    Raises SuiteError, naming `where`, if the bytes are no image, or only the beginning of one.
    """
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as opened:
            image = opened.convert("RGB")
    except _DAMAGE as error:
        raise SuiteError(
            f"{where}: expected an image, found {len(data):,} bytes that cannot be decoded ({_shown(error)}). "
            "Download or unpack it again."
        ) from error
    if not border:
        return image
    width, height = image.size
    if min(width, height) <= 2 * border:
        raise SuiteError(f"{where}: an image of {width} x {height} pixels has no {border} pixels of border to crop.")
    return image.crop((border, border, width - border, height - border))


def _shown(error: BaseException) -> str:
    # Pillow names the buffer that it was given, which says nothing.
    return "no known format" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
