"""Which texts the images at a path have, before they are opened: class labels, captions, or both. Knows no model."""

import json
from pathlib import Path
from typing import NamedTuple

from mergekit_wise.datasets.caption_tables import CAPTION_COLUMNS
from mergekit_wise.datasets.csv_rows import read_table
from mergekit_wise.datasets.image_formats import EXTENSIONS
from mergekit_wise.datasets.splits import role_of
from mergekit_wise.datasets.tables import ENDINGS, LABEL_COLUMNS
from mergekit_wise.datasets.tar_index import Member, tar_members
from mergekit_wise.datasets.tar_samples import LABEL_KEYS
from mergekit_wise.datasets.webdataset import Shards, has_tars, tar_paths
from mergekit_wise.errors import SuiteError

_LONGEST = 1 << 20
"""The bytes of a member that are read."""


class Texts(NamedTuple):
    """Whether the images at a path have `labels`, `captions`, or both; neither if that is not known."""

    labels: bool = False
    captions: bool = False


def texts_at(path: Path, part: str = "train") -> Texts:
    """What a table, a JSON file or tars hold beside the images; of tars, the first sample of the `part` decides.

    Raises SuiteError if a file cannot be read.
    """
    ending = path.suffix.lower()
    if ending in ENDINGS and path.is_file():
        return _of_table(path)
    if path.is_file():
        return _of_tar(path) if ending == ".tar" else Texts(captions=ending == ".json")
    return _of_tar(tar_paths(path, part)[0][0]) if path.is_dir() and has_tars(path, part) else Texts()


def _of_table(path: Path) -> Texts:
    header, _ = read_table(path)
    if len(header) == 2 and header[0].lower().endswith(EXTENSIONS):  # without names of columns
        return Texts(labels=True, captions=True)
    names = {name.casefold() for name in header}
    return Texts(not names.isdisjoint(LABEL_COLUMNS), not names.isdisjoint(CAPTION_COLUMNS))


def _of_tar(path: Path) -> Texts:
    members: dict[str, Member] = {}
    for member in tar_members(str(path)):
        members.setdefault(member.name.rpartition(".")[2].lower(), member)
    folder = path.resolve().parent
    if any(
        (place / "classnames.txt").is_file() for place in (folder, *([folder.parent] if role_of(folder.name) else []))
    ):
        return Texts(labels=True)
    if "cls" in members:
        return Texts(labels=True, captions="txt" in members)
    if "txt" in members:
        is_number = _read(path, members["txt"]).strip().isdigit()
        return Texts(labels=is_number, captions=not is_number)
    if "json" not in members:
        return Texts()
    try:
        value = json.loads(_read(path, members["json"]))
    except (ValueError, RecursionError) as error:
        raise SuiteError(f"{path}:{members['json'].name}: expected JSON: {error}. Download the tar again.") from error
    is_label = isinstance(value, int) or (isinstance(value, dict) and not value.keys().isdisjoint(LABEL_KEYS))
    return Texts(labels=is_label, captions=not is_label)


def _read(path: Path, member: Member) -> bytes:
    return Shards((str(path),)).read(0, member.offset, min(member.size, _LONGEST))
