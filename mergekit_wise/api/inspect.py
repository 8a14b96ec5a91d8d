"""Show what a checkpoint holds, from its header alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergekit_wise.api.result_object import ResultObject
from mergekit_wise.checkpoint import Checkpoint, TensorInfo, closing
from mergekit_wise.merging import read_origin
from mergekit_wise.models.adapters import SHOWN, read_adapter
from mergekit_wise.models.architecture import guess_architecture
from mergekit_wise.models.source import open_file, remarks
from mergekit_wise.models.weight_shapes import Guess
from mergekit_wise.option_types import takes
from mergekit_wise.options import InspectOptions
from mergekit_wise.wording import plural

if TYPE_CHECKING:
    from mergekit_wise.report.table import Table


@dataclass(frozen=True, slots=True, repr=False)
class Inspection(ResultObject):
    """Facts about a file.

    Attributes:
        path, kind, size: the file, what it is, its bytes.
        tensors: names, dtypes and shapes, in the file's order.
        metadata: the metadata without the provenance.
        origin: the provenance of a merged file; None for others.
        architecture: open_clip configurations that fit, and why.
        digest: SHA-256 of the header.
        notes: prefixes that were removed and entries that were ignored.
        adapter: what an adapter says of itself; None for a model.
    """

    path: Path
    kind: str
    size: int
    tensors: tuple[TensorInfo, ...]
    metadata: dict[str, str]
    origin: dict[str, object] | None
    architecture: Guess
    digest: str
    notes: tuple[str, ...]
    adapter: "AdapterFacts | None" = None

    def _summary(self) -> str:
        elements = sum(info.count for info in self.tensors)
        return f"{self.path.name}, {self.kind}, {plural(len(self.tensors), 'tensor')}, {elements:,} elements"

    def _entry(self) -> Mapping[str, Any]:
        return {
            "path": self.path,
            "kind": self.kind,
            "size": self.size,
            "header_sha256": self.digest,
            "architecture": asdict(self.architecture),
            "metadata": self.metadata,
            "origin": self.origin,
            "adapter": asdict(self.adapter) if self.adapter else None,
            "tensors": list(self._rows()),
        }

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        for info in self.tensors:
            yield {"name": info.name, "dtype": info.dtype.torch, "shape": info.shape, "bytes": info.nbytes}

    def _tables(self) -> "Sequence[Table]":
        from mergekit_wise.report.tensor_tables import tensor_table

        return [replace(tensor_table(self.tensors), title=f"{self.path}: {self.kind}")]


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """Facts about an adapter.

    Attributes:
        kind: the method, such as LoRA.
        settings: the entries of adapter_config.json that say which modules are changed, and how much.
        parameters: elements of all its tensors.
        refusal: why it cannot be applied exactly; None if it can.
    """

    kind: str
    settings: dict[str, object]
    parameters: int
    refusal: str | None


@takes(InspectOptions)
def inspect(options: InspectOptions) -> Inspection:
    """Read a checkpoint's header. Raises CheckpointError."""
    checkpoint = open_file(options.checkpoint, mmap=options.mmap)
    with closing(checkpoint):
        return Inspection(
            checkpoint.path,
            checkpoint.kind,
            checkpoint.size,
            tuple(stored.info for stored in checkpoint.tensors.values()),
            _own_metadata(checkpoint),
            read_origin(checkpoint),
            guess_architecture(checkpoint),
            checkpoint.digest,
            (*checkpoint.notes, *remarks(checkpoint)),
            _adapter_facts(checkpoint),
        )


def _adapter_facts(checkpoint: Checkpoint) -> AdapterFacts | None:
    adapter = read_adapter(checkpoint)
    if adapter is None:
        return None
    settings = {key: adapter.config[key] for key in SHOWN if adapter.config.get(key)}
    return AdapterFacts(adapter.kind, settings, adapter.parameters, adapter.refusal)


def _own_metadata(checkpoint: Checkpoint) -> dict[str, str]:
    origin = read_origin(checkpoint)
    return {key: value for key, value in checkpoint.metadata.items() if origin is None or key != "mergekit_wise"}
