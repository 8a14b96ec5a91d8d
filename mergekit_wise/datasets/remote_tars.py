"""Tars on a server as a data set: listed once, by reading each from its beginning to its end, then read by ranges.

A listing is kept in the user's cache (`cache`), by the address, the size and the version of the file, so that the
headers are read once. Where nothing is to be kept (``--no-cache``), neither are listings. Images never are. Knows no
model.
"""

import io
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from mergekit_wise.cache import Cache, is_keeping, key_of
from mergekit_wise.checkpoint.bounded_json import parse_json
from mergekit_wise.datasets.addresses import shown
from mergekit_wise.datasets.class_names import read_classnames, read_templates
from mergekit_wise.datasets.remote import MAX_FILES, Absent, RemoteFile, addresses
from mergekit_wise.datasets.splits import role_of
from mergekit_wise.datasets.tar_index import Member, members_in
from mergekit_wise.datasets.tar_samples import LABELS, read_samples
from mergekit_wise.datasets.webdataset import COMPRESSED, TarSet, tar_set
from mergekit_wise.datasets.word_lists import parse_words
from mergekit_wise.errors import SuiteError

T = TypeVar("T")
R = TypeVar("R")

_THREADS = 8
"""How many files are listed at a time."""

_BLOCK = 1 << 20
"""Bytes that are read at once while headers are looked for: images are smaller, so few requests are made."""

_KEPT_LABEL = 4096
"""The most bytes of a member with a label that a listing keeps; longer ones are read again."""

_MOST_AHEAD = 8 << 20
"""The most bytes that are read beyond what was asked for."""

_LONGEST_TEXT = 1 << 20
_FORMAT = 1
_KIND = "listings"


class Listing(NamedTuple):
    """The members of a tar, and, by its offset, the content of each that may hold a label."""

    members: tuple[Member, ...]
    labels: dict[int, bytes]


class RemoteShards:
    """Files on servers that are read at any offset, like `webdataset.Shards`.

    While reads follow each other, each asks for more than is wanted, so that few requests are made. Threads and
    processes may share an object.
    """

    def __init__(self, files: tuple[RemoteFile, ...]) -> None:
        self.files = files
        self.paths = tuple(shown(file.address) for file in files)
        self._window = (-1, 0, b"")  # the last bytes that were read: of which file, from where on

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """At most `size` bytes of file number `shard`. Raises SuiteError if it cannot be read."""
        number, start, data = self._window
        end = start + len(data)
        if number == shard and start <= offset and offset + size <= end:
            return data[offset - start : offset - start + size]
        follows = number == shard and start <= offset <= end + _BLOCK
        wanted = min(max(4 * size, 2 * len(data)), size + _MOST_AHEAD) if follows else size
        data = self.files[shard].read(offset, wanted)
        self._window = (shard, offset, data)
        return data[:size]

    def __reduce__(self) -> Any:
        return RemoteShards, (self.files,)


def open_remote_tars(
    pattern: str, classnames: tuple[str, ...] | None = None, *, leave_out_incomplete: bool = False
) -> TarSet:
    """The data set in the tars at an address, as `webdataset.open_tars` opens one in a folder.

    ``https://host/birds/{00..05}.tar`` are six tars; an address without ``.tar`` at its end is a folder, whose
    ``nshards.txt`` counts its tars. Class names and templates are looked for beside the tars. Raises SuiteError.
    """
    files = tuple(_in_threads(RemoteFile.find, _tars(pattern)))
    shards = RemoteShards(files)
    notes: list[str] = []
    cache = _Listings(notes.append)
    listings = dict(zip(shards.paths, cache.of_all(files), strict=True))
    each = list(listings.values())

    def read(shard: int, offset: int, size: int) -> bytes:
        kept = each[shard].labels.get(offset)
        return shards.read(shard, offset, size) if kept is None else kept[:size]

    contents = read_samples(
        shards.paths, read, leave_out_incomplete=leave_out_incomplete, members=lambda path: listings[path].members
    )
    folder = files[0].address.partition("?")[0].rpartition("/")[0]
    names = _words(folder, "classnames.txt", "class names")
    templates = _words(folder, "zeroshot_classification_templates.txt", "templates")
    return tar_set(
        shards,
        contents,
        shown(pattern),
        0,
        classnames,
        None if names is None else read_classnames(names),
        None if templates is None else read_templates(templates),
        tuple(notes),
    )


def folder_of(pattern: str) -> str:
    """The address of the folder of the tars, without what may be secret: where the data set is."""
    name = shown(pattern)
    return name.rpartition("/")[0] if name.endswith(".tar") else name.rstrip("/")


def name_of(pattern: str) -> str:
    """What records call the data set: the last part of its folder's address that is no part of a data set."""
    parts = [part for part in folder_of(pattern).partition("://")[2].split("/") if part]
    return next((part for part in reversed(parts) if role_of(part) is None), parts[0] if parts else "remote")


def _tars(pattern: str) -> tuple[str, ...]:
    """The addresses of the tars."""
    found = addresses(pattern)
    if shown(found[0]).endswith(COMPRESSED):
        raise SuiteError(
            f"{shown(pattern)}: compressed tars cannot be read at an offset. Download and unpack them, and give their "
            "folder."
        )
    if all(address.partition("?")[0].endswith(".tar") for address in found):
        if len(set(map(shown, found))) < len(found):
            raise SuiteError(
                f"{shown(pattern)}: the addresses of its {len(found):,} tars differ after the question mark only, "
                "which results do not hold, so that images could not be told apart. Download the tars and give their "
                "folder."
            )
        return found
    if len(found) > 1 or "?" in pattern:
        raise SuiteError(f"{shown(pattern)}: expected addresses that end in .tar, found {shown(found[0])}.")
    folder = pattern.rstrip("/")
    count = _text(f"{folder}/nshards.txt")
    if count is None:
        raise SuiteError(
            f"{shown(pattern)}: there is no nshards.txt in this folder, which would count its tars. Give the tars, as "
            f"in {shown(folder)}/{{00..05}}.tar."
        )
    text = count.strip()
    if not (text.isascii() and text.isdecimal() and len(text) < 8 and 0 < int(text) <= MAX_FILES):
        raise SuiteError(f"{shown(folder)}/nshards.txt: expected the number of tars, found {text[:40]!r}.")
    return tuple(f"{folder}/{number}.tar" for number in range(int(text)))


def _words(folder: str, name: str, content: str) -> tuple[str, ...] | None:
    """The words in a text file beside the tars, or in the folder above a part; None if there is no such file."""
    places = (folder, folder.rpartition("/")[0]) if role_of(folder.rpartition("/")[2]) else (folder,)
    for place in places:
        text = _text(f"{place}/{name}")
        if text is not None:
            try:
                return parse_words(text, content).words
            except SuiteError as error:
                raise SuiteError(f"{shown(place)}/{name}: {error}") from error
    return None


def _text(address: str) -> str | None:
    """A small text file; None if there is none."""
    try:
        file = RemoteFile.find(address)
    except Absent:
        return None
    if file.size > _LONGEST_TEXT:
        raise SuiteError(f"{shown(address)}: expected a text of at most {_LONGEST_TEXT:,} bytes, found {file.size:,}.")
    try:
        return file.read(0, file.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SuiteError(f"{shown(address)}: expected a text in UTF-8: {error}.") from error


class _Listings:
    """Lists tars, or finds what an earlier run listed."""

    def __init__(self, note: Callable[[str], object]) -> None:
        self.note, self.cache = note, Cache.open(note) if is_keeping() else None
        self.stopping = threading.Event()

    def of_all(self, files: Sequence[RemoteFile]) -> list[Listing]:
        try:
            return _in_threads(self._of, files)
        finally:
            self.stopping.set()
            if self.cache is not None and any(not file.version for file in files):
                self.note("the server says neither ETag nor Last-Modified, so the tars are listed again in every run")

    def _of(self, file: RemoteFile) -> Listing:
        name = shown(file.address)
        if self.cache is None or not file.version:
            return self._list(file, name)
        key = key_of(name, [_FORMAT, name, file.size, file.version])
        path = self.cache.find(_KIND, key)
        found = None if path is None else _listing(path.read_bytes(), file.size)
        if found is None:
            found = self._list(file, name)
            with self.cache.storing(_KIND, key) as target:
                target.write_bytes(_as_bytes(found))
        return found

    def _list(self, file: RemoteFile, name: str) -> Listing:
        members: list[Member] = []
        labels: dict[int, bytes] = {}

        def content(member: Member, read: Callable[[int, int], bytes]) -> None:
            members.append(member)
            if member.size <= _KEPT_LABEL and member.name.lower().endswith(LABELS):
                labels[member.offset] = read(member.offset, member.size)

        members_in(_Raw(file, self.stopping), name, content, _BLOCK)
        return Listing(tuple(members), labels)


class _Raw(io.RawIOBase):
    """A remote file as Python's readers take one."""

    def __init__(self, file: RemoteFile, stopping: threading.Event) -> None:
        self.file, self.stopping, self.position = file, stopping, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.file.size}[whence]
        self.position = base + offset
        return self.position

    def readinto(self, buffer: Any, /) -> int:
        if self.stopping.is_set():
            raise SuiteError(f"{shown(self.file.address)}: was not listed to its end.")
        data = self.file.read(self.position, len(buffer))
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)


def _as_bytes(listing: Listing) -> bytes:
    labels = {str(offset): content.decode("latin-1") for offset, content in listing.labels.items()}
    return json.dumps({"members": listing.members, "labels": labels}).encode()


def _listing(content: bytes, size: int) -> Listing | None:
    """What `_as_bytes` wrote; None if it is damaged."""
    try:
        value: Any = parse_json(content)
        members = tuple(Member(str(name), int(offset), int(length)) for name, offset, length in value["members"])
        labels = {int(offset): text.encode("latin-1") for offset, text in value["labels"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    sound = all(member.offset >= 0 <= member.size <= size - member.offset for member in members)
    return Listing(members, labels) if sound else None


def _in_threads(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """The results in the order of the items; the first error ends the work.

    When the process ends, it does not wait for threads that a silent server keeps waiting.
    """
    todo: list[tuple[Future[R], T]] = [(Future(), item) for item in items]
    waiting = iter(todo)
    lock = threading.Lock()

    def run() -> None:
        while True:
            with lock:
                found = next(waiting, None)
            if found is None:
                return
            future, item = found
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work(item))
                except BaseException as error:
                    future.set_exception(error)

    for _ in range(min(_THREADS, len(todo))):
        threading.Thread(target=run, daemon=True).start()
    try:
        return [future.result() for future, _ in todo]
    finally:
        for future, _ in todo:
            future.cancel()
