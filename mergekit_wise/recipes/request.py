"""What a user can ask of a merge, as they would write it, and what it means."""

import re
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TypedDict

from mergekit_wise.errors import UsageError
from mergekit_wise.merging import Rules
from mergekit_wise.merging.rules import parse_alpha_for, parse_depth, parse_dtype, parse_keep

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class MergeOptions(TypedDict, total=False):
    """The options of `merge` and `preview`, named as on the command line. See `MergeRequest`."""

    alpha: float
    alpha_for: tuple[str, ...]
    depth_alpha: str | None
    keep: tuple[str, ...]
    only: tuple[str, ...]
    fisher: tuple[str | Path, str | Path] | None
    fisher_floor: float
    extrapolate: bool
    allow_non_finite: bool
    dtype: str | None
    shard_size: str | None
    memory: str
    mmap: bool
    device: str
    recalibrate: str | None
    data: Path | None
    model: str | None


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """One merge.

    Attributes:
        zeroshot, finetuned: a file, an index of shards, a folder, ``hf-hub:ORG/NAME`` or open_clip's
            ``MODEL/PRETRAINED``.
        output: the safetensors file to write; a folder where a source is one.
        alpha: for every tensor to which nothing else applies.
        alpha_for: ``PATTERN=ALPHA``; the first that matches a name wins.
        depth_alpha: ``FIRST:LAST``, alphas of the first and last block.
        keep: ``zs:PATTERN`` or ``ft:PATTERN``: tensors to take from one side.
        only: patterns of the tensors to write.
        fisher: files of Fisher information, zero-shot and fine-tuned.
        fisher_floor: smaller values count as this.
        extrapolate: alphas outside [0, 1] are meant.
        allow_non_finite: write the file even where mixing made infinities or NaN.
        dtype: of the output's floating-point tensors, for example ``bf16``.
        shard_size: for example ``2GB``: write several files and an index.
        memory: the budget for blocks in flight, for example ``256MB``.
        mmap: map the sources; False reads them plainly, which network disks like better.
        device: where the arithmetic runs.
        recalibrate: the data set, or folder of images, on which batch-norm statistics are estimated again.
        data: the folder under which data sets are looked for.
        model: the architecture, where the checkpoint does not tell it; asked for by `recalibrate` alone.
    """

    zeroshot: str | Path
    finetuned: str | Path
    output: Path
    alpha: float = 0.5
    alpha_for: tuple[str, ...] = ()
    depth_alpha: str | None = None
    keep: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    fisher: tuple[str | Path, str | Path] | None = None
    fisher_floor: float = 1e-8
    extrapolate: bool = False
    allow_non_finite: bool = False
    dtype: str | None = None
    shard_size: str | None = None
    memory: str = "256MB"
    mmap: bool = True
    device: str = "cpu"
    recalibrate: str | None = None
    data: Path | None = None
    model: str | None = None

    def rules(self) -> Rules:
        """Which tensor gets what. Raises UsageError."""
        return Rules(
            alpha=self.alpha,
            alpha_for=tuple(map(parse_alpha_for, self.alpha_for)),
            depth=parse_depth(self.depth_alpha) if self.depth_alpha else None,
            keep=tuple(map(parse_keep, self.keep)),
            only=self.only,
            dtype=parse_dtype(self.dtype) if self.dtype else None,
            extrapolate=self.extrapolate,
        )


def parse_bytes(text: str, option: str) -> int:
    """A positive number of bytes: ``300000``, ``256MB``, ``1.5 GiB``. Raises UsageError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None or not (size := int(Decimal(found[1]) * unit)):
        raise UsageError(f"{option} {text}: expected a size such as 256MB or 2GB.")
    return size
