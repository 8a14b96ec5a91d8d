"""Which tensors of two checkpoints are the same under different names: prefixes whose tensors match one to one."""

from collections.abc import Mapping, Sequence

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.merging import Differences
from mergekit_wise.merging.movement import head_names

Shapes = Mapping[str, tuple[int, ...]]


def propose_renames(zeroshot: Checkpoint, finetuned: Checkpoint, found: Differences) -> tuple[tuple[str, str], ...]:
    """(old, new): prefixes of the fine-tuned checkpoint's names, whole up to a dot, and what they should be.

    The tensors under an old prefix and those under the new one have the same names after it, and the same shapes; no
    other prefix has such tensors, and no tensor that both checkpoints hold begins with one of the two. Shapes alone
    may agree by chance: so all differences must be settled, or else the head alone is renamed, which every model has
    once, whatever its number of classes.
    """
    wanted = {name: zeroshot.info(name).shape for name in found.only_zeroshot}
    given = {name: finetuned.info(name).shape for name in found.only_finetuned}
    shared = (zeroshot.tensors.keys() | finetuned.tensors.keys()) - wanted.keys() - given.keys()
    taken = {prefix for name in shared for prefix in _prefixes(name)}
    alike: dict[object, tuple[list[str], list[str]]] = {}
    for place, tensors in enumerate((given, wanted)):
        for prefix, content in _modules(tensors, taken).items():
            alike.setdefault(content, ([], []))[place].append(prefix)
    pairs = [(olds[0], news[0]) for olds, news in alike.values() if len(olds) == len(news) == 1]
    pairs = [pair for pair in pairs if _can_be_written(*pair)]
    if _covers([old for old, _ in pairs], given) and _covers([new for _, new in pairs], wanted):
        olds = {old for old, _ in pairs}  # a module's renaming makes those of its parts unnecessary
        return tuple((old, new) for old, new in pairs if not olds & set(_prefixes(old)[:-1]))
    heads = _heads(zeroshot, finetuned, wanted, given)
    return tuple(pair for pair in heads if _can_be_written(*pair) and not taken.intersection(pair))


def _heads(zeroshot: Checkpoint, finetuned: Checkpoint, wanted: Shapes, given: Shapes) -> list[tuple[str, str]]:
    """The head's renaming, if each checkpoint has one head, under different names, for as many features."""
    old, new = (head_names(side) for side in (finetuned, zeroshot))
    if len(old) != 1 or len(new) != 1 or old[0] not in given or new[0] not in wanted:
        return []
    if given[old[0]][1] != wanted[new[0]][1]:
        return []
    return [(old[0].removesuffix(".weight"), new[0].removesuffix(".weight"))]


def _can_be_written(old: str, new: str) -> bool:
    """Whether the option's own characters do not occur in the prefixes."""
    return not {"=", "/"} & {*old, *new}


def _covers(prefixes: Sequence[str], tensors: Shapes) -> bool:
    known = set(prefixes)
    return bool(tensors) and all(known.intersection(_prefixes(name)) for name in tensors)


def _prefixes(name: str) -> list[str]:
    """The name's beginnings up to each dot, the shortest first, and the name."""
    parts = name.split(".")
    return [".".join(parts[: place + 1]) for place in range(len(parts))]


def _modules(tensors: Shapes, taken: set[str]) -> dict[str, frozenset[tuple[str, tuple[int, ...]]]]:
    """By prefix, what follows it in the names and the shapes; no whole names, and no prefix that is `taken`."""
    found: dict[str, set[tuple[str, tuple[int, ...]]]] = {}
    for name, shape in tensors.items():
        for prefix in _prefixes(name)[:-1]:
            if prefix not in taken:
                found.setdefault(prefix, set()).add((name[len(prefix) :], shape))
    return {prefix: frozenset(rest) for prefix, rest in found.items()}
