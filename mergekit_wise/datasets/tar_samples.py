"""The samples in tars: an image, and a label in a member with the same name that ends in .cls, .json or .txt.

webdataset cuts a member's name at the first dot: what precedes it is the sample's key, what follows is the field. A
name such as ``img.v2.jpg`` is therefore ambiguous; `_resolved` says how it is read. This module knows nothing of class
names or of splits.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mergekit_wise.datasets.image_formats import EXTENSIONS
from mergekit_wise.datasets.tar_index import Member, tar_members
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import plural, shown

Read = Callable[[int, int, int], bytes]
"""(number of the tar, offset, size) -> bytes."""

Members = Callable[[str], Iterable[Member]]
"""The path of a tar -> its regular files, in its order."""

LABEL_KEYS = ("label", "cls", "class", "class_id", "label_id", "target", "y", "class_name", "label_name", "classname")
"""The keys of a .json file under which the label is looked for, in this order."""

LABELS = (".cls", ".json", ".txt")
"""The endings of members that may hold a label."""

_LONGEST_LABEL = 1 << 16
_LARGEST = 10**9


class Sample(NamedTuple):
    """An image in tar number `shard`, and its label: a class number or a class name."""

    shard: int
    image: Member
    label: int | str


class Contents(NamedTuple):
    """The samples in the order of the tars and their images, and sentences on what was left out."""

    samples: tuple[Sample, ...]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Fields:
    """What a tar has for one name: an image, and members that may hold its label, by ending."""

    image: Member | None = None
    labels: dict[str, Member] = field(default_factory=dict)


def read_samples(
    paths: Sequence[str], read: Read, *, leave_out_incomplete: bool = False, members: Members = tar_members
) -> Contents:
    """The samples of the tars at `paths`, whose contents `members` lists.

    Raises SuiteError if a tar is damaged, if a label cannot be understood, or, unless they are to be left out, if a
    sample lacks its image or its label.
    """
    samples: list[Sample] = []
    left_out: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for shard, path in enumerate(paths):
        tar = _Tar(path, shard, read, members)
        if tar.incomplete and not leave_out_incomplete:
            name, lacks = tar.incomplete[0]
            count = len(tar.incomplete)
            more = f"; {plural(count, 'sample')} of this tar are incomplete" if count > 1 else ""
            raise SuiteError(
                f"{path}: the sample {name!r} has no {lacks}{more}. Download it again, or leave such samples out with "
                'incomplete = "leave-out" in a TOML file.'
            )
        samples += tar.samples
        for reason, names in (
            ("hidden or system file", tar.hidden),
            ("incomplete sample", [name for name, _ in tar.incomplete]),
            ("further image", tar.extra),
        ):
            left_out[reason] += len(names)
            examples.update({reason: names[0]} if names and reason not in examples else {})
    notes = [
        f"left out of the tars: {plural(count, reason)}, such as {examples[reason]!r}"
        for reason, count in left_out.items()
        if count
    ]
    return Contents(tuple(samples), tuple(notes))


class Images(NamedTuple):
    """Images in tars, each with the number of its tar, in the order of the tars; and sentences on the other members."""

    members: tuple[tuple[int, Member], ...]
    notes: tuple[str, ...]


def read_images(paths: Sequence[str]) -> Images:
    """Every image of the tars at `paths`, whatever members are beside it; labels are not read.

    Where webdataset would take several images for fields of one sample, each is an image of its own, and a note says
    so. Raises SuiteError if a tar is damaged.
    """
    found: list[tuple[int, Member]] = []
    others: dict[str, list[str]] = {"hidden or system file": [], "label": [], "other file": []}
    samples: dict[tuple[int, str], list[str]] = {}
    for shard, path in enumerate(paths):
        for member in tar_members(path):
            folder, _, file = member.name.rpartition("/")
            stem, _, _ = file.partition(".")
            ending = f".{file.rpartition('.')[2].lower()}"
            if is_hidden(member.name):
                others["hidden or system file"].append(member.name)
            elif ending in EXTENSIONS:
                found.append((shard, member))
                samples.setdefault((shard, f"{folder}/{stem}"), []).append(member.name)
            else:
                others["label" if ending in LABELS else "other file"].append(member.name)
    notes = [
        f"ignored in the tars: {plural(len(names), reason)}, such as {names[0]!r}"
        for reason, names in others.items()
        if names
    ]
    if several := [names for names in samples.values() if len(names) > 1]:
        notes.append(
            f"{plural(sum(map(len, several)), 'image')} in the tars share a name up to the first dot, such as "
            f"{several[0][0]!r} and {several[0][1]!r}; each counts as an image of its own"
        )
    return Images(tuple(found), tuple(notes))


class _Tar:
    """The samples of one tar, and the names of what is in none of them."""

    def __init__(self, path: str, shard: int, read: Read, members: Members) -> None:
        self.path, self.shard, self.read, self.members = path, shard, read, members
        self.samples: list[Sample] = []
        self.incomplete: list[tuple[str, str]] = []
        self.hidden: list[str] = []
        self.extra: list[str] = []
        found = self._fields()
        incomplete = [name for key, by_suffix in found.items() for name in self._resolved(key, by_suffix)]
        self.samples.sort(key=lambda sample: sample.image.offset)
        # Files such as readme.txt are no labels, unless labels have this form.
        used = {".cls"} | self.forms
        for name, fields in incomplete:
            if fields.image is not None:
                self.incomplete.append((name, ".cls file, and no .json or .txt with its label"))
            elif used & fields.labels.keys():
                self.incomplete.append((name, "image"))
        self.incomplete.sort()

    def _fields(self) -> dict[str, dict[str, _Fields]]:
        """What there is for each key of webdataset, by the part of the field before its last dot."""
        self.forms: set[str] = set()
        found: dict[str, dict[str, _Fields]] = {}
        for member in self.members(self.path):
            folder, slash, file = member.name.rpartition("/")
            if is_hidden(member.name):
                self.hidden.append(member.name)
                continue
            stem, _, rest = file.partition(".")
            middle, _, extension = rest.rpartition(".")
            ending = f".{extension.lower()}"
            if ending not in EXTENSIONS and ending not in LABELS:
                continue
            fields = found.setdefault(f"{folder}{slash}{stem}", {}).setdefault(middle, _Fields())
            if ending in LABELS:
                fields.labels[ending] = member
            elif fields.image is None:
                fields.image = member
            else:
                name = member.name[: -len(ending)]
                raise SuiteError(f"{self.path}: holds two images named {name!r}. Download it again.")
        return found

    def _resolved(self, key: str, by_middle: dict[str, _Fields]) -> list[tuple[str, _Fields]]:
        """Add the samples of one key; return the names for which there is no sample.

        Names are distinguished by what precedes the last dot if each has an image and a label. Otherwise the key is one
        sample, as webdataset has it: its image is the one beside its label, and other images are further fields.
        """
        named = {f"{key}.{middle}" if middle else key: fields for middle, fields in by_middle.items()}
        has_image = any(fields.image for fields in named.values())
        labels = {name: self._label(fields, has_image) for name, fields in named.items()}
        complete = {name for name, fields in named.items() if fields.image and labels[name] is not None}
        if len(complete) < len(named) and len(named) > 1:
            images = [fields.image for fields in named.values() if fields.image]
            found = [label for label in labels.values() if label is not None]
            if len(found) == 1 and (complete or len(images) == 1):
                chosen = next((named[name].image for name in complete), images[0])
                assert chosen is not None
                self.samples.append(Sample(self.shard, chosen, found[0]))
                self.extra += [image.name for image in images if image is not chosen]
                return []
        for name in complete:
            image, label = named[name].image, labels[name]
            assert image is not None
            assert label is not None
            self.samples.append(Sample(self.shard, image, label))
        return [(name, fields) for name, fields in named.items() if name not in complete]

    def _label(self, fields: _Fields, has_image: bool) -> int | str | None:
        """The label in .cls, else in .json or .txt if they describe an image; None if there is none."""
        for form in LABELS:
            member = fields.labels.get(form)
            if member is None:
                continue
            where = f"{self.path}:{member.name}"
            if form == ".cls" or has_image:
                content = self.read(self.shard, member.offset, min(member.size, _LONGEST_LABEL))
                label = {".cls": _number, ".json": _of_json, ".txt": _of_text}[form](content, where)
                if label is not None:
                    self.forms.add(form)
                    return label
        return None


def is_hidden(name: str) -> bool:
    """Whether a member was made by an archiver or a desktop: ``._x.jpg``, ``__MACOSX/``, ``PaxHeader/``."""
    return any(
        part == "__MACOSX" or part.startswith("PaxHeader") or (part.startswith(".") and part not in (".", ".."))
        for part in name.split("/")
    )


def _number(content: bytes, where: str) -> int:
    text = content.decode("ascii", "replace").strip()
    if not text.isdecimal() or len(text) > 9:
        raise SuiteError(f"{where}: expected a class number, found {text[:40]!r}.")
    return int(text)


def _of_json(content: bytes, where: str) -> int | str | None:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SuiteError(f"{where}: expected a JSON object with a label: {error}. Download it again.") from error
    if isinstance(value, dict):
        key = next((key for key in LABEL_KEYS if key in value), None)
        if key is None:
            return None
        value = value[key]
    if isinstance(value, str):
        return _of_text(value.encode("utf-8", "replace"), where)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _LARGEST:
        raise SuiteError(f"{where}: expected a class number or a class name as label, found {shown(repr(value))}.")
    return value


def _of_text(content: bytes, where: str) -> int | str:
    try:
        text = content.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise SuiteError(f"{where}: expected a class number or a class name in UTF-8: {error}.") from error
    if not text or len(text.splitlines()) > 1:
        raise SuiteError(f"{where}: expected a class number or a class name as label, found {shown(repr(text))}.")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else text
