"""Makes the checkpoint that is the soup of several others, which are named alike. Imports no torch.

Its tensors are computed while they are read: merging/soup.py has the arithmetic.
"""

import hashlib
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mergekit_wise.checkpoint import Checkpoint, DType, Soup
from mergekit_wise.checkpoint.tensors import Tensor
from mergekit_wise.errors import MismatchError
from mergekit_wise.merging import Rules, differences, unresolved
from mergekit_wise.merging.patterns import choose_patterns
from mergekit_wise.merging.plan import MIXABLE
from mergekit_wise.merging.provenance import CALIBRATED, KEY
from mergekit_wise.merging.soup import Averaged, averaged, shared_dtype
from mergekit_wise.models.head_names import with_one_order
from mergekit_wise.option_types import SoupSource
from mergekit_wise.wording import fold_names, listed, plural, shown

if TYPE_CHECKING:
    from mergekit_wise.models.mismatch import Command

COMPARED = 1 << 16
"""Elements of a tensor of integers that are compared between the members."""


@dataclass(slots=True)
class _Kinds:
    """The names of the tensors that are not simply averaged."""

    first: list[str]
    unanchored: list[str]


def soup_of(zeroshot: Checkpoint, members: Sequence[Checkpoint], source: SoupSource) -> Checkpoint:
    """The soup of `members`, whose tensors are named as in `zeroshot`.

    Rows of heads are those of the first member's classes. Tensors that cannot be averaged are the first member's:
    `require_members_fit` refuses those that matter.
    """
    first = members[0]
    members = [first, *(with_one_order(each, first, frozenset(), can_keep=False) for each in members[1:])]
    start = with_one_order(zeroshot, first, frozenset(), can_keep=False) if source.how == "stock" else None
    kinds = _Kinds([], [])
    names = dict.fromkeys(name for member in members for name in member.tensors)
    tensors = {name: _tensor(name, members, start, kinds) for name in names}
    digest = hashlib.sha256(source.how.encode())
    for checkpoint in (*members, *([start] if start is not None else [])):
        digest.update(checkpoint.digest.encode())
    return Checkpoint(
        Path(source),
        f"{source.how} soup",
        tensors,
        first.metadata,
        digest.hexdigest(),
        (*_notes_of_members(members), *_notes(members, kinds)),
        is_translated=first.is_translated,
        base=first.base or first,
        soup=Soup(tuple(members), source.how, source.selection),
    )


def with_means_in(soup: Checkpoint, dtype: DType | None) -> Checkpoint:
    """The soup whose means are rounded once to the dtype of the output, if one is asked for that is wider than theirs.

    Otherwise a mean of bfloat16 would be rounded to bfloat16 and then written in float32.
    """
    if dtype is None:
        return soup
    tensors = {
        name: tensor.in_wider_dtype(dtype) if isinstance(tensor, Averaged) else tensor
        for name, tensor in soup.tensors.items()
    }
    return replace(soup, tensors=tensors)


def require_members_fit(
    zeroshot: Checkpoint, soup: Checkpoint, names: Sequence[str], rules: Rules, command: "Command"
) -> None:
    """Raise MismatchError, as for a pair, unless every member fits the zero-shot checkpoint and the first member.

    `names` are those of the output; what `rules` copy from the zero-shot checkpoint need not fit.
    """
    from mergekit_wise.models.mismatch import explain_mismatch  # what plain pairs do without

    assert soup.soup is not None
    members, others = soup.soup.members, [name for name in names if rules.kept(name) != "zeroshot"]
    for member in members:
        if found := unresolved(zeroshot, member, names, rules):
            raise MismatchError(explain_mismatch(zeroshot, member, found, rules, command))
    first = members[0]
    for member in members[1:]:
        wanted = set(others)
        found = differences(first, member)
        found = replace(
            found,
            only_zeroshot=tuple(name for name in found.only_zeroshot if name in wanted),
            only_finetuned=tuple(name for name in found.only_finetuned if name in wanted),
            shapes=tuple(name for name in found.shapes if name in wanted),
        )
        if found:
            raise MismatchError(explain_mismatch(first, member, found, rules, "soup"))
        with_one_order(member, first, frozenset(others), can_keep=False)
    if refused := [name for name in others if _is_refused(name, members)]:
        raise MismatchError(_explain_dtypes(refused, members, names))


def notes_on_opposite(soup: Checkpoint, names: Iterable[str]) -> Iterator[str]:
    """A note if members moved some of the named tensors in opposite directions, of which Model Stock takes nothing."""
    tensors = {name: soup.tensors.get(name) for name in names}
    opposite = [
        name
        for name, tensor in tensors.items()
        if isinstance(tensor, Averaged) and tensor.share is not None and tensor.share.cosine() < 0
    ]
    if opposite:
        yield (
            f"in {plural(len(opposite), 'tensor')} the members' updates point away from each other (their mean cosine "
            f"is below 0), so that Model Stock keeps the zero-shot model's values: {listed(fold_names(opposite))}"
        )


def _tensor(name: str, members: Sequence[Checkpoint], start: Checkpoint | None, kinds: _Kinds) -> Tensor:
    parts = [member.tensors[name] for member in members if name in member.tensors]
    first = parts[0]
    if len(parts) < len(members) or any(part.info.shape != first.info.shape for part in parts):
        return first
    if all(part is first for part in parts):
        return first
    anchor = None if start is None else start.tensors.get(name)
    if anchor is not None and (anchor.info.shape != first.info.shape or not shared_dtype([anchor.info.dtype])):
        anchor = None
    if (anchor is None) != (start is None) and first.info.dtype.name in MIXABLE:
        kinds.unanchored.append(name)
    found = averaged(parts, anchor)
    if found is None:
        if first.info.dtype.name not in MIXABLE and _differ(parts):
            kinds.first.append(name)
        return first
    return found


def _is_refused(name: str, members: Sequence[Checkpoint]) -> bool:
    """Whether members hold a tensor in dtypes of which there is no mean, and that are not all integers."""
    dtypes = [member.tensors[name].saved_as for member in members]
    return shared_dtype(dtypes) is None and any(dtype.name in MIXABLE for dtype in dtypes)


def _explain_dtypes(refused: Sequence[str], members: Sequence[Checkpoint], names: Iterable[str]) -> str:
    def dtypes(name: str) -> str:
        return ", ".join(f"{member.tensors[name].saved_as} in {member.path.name}" for member in members)

    patterns = choose_patterns(refused, set(names).difference(refused))
    options = shlex.join(word for pattern in patterns for word in ("--keep", f"zs:{pattern}"))
    lines = [f"  {shown(name, 100)}: {dtypes(name)}" for name in refused[:12]]
    return "\n".join(
        [
            f"{plural(len(refused), 'tensor')} of the members cannot be averaged because of the dtypes:",
            *lines,
            "Save all members in one floating-point dtype, or copy these tensors from the zero-shot model:",
            f"    {options}",
        ]
    )


def _differ(parts: Sequence[Tensor]) -> bool:
    """Whether tensors of integers differ, in their first elements."""
    first, *others = (part.read(0, min(part.info.count, COMPARED)).tobytes() for part in parts)
    return any(other != first for other in others)


def _notes_of_members(members: Sequence[Checkpoint]) -> Iterator[str]:
    for member in members:
        yield from (f"{member.path.name}: {note}" for note in member.notes)


def _notes(members: Sequence[Checkpoint], kinds: _Kinds) -> Iterator[str]:
    if len(members) == 1:
        yield f"a soup of one member is that member, {members[0].path.name}"
    if kinds.first:
        yield (
            f"{plural(len(kinds.first), 'tensor')} of integers that differ between the members "
            f"{'is' if len(kinds.first) == 1 else 'are'} the first one's: {listed(fold_names(kinds.first))}"
        )
    if kinds.unanchored:
        yield (
            f"{plural(len(kinds.unanchored), 'tensor')} that the zero-shot model lacks "
            f"{'is' if len(kinds.unanchored) == 1 else 'are'} the plain mean: {listed(fold_names(kinds.unanchored))}"
        )
    keys = dict.fromkeys(key for member in members for key in member.metadata)
    disputed = [
        key
        for key in keys
        if key not in (KEY, CALIBRATED, "format") and len({member.metadata.get(key) for member in members}) > 1
    ]
    if disputed:
        yield (
            f"the members' metadata disagree on {', '.join(map(repr, disputed))}; keeping that of "
            f"{members[0].path.name}"
        )
