"""Image-caption pairs in JSON: COCO's annotations, and Karpathy's splits of COCO, Flickr30k and Flickr8k.

Both name images without the folder in which they lie; it is looked for beside the file and one folder up.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mergekit_wise.checkpoint.bounded_json import parse_json
from mergekit_wise.datasets.caption_files import in_folder, nearby_folder
from mergekit_wise.datasets.captioned_images import CaptionedImages, gather
from mergekit_wise.datasets.csv_rows import MAX_BYTES
from mergekit_wise.datasets.splits import choose_part
from mergekit_wise.datasets.web_pages import refuse_web_page
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import listed, shown


def open_caption_list(path: Path, part: str = "test") -> CaptionedImages:
    """The images and captions of the JSON file at `path`; of Karpathy's splits, those of one `part` (`choose_part`).

    Raises SuiteError if the file holds something else, or if images are missing.
    """
    value = _read(path)
    if not isinstance(value, dict) or not isinstance(value.get("images"), list):
        raise SuiteError(
            f"{path}: expected the captions of COCO, with 'images' and 'annotations', or Karpathy's splits, with "
            f"'images' that have 'sentences'; found {_described(value)}."
        )
    entries, notes = value["images"], tuple[str, ...]()
    try:
        if isinstance(value.get("annotations"), list):
            pairs = _of_coco(entries, value["annotations"])
        else:
            entries, notes = _of_part(path, entries, part)
            pairs = ((_file(entry), s["raw"]) for entry in entries for s in entry["sentences"] or [{"raw": ""}])
        found = gather(_texts(pairs), path)
    except (KeyError, TypeError, ValueError) as error:
        raise SuiteError(
            f"{path}: an entry is not what COCO's or Karpathy's file holds: {_reason(error)}. Download it again."
        ) from error
    return in_folder(path, nearby_folder(path, found), found, notes)


def _read(path: Path) -> Any:
    refuse_web_page(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SuiteError(f"{path}: expected captions with at most {MAX_BYTES:,} bytes.")
        return parse_json(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise SuiteError(f"{path}: expected captions in JSON: {error}. Download it again.") from error


def _of_coco(images: Sequence[Any], annotations: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """The pairs in the order of the images, as COCO's readers have it."""
    captions: dict[Any, list[Any]] = {entry["id"]: [] for entry in images}
    if len(captions) < len(images):
        raise ValueError("two images have the same id")
    for annotation in annotations:
        if annotation["image_id"] not in captions:
            raise ValueError(f"a caption is of the image {annotation['image_id']!r}, which is not listed")
        captions[annotation["image_id"]].append(annotation["caption"])
    for entry in images:
        for caption in captions[entry["id"]] or [""]:  # an image without a caption is counted
            yield entry["file_name"], caption


def _of_part(path: Path, entries: Sequence[Mapping[str, Any]], part: str) -> tuple[Sequence[Any], tuple[str, ...]]:
    parts = sorted({str(entry["split"]) for entry in entries if "split" in entry})
    if not parts:
        return entries, ()
    choice = choose_part(parts, part, path, lambda name: "keep its entries alone, in a file of their own")
    return [entry for entry in entries if entry.get("split") == choice.name], choice.notes


def _file(entry: Mapping[str, Any]) -> str:
    folder, name = entry.get("filepath", ""), entry["filename"]
    return f"{folder}/{name}" if folder else name


def _texts(pairs: Iterable[tuple[Any, Any]]) -> Iterator[tuple[str, str]]:
    for image, caption in pairs:
        if not isinstance(image, str) or not isinstance(caption, str) or not image:
            raise TypeError(
                f"expected a file name and a caption, found {shown(repr(image))} and {shown(repr(caption))}"
            )
        yield image, caption


def _described(value: Any) -> str:
    return f"the keys {listed(map(repr, value), 5)}" if isinstance(value, dict) else f"a {type(value).__name__}"


def _reason(error: Exception) -> str:
    return f"it has no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
