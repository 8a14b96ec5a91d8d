"""Takes the names of wrapping modules out of tensor names: torch.compile, DataParallel, FSDP, DeepSpeed and others.

A wrapper adds a part to the names of everything inside it, wherever it stands. Knows no file and no model.
"""

from collections import defaultdict
from collections.abc import Iterable

from mergekit_wise.checkpoint.checkpoint import Checkpoint
from mergekit_wise.wording import plural

ALWAYS = frozenset(("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_forward_module"))
"""Parts of names that only wrappers have: of torch.compile, activation checkpointing, FSDP, and Lightning Fabric."""

MODULE = "module"
"""The part that DataParallel, DistributedDataParallel and DeepSpeed add; other modules have submodules of this name."""


def without_wrappers(checkpoint: Checkpoint) -> Checkpoint:
    """The same tensors under names without wrappers; a note says how many names changed.

    If two tensors would get one name, all names stay as they are, and a note says so.
    """
    text = "\n".join(checkpoint.tensors)
    if not any(wrapper in text for wrapper in (*ALWAYS, MODULE)):
        return checkpoint
    bare, removed = _bare_names(checkpoint.tensors)
    changed = sum(old != new for old, new in bare.items())
    if not changed:
        return checkpoint
    wrappers = ", ".join(map(repr, removed))
    if collision := _twice(bare.values()):
        note = f"tensor names contain the wrapper {wrappers}, which was kept: two tensors would be named {collision}"
        return checkpoint.renamed({name: name for name in bare}, note)
    every = "all" if changed == len(bare) else f"{changed:,} of {len(bare):,}"
    names = "tensor names" if len(bare) > 1 else plural(1, "tensor name").removeprefix("1 ")
    return checkpoint.renamed(bare, f"removed the wrapper {wrappers} from {every} {names}")


def _bare_names(names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The name without wrappers for each name, and the wrappers that were found, in order."""
    parts = {name: _without(name.split("."), ALWAYS) for name in names}
    wrapping = _parents_of_wrappers(parts.values())
    bare: dict[str, str] = {}
    removed = {part: None for name in parts for part in name.split(".") if part in ALWAYS}
    for name, kept in parts.items():
        left = [part for at, part in enumerate(kept) if part != MODULE or tuple(kept[:at]) not in wrapping]
        if len(left) < len(kept):
            removed[MODULE] = None
        bare[name] = ".".join(left)
    return bare, list(removed)


def _without(parts: list[str], wrappers: frozenset[str]) -> list[str]:
    """The parts that are no wrappers. The last part names the tensor itself, and stays."""
    return [part for part in parts[:-1] if part not in wrappers] + parts[-1:]


def _parents_of_wrappers(names: Iterable[list[str]]) -> set[tuple[str, ...]]:
    """The parents, as parts, whose only child is a submodule named `MODULE`."""
    names = list(names)
    parents = {tuple(parts[:at]) for parts in names for at, part in enumerate(parts[:-1]) if part == MODULE}
    if not parents:
        return set()
    children: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for parts in names:
        for at, part in enumerate(parts):
            if (parent := tuple(parts[:at])) in parents:
                children[parent].add(part if at < len(parts) - 1 else "")  # "": a tensor of the parent itself
    return {parent for parent, found in children.items() if found == {MODULE}}


def _twice(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
