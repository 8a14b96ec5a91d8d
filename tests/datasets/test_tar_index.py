"""The index of tars: every regular file of every dialect, and refusals of damaged and unsupported tars."""

import io
import re
import shutil
import subprocess
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergekit_wise.datasets.tar_index import _Headers, _members, tar_members
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


def content(number, name):
    """The bytes of file `number`; their count differs from file to file, and one file is empty."""
    return b"" if name == "empty.txt" else bytes([number % 256]) * (300 * (number % 256) + 1)


def pack(form, mtime=0, names=NAMES):
    """A tar with a folder, a symbolic link, a hard link, a pipe, and files of several sizes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, kind in (("folder", tarfile.DIRTYPE), ("link.jpg", tarfile.SYMTYPE), ("pipe", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type = kind
            info.linkname = "q" * 130 if kind == tarfile.SYMTYPE and form != tarfile.USTAR_FORMAT else ""
            tar.addfile(info)
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content(number, name)), mtime
            tar.addfile(info, io.BytesIO(content(number, name)))
            if number == 1:
                hard = tarfile.TarInfo("hard.jpg")
                hard.type, hard.linkname = tarfile.LNKTYPE, names[0]
                tar.addfile(hard)
    return buffer.getvalue()


@pytest.fixture
def members(tmp_path):
    """A function: the bytes of a tar -> its members."""

    def read(data):
        path = tmp_path / "a.tar"
        path.write_bytes(data)
        return list(tar_members(str(path)))

    return read


def header(name="a.jpg", kind=tarfile.REGTYPE, size=0, **fields):
    """One ustar header block, with raw `fields` (start offset: bytes) put in and the checksum corrected."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    for start, raw in fields.items():
        block[int(start[1:]) : int(start[1:]) + len(raw)] = raw
    block[148:156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 8 * 32)
    return bytes(block)


def pax(records):
    """A pax header whose content is `records`, and the member that it describes, of five bytes."""
    return (
        header("pax", tarfile.XHDTYPE, len(records))
        + records.ljust(512, b"\0")
        + header(size=5)
        + b"12345".ljust(512, b"\0")
        + bytes(1024)
    )


@pytest.mark.parametrize(("form", "mtime"), [("ustar", 0), ("gnu", 0), ("pax", 0), ("pax", 1700000000.25)])
def test_every_regular_file_is_found_with_its_offset_and_size(members, form, mtime):
    """Names of any length and fractional times, which need extended headers, are read, and links are left out."""
    names = NAMES if form != "ustar" else [name for name in NAMES if name.isascii()]
    data = pack(FORMATS[form], mtime, names)
    found = members(data)
    assert [member.name for member in found] == names
    assert [data[m.offset : m.offset + m.size] for m in found] == [content(*item) for item in enumerate(names)]


def test_a_size_beyond_eight_gigabytes_is_read(members):
    """GNU tar writes such a size in binary; a file that does not have that many bytes is refused as cut off."""
    info = tarfile.TarInfo("huge.jpg")
    info.size = 9 << 30
    with pytest.raises(SuiteError, match=f"cut off.*{(9 << 30) + 512:,}"):
        members(info.tobuf(tarfile.GNU_FORMAT))


def test_the_size_and_the_name_of_a_pax_header_count(members):
    """A pax header replaces the fields of the plain header after it."""
    assert [tuple(member) for member in members(pax(b"9 size=3\n16 path=b/c.jpg\n"))] == [("b/c.jpg", 1536, 3)]


@pytest.mark.parametrize("padding", [True, False], ids=["whole block", "last byte"])
def test_a_tar_without_its_end_is_read_as_far_as_its_members_are_whole(members, padding):
    """Some writers leave out the two empty blocks, and some the padding of the last member."""
    data = pack(tarfile.GNU_FORMAT)
    last = members(data)[-2]
    end = last.offset + last.size
    assert len(members(data[: end + (-end % 512 if padding else 0)])) == len(NAMES) - 1


@pytest.mark.parametrize("past", [-200, 1, 100], ids=["in a header", "after one byte", "in the content"])
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_a_tar_that_is_cut_off_is_refused(members, form, past):
    """A partial download is not read as a smaller data set."""
    data = pack(form, names=NAMES[:4])
    third = members(data)[2]
    with pytest.raises(SuiteError, match=r"a\.tar: .*Download it again"):
        members(data[: third.offset + past])


@pytest.mark.parametrize("form", ["gz", "bz2", "xz"])
def test_a_compressed_tar_is_refused(members, form):
    """Members of a compressed tar cannot be read at their offsets."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{form}") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    with pytest.raises(SuiteError, match="not an uncompressed tar"):
        members(buffer.getvalue())


@pytest.mark.parametrize(
    "data",
    [b"PK\x03\x04" * 300, b"<html>" * 200, b"x", b"a" * 512],
    ids=["zip", "page", "byte", "block"],
)
def test_a_file_that_is_not_a_tar_is_refused(members, data):
    """The checksum of the first block does not match its bytes."""
    with pytest.raises(SuiteError, match="not an uncompressed tar|web page that was saved in place of the file"):
        members(data)


@pytest.mark.parametrize("number", range(1, 7))
@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_damage_between_two_members_is_refused(members, form, number):
    """One flipped bit in the header of any member ends the index with an error, not with fewer members."""
    data = bytearray(pack(FORMATS[form], 0.5))
    member = members(bytes(data))[number]
    data[member.offset - 512 + 3] ^= 1
    with pytest.raises(SuiteError, match=r"a\.tar: .*Download it again"):
        members(bytes(data))


@pytest.mark.parametrize("kind", [b"S", b"D", b"M", b"?"])
def test_a_member_of_another_type_is_refused(members, kind):
    """Sparse files, for one, do not have their bytes in one piece."""
    info = tarfile.TarInfo("a.jpg")
    info.type = kind
    with pytest.raises(SuiteError, match=re.escape(f"type {kind!r}")):
        members(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


def test_a_sparse_file_in_pax_form_is_refused(members):
    """Its header is that of a regular file; the pax records before it tell where its pieces belong."""
    with pytest.raises(SuiteError, match="not supported"):
        members(
            pax(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n25 GNU.sparse.name=a.jpg\n").replace(
                b"12345", b"0\n\n\n\n"
            )
        )


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, b"?"])
@pytest.mark.parametrize("size", [b"-00000001000", b"00000000008\0", b"abc\0", b"\xff" * 11 + b"\0"])
def test_a_size_that_is_not_a_number_of_bytes_is_refused(members, kind, size):
    """A negative size would lead back to a member that was read before, without an end."""
    data = header() + header("b.jpg", kind, _124=size.ljust(12, b"\0")) + header("c.jpg") + bytes(1024)
    with pytest.raises(SuiteError, match=r"a\.tar: "):
        members(data)


def test_a_name_that_claims_gigabytes_is_refused(members):
    """Memory is not reserved for what a damaged header claims; newer versions of Python see to that themselves."""
    with pytest.raises(SuiteError, match="asks for|empty header"):
        members(header("long", tarfile.GNUTYPE_LONGNAME, size=7 << 30) + bytes(2048))


@pytest.mark.parametrize(
    "records",
    [
        b"12 path=",
        b"0 path=x\n",
        b"10 path=x\n0 path=x\n",
        b"x path=y\n",
        b"99 path=y\n",
        b"-5 path=y\n",
        b" ",
        b"14 size=-1024\n",
        b"9 size=x\n",
    ],
)
def test_a_damaged_pax_header_is_refused(members, records):
    """The name and the size of the member after it would be wrong."""
    with pytest.raises(SuiteError, match=r"a\.tar: .*Download it again"):
        members(pax(records))


def test_a_file_that_is_missing_is_refused(tmp_path):
    """The error is a SuiteError that names the file."""
    with pytest.raises(SuiteError, match=r"none\.tar: cannot be read"):
        list(tar_members(str(tmp_path / "none.tar")))


def outcome(data, **how):
    """The members of a tar, or the error."""
    with _Headers(io.BytesIO(data)) as file:
        try:
            return list(_members(file, "a.tar", **how))
        except (SuiteError, tarfile.TarError, ValueError) as error:
            return type(error), str(error)


def by_tarfile(data):
    """The members of a tar, every header read by `tarfile`; or the error."""
    return outcome(data, plain=lambda file, position: None)


names = st.one_of(
    st.from_regex(r"[a-z]{1,9}(/[a-z0-9]{1,9}){0,3}\.(jpg|cls|json)", fullmatch=True),
    st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1, max_size=60),
    st.integers(90, 130).map(lambda length: "d/" + "n" * length),
)
infos = st.builds(
    dict,
    name=names,
    size=st.integers(0, 1500),
    mtime=st.one_of(st.integers(0, 2**33), st.floats(0, 2**33), st.integers(-9, -1)),
    mode=st.sampled_from([0o644, 0o755, 0]),
    uid=st.sampled_from([0, 1000, 2**21, 2**32]),
    uname=st.sampled_from(["", "me", "m\xfcller", "x" * 40]),
    type=st.sampled_from([tarfile.REGTYPE] * 6 + [tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]),
    pax_headers=st.sampled_from([{}, {}, {"comment": "c"}, {"mtime": "1.5", "atime": "2"}, {"path": "other.jpg"}]),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(infos, max_size=6),
    st.sampled_from(list(FORMATS.values())),
    st.sampled_from([{}, {}, {"comment": "all"}, {"path": "every.jpg"}]),
    st.none() | st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)),
)
def test_the_listing_is_that_of_tarfile(entries, form, of_all, damage):
    """For files of every kind, name and dialect, and after any byte was changed, errors included."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, pax_headers=of_all) as tar:
        for entry in entries:
            info = tarfile.TarInfo()
            for key, value in entry.items():
                setattr(info, key, value)
            info.size = entry["size"] if info.isreg() else 0
            try:
                tar.addfile(info, io.BytesIO(bytes(info.size)))
            except ValueError:  # what this dialect cannot hold
                continue
    data = bytearray(buffer.getvalue())
    if damage is not None:
        data[int(damage[0] * len(data))] = damage[1]
    assert outcome(data) == by_tarfile(data)


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs tar")
@pytest.mark.parametrize("form", ["ustar", "gnu", "posix", "v7", "oldgnu"])
def test_tars_of_the_tar_command_are_listed_as_by_tarfile(form, tmp_path):
    """Files of a folder, one with a name of 150 characters where the dialect has a place for it."""
    (tmp_path / "in").mkdir()
    for name in ("0.jpg", "0.cls", "\u00fc.jpg", *(["n" * 150] if form not in ("ustar", "v7") else [])):
        (tmp_path / "in" / name).write_bytes(name.encode() * 100)
    subprocess.run(["tar", f"--format={form}", "-cf", "a.tar", "in"], cwd=tmp_path, check=True)
    data = (tmp_path / "a.tar").read_bytes()
    found = outcome(data)
    assert found == by_tarfile(data)
    assert {data[member.offset : member.offset + member.size] for member in found} == {
        path.read_bytes() for path in (tmp_path / "in").iterdir()
    }


@pytest.mark.parametrize(("form", "mtime"), [("ustar", 7), ("gnu", 7), ("pax", 7), ("pax", 1700000000.25)])
def test_ordinary_files_are_listed_without_tarfile(form, mtime, monkeypatch):
    """Of 300 files, as webdataset writes them, `tarfile` reads none: it takes many times as long."""
    data, read = pack(FORMATS[form], mtime, [f"{number:06}.jpg" for number in range(300)]), []
    parse = tarfile.TarInfo.frombuf.__func__
    counting = classmethod(lambda cls, *arguments: read.append(1) or parse(cls, *arguments))
    monkeypatch.setattr(tarfile.TarInfo, "frombuf", counting)
    assert len(outcome(data)) == 300
    assert len(read) <= 20  # of the links and the end, besides
