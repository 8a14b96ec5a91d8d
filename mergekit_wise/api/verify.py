"""Recompute a merged file from its provenance and compare every byte.

The file is also read with safetensors' own library, so that a fault of this tool's reader cannot hide one of its
writer.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from mergekit_wise.api.merge import without_collecting
from mergekit_wise.api.result_object import ResultObject
from mergekit_wise.api.second_reader import read_by_library
from mergekit_wise.checkpoint import Checkpoint, closing
from mergekit_wise.checkpoint.safetensors import looks_like_safetensors
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
from mergekit_wise.merging.provenance import read_calibrations
from mergekit_wise.merging.soup import Averaged
from mergekit_wise.models.pairing import match, named_like, open_pair
from mergekit_wise.models.source import open_source
from mergekit_wise.option_types import SoupSource, Weights, takes
from mergekit_wise.options import VerifyOptions
from mergekit_wise.progress import Progress
from mergekit_wise.wording import listed, plural

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""The tensors that --recalibrate sets."""


@dataclass(frozen=True, slots=True, repr=False)
class Verdict(ResultObject):
    """What was compared, and the first difference.

    Attributes:
        tensors: how many tensors the file holds.
        difference: the first difference; None if every byte that was compared is as expected.
        notes: on what was not compared, and on sources that changed.
        mixed, copied: how many tensors are what the sources give; averages of a soup's members count as mixed.
        recorded: how many are those of which the file records the SHA-256. The rest was not compared.
    """

    tensors: int
    difference: str | None
    notes: tuple[str, ...]
    mixed: int = 0
    copied: int = 0
    recorded: int = 0

    @property
    def skipped(self) -> int:
        """How many tensors were not compared."""
        return self.tensors - self.mixed - self.copied - self.recorded

    def _summary(self) -> str:
        if self.difference is not None:
            return f"not what its sources give: {self.difference}"
        computed = self.mixed + self.copied
        return f"{computed:,} of {plural(self.tensors, 'tensor')} are what the sources give, byte for byte"

    def _entry(self) -> Mapping[str, Any]:
        counts = {name: getattr(self, name) for name in ("tensors", "mixed", "copied", "recorded", "skipped")}
        return {"difference": self.difference, **counts, "notes": self.notes}


@takes(VerifyOptions)
@without_collecting()
def verify(options: VerifyOptions) -> Verdict:
    """Merge the sources again by the rules that a merged file records, and compare names, dtypes, shapes and bytes.

    Raises CheckpointError if the file records no merge, or one with Fisher files that are not given; MismatchError
    if the sources do not fit.
    """
    with ExitStack() as stack:

        def opened(source: Weights) -> Checkpoint:
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
        finetuned = _finetuned(options, origin)
        first, second, naming = stack.enter_context(
            open_pair(options.zeroshot, finetuned, read_naming(origin), base=options.base, mmap=options.mmap)
        )
        pair = match(first, second, rules, naming, command="verify")
        fishers = None
        if options.fisher is not None:
            first, second = opened(options.fisher[0]), opened(options.fisher[1])
            names = named_like(pair, first, "zeroshot"), named_like(pair, second, "finetuned")
            fishers = open_fishers(pair, *names, origin["fisher"]["floor"])
        plan = make_plan(pair, rules)
        recorded = _recorded(origin)
        divided = _divided(merged)
        compared = [
            step for step in plan if not _is_recalibrated(step.info.name, recorded) and step.info.name not in divided
        ]
        counts: Counter[str] = Counter()
        difference = (
            _names(merged, plan)
            or read_by_library(merged)
            or _bytes(merged, Mixer(pair, open_backend("cpu"), fishers), compared, counts, options.progress)
            or _digests(merged, {**(recorded or {}), **divided})
        )
        if difference is not None:
            return Verdict(len(plan), difference, _changed(pair, origin))
        checked = len(recorded or ()) + len(divided)
        verdict = Verdict(len(plan), None, (), counts["mixed"], counts.total() - counts["mixed"], checked)
        notes = (*_changed(pair, origin), *_passed_over(merged, verdict, recorded or {}), *_notes_on_divided(divided))
        return replace(verdict, notes=notes)


def _finetuned(options: VerifyOptions, origin: Mapping[str, Any]) -> Weights:
    """The fine-tuned side: the checkpoint, or the soup that the file records, of those members that are given.

    Members are found by the names of their files, where these differ; else they are those given, in their order.
    Raises CheckpointError if the file records something else than what is given.
    """
    entry = origin.get("finetuned")
    recorded = entry.get("members") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(recorded, list):
        if options.soup:
            raise CheckpointError(f"{options.merged}: is no soup. Pass --finetuned in place of --soup.")
        return options.finetuned
    names = [str(member.get("name")) for member in recorded if isinstance(member, dict)]
    if not options.soup:
        raise CheckpointError(
            f"{options.merged}: is made of a soup. In place of --finetuned, pass its members: --soup {','.join(names)}"
        )
    given = [Path(str(source)).name for source in options.soup]
    members = options.soup
    if len(set(given)) == len(given) and set(names) <= set(given):
        others = {str(each.get("name")) for each in entry.get("candidates", ()) if isinstance(each, dict)}
        if set(given) <= {*names, *others}:
            members = tuple(options.soup[given.index(name)] for name in names)
    if len(members) != len(names):
        raise CheckpointError(
            f"{options.merged}: is made of a soup of {plural(len(names), 'member')} ({listed(names)}), and --soup "
            f"gives {len(members)}. Pass all of them in this order."
        )
    return SoupSource.of(members, str(entry.get("how")))


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
    merged: Checkpoint, mixer: Mixer, plan: Sequence[TensorPlan], counts: Counter[str], progress: Progress
) -> str | None:
    """The first difference from what the sources give; `counts` gets the sources of the tensors."""
    scratch = Scratch()
    total, done, shown = sum(step.info.nbytes for step in plan), 0, 0
    for step in plan:
        name, source = step.info.name, mixer.source(step)
        for start, stop in blocks(0, step.info.count, mixer.backend.block):
            wanted, _ = mixer.block(step, source, start, stop, scratch)
            found = merged.read(name, start, stop)
            if wanted.tobytes() != found.tobytes():
                differ = np.ascontiguousarray(wanted).view(np.uint8) != np.ascontiguousarray(found).view(np.uint8)
                element = start + int(differ.argmax()) // step.info.dtype.itemsize
                return f"{name} differs, first at element {element:,} of {step.info.count:,}"
            done += wanted.nbytes
        averaged = isinstance(mixer.pair.finetuned.tensors.get(name), Averaged)
        counts["mixed" if source == "finetuned" and averaged else source] += 1
        if done == total or done - shown > total // 100:
            progress("Verifying", done, total, "bytes")
            shown = done
    return None


def _recorded(origin: Mapping[str, Any]) -> dict[str, str] | None:
    """The SHA-256 of each recalibrated tensor, as far as the file records it; None if it was not recalibrated."""
    if "recalibrated" not in origin:
        return None
    entry = origin["recalibrated"]
    tensors = entry.get("tensors") if isinstance(entry, dict) else None
    if not isinstance(tensors, dict):
        return {}
    return {name: str(digest) for name, digest in tensors.items() if name.endswith(STATISTICS)}


def _divided(merged: Checkpoint) -> dict[str, str]:
    """The SHA-256 of each tensor that was divided by a temperature after merging, as the file records it."""
    entries = [entry.get("tensors") for entry in read_calibrations(merged)]
    found = {name: str(digest) for entry in entries if isinstance(entry, dict) for name, digest in entry.items()}
    return {name: digest for name, digest in found.items() if name in merged.tensors}


def _notes_on_divided(divided: Mapping[str, str]) -> Iterator[str]:
    if divided:
        yield (
            f"{listed(divided)}: divided by a temperature (wise calibrate) after merging: compared with the checksums "
            "that the file records"
        )


def _is_recalibrated(name: str, recorded: Mapping[str, str] | None) -> bool:
    """Whether a tensor holds recomputed statistics; older files do not record which do."""
    return recorded is not None and name.endswith(STATISTICS) and (name in recorded or not recorded)


def _digests(merged: Checkpoint, recorded: Mapping[str, str]) -> str | None:
    for name, digest in recorded.items():
        if name not in merged.tensors:
            return f"{name} is recorded as recomputed, but not in the merged file"
        if sha256(merged.read(name).tobytes()).hexdigest() != digest:
            return f"{name} is not the tensor that was recomputed when the file was written"
    return None


def _passed_over(merged: Checkpoint, verdict: Verdict, recorded: Mapping[str, str]) -> Iterator[str]:
    if recorded:
        yield (
            "batch-norm statistics were recomputed on images, not mixed: they were compared with the checksums that "
            "the file records"
        )
    if verdict.skipped:
        yield "batch-norm statistics were recomputed on images; the file records no checksums to compare them with"
    if not all(map(looks_like_safetensors, merged.files)):
        yield "the file is not in the safetensors format, so it was read with this tool's own reader alone"


def _changed(pair: Pair, origin: dict[str, object]) -> tuple[str, ...]:
    """A note for each source whose header is not the one that was merged; its tensors may still be the same."""
    return tuple(
        f"{side.path.name}: its header is not the one that was merged"
        for side, entry in ((pair.zeroshot, origin.get("zeroshot")), (pair.finetuned, origin.get("finetuned")))
        if isinstance(entry, dict) and entry.get("header_sha256") != side.digest
    )
