"""The reader of tar headers against Python's own, which knows every dialect and is slow."""

import io
import tarfile

import pytest

from mergekit_wise.datasets.tar_index import tar_members
from mergekit_wise.errors import SuiteError

NAMES = [
    "s0000000.jpg",
    "s0000000.cls",
    "folder/of/s1.jpg",
    "long/" + "x" * 95 + ".jpg",
    "very/" + "y" * 140 + "/" + "z" * 90 + ".cls",
    "ümlaut.png",
    "empty.txt",
]
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def pack(form, mtime=0, names=NAMES):
    """A tar with a folder, a symbolic link and files of many sizes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "q" * 130 if form != tarfile.USTAR_FORMAT else "q"
        tar.addfile(link)
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 0 if name == "empty.txt" else 300 * number + 1
            info.mtime = mtime
            tar.addfile(info, io.BytesIO(bytes([number]) * info.size))
    return buffer.getvalue()


def members(data):
    """As the reader sees `data`."""
    return list(tar_members(lambda start, size: data[start : start + size], len(data), "a.tar"))


@pytest.mark.parametrize(("form", "mtime"), [("ustar", 0), ("gnu", 0), ("pax", 0), ("pax", 1700000000.25)])
def test_every_file_is_found_where_tarfile_finds_it(form, mtime):
    """Names of any length, and the extended headers that webdataset's writer makes of fractional times."""
    data = pack(FORMATS[form], mtime, NAMES if form != "ustar" else [n for n in NAMES if n.isascii()])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [(m.name, m.offset_data, m.size) for m in tar.getmembers() if m.isreg()]
    found = members(data)
    assert [(m.name, m.offset, m.size) for m in found] == expected
    assert [m.head for m in found] == [data[m.offset : m.offset + min(m.size, 512)] for m in found]


def test_a_size_beyond_eight_gigabytes_is_read():
    """GNU writes it in binary; the end of the file is what stops the reader."""
    info = tarfile.TarInfo("huge.jpg")
    info.size = 9 << 30
    header = info.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(SuiteError, match=f"go on to byte {(9 << 30) + 512:,}"):
        members(header)


def test_a_pax_header_may_tell_the_size():
    """Where the plain header cannot hold it."""
    info = tarfile.TarInfo("a.jpg")
    info.size, info.pax_headers = 5, {"size": "5"}
    data = info.tobuf(tarfile.PAX_FORMAT) + b"12345".ljust(512, b"\0") + bytes(1024)
    assert [(m.name, m.size, m.head) for m in members(data)] == [("a.jpg", 5, b"12345")]


def test_a_tar_without_its_end_is_read_as_far_as_its_members_are_whole():
    """Some writers leave the two empty blocks out."""
    data = pack(tarfile.GNU_FORMAT)
    last = members(data)[-2]
    end = last.offset + -(-last.size // 512) * 512
    assert len(members(data[:end])) == len(NAMES) - 1


@pytest.mark.parametrize("past", [-200, 1, 100], ids=["in a header", "after one byte", "in the content"])
def test_a_tar_that_is_cut_off_is_refused(past):
    """Half a download is no smaller data set."""
    data = pack(tarfile.GNU_FORMAT)
    third = members(data)[2]
    with pytest.raises(SuiteError, match=r"a\.tar: (is cut off|expected the header)"):
        members(data[: third.offset + past])


@pytest.mark.parametrize(
    "data",
    [b"\x1f\x8b" + b"gzip" * 300, b"PK\x03\x04" * 300, b"<html>" * 200, b"x", b"a" * 512],
    ids=["gzip", "zip", "page", "byte", "block"],
)
def test_what_is_no_tar_is_refused(data):
    """Told by the checksum of its first block."""
    with pytest.raises(SuiteError, match="expected the header of a tar at byte 0"):
        members(data)


def test_damage_between_two_members_is_refused():
    """One flipped bit in a header."""
    data = bytearray(pack(tarfile.GNU_FORMAT))
    second = members(bytes(data))[1]
    data[second.offset - 512 + 3] ^= 1
    with pytest.raises(SuiteError, match="expected the header of a tar at byte"):
        members(bytes(data))


def test_a_sparse_file_is_refused_by_its_kind():
    """Its bytes are not where a plain file has them."""
    info = tarfile.TarInfo("a.jpg")
    info.type = b"S"
    with pytest.raises(SuiteError, match=r"kind b'S'"):
        members(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


@pytest.mark.parametrize("size", [b"-00000001000", b"00000000008\0", b"abc\0"])
def test_a_size_that_is_none_is_refused(size):
    """A negative one would lead the walk back to where it was."""
    header = bytearray(tarfile.TarInfo("a.jpg").tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = size.ljust(12, b"\0")
    header[148:156] = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 8 * 32)
    with pytest.raises(SuiteError, match="as a size"):
        members(bytes(header) + bytes(2048))


@pytest.mark.parametrize(
    "content",
    [
        b"12 path=",
        b"0 path=x\n",
        b"x path=y\n",
        b"99 path=y\n",
        b"-5 path=y\n",
        b" ",
        b"14 size=-1024\n",
        b"9 size=x\n",
    ],
)
def test_a_damaged_pax_header_is_refused(content):
    """Its lengths are not believed."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = b"x", len(content)
    data = info.tobuf(tarfile.USTAR_FORMAT) + content.ljust(512, b"\0") + bytes(1024)
    with pytest.raises(SuiteError, match="pax header that cannot be read"):
        members(data)
