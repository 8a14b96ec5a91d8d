"""Which of a head's columns each class of a data set is: found by name where the head knows its names, else by number.

Names in, columns and notes out. Knows no weights, and opens no image.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from mergekit_wise.datasets.class_names import imagenet_classnames, imagenet_lemmas, imagenet_wnids
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.name_matching import are_numbers, comparable, plain
from mergekit_wise.errors import ModelError
from mergekit_wise.wording import listed, plural

VOCABULARIES = {"imagenet": 1000}
"""The number of columns of a head over each vocabulary."""

Columns = tuple[tuple[int, ...], ...]
"""The columns of a head that stand for each class of a data set."""

_ENOUGH = 0.9
"""The share of ImageNet's names, all in their places, that shows that a head of 1000 classes is one of ImageNet's."""

_MAX_LINE = 40
"""The most classes for which a ready line of TOML is printed."""

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class HeadColumns:
    """How a data set's classes are read off a head.

    Attributes:
        columns: for each class of the data set; None if the head's columns are its classes, in the same order.
        by_name: whether names decided about the columns, so that a number depends on them.
        notes: sentences on what was mapped, and on what could mislead.
    """

    columns: Columns | None
    by_name: bool = False
    notes: tuple[str, ...] = ()


def head_columns(dataset: Dataset, outputs: int, names: Sequence[str] | None) -> HeadColumns:
    """The columns of a head with `outputs` classes that are called `names`, if the head knows that.

    Same names in the same order need no columns; others are found by name. Numbers that are not among the head's names
    are no names: then the order counts. For data sets with some of ImageNet's classes, a head of ImageNet's is
    recognised under several lists of names.

    Raises ModelError if a class of the data set is none of the head's, naming both sides and what settles it; without
    names, if neither the classes nor the vocabulary of the data set are as many as the head's.
    """
    if names is None or are_numbers(names):
        return _by_number(dataset, outputs, _notes_on_order(dataset))
    if len(names) != outputs:
        note = f"its file names {plural(len(names), 'class')} for a head of {outputs}, so the names are not compared"
        return _by_number(dataset, outputs, (note, *_notes_on_order(dataset)))
    if are_numbers(dataset.classnames) and not set(dataset.classnames) <= set(names):
        few = listed((f"{number} is {name!r}" for number, name in enumerate(names)), 2)
        note = f"its classes are numbers, which are taken as those of the head's classes ({few})"
        return _by_number(dataset, outputs, (note,))
    if dataset.vocabulary == "imagenet" and (found := _in_imagenet(dataset, names)) is not None:
        return found
    return _by_name(dataset, names)


def _by_number(dataset: Dataset, outputs: int, notes: tuple[str, ...]) -> HeadColumns:
    classes, vocabulary = len(dataset.classnames), VOCABULARIES.get(dataset.vocabulary)
    if dataset.columns is not None and outputs == vocabulary:
        return HeadColumns(dataset.columns)
    if outputs == classes and not dataset.no_answers:
        return HeadColumns(None, notes=notes)
    answers = [label for label in range(classes) if label not in dataset.no_answers]
    if outputs in (classes, len(answers)):
        column_of = dict(zip(answers, answers if outputs == classes else range(outputs), strict=True))
        return HeadColumns(_without_column(column_of, classes), notes=notes)
    alternative = f" (or {vocabulary}, those of {dataset.vocabulary})" if vocabulary else ""
    raise ModelError(
        f"{dataset.title}: the data has {classes} classes{alternative}, the model's head {outputs}. Evaluate on "
        "data with the head's classes, or make a head for these classes: wise zeroshot CHECKPOINT --classes FILE."
    )


def _without_column(column_of: Mapping[int, int], classes: int) -> Columns:
    """One column for each class that has one; none for the others, which are never predicted."""
    return tuple((column_of[label],) if label in column_of else () for label in range(classes))


def _notes_on_order(dataset: Dataset) -> tuple[str, ...]:
    """What order is taken for a head without names of a user's own data, where it is a guess.

    A warning if classes are in the order of their names, and another rule of sorting gives another order.
    """
    names = list(dataset.classnames)
    other = sorted(names, key=str.casefold)
    if are_numbers(names):
        return ()
    if names != sorted(names) or names == other:
        if dataset.expected is not None or dataset.size is None:  # a known data set, whose order is the usual one
            return ()
        few = listed((f"{number} is {name!r}" for number, name in enumerate(names)), 2)
        return (f"the head does not name its classes; they are taken in the order of the data's ({few})",)
    at = next(number for number, pair in enumerate(zip(names, other, strict=True)) if pair[0] != pair[1])
    return (
        "the head does not know its classes' names, and the order of the data's depends on upper and lower case: "
        f"class {at} is {names[at]!r} here, but {other[at]!r} where case is ignored; the accuracy is wrong if the "
        "head's classes are in that order",
    )


# Names


def _by_name(dataset: Dataset, names: Sequence[str]) -> HeadColumns:
    if dataset.no_answers:
        answers = [label for label in range(len(dataset.classnames)) if label not in dataset.no_answers]
        reduced = replace(
            dataset, classnames=tuple(dataset.classnames[label] for label in answers), no_answers=frozenset()
        )
        found = _by_name(reduced, names)
        columns = found.columns or tuple((column,) for column in range(len(answers)))
        column_of = {label: column for label, (column,) in zip(answers, columns, strict=True)}
        return replace(found, columns=_without_column(column_of, len(dataset.classnames)))
    own = dataset.classnames
    key = comparable(names, own)
    keys = [key(name) for name in own]
    head_keys = [key(name) for name in names]
    if keys == head_keys:
        return HeadColumns(None)
    counts, where = Counter(head_keys), {name: column for column, name in enumerate(head_keys)}
    if not where.keys() >= set(keys):
        raise ModelError(_refusal(dataset, names, [name for name, k in zip(own, keys, strict=True) if k not in where]))
    twice = [name for name, used in zip(own, keys, strict=True) if counts[used] > 1 or keys.count(used) > 1]
    if twice:
        raise ModelError(
            f"{dataset.title}: {twice[0]!r} is the name of several classes, so that its classes, whose order is not "
            "the head's, cannot be found by name. Give every class a name of its own, with --classnames FILE for the "
            "data, and 'wise zeroshot' for the head."
        )
    columns = tuple((where[name],) for name in keys)
    return HeadColumns(columns, by_name=True, notes=(_mapped(len(own), len(names)),))


def _mapped(classes: int, outputs: int) -> str:
    if classes == outputs:
        return "the classes are in another order than the head's, and were matched by name"
    found = plural(classes, "class")
    return f"the {found} were matched by name to those of the head, which has {outputs}; only these compete"


# ImageNet's classes under several lists of names


def _in_imagenet(dataset: Dataset, names: Sequence[str]) -> HeadColumns | None:
    """The columns of a head of ImageNet's classes, or of some; None if its names are not all known."""
    known = _labels_of_names()
    labels = [known.get(plain(name), frozenset()) for name in names]
    found = [number for number, label in enumerate(labels) if label]
    whole = dataset.columns or tuple((label,) for label in range(VOCABULARIES["imagenet"]))
    in_order = len(names) == VOCABULARIES["imagenet"] and all(number in labels[number] for number in found)
    if in_order and len(found) >= _ENOUGH * len(names):
        unknown = [names[number] for number, label in enumerate(labels) if not label]
        note = f"{len(unknown)} of the head's 1000 names are not known as ImageNet's ({listed(map(repr, unknown), 3)})"
        return HeadColumns(dataset.columns, notes=(f"{note}; all others are in ImageNet's order",) if unknown else ())
    if any(len(label) != 1 for label in labels):
        return None
    column_of = {label: column for column, (label,) in enumerate(labels)}
    if len(column_of) != len(names) or any(label not in column_of for several in whole for label in several):
        return None
    columns = tuple(tuple(column_of[label] for label in several) for several in whole)
    if len(names) == len(columns) and columns == tuple((column,) for column in range(len(names))):
        return HeadColumns(None)
    return HeadColumns(columns, by_name=True, notes=(_mapped(len(columns), len(names)),))


@cache
def _labels_of_names() -> Mapping[str, frozenset[int]]:
    """ImageNet's labels that each name has in a list of names that is in use: ids, open_clip's names, WordNet's."""
    found: dict[str, set[int]] = {}
    for names in (imagenet_wnids(), imagenet_classnames(), imagenet_lemmas()):
        for label, name in enumerate(names):
            found.setdefault(plain(name), set()).add(label)
    return {name: frozenset(labels) for name, labels in found.items()}


# What settles a difference


def _refusal(dataset: Dataset, names: Sequence[str], unknown: Sequence[str]) -> str:
    key = comparable(names, dataset.classnames)
    own = {key(name) for name in dataset.classnames}
    unused = [name for name in names if key(name) not in own]
    rest = f"not in the data: {_some(unused)}" if unused else "the head has no other classes"
    return (
        f"{dataset.title}: {len(unknown)} of its {plural(len(dataset.classnames), 'class')} "
        f"{'is' if len(unknown) == 1 else 'are'} not among the head's {len(names)}: {_some(unknown)}; {rest}. "
        + _settled(dataset, names, unknown, unused)
    )


def _some(names: Sequence[str]) -> str:
    return listed(map(repr, names), _SHOWN)


def _settled(dataset: Dataset, names: Sequence[str], unknown: Sequence[str], unused: Sequence[str]) -> str:
    rename = "Give the head's name of each class, in the data's order, one per line, with --classnames FILE."
    root = Path(dataset.location)
    if not (dataset.location and all((root / name).is_dir() for name in dataset.classnames)):
        return rename
    if len(dataset.classnames) > _MAX_LINE:
        return f"{rename} To leave classes out, write a TOML file with 'root' and a class_map."
    key = comparable(names, dataset.classnames)
    known = {key(name): name for name in names}
    targets = {folder: known.get(key(folder)) or _guess(folder, unknown, unused) for folder in dataset.classnames}
    kept = {folder: target for folder, target in targets.items() if target is not None}
    line = ", ".join(f"{_quoted(folder)} = {_quoted(target)}" for folder, target in kept.items())
    text = (
        "Say in a TOML file which of the head's classes each folder is, and name that file in place of the folder:\n"
        f"root = {_quoted(str(root.resolve()))}\nclass_map = {{ {line} }}"
    )
    if "?" in kept.values():
        text += '\nReplace each "?" with one of the head\'s classes, or remove its entry to leave the folder out.'
    elif kept.keys() >= set(unknown):
        text += "\nCheck it first: similar names were guessed."
    return text


def _guess(folder: str, unknown: Sequence[str], unused: Sequence[str]) -> str | None:
    """The class of the head that a folder may be: a similar name, or the only one left; None if there is none."""
    if not unused:
        return None
    if len(unknown) == len(unused) == 1:
        return unused[0]
    of_plain = {plain(name): name for name in unused}
    from difflib import get_close_matches  # several milliseconds that only an error message needs

    close = get_close_matches(plain(folder), list(of_plain), 1, 0.8)
    return of_plain[close[0]] if close else "?"


def _quoted(text: str) -> str:
    """A string of TOML, which differs from one of JSON in this one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
