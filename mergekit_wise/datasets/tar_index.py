"""Where the members of a tar file lie. Knows ustar, GNU and pax headers; knows nothing of images or samples.

Python's tarfile takes a second for 15,000 members; a data set has 100,000 of them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mergekit_wise.errors import SuiteError

BLOCK = 512
_LONGEST_NAME = 1 << 16
_FILES = (b"0", b"\0", b"7")
_TELLING = (b"L", b"K", b"x", b"g")
_EMPTY = (b"1", b"2", b"3", b"4", b"5", b"6", b"V")

Read = Callable[[int, int], bytes]
"""(offset, size) -> bytes, fewer at the end of the file."""


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in a tar: its bytes start at `offset`; `head` is the first of them, at most 512."""

    name: str
    offset: int
    size: int
    head: bytes


@dataclass(frozen=True, slots=True)
class _Told:
    """What a header said of the member after it."""

    name: str | None = None
    size: int | None = None


def tar_members(read: Read, length: int, where: str) -> Iterator[Member]:
    """The regular files of a tar of `length` bytes, in order.

    Raises SuiteError, naming `where`, if it is no tar, ends too early, or holds what only some programs can read.
    """
    position, told = 0, _Told()
    while position < length:
        # One read for the header and for the content of what is small, as labels are.
        block = read(position, 2 * BLOCK)
        header = block[:BLOCK]
        if not header.strip(b"\0"):
            return
        if not _is_header(header):
            raise SuiteError(f"{where}: expected the header of a tar at byte {position:,}, found something else.")
        kind, start = header[156:157], position + BLOCK
        size = 0 if kind in _EMPTY else _number(header[124:136], where) if told.size is None else told.size
        if start + size > length:
            raise SuiteError(
                f"{where}: is cut off: it should go on to byte {start + size:,} and ends at {length:,}. "
                "Download it again."
            )
        position = start + -(-size // BLOCK) * BLOCK
        if kind in _TELLING:
            told = _heard(kind, read(start, min(size, _LONGEST_NAME)), told, where)
            continue
        if kind in _FILES:
            yield Member(_name(header) if told.name is None else told.name, start, size, block[BLOCK : BLOCK + size])
        elif kind not in _EMPTY:
            raise SuiteError(
                f"{where}: holds a member of the kind {kind!r}, which is not read. Pack it again with tar."
            )
        told = _Told()


def _is_header(header: bytes) -> bool:
    """Whether the checksum is right: the sum of all bytes, those of the checksum itself counted as blanks."""
    try:
        told = int(header[148:156].strip(b"\0 "), 8)
    except ValueError:
        return False
    return told == sum(header) - sum(header[148:156]) + 8 * 0x20


def _number(field: bytes, where: str) -> int:
    """A size: octal digits, or GNU's form for large ones."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.strip(b"\0 ") or b"0"
    # int() alone would take "-1", and the walk would never end.
    if set(digits) - set(b"01234567"):
        raise SuiteError(f"{where}: a header gives {field!r} as a size. Download it again.")
    return int(digits, 8)


def _name(header: bytes) -> str:
    name = _text(header[:100])
    # GNU's old format has other things where ustar keeps the beginning of a long name.
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _heard(kind: bytes, content: bytes, told: _Told, where: str) -> _Told:
    if kind == b"L":
        return _Told(_text(content), told.size)
    if kind != b"x":
        return told
    try:
        records = dict(_pax_records(content))
        size = records.get("size")
        if size is not None and not size.isdecimal():
            raise ValueError(size)
        return _Told(records.get("path", told.name), told.size if size is None else int(size))
    except ValueError:
        raise SuiteError(f"{where}: has a pax header that cannot be read. Download it again.") from None


def _pax_records(content: bytes) -> Iterator[tuple[str, str]]:
    """Records of ``length key=value`` and a newline; the length counts all of it."""
    content = content.rstrip(b"\0")
    while content:
        length = int(content[: content.index(b" ")])
        if not 0 < length <= len(content):
            raise ValueError(length)
        key, _, value = content[content.index(b" ") + 1 : length - 1].partition(b"=")
        yield key.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")
        content = content[length:]
