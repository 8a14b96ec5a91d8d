"""The offsets and sizes of the regular files in an uncompressed tar, read from its headers alone.

Headers of ordinary files, as tar, Python and webdataset write them, are read here, many times as fast as `tarfile`
reads them. Everything else is left to `tarfile`: long names, links, damage.
"""

import io
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from mergekit_wise.datasets.web_pages import refuse_web_page
from mergekit_wise.errors import SuiteError

_LONGEST_READ = 1 << 20
"""The most bytes that one header may make tarfile read: a damaged header may claim gigabytes."""

_NO_DATA = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, b"V")
"""Members without content: links, devices, folders, pipes, and the label of a GNU volume."""

_HEADER = re.compile(
    rb"""(?P<name> .{100}) (?:[0-7]{6}[0-7 ][\x00 ]){3}  # mode, user, group
    (?P<size> [0-7]{11}) [\x00 ] [0-7]{11}[\x00 ]         # and the time
    (?P<checksum> [0-7]{6}\x00\ ) (?P<type> [0x])
    \x00{100} ustar (?: \x0000 | \ \ \x00) .{64}         # no link; ustar and pax, or GNU; names of user and group
    (?: [0-7]{6}[0-7 ][\x00 ] | \x00{8}){2} \x00{167}    # a device; no prefix of the name
    """,
    re.DOTALL | re.VERBOSE,
)
"""The header of an ordinary file, or the extended one (type x) that may precede it."""

_TIME = re.compile(rb"(\d{1,3}) [acm]time=-?\d{1,20}(?:\.\d{1,20})?\n")
"""A record of an extended header that says nothing of the name or the size."""

# What tarfile raises on damaged headers, besides its own errors.
_DAMAGE = (tarfile.TarError, ValueError, OverflowError, RecursionError, IndexError)


Read = Callable[[int, int], bytes]
"""(offset, size) -> bytes."""

Plain = Callable[[BinaryIO, int], "tuple[Member, int] | None"]
"""See `_plain`."""


class Member(NamedTuple):
    """A regular file in a tar: `size` bytes from `offset` on."""

    name: str
    offset: int
    size: int


class _Headers(io.BufferedReader):
    """A file from which no header reads more than `_LONGEST_READ` bytes."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _LONGEST_READ:
            raise tarfile.ReadError(f"a header asks for {size} bytes")
        return super().read(size)


def tar_members(path: str) -> Iterator[Member]:
    """The regular files of the tar at `path`, in the order of the tar.

    Raises SuiteError, naming `path`, if the file is not an uncompressed tar, is cut off or damaged, or holds sparse
    files or members of a kind that is not in the tar standard.
    """
    refuse_web_page(path)
    try:
        with _Headers(io.FileIO(path)) as file:
            yield from _members(file, path)
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read: {error.strerror}.") from error
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def members_in(raw: io.RawIOBase, path: str, found: Callable[[Member, Read], None], block: int) -> None:
    """Call `found` with each regular file of a tar, and with what reads bytes of the tar from an offset on.

    Of `raw`, `block` bytes are read at once: what `found` reads of a small member is there already. Raises SuiteError
    as `tar_members` does.
    """
    try:
        with _Headers(raw, block) as file:

            def read(offset: int, size: int) -> bytes:
                file.seek(offset)
                return file.read(size)

            for member in _members(file, path):
                found(member, read)
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def _damaged(path: str, error: Exception) -> SuiteError:
    return SuiteError(f"{path}: is not an uncompressed tar, or is damaged: {error}. Download it again.")


def _plain(file: BinaryIO, position: int) -> tuple[Member, int] | None:
    """The ordinary file whose header is at `position`, and where the next header is; None for anything else."""
    file.seek(position)
    found = _header(file.read(tarfile.BLOCKSIZE))
    if found is not None and found["type"] == b"x":
        records, size = file.read(tarfile.BLOCKSIZE), int(found["size"], 8)
        if not _has_only_times(records[:size]) or records[size:].strip(b"\0"):
            return None
        position += 2 * tarfile.BLOCKSIZE
        found = _header(file.read(tarfile.BLOCKSIZE))
    if found is None or found["type"] != b"0":
        return None
    name = found["name"].partition(b"\0")[0].decode("utf-8", "surrogateescape")
    start, size = position + tarfile.BLOCKSIZE, int(found["size"], 8)
    return Member(name, start, size), start + size + -size % tarfile.BLOCKSIZE


def _header(block: bytes) -> re.Match[bytes] | None:
    """The fields of an ordinary header; None if it is another one, or if its checksum is wrong."""
    found = _HEADER.fullmatch(block)
    if found is None:
        return None
    # The sum counts the checksum's own field as eight spaces. What the pattern allows has a sum below 50,000. So the
    # lower half of Adler-32, which is one more, modulo 65,521, gives it; adding up in Python takes ten times as long.
    checksum = found["checksum"]
    total = (zlib.adler32(block) & 0xFFFF) - 1 - sum(checksum) + 8 * 0x20
    return found if total == int(checksum[:6], 8) else None


def _has_only_times(records: bytes) -> bool:
    """Whether the content of an extended header is whole, of records of times, and fills no more than a block."""
    start = 0
    while start < len(records):
        found = _TIME.match(records, start)
        if found is None or found.end() - start != int(found[1]):
            return False
        start = found.end()
    return 0 < start < tarfile.BLOCKSIZE


def _members(file: BinaryIO, path: str, plain: Plain = _plain) -> Iterator[Member]:
    """See `tar_members`; `plain` reads ordinary headers, as `_plain` does, and leaves the others to `tarfile`."""
    length = file.seek(0, io.SEEK_END)
    file.seek(0)
    if not length:
        return
    tar = tarfile.TarFile(fileobj=file, encoding="utf-8", errors="surrogateescape")
    start = 0  # of the next header
    info = tar.next()
    while info is not None:
        if info.issparse() or not (info.isreg() or info.type in _NO_DATA):
            raise SuiteError(
                f"{path}: {info.name!r} is of the type {info.type!r}, which is not supported. Pack it again with tar."
            )
        if info.offset + tarfile.BLOCKSIZE < info.offset_data:
            _check_extended_headers(file, info)
        if info.size < 0:
            raise tarfile.ReadError(f"{info.name!r} has a size of {info.size} bytes")
        if info.isreg():
            yield _whole(Member(info.name, info.offset_data, info.size), length, path)
        # A global header (type g) may say something about every file after it.
        while tar.offset < length and not tar.pax_headers and (found := plain(file, tar.offset)):
            member, tar.offset = found
            yield _whole(member, length, path)
        start = tar.offset
        info = tar.next() if start < length else None
    # tarfile ends without an error at a damaged header, as it does at the empty block that ends a tar. Newer versions
    # have then moved on to behind the member that the header belongs to.
    file.seek(start)
    if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"there is no tar header at byte {start:,}")


def _whole(member: Member, length: int, path: str) -> Member:
    """The member. Raises SuiteError if the tar, of `length` bytes, ends before it does."""
    end = member.offset + member.size
    if end > length:
        raise SuiteError(
            f"{path}: is cut off: {member.name!r} ends at byte {end:,}, the file at {length:,}. Download it again."
        )
    return member


def _check_extended_headers(file: BinaryIO, info: tarfile.TarInfo) -> None:
    """Raise ValueError if the headers that extend a member's own are damaged: tarfile ignores what it cannot read."""
    position = info.offset
    while position + tarfile.BLOCKSIZE < info.offset_data:
        file.seek(position)
        header = tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
        if header.size < 0:
            raise ValueError(f"an extended header has a size of {header.size} bytes")
        if header.type == tarfile.XHDTYPE:
            _check_pax(file.read(header.size).rstrip(b"\0"))
        position += tarfile.BLOCKSIZE * (1 + -(-header.size // tarfile.BLOCKSIZE))
    if not info.pax_headers.get("size", "0").isdecimal():
        raise ValueError(f"a pax header gives {info.pax_headers['size']!r} as a size")


def _check_pax(records: bytes) -> None:
    """Records are ``length key=value`` and a newline; the length is that of the whole record."""
    start = 0
    while start < len(records):
        end = start + int(records[start : records.index(b" ", start)])
        if end <= start or records[end - 1 : end] != b"\n":
            raise ValueError("a pax header is damaged")
        start = end
