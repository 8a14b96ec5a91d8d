"""Image-caption pairs in a table: a CSV or TSV file with a column of paths and a column of captions.

Paths are relative to the table's folder. Several rows of one image are several captions of it. Columns are found by
their names, among them those of open_clip (``filepath`` and ``title``), Flickr30k and ``datasets``' image folders.
"""

from pathlib import Path

from mergekit_wise.datasets.caption_files import in_folder
from mergekit_wise.datasets.captioned_images import CaptionedImages, gather
from mergekit_wise.datasets.csv_rows import read_table
from mergekit_wise.datasets.image_formats import EXTENSIONS
from mergekit_wise.datasets.tables import PATH_COLUMNS, find_column, relative_path, rows_of_part
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import listed, plural, shown

_PATHS = (*PATH_COLUMNS, "image_name", "image_file")
CAPTION_COLUMNS = ("caption", "title", "text", "captions", "sentence", "description", "comment", "raw")
_ADDRESSES = ("url", "image_url", "img_url", "link", "image_link")
_PROTOCOLS = ("http://", "https://", "s3://", "gs://")


def open_caption_table(path: Path, part: str = "test") -> CaptionedImages:
    """The images and captions of the table at `path`, of one `part` if it has a column for it (see `choose_part`).

    Raises SuiteError if a column is missing, if images are missing, or if they are addresses in the Internet.
    """
    header, rows = read_table(path)
    if len(header) == 2 and header[0].lower().endswith(EXTENSIONS):
        header, rows = ["path", "caption"], [header, *rows]
    header = [name.casefold() for name in header]
    if not rows:
        raise SuiteError(f"{path}: expected a header and a line for each caption, found no such line.")
    if not set(header).intersection(_PATHS) and (addresses := set(header).intersection(_ADDRESSES)):
        raise _not_downloaded(path, f"its column {sorted(addresses)[0]!r}")
    at_path = find_column(header, _PATHS, path, "paths")
    at_caption = find_column(header, CAPTION_COLUMNS, path, "captions")
    kept, notes = rows_of_part(path, header, rows, part, lambda name: "keep its rows alone, in a table of their own")
    pairs = [(rows[row][at_path], rows[row][at_caption]) for row in kept.tolist()]
    for row, (image, _) in zip(kept.tolist(), pairs, strict=True):
        if not image:
            raise SuiteError(f"{path}: its row {row + 1} names no image.")
        if image.lower().startswith(_PROTOCOLS):
            raise _not_downloaded(path, f"its row {row + 1}")
    unused = [
        name
        for name in (*_PATHS, *CAPTION_COLUMNS)
        if name in header and header.index(name) not in (at_path, at_caption)
    ]
    if unused:
        used = f"{header[at_path]!r} and {header[at_caption]!r}"
        notes = (*notes, f"read its columns {used}, and not {listed(map(repr, unused))}")
    if lines := [caption for _, caption in pairs if "\n" in caption]:
        what = f"{plural(len(lines), 'caption')} of several lines, such as {shown(lines[0])!r}"
        notes = (*notes, f"{what}: if that is not intended, a quotation mark before it is not closed")
    found = gather(((relative_path(image, path.parent), caption) for image, caption in pairs), path)
    return in_folder(path, path.parent, found, notes)


def _not_downloaded(path: Path, where: str) -> SuiteError:
    return SuiteError(
        f"{path}: {where} holds addresses of images, which are not downloaded here. Download them first, for example "
        "with img2dataset in the format webdataset, and give the folder of tars."
    )
