"""Many names in few lines. Knows nothing of what they name."""

import re
from collections.abc import Iterable

NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def fold_names(names: Iterable[str]) -> list[str]:
    """Names that differ in one number alone as one line: ``blocks.{0-11}.attn.weight``.

    Nothing is left out: every name can be read off the lines. The first number of a name is the one that is folded.
    """
    groups: dict[tuple[str, str] | str, list[int]] = {}
    for name in names:
        found = NUMBER.search(name)
        if found and str(int(found[0])) == found[0]:
            groups.setdefault((name[: found.start()], name[found.end() :]), []).append(int(found[0]))
        else:
            groups[name] = []
    return [key if isinstance(key, str) else f"{key[0]}{_ranges(numbers)}{key[1]}" for key, numbers in groups.items()]


def _ranges(numbers: list[int]) -> str:
    numbers = sorted(numbers)
    if len(numbers) == 1:
        return str(numbers[0])
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return "{" + ",".join(f"{a}-{b}" if a != b else str(a) for a, b in runs) + "}"
