"""Files in the zip format of ``torch.save``, planned from facts alone so that tensors can be streamed into them.

``torch.load`` reads them with ``weights_only=True`` and ``mmap=True``: a dictionary of tensors in the order that is
given, each with a storage of its own, at a multiple of 64 bytes. The archive has one record that torch does not look
at, for the metadata. No record depends on the time or on the name of the file. Does not import torch.
"""

import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from mergekit_wise.checkpoint.tensors import TensorInfo
from mergekit_wise.checkpoint.torch_objects import STORAGE_DTYPES
from mergekit_wise.checkpoint.torch_zip import METADATA

FOLDER = "archive/"
ALIGNMENT = 64

LIMIT_32 = 0xFFFFFFFF
"""Sizes and offsets from this one on are written in the 64-bit fields of zip64."""

LIMIT_16 = 0xFFFF
"""The same for numbers of records."""

MODERN = 45
"""The version of the zip format that has 64-bit fields."""

DATE = 0x21
"""1 January 1980, the first date that the format can express."""

_STORAGES = {dtype: storage for storage, dtype in STORAGE_DTYPES.items() if storage != "UntypedStorage"}


@dataclass(frozen=True, slots=True)
class _Record:
    """A member of the archive: where its header and its content start, and the content unless it is a tensor."""

    name: bytes
    header: int
    start: int
    size: int
    content: bytes | None


@dataclass(frozen=True, slots=True)
class TorchLayout:
    """The plan of a file to be written, and for each tensor the offset of its first byte in the file."""

    infos: tuple[TensorInfo, ...]
    offsets: Mapping[str, int]
    size: int
    records: tuple[_Record, ...]

    has_checksums = True

    def frame(self, checksums: Mapping[str, int]) -> Iterator[tuple[int, bytes]]:
        """All bytes but those of the tensors, each run with its offset; `checksums` are the tensors' CRC-32."""
        tensors = iter(self.infos)
        directory = []
        for record in self.records:
            if record.content is None:
                checksum = checksums[next(tensors).name]
                yield record.header, _header(record, checksum)
            else:
                checksum = zlib.crc32(record.content)
                yield record.header, _header(record, checksum) + record.content
            directory.append(_entry(record, checksum))
        start = self.size - sum(map(len, directory)) - len(_end(len(directory), self.size, 0))
        # A directory is shorter than 4 GiB: its end depends on where it starts alone.
        yield start, b"".join(directory) + _end(len(directory), start, sum(map(len, directory)))


def plan_torch(infos: Iterable[TensorInfo], metadata: Mapping[str, str]) -> TorchLayout:
    """Place the records of a file with these tensors, in their order."""
    infos = tuple(infos)
    contents = [
        ("data.pkl", _pickled(infos)),
        ("byteorder", b"little"),
        ("version", b"3\n"),
        (METADATA, json.dumps(dict(sorted(metadata.items()))).encode()),
    ]
    records: list[_Record] = []
    for name, content in contents:
        records.append(_placed(records, name, len(content), content))
    offsets = {}
    for number, info in enumerate(infos):
        records.append(_placed(records, f"data/{number}", info.nbytes, None))
        offsets[info.name] = records[-1].start
    directory = sum(len(_entry(record, 0)) for record in records)
    start = records[-1].start + records[-1].size
    return TorchLayout(infos, offsets, start + directory + len(_end(len(records), start, directory)), tuple(records))


def checksum_of(parts: Iterable[tuple[int, int, int]]) -> int:
    """The CRC-32 of consecutive parts in any order, each given as its offset, its CRC-32 and its length in bytes."""
    total = 0
    for _, checksum, length in sorted(parts):
        total = _product(_shift(length), total) ^ checksum
    return total


def _product(a: int, b: int) -> int:
    """The product of two polynomials modulo that of CRC-32, whose highest coefficient is the lowest bit."""
    product, mask = 0, 1 << 31
    while mask:
        if a & mask:
            product ^= b
        b = (b >> 1) ^ (0xEDB88320 if b & 1 else 0)
        mask >>= 1
    return product


@cache
def _shift(length: int) -> int:
    """X ** (8 * length), which moves a checksum past `length` bytes."""
    power, square = 1 << 31, 1 << 23
    while length:
        if length & 1:
            power = _product(square, power)
        square = _product(square, square)
        length >>= 1
    return power


def _placed(before: list[_Record], name: str, size: int, content: bytes | None) -> _Record:
    encoded = f"{FOLDER}{name}".encode()
    header = before[-1].start + before[-1].size if before else 0
    shortest = header + 30 + len(encoded) + len(_large(size, size)) + 4
    return _Record(encoded, header, shortest + -shortest % ALIGNMENT, size, content)


def _large(*numbers: int) -> bytes:
    """The extra field that holds those of the numbers that do not fit into 32 bits; b"" if all do."""
    large = [number for number in numbers if number >= LIMIT_32]
    return struct.pack(f"<HH{len(large)}Q", 1, 8 * len(large), *large) if large else b""


def _header(record: _Record, checksum: int) -> bytes:
    extra = _large(record.size, record.size)
    padding = record.start - record.header - 30 - len(record.name) - len(extra) - 4
    extra += struct.pack("<2sH", b"FB", padding) + b"Z" * padding  # the field in which torch pads
    fields = (*_common(record, checksum), len(extra))
    return struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", *fields) + record.name + extra


def _entry(record: _Record, checksum: int) -> bytes:
    """A record in the directory at the end of the archive."""
    extra = _large(record.size, record.size, record.header)
    offset = min(record.header, LIMIT_32)
    fields = (MODERN, *_common(record, checksum), len(extra), 0, 0, 0, 0, offset)
    return struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\x01\x02", *fields) + record.name + extra


def _common(record: _Record, checksum: int) -> tuple[int, ...]:
    size = min(record.size, LIMIT_32)
    return (MODERN, 0, 0, 0, DATE, checksum, size, size, len(record.name))


def _end(count: int, start: int, size: int) -> bytes:
    """What follows the directory of `size` bytes that starts at `start`."""
    modern = b""
    if count >= LIMIT_16 or start >= LIMIT_32:
        modern = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, MODERN, MODERN, 0, 0, count, count, size, start)
        modern += struct.pack("<4sIQI", b"PK\x06\x07", 0, start + size, 1)
    short = min(count, LIMIT_16)
    return modern + struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, short, short, size, min(start, LIMIT_32), 0)


# The pickle, in the opcodes that torch itself writes.


def _pickled(infos: Iterable[TensorInfo]) -> bytes:
    entries = b"".join(_text(info.name) + _tensor(number, info) for number, info in enumerate(infos))
    return b"\x80\x02}(" + entries + b"u."


def _tensor(number: int, info: TensorInfo) -> bytes:
    old = _STORAGES.get(info.dtype.torch)
    storage, count = (_global("torch", old), info.count) if old else (UNTYPED, info.nbytes)
    saved = b"(" + _text("storage") + storage + _text(str(number)) + _text("cpu") + _number(count) + b"tQ"
    strides: list[int] = []
    step = 1
    for size in reversed(info.shape):
        strides.insert(0, step)
        step *= max(size, 1)
    view = saved + _number(0) + _numbers(info.shape) + _numbers(strides) + b"\x89" + HOOKS
    if old:
        return _global("torch._utils", "_rebuild_tensor_v2") + b"(" + view + b"tR"
    return _global("torch._utils", "_rebuild_tensor_v3") + b"(" + view + _global("torch", info.dtype.torch) + b"tR"


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    encoded = text.encode()
    return b"X" + len(encoded).to_bytes(4, "little") + encoded


def _number(number: int) -> bytes:
    if number < 1 << 31:
        return b"J" + number.to_bytes(4, "little")
    encoded = number.to_bytes(number.bit_length() // 8 + 1, "little")
    return b"\x8a" + bytes([len(encoded)]) + encoded


def _numbers(numbers: Iterable[int]) -> bytes:
    return b"(" + b"".join(map(_number, numbers)) + b"t"


UNTYPED = _global("torch.storage", "UntypedStorage")
HOOKS = _global("collections", "OrderedDict") + b")R"
