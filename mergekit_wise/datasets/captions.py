"""Opens images with captions, by the kind of file: a table, COCO's or Karpathy's JSON, or tars. Knows no model."""

from pathlib import Path

from mergekit_wise.datasets.caption_json import open_caption_list
from mergekit_wise.datasets.caption_lines import open_caption_lines
from mergekit_wise.datasets.caption_tables import open_caption_table
from mergekit_wise.datasets.caption_tars import open_caption_tars
from mergekit_wise.datasets.captioned_images import CaptionedImages
from mergekit_wise.datasets.tables import ENDINGS
from mergekit_wise.errors import SuiteError

__all__ = ["CaptionedImages", "open_captions"]

_EXPECTED = "Expected a table (.csv, .tsv), COCO's or Karpathy's .json, Flickr's .txt, a tar, or a folder of tars"


def open_captions(path: Path, part: str = "test") -> CaptionedImages:
    """The images and captions at `path`, of one `part` where there are several (see `choose_part`). Decodes none.

    `path` is a table (.csv, .tsv), a JSON file of COCO (``captions_val2017.json``) or of Karpathy's splits
    (``dataset_coco.json``), a text file of Flickr8k or Flickr30k, a tar, or a folder of tars. The captions of an image
    are rows, annotations, or lines of the ``.txt`` beside it in the tar.

    Raises SuiteError if it is none of these, or if images are missing.
    """
    ending = path.suffix.lower()
    if path.is_dir() or ending == ".tar":
        return open_caption_tars(path, part)
    if not path.is_file():
        raise SuiteError(f"{path}: no such file or folder. {_EXPECTED}.")
    if ending in ENDINGS:
        return open_caption_table(path, part)
    if ending == ".txt":
        return open_caption_lines(path)
    if ending == ".json":
        return open_caption_list(path, part)
    raise SuiteError(f"{path}: holds no captions that are read. {_EXPECTED}.")
