"""The safetensors header, in both directions. Knows the format; touches no file.

The order of tensors and the padding are those of safetensors' own ``save_file``, so that the same tensors and metadata
give the same bytes. Where that leaves the order open (several metadata entries), they are sorted by key.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mergekit_wise.checkpoint.checks import check_name, check_shape, check_text, shown
from mergekit_wise.checkpoint.dtypes import BY_NAME, RANK
from mergekit_wise.checkpoint.tensors import TensorInfo

MAX_HEADER = 100_000_000
"""Bytes; the limit that safetensors' own reader sets."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything goes in a file to be written: offsets are from the file's first byte."""

    header: bytes
    infos: tuple[TensorInfo, ...]
    offsets: Mapping[str, int]
    size: int


def plan_layout(infos: Iterable[TensorInfo], metadata: Mapping[str, str]) -> Layout:
    """Lay out `infos` as safetensors does: widest dtype first, then by name."""
    ordered = sorted(infos, key=lambda info: (-RANK[info.dtype], info.name.encode()))
    described: dict[str, object] = {}
    if metadata:
        described["__metadata__"] = dict(sorted(metadata.items()))
    begins = []
    end = 0
    for info in ordered:
        begins.append(end)
        end += info.nbytes
        described[info.name] = {
            "dtype": info.dtype.name,
            "shape": list(info.shape),
            "data_offsets": [begins[-1], end],
        }
    text = json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    offsets = {info.name: len(header) + begin for info, begin in zip(ordered, begins, strict=True)}
    return Layout(header, tuple(ordered), offsets, len(header) + end)


def parse_header(text: bytes, body_size: int) -> tuple[list[tuple[TensorInfo, int]], dict[str, str]]:
    """Read a header's JSON; returns (tensor, offset from the end of the header) in file order, and the metadata.

    Raises ValueError with what is wrong: every byte of the body must belong to exactly one tensor.
    """
    # An object: files of this format are known by the brace that the header begins with.
    described = json.loads(text.decode("utf-8"), object_pairs_hook=without_duplicates)
    metadata = _parse_metadata(described.pop("__metadata__", {}))
    # Empty tensors share their start with the next one: the end decides.
    placed = sorted(
        (_parse_tensor(name, entry) for name, entry in described.items()),
        key=lambda place: (place[1], place[0].nbytes),
    )
    expected = 0
    for info, begin in placed:
        if begin != expected:
            raise ValueError(f"tensor {shown(info.name)!r} starts at byte {begin}, not at {expected}")
        expected = begin + info.nbytes
    if expected != body_size:
        raise ValueError(f"the header promises {expected:,} bytes of tensors, the file has {body_size:,}")
    return placed, metadata


def without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """For ``json.loads``, which by itself keeps the last of several entries of one name. Raises ValueError."""
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name occurs twice in it")
    return entries


def _parse_metadata(entry: object) -> dict[str, str]:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise ValueError("the metadata is not a map of texts")
    for text in (*entry, *entry.values()):
        check_text(text)
    return entry


def _parse_tensor(name: str, entry: object) -> tuple[TensorInfo, int]:
    check_name(name)
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]}:
            sizes = [*shape, begin, end]
        case _:
            raise ValueError(f"tensor {name!r} lacks dtype, shape or data_offsets")
    if dtype not in BY_NAME:
        raise ValueError(f"tensor {name!r} has the unknown dtype {shown(dtype)!r}")
    if not all(type(size) is int and size >= 0 for size in sizes):
        raise ValueError(f"tensor {name!r} has a shape or offset that is no natural number")
    check_shape(name, shape, BY_NAME[dtype].itemsize)
    info = TensorInfo(name, BY_NAME[dtype], tuple(shape))
    if end - begin != info.nbytes:
        raise ValueError(
            f"tensor {name!r} of shape {list(shape)} and dtype {info.dtype} needs {info.nbytes} bytes, "
            f"the header gives it {end - begin}"
        )
    return info, begin
