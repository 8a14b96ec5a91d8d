"""Which image formats are read, and how they are recognised: by their first bytes, some only by the ending of the name.

Pillow opens more than these. docs/security.md names those that are left out, with reasons. Decodes nothing.
"""

import re
from functools import cache
from types import MappingProxyType

from PIL import Image

FORMATS = (
    *("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF", "AVIF", "JPEG2000", "PSD", "ICO", "ICNS", "QOI", "DDS"),
    *("SGI", "SUN", "BLP", "FTEX", "MSP", "PIXAR", "XPM", "XVTHUMB"),
)
"""Formats that are recognised by content, whatever the name of the file."""

BY_ENDING = MappingProxyType(
    {
        **dict.fromkeys(("tga", "icb", "vda", "vst"), "TGA"),
        **dict.fromkeys(("fli", "flc"), "FLI"),
        **{name.lower(): name for name in ("CUR", "DCX", "DIB", "GBR", "PCD", "PCX", "XBM")},
    }
)
"""Formats whose content has no mark of its own, or a weak one, by the endings of files that are tried as such."""

EXTENSIONS = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".jpe", ".jfif", ".avif"),
    *(".apng", ".pbm", ".pnm", ".pfm", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".psd", ".ico", ".icns"),
    *(".qoi", ".dds", ".sgi", ".rgb", ".rgba", ".bw", ".ras", ".blp", ".ftc", ".ftu", ".msp", ".pxr", ".xpm"),
    *map(".{}".format, BY_ENDING),
)
"""Extensions of image files, in lower case."""

HEAD_BYTES = 256
"""The number of first bytes by which files are recognised."""

_IMAGE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|BM....\0\0\0\0|II[*+]\0|MM\0[*+]|P[1-6]\s+\d"
    rb"|....ftyp(?:avi[fs]|m[is]f1.{4,64}avif)|\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n"
    rb"|8BPS\0|qoif|DDS \x7c|icns\0|BLP[12]|/\* XPM \*/",
    re.DOTALL,
)
_HEIC = re.compile(rb"....ftyp(?:hei[cmsx]|hev[cmsx]|m[is]f1)", re.DOTALL)
_JPEG_XL = re.compile(rb"\xff\x0a|\0\0\0\x0cJXL \r\n")

_RAW = frozenset(("3fr", "arw", "cr2", "cr3", "dng", "nef", "nrw", "orf", "pef", "raf", "rw2", "srw"))
"""Endings of raw files of cameras. Many are TIFF files, whose first image is a thumbnail."""


def ending_of(name: str) -> str:
    """The ending of a file name in lower case, without the dot; empty if it has none."""
    return name.rpartition(".")[2].lower() if "." in name else ""


def is_image(head: bytes, ending: str) -> bool:
    """Whether a file with the first bytes `head` and an ending that is not in `EXTENSIONS` is an image that is read."""
    return _IMAGE.match(head) is not None and unread_format(head, ending) is None


def unread_format(head: bytes, ending: str) -> str | None:
    """The name of an image format that is not read, with a way to convert it; None for anything else."""
    if ending in _RAW:
        return "a raw file of a camera. Develop it to TIFF or PNG, for example with rawpy"
    if _HEIC.match(head) and b"avif" not in head:
        return "a HEIC image, which Pillow does not read. Convert it to PNG, for example with pillow-heif"
    if _JPEG_XL.match(head):
        return "a JPEG XL image, which Pillow does not read. Convert it to PNG, for example with djxl"
    return None


@cache
def supported() -> tuple[str, ...]:
    """The formats of `FORMATS` that the installed Pillow knows: AVIF is in Pillow from 11.3 on."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)
