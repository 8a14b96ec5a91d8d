"""Image-caption pairs in lines of text: ``1000092795.jpg,Two men stand`` or ``1000268201.jpg#0<tab>A child``.

These are the files of Flickr8k and Flickr30k, also with Karpathy's splits as CLIP_benchmark has them. Captions are not
quoted and may hold commas. The images are looked for beside the file and one folder up.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mergekit_wise.datasets.caption_files import in_folder, nearby_folder
from mergekit_wise.datasets.captioned_images import CaptionedImages, gather
from mergekit_wise.datasets.image_formats import EXTENSIONS
from mergekit_wise.datasets.layouts import read_lines
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import shown

_LINE = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, EXTENSIONS))}))(?:#\d+)?[,\t](.*)", re.IGNORECASE)


def open_caption_lines(path: Path) -> CaptionedImages:
    """The images and captions of the text file at `path`.

    Raises SuiteError if a line but the first, which may be a header, has another form, or if images are missing.
    """
    found = gather(_pairs(path, read_lines(path)), path)
    return in_folder(path, nearby_folder(path, found), found, ())


def _pairs(path: Path, lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines):
        match = _LINE.fullmatch(line)
        if match is not None:
            yield match[1], match[2]
        elif number:
            raise SuiteError(
                f"{path}: expected an image and its caption in each line, such as '1.jpg,A dog runs', found "
                f"{shown(line)!r}."
            )
