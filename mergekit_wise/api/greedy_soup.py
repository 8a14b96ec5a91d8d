"""The members of a greedy soup, chosen by the accuracy of what they make together (Wortsman et al., ICML 2022)."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from mergekit_wise.api.merge import geometry_of, merge_rules
from mergekit_wise.api.soup import as_merge
from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.errors import SuiteError
from mergekit_wise.evaluation.measure import measure, require_outside
from mergekit_wise.evaluation.own_modules import prepared
from mergekit_wise.evaluation.variants import InterpolatedWeights, Variant
from mergekit_wise.merging import Pair, Rules, make_plan, parse_naming
from mergekit_wise.models.architecture import with_named_config
from mergekit_wise.models.pair_notes import template
from mergekit_wise.models.pairing import match, open_pair
from mergekit_wise.models.soup import soup_of, with_means_in
from mergekit_wise.option_types import SoupSource
from mergekit_wise.options import SoupOptions, SweepOptions
from mergekit_wise.results import Record
from mergekit_wise.wording import listed


@dataclass(frozen=True, slots=True)
class Ingredient:
    """A member that greedy tried, in the order of the accuracies.

    Attributes:
        name: of the member.
        record: what it achieves alone.
        soup: what the soup of all that were added before achieves with it.
        added: whether that is no less than without it.
    """

    name: str
    record: Record
    soup: Record
    added: bool


def greedy(options: SoupOptions) -> tuple[SoupSource, tuple[Ingredient, ...], tuple[str, ...]]:
    """The soup of the members that greedy adds, what it tried, and notes (Wortsman et al., Recipe 1)."""
    try:
        suite = open_suite("", options.data, reference=options.select_on, strict=True, keep=options.cache)
    except SuiteError as error:
        raise SuiteError(f"--select-on: {str(error).removeprefix('--reference: ')}") from error
    require_outside([options.output], suite.datasets)
    every = SoupSource.of(options.members)
    merging = as_merge(options, every)
    rules = merge_rules(merging)
    with ExitStack() as stack:
        naming = parse_naming(options.like, options.rename)
        first, second, naming = stack.enter_context(
            open_pair(options.zeroshot, every, naming, base=options.base, mmap=options.mmap)
        )
        if options.model:
            first, second = (with_named_config(side, options.model) for side in (first, second))
        pair = match(first, second, rules, naming)
        geometry_of(pair, rules, merging)
        evaluations = _Evaluations(pair, rules, options)
        found = _chosen(evaluations)
    order = [number for number, each in found if each.added]
    title = found[0][1].record.title
    evaluations.notes.append(
        f"the members were chosen on {title}, so accuracies on it are optimistic; evaluate the soup on other images"
    )
    if len(order) < len(found):
        left = [each.name for _, each in found if not each.added]
        evaluations.notes.append(f"left out, because accuracy fell with them: {listed(left)}")
    source = SoupSource.of([every.members[number] for number in order], "uniform", _selection(found, options))
    return source, tuple(each for _, each in found), tuple(dict.fromkeys(evaluations.notes))


def _chosen(evaluations: "_Evaluations") -> list[tuple[int, Ingredient]]:
    """Every member by its number, best first, with what the soup achieves with it."""
    names, alone = evaluations.names, evaluations.of([[number] for number in range(len(evaluations.members))])
    ranked = sorted(range(len(alone)), key=lambda number: -alone[number].value)  # stable: ties in the given order
    best = alone[ranked[0]]
    found = [(ranked[0], Ingredient(names[ranked[0]], best, best, True))]
    chosen = [ranked[0]]
    for number in ranked[1:]:
        (record,) = evaluations.of([[*chosen, number]])
        added = record.value >= best.value
        found.append((number, Ingredient(names[number], alone[number], record, added)))
        if added:
            chosen, best = [*chosen, number], record
    return found


class _Evaluations:
    """Measures soups of some of the members, whose weights are set in place; `notes` are on what was measured."""

    def __init__(self, pair: Pair, rules: Rules, options: SoupOptions) -> None:
        assert pair.finetuned.soup is not None
        self.pair, self.rules, self.options = pair, rules, options
        self.members, self.names = pair.finetuned.soup.members, pair.finetuned.soup.names
        self.evaluation = prepared(_evaluation(options))
        self.notes: list[str] = []

    def of(self, every: Sequence[Sequence[int]]) -> tuple[Record, ...]:
        """What the soups of the members with these numbers achieve, from one pass over the images."""
        layout = template(self.pair, make_plan(self.pair, self.rules))
        found = measure(layout, [self._variant(numbers) for numbers in every], self.evaluation)
        self.notes += found.notes
        return found.records

    def _variant(self, numbers: Sequence[int]) -> Variant:
        source = SoupSource.of([self.members[number].path for number in numbers])
        some = soup_of(self.pair.zeroshot, [self.members[number] for number in numbers], source)
        weights = InterpolatedWeights(replace(self.pair, finetuned=with_means_in(some, self.rules.dtype)))
        name = self.names[numbers[0]] if len(numbers) == 1 else source
        return Variant(name, None, partial(weights.read, self.rules))


def _evaluation(options: SoupOptions) -> SweepOptions:
    """How members and soups are evaluated: as the mixtures of a sweep, whose weights are set in a model."""
    return SweepOptions(
        options.zeroshot,
        soup=options.members,
        reference=options.select_on,
        data=options.data,
        strict=True,
        classnames=options.classnames,
        templates=options.templates,
        limit=options.limit,
        balanced=options.balanced,
        seed=options.seed,
        model=options.model,
        head=options.head,
        head_features=options.head_features,
        head_rows=options.head_rows,
        image_size=options.image_size,
        device=options.device,
        precision=options.precision,
        batch_size=options.batch_size,
        workers=options.workers,
        cache_images=options.cache_images,
        max_bad=options.max_bad,
        max_pixels=options.max_pixels,
        results=options.results,
        answers=options.answers,
        redo=options.redo,
        transform=options.transform,
        cache=options.cache,
        mmap=options.mmap,
        progress=options.progress,
    )


def _selection(found: Sequence[tuple[int, Ingredient]], options: SoupOptions) -> Mapping[str, Any]:
    """What a file records of the choice."""
    candidates = [
        {"name": each.name, "alone": each.record.value, "soup": each.soup.value, "added": each.added}
        for _, each in found
    ]
    record = found[0][1].record
    chosen_on = {"dataset": record.dataset, "data": record.data, "images": record.total}
    return {"selection": "greedy", "chosen_on": chosen_on, "candidates": candidates}
