"""Opens two checkpoints as one pair: the one place where every command that takes a pair gets it. Imports no torch."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from mergekit_wise.checkpoint import Checkpoint, closing
from mergekit_wise.errors import MismatchError, UsageError
from mergekit_wise.merging import AS_ZEROSHOT, Naming, Pair, Rules, align, renamed, unresolved
from mergekit_wise.merging.movement import head_names
from mergekit_wise.merging.naming import Rename
from mergekit_wise.merging.rules import Side
from mergekit_wise.models.adapters import read_adapter
from mergekit_wise.models.head_names import with_one_order
from mergekit_wise.models.source import as_weights, open_file
from mergekit_wise.option_types import SoupSource, Weights
from mergekit_wise.wording import fold_names, listed, plural

if TYPE_CHECKING:
    from mergekit_wise.models.mismatch import Command


@contextmanager
def open_pair(
    zeroshot: Weights,
    finetuned: Weights,
    naming: Naming = AS_ZEROSHOT,
    *,
    base: "Weights | None" = None,
    mmap: bool = True,
    to_evaluate: bool = False,
) -> Iterator[tuple[Checkpoint, Checkpoint, Naming]]:
    """Open two checkpoints and give their tensors the same names, as far as possible; notes say how.

    A side that is an adapter becomes the model that it makes of `base`, by default of the zero-shot checkpoint. Tensors
    are renamed as `naming` says. A `SoupSource` becomes the soup of its members, each opened and named as a fine-tuned
    checkpoint is. If the checkpoints hold one architecture under the names of two libraries, one of them
    is translated; with `to_evaluate` to the fine-tuned one's names, if only these can be evaluated. A prefix that only
    one of them has is removed or added. Yields the checkpoints and the naming.

    Raises CheckpointError if one cannot be read, UsageError if a rule of `naming` fits no name, ModelError or
    MismatchError if names cannot be changed, and what `apply_adapters` raises.
    """
    with ExitStack() as stack:

        def opened(source: Weights) -> Checkpoint:
            checkpoint = open_file(source, mmap=mmap)
            stack.enter_context(closing(checkpoint))
            return checkpoint if read_adapter(checkpoint) else as_weights(checkpoint)

        first = opened(zeroshot)
        members = [opened(member) for member in _members(finetuned)]
        first, members = _adapted(first, members, None if base is None else opened(base))
        first = renamed(first, [rule for rule in naming.rename if rule.side == "zeroshot"])
        members = _renamed(members, [rule for rule in naming.rename if rule.side == "finetuned"])
        if to_evaluate and naming.like == "zeroshot" and _only_second_evaluable(first, members[0]):
            naming = replace(naming, like="finetuned")
        first, members = _named_alike(first, members, naming)
        second = members[0]
        if isinstance(finetuned, SoupSource):
            from mergekit_wise.models.soup import soup_of  # what plain pairs do without

            second = soup_of(first, members, finetuned)
        yield *_with_buffers(first, second), naming


def match(
    zeroshot: Checkpoint,
    finetuned: Checkpoint,
    rules: Rules | None = None,
    naming: Naming = AS_ZEROSHOT,
    *,
    command: "Command" = "merge",
) -> Pair:
    """Pair two checkpoints that `open_pair` opened, or that have the same names.

    Buffers that only one of them holds are taken from there. If both know the names of their head's classes, the rows
    of the zero-shot one are put in the fine-tuned one's order. Raises MismatchError that explains every difference that
    no rule resolves, and proposes what `command` can do. Raises UsageError if a pattern of `rules` matches no tensor.
    """
    rules = rules or Rules()
    zeroshot, finetuned = _with_buffers(*align(zeroshot, finetuned))
    every = list(dict.fromkeys([*zeroshot.tensors, *finetuned.tensors]))
    if unmatched := rules.unmatched(every):
        raise UsageError(
            f"No tensor name matches {' or '.join(map(repr, unmatched))}. "
            f"List the names with: wise inspect {finetuned.source}"
        )
    names = tuple(name for name in every if rules.wants(name))
    if found := unresolved(zeroshot, finetuned, names, rules):
        from mergekit_wise.models.mismatch import explain_mismatch  # what pairs that fit do without

        raise MismatchError(explain_mismatch(zeroshot, finetuned, found, rules, command))
    _require_one_head(zeroshot, finetuned, names)
    mixed = frozenset(name for name in names if not rules.kept(name))
    if finetuned.soup is not None:
        from mergekit_wise.models.soup import require_members_fit, with_means_in  # what plain pairs do without

        require_members_fit(zeroshot, finetuned, names, rules, command)
        finetuned = with_means_in(finetuned, rules.dtype)
    zeroshot = with_one_order(zeroshot, finetuned, mixed, can_keep=command in ("merge", "sweep"))
    return Pair(zeroshot, finetuned, names, naming)


def named_like(pair: Pair, checkpoint: Checkpoint, side: Side) -> Checkpoint:
    """A file about the weights of one side, such as its Fisher information, under the names of the pair.

    Raises what `open_pair` raises for names that cannot be changed.
    """
    checkpoint = renamed(checkpoint, [rule for rule in pair.naming.rename if rule.side == side], all_needed=False)
    return _in_one_family(pair.zeroshot, checkpoint, AS_ZEROSHOT)[1]


def _members(source: Weights) -> tuple[Weights, ...]:
    """The members of a soup, or the only checkpoint."""
    return source.members if isinstance(source, SoupSource) else (source,)


def _adapted(
    zeroshot: Checkpoint, members: Sequence[Checkpoint], base: Checkpoint | None
) -> tuple[Checkpoint, list[Checkpoint]]:
    """All as models, in place of adapters. Raises what `apply_adapters` raises."""
    adapters = [each for each in members if read_adapter(each)]
    if base is None and not adapters and not read_adapter(zeroshot):
        return zeroshot, list(members)
    from mergekit_wise.models.adapted import apply_adapters  # what models without adapters do without

    adapters = adapters or [*members[:1]]  # of the others, nothing is changed
    applied = {id(each): apply_adapters(zeroshot, each, base) for each in adapters}
    return applied[id(adapters[0])][0], [applied[id(each)][1] if id(each) in applied else each for each in members]


def _renamed(members: Sequence[Checkpoint], rules: Sequence[Rename]) -> list[Checkpoint]:
    """The members renamed by the rules, each of which must fit one of them. Raises what `renamed` raises."""
    if len(members) == 1:
        return [renamed(members[0], rules)]
    for rule in rules:
        if all(rule.apply(name) == name for member in members for name in member.tensors):
            renamed(members[0], [rule])
    used = [[rule for rule in rules if any(rule.apply(n) != n for n in each.tensors)] for each in members]
    return [renamed(each, here, all_needed=False) for each, here in zip(members, used, strict=True)]


def _named_alike(
    zeroshot: Checkpoint, members: Sequence[Checkpoint], naming: Naming
) -> tuple[Checkpoint, list[Checkpoint]]:
    """All under the same names, as far as possible, with the buffers that only some of several members hold."""
    found = list(members)
    zeroshot, found[0] = align(*_in_one_family(zeroshot, found[0], naming))
    for number in range(1, len(found)):
        zeroshot, found[number] = align(*_in_one_family(zeroshot, found[number], AS_ZEROSHOT))
    for number in range(len(found) - 1):  # a later one may have taken a prefix off the zero-shot checkpoint
        zeroshot, found[number] = align(zeroshot, found[number])
    for number in range(1, len(found)):
        found[0] = _with_buffers_of(found[0], found[number])
    return zeroshot, [found[0], *(_with_buffers_of(each, found[0]) for each in found[1:])]


def _only_second_evaluable(zeroshot: Checkpoint, finetuned: Checkpoint) -> bool:
    from mergekit_wise.models.families import layout_of, related

    first, second = layout_of(zeroshot.tensors), layout_of(finetuned.tensors)
    if first is None or second is None or not related(first, second):
        return False
    return second.family.is_evaluable and not first.family.is_evaluable


def _in_one_family(zeroshot: Checkpoint, finetuned: Checkpoint, naming: Naming) -> tuple[Checkpoint, Checkpoint]:
    if zeroshot.tensors.keys() == finetuned.tensors.keys():
        return zeroshot, finetuned
    from mergekit_wise.models.families import layout_of, related, translated  # what pairs of one naming do without

    first, second = layout_of(zeroshot.tensors), layout_of(finetuned.tensors)
    if first is None or second is None or not related(first, second):
        return zeroshot, finetuned
    if naming.like == "zeroshot":
        return zeroshot, translated(finetuned, first.family, first.prefix, zeroshot)
    return translated(zeroshot, second.family, second.prefix, finetuned), finetuned


def _with_buffers(zeroshot: Checkpoint, finetuned: Checkpoint) -> tuple[Checkpoint, Checkpoint]:
    """Both with the buffers that only one of them holds."""
    return _with_buffers_of(zeroshot, finetuned), _with_buffers_of(finetuned, zeroshot)


def _with_buffers_of(checkpoint: Checkpoint, other: Checkpoint) -> Checkpoint:
    missing = {name: tensor for name, tensor in other.tensors.items() if name not in checkpoint.tensors}
    if missing:
        from mergekit_wise.models.families import is_buffer  # what pairs of the same tensors do without

        missing = {name: tensor for name, tensor in missing.items() if is_buffer(name)}
    if not missing:
        return checkpoint
    note = f"taking {plural(len(missing), 'buffer')} from {other.path.name}: {listed(fold_names(missing))}"
    return replace(checkpoint, tensors={**checkpoint.tensors, **missing}, notes=(*checkpoint.notes, note))


def _require_one_head(zeroshot: Checkpoint, finetuned: Checkpoint, names: tuple[str, ...]) -> None:
    """Raise MismatchError if the output would have the classifier of both checkpoints, under two names."""
    first, second = _own_heads(zeroshot, finetuned, names), _own_heads(finetuned, zeroshot, names)
    for old, shape in second.items():
        for new, other in first.items():
            if shape[1] == other[1]:
                old, new = old.removesuffix(".weight"), new.removesuffix(".weight")
                keep = "" if shape == other else f" --keep 'ft:{new}.*'"
                raise MismatchError(
                    f"The output would have two heads: {new} of {zeroshot.path} {list(other)} and {old} of "
                    f"{finetuned.path} {list(shape)}. If they are one layer, add: --rename ft:{old}={new}{keep}"
                )


def _own_heads(checkpoint: Checkpoint, other: Checkpoint, names: tuple[str, ...]) -> Mapping[str, tuple[int, ...]]:
    """Name and shape of the weights of heads that only one checkpoint holds."""
    own = (name for name in head_names(checkpoint) if name not in other.tensors and name in names)
    return {name: checkpoint.info(name).shape for name in own}
