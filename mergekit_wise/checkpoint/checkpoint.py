"""A checkpoint: facts at once, bytes on request. Knows no alpha, no model and no terminal."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.checkpoint.tensors import StorageArray, Tensor, TensorInfo


@dataclass(frozen=True, slots=True)
class Soup:
    """Of which checkpoints another one is the soup.

    Attributes:
        members: the checkpoints, under the names of the soup.
        how: "uniform" or "stock".
        selection: how the members were chosen from others, as a file records it; empty if they were not.
    """

    members: tuple["Checkpoint", ...]
    how: str
    selection: Mapping[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """How to call the members: by the names of their files, or by the paths where names are the same."""
        names = [member.path.name for member in self.members]
        alike = len(set(names)) < len(names)
        return tuple(member.source if alike else member.path.name for member in self.members)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Named tensors in a file.

    Attributes:
        path: the file.
        kind: the format, for people ("safetensors", "torch.save zip").
        tensors: by name, in the file's order; read on request.
        metadata: texts that the file holds about itself; empty if its format has none.
        digest: SHA-256, in hex, of the part of the file that describes the tensors.
        notes: for the user: what was renamed or ignored when the file was opened.
        is_translated: whether the names are another library's than the file's, so that the files next to it, which
            describe it, do not describe these tensors.
        base: the checkpoint to which this one, an adapter, was applied, or a soup's first member; its configuration and
            side files hold for both.
        entry: the name of the file's entry that holds the tensors, if the user chose one.
        soup: of what this checkpoint is the soup; None if it is none.
    """

    path: Path
    kind: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    digest: str
    notes: tuple[str, ...] = ()
    is_translated: bool = False
    base: "Checkpoint | None" = None
    entry: str | None = None
    soup: Soup | None = None

    def info(self, name: str) -> TensorInfo:
        """The facts about one tensor."""
        return self.tensors[name].info

    @property
    def source(self) -> str:
        """What a user passes to open the checkpoint: the path, with ``::ENTRY`` if an entry was chosen."""
        return str(self.path) if self.entry is None else f"{self.path}::{self.entry}"

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.info.nbytes for tensor in self.tensors.values())

    @property
    def files(self) -> tuple[MappedFile, ...]:
        """The files that hold the tensors, each once."""
        return tuple(dict.fromkeys(chain.from_iterable(tensor.files for tensor in self.tensors.values())))

    @property
    def size(self) -> int:
        """Bytes of the files, without those of `base`."""
        others = {id(file) for file in self.base.files} if self.base is not None else set()
        return sum(file.size for file in self.files if id(file) not in others)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> StorageArray:
        """Elements `start` to `stop` of a tensor flattened in C order.

        Returns a 1-D read-only array of the tensor's storage dtype: a view of the file where the elements lie densely,
        else a copy of just those elements.
        """
        tensor = self.tensors[name]
        return tensor.read(start, tensor.info.count if stop is None else stop)

    def expect(self, name: str, start: int, stop: int) -> None:
        """Announce that all of these elements will be read soon."""
        self.tensors[name].expect(start, stop)

    def forget(self, name: str, start: int, stop: int) -> None:
        """Let the system reclaim the memory of elements that are not needed again."""
        self.tensors[name].forget(start, stop)

    def renamed(self, names: Mapping[str, str], note: str) -> "Checkpoint":
        """The same tensors under other names (old -> new), with a note about the change."""
        tensors = {names[old]: tensor.renamed(names[old]) for old, tensor in self.tensors.items()}
        return replace(self, tensors=tensors, notes=(*self.notes, note))

    def close(self) -> None:
        """Close the files that hold the tensors."""
        for file in self.files:
            file.close()


@contextmanager
def closing(*checkpoints: Checkpoint) -> Iterator[None]:
    """Close `checkpoints` when the block ends, also after an exception."""
    try:
        yield
    finally:
        for checkpoint in checkpoints:
            checkpoint.close()
