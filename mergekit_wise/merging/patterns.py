"""Few shell patterns that match exactly the given names: for options that name tensors. Knows names only."""

import heapq
import re
from collections.abc import Collection, Iterable, Iterator
from itertools import product

from mergekit_wise.wording import Numbers, products, runs

DEEPEST = 3
"""Parts that a pattern with a beginning and an ending has at most at either side: few are needed, and time is saved."""

_Candidate = tuple[int, int, str]
"""A pattern as (kind, length, text); of patterns that match equally many names the least one is taken."""


def choose_patterns(wanted: Collection[str], others: Iterable[str]) -> list[str]:
    """Shell patterns that match every name of `wanted` and none of `others`; as few as a greedy choice finds.

    Patterns end at the dots of names: ``text.*``, ``*.num_batches_tracked``, ``visual.*.bias``, ``*.adapter.*``, and
    ``blocks.1[0-9].*`` for several numbers. The time grows with the number of names, not with its square.
    """
    matched: dict[_Candidate, list[str]] = {}
    for name in wanted:
        for candidate in _candidates(name):
            matched.setdefault(candidate, []).append(name)
    for name in others:
        for candidate in _candidates(name):
            matched.pop(candidate, None)
    return _with_classes(_without_redundant(_greedy(matched), matched))


def _candidates(name: str) -> set[_Candidate]:
    """The patterns that may stand for a name. Those of other names that would match it are among them."""
    parts = [re.sub(r"([*?[])", r"[\1]", part) for part in name.split(".")]
    count = len(parts)
    starts, ends = [parts[0]], [parts[-1]]
    for part in parts[1:]:
        starts.append(f"{starts[-1]}.{part}")
    for part in reversed(parts[:-1]):
        ends.append(f"{part}.{ends[-1]}")
    kinds: tuple[Iterable[str], ...] = (
        (starts[-1],),
        ("*", *(f"{start}.*" for start in starts[:-1])),
        (f"*.{end}" for end in ends[:-1]),
        (
            f"{starts[i]}.*.{ends[j]}"
            for i in range(min(DEEPEST, count - 2))
            for j in range(min(DEEPEST, count - 2 - i))
        ),
        (f"*.{part}.*" for part in parts[1:-1]),
    )
    return {(kind, len(pattern), pattern) for kind, patterns in enumerate(kinds) for pattern in patterns}


def _greedy(matched: dict[_Candidate, list[str]]) -> list[_Candidate]:
    """Of the candidates, always the one that matches the most names that no earlier one does."""
    of_name: dict[str, list[_Candidate]] = {}
    for candidate, names in matched.items():
        for name in names:
            of_name.setdefault(name, []).append(candidate)
    left = {candidate: len(names) for candidate, names in matched.items()}
    heap = [(-count, candidate) for candidate, count in left.items()]
    heapq.heapify(heap)
    chosen = []
    while of_name:
        count, candidate = heapq.heappop(heap)
        if -count != left[candidate]:  # some of its names are matched by now
            if left[candidate]:
                heapq.heappush(heap, (-left[candidate], candidate))
            continue
        chosen.append(candidate)
        for name in matched[candidate]:
            for other in of_name.pop(name, ()):
                left[other] -= 1
    return chosen


def _without_redundant(chosen: list[_Candidate], matched: dict[_Candidate, list[str]]) -> list[str]:
    """The patterns without those whose names the others match."""
    times: dict[str, int] = {}
    for candidate in chosen:
        for name in matched[candidate]:
            times[name] = times.get(name, 0) + 1
    needed = []
    for candidate in chosen:
        if all(times[name] > 1 for name in matched[candidate]):
            for name in matched[candidate]:
                times[name] -= 1
        else:
            needed.append(candidate[2])
    return needed


def _with_classes(patterns: list[str]) -> list[str]:
    """Patterns that differ in numbers only as one with a class of digits, where that makes them fewer."""
    found: list[str] = []
    for texts, numbers, members in products(patterns):
        fewer = [
            "".join(part for pair in zip(texts, (*choice, ""), strict=True) for part in pair)
            for choice in product(*(list(_classes(here)) for here in numbers))
        ]
        found += fewer if len(fewer) < len(members) else members
    return found


def _classes(numbers: Numbers) -> Iterator[str]:
    """Patterns that match exactly these numbers: ``1[2-9]`` and ``2[0-3]`` for 12 to 23."""
    tens: dict[str, list[int]] = {}
    for number in numbers:
        tens.setdefault(str(number)[:-1], []).append(number % 10)
    for rest, digits in tens.items():
        spans = "".join(str(a) if a == b else f"{a}-{b}" for a, b in runs(tuple(digits)))
        yield f"{rest}{spans}" if len(digits) == 1 else f"{rest}[{spans}]"
