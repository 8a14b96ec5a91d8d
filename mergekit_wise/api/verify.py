"""Recompute a merged file from its provenance and compare every byte."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mergekit_wise.checkpoint import Checkpoint, closing
from mergekit_wise.errors import CheckpointError
from mergekit_wise.merging import (
    Mixer,
    Pair,
    TensorPlan,
    make_plan,
    open_backend,
    open_fishers,
    read_naming,
    read_origin,
    read_rules,
)
from mergekit_wise.merging.arithmetic import Scratch
from mergekit_wise.merging.mixing import blocks
from mergekit_wise.models.pairing import match, open_pair
from mergekit_wise.models.source import open_source
from mergekit_wise.option_types import takes
from mergekit_wise.options import VerifyOptions
from mergekit_wise.progress import Progress

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""The tensors that --recalibrate sets."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The number of tensors, and the first difference; None if every byte is as expected."""

    tensors: int
    difference: str | None
    notes: tuple[str, ...]


@takes(VerifyOptions)
def verify(options: VerifyOptions) -> Verdict:
    """Merge the sources again by the rules that a merged file records, and compare names, dtypes, shapes and bytes.

    Raises CheckpointError if the file records no merge, or one with Fisher files that are not given; MismatchError
    if the sources do not fit.
    """
    with ExitStack() as stack:

        def opened(source: str | Path) -> Checkpoint:
            checkpoint = open_source(source, mmap=options.mmap)
            stack.enter_context(closing(checkpoint))
            return checkpoint

        merged = opened(options.merged)
        origin = read_origin(merged)
        if origin is None:
            raise CheckpointError(
                f"{options.merged}: does not record how it was merged; only files that wise merged can be verified."
            )
        if ("fisher" in origin) != (options.fisher is not None):
            raise CheckpointError(f"{options.merged}: pass --fisher if, and only if, it was merged with Fisher files.")
        rules = read_rules(origin)
        first, second, naming = stack.enter_context(
            open_pair(options.zeroshot, options.finetuned, read_naming(origin), base=options.base, mmap=options.mmap)
        )
        pair = match(first, second, rules, naming, command="verify")
        fishers = None
        if options.fisher is not None:
            fishers = open_fishers(
                pair, opened(options.fisher[0]), opened(options.fisher[1]), origin["fisher"]["floor"]
            )
        plan = make_plan(pair, rules)
        recalibrated = "recalibrated" in origin
        mixer = Mixer(pair, open_backend("cpu"), fishers)
        difference = _names(merged, plan) or _bytes(merged, mixer, plan, recalibrated, options.progress)
        return Verdict(len(plan), difference, (*_changed(pair, origin), *_passed_over(origin)))


def _names(merged: Checkpoint, plan: tuple[TensorPlan, ...]) -> str | None:
    wanted = {step.info.name: step.info for step in plan}
    for name in sorted(wanted.keys() ^ merged.tensors.keys()):
        return f"{name} is only in the {'sources' if name in wanted else 'merged file'}"
    for name, info in wanted.items():
        if merged.info(name) != info:
            found = merged.info(name)
            return f"{name} should be {info.dtype} {list(info.shape)}, but is {found.dtype} {list(found.shape)}"
    return None


def _bytes(
    merged: Checkpoint, mixer: Mixer, plan: tuple[TensorPlan, ...], recalibrated: bool, progress: Progress
) -> str | None:
    scratch = Scratch()
    plan = tuple(step for step in plan if not (recalibrated and step.info.name.endswith(STATISTICS)))
    total, done = sum(step.info.nbytes for step in plan), 0
    for step in plan:
        source = mixer.source(step)
        for start, stop in blocks(0, step.info.count, mixer.backend.block):
            wanted, _ = mixer.block(step, source, start, stop, scratch)
            found = merged.read(step.info.name, start, stop)
            differ = np.ascontiguousarray(wanted).view(np.uint8) != np.ascontiguousarray(found).view(np.uint8)
            if differ.any():
                element = start + int(differ.argmax()) // step.info.dtype.itemsize
                return f"{step.info.name} differs, first at element {element:,} of {step.info.count:,}"
            done += wanted.nbytes
            progress("Verifying", done, total, "bytes")
    return None


def _passed_over(origin: Mapping[str, Any]) -> Iterator[str]:
    if "recalibrated" in origin:
        yield "batch-norm statistics were estimated on images, not mixed, and were not compared"


def _changed(pair: Pair, origin: dict[str, object]) -> tuple[str, ...]:
    """A note for each source whose header is not the one that was merged; its tensors may still be the same."""
    return tuple(
        f"{side.path.name}: its header is not the one that was merged"
        for side, entry in ((pair.zeroshot, origin.get("zeroshot")), (pair.finetuned, origin.get("finetuned")))
        if isinstance(entry, dict) and entry.get("header_sha256") != side.digest
    )
