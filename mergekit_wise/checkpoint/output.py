"""A checkpoint being written: one safetensors file, or several and their index."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint.layout import Layout, plan_layout
from mergekit_wise.checkpoint.tensors import TensorInfo
from mergekit_wise.checkpoint.writer import Writer, writing


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """Which files are written, each with its layout; `index` is the file that lists them, if there are several."""

    files: Mapping[Path, Layout]
    index: Path | None

    @property
    def size(self) -> int:
        """Bytes of all files, the index left out."""
        return sum(layout.size for layout in self.files.values())

    @property
    def infos(self) -> tuple[TensorInfo, ...]:
        """All tensors in the order in which they lie on disk."""
        return tuple(info for layout in self.files.values() for info in layout.infos)


class Output:
    """Takes the bytes of tensors; may be called from several threads at once."""

    def __init__(self, places: Mapping[str, tuple[Writer, int]]) -> None:
        self._places = places

    def put(self, name: str, start: int, data: NDArray[np.generic]) -> None:
        """Write `data` from byte `start` of the tensor on."""
        write, offset = self._places[name]
        write(offset + start, data)


def plan_output(
    output: Path, infos: Iterable[TensorInfo], metadata: Mapping[str, str], shard_size: int | None = None
) -> OutputPlan:
    """Decide on files and layouts; `shard_size` is in bytes of tensors. A tensor is never split."""
    groups = _groups(sorted(infos, key=lambda info: info.name), shard_size)
    if len(groups) == 1:
        return OutputPlan({output: plan_layout(groups[0], metadata)}, None)
    stem = output.name.removesuffix(".safetensors")
    names = [f"{stem}-{n:05}-of-{len(groups):05}.safetensors" for n in range(1, len(groups) + 1)]
    files = {output.with_name(n): plan_layout(group, metadata) for n, group in zip(names, groups, strict=True)}
    return OutputPlan(files, output.with_name(f"{stem}.safetensors.index.json"))


@contextmanager
def writing_output(plan: OutputPlan) -> Iterator[Output]:
    """Write the files of `plan`; each appears whole or not at all, the index last. Raises OutputError."""
    with ExitStack() as stack:
        # Files are committed in the reverse of the order in which they are opened here: the index must come last.
        if plan.index is not None:
            text = np.frombuffer(_index(plan), np.uint8)
            stack.enter_context(writing(plan.index, len(text)))(0, text)
        places: dict[str, tuple[Writer, int]] = {}
        for path, layout in plan.files.items():
            write = stack.enter_context(writing(path, layout.size))
            write(0, np.frombuffer(layout.header, np.uint8))
            places |= {name: (write, offset) for name, offset in layout.offsets.items()}
        yield Output(places)


def _groups(infos: list[TensorInfo], shard_size: int | None) -> list[list[TensorInfo]]:
    groups: list[list[TensorInfo]] = [[]]
    filled = 0
    for info in infos:
        if groups[-1] and shard_size is not None and filled + info.nbytes > shard_size:
            groups.append([])
            filled = 0
        groups[-1].append(info)
        filled += info.nbytes
    return groups


def _index(plan: OutputPlan) -> bytes:
    """As transformers writes and reads it."""
    weight_map = {info.name: path.name for path, layout in plan.files.items() for info in layout.infos}
    total = sum(info.nbytes for info in plan.infos)
    return json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2).encode()
