"""Results without the folders of the machine that they were measured on: a page is shown and sent to others.

Knows what results files hold; knows nothing of files themselves.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from mergekit_wise.results import Measurement, Reading

_ABSOLUTE = re.compile(r"(?:^|(?<=[,=])|(?<=, )|(?<=reference ))(?:[A-Za-z]:)?[/\\~](?:(?! \(reference )[^,)])*")
"""An absolute path in the name of a suite, which may name several data sets, or in a word of a command."""

_IN_TEXT = re.compile(r"(?<![\w./:~\\-])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\'\",;:|<>()=]+){2,}[/\\]?")
"""An absolute path of two or more parts in a sentence or a list."""

_REFERENCE = r" \(reference .*\)$"
"""What follows in the name of a suite whose reference was given."""

Shorten = Callable[[str], str]


def without_folders(reading: Reading) -> Reading:
    """The same results with the last part alone of every absolute path; as many parts as tell two of them apart."""
    rows = reading.measurements
    suites, sources = distinct(row.suite for row in rows), distinct(row.source for row in rows)
    sets = distinct(row.dataset for row in rows)

    def suite(text: str) -> str:
        return suites.get(text, last_parts(text))

    def row_without(row: Measurement) -> Measurement:
        return replace(
            row,
            source=sources[row.source],
            suite=suite(row.suite),
            dataset=sets[row.dataset],
            title=sets.get(row.title, in_text(row.title)),
            model=last_parts(row.model),
            rule=in_command(row.rule),
            details={
                name: in_command(text) if name == "evaluator" else in_text(text) for name, text in row.details.items()
            },
        )

    return Reading(
        tuple(map(row_without, rows)),
        tuple(
            replace(
                each,
                source=sources.get(each.source, last_parts(each.source)),
                suite=suite(each.suite),
                dataset=sets.get(each.dataset, last_parts(each.dataset)),
                title=sets.get(each.title, in_text(each.title)),
                model=last_parts(each.model),
            )
            for each in reading.findings
        ),
        tuple(_renamed(note, sources) for note in reading.notes),
        tuple(
            replace(
                each,
                suite=suite(each.suite),
                model=last_parts(each.model),
                rule=in_command(each.rule),
                dataset=sets.get(each.dataset, last_parts(each.dataset)),
                title=sets.get(each.title, in_text(each.title)),
                reference=sets.get(each.reference, last_parts(each.reference)),
            )
            for each in reading.estimations
        ),
        tuple(
            replace(
                each,
                source=sources.get(each.source, last_parts(each.source)),
                suite=suite(each.suite),
                model=last_parts(each.model),
                rule=in_command(each.rule),
                sets=tuple(replace(one, dataset=sets.get(one.dataset, one.dataset)) for one in each.sets),
                choice=replace(
                    each.choice,
                    select_on=last_parts(each.choice.select_on),
                    recommendation=replace(
                        each.choice.recommendation,
                        reason=in_text(each.choice.recommendation.reason),
                        warning=in_text(each.choice.recommendation.warning),
                    ),
                ),
                merge_command=in_command(each.merge_command),
            )
            for each in reading.choices
        ),
    )


def last_parts(text: str, parts: int = 1) -> str:
    """A name, or several with commas between, with the last parts alone of every absolute path."""
    return _ABSOLUTE.sub(lambda found: _last(found[0], parts), text)


def in_text(text: str) -> str:
    """A text with the last part alone of every absolute path in it."""
    return _IN_TEXT.sub(lambda found: _last(found[0], 1), last_parts(text) if _ABSOLUTE.match(text) else text)


def in_command(text: str) -> str:
    """The same for a line of a shell, whose words are quoted anew; paths that end alike keep what tells them apart."""
    try:
        words = shlex.split(text)
    except ValueError:  # not written by this tool
        return in_text(text)
    paths = {found for word in words for found in _ABSOLUTE.findall(word)}
    short = distinct(paths)
    named = [_ABSOLUTE.sub(lambda found: short[found[0]], word) for word in words]
    # A file may be called like an option, or like what joins two commands.
    parts = (
        f"./{new}" if new != old and (new.startswith("-") > old.startswith("-") or new == "&&") else new
        for old, new in zip(words, named, strict=True)
    )
    return " ".join(part if part == "&&" else shlex.quote(part) for part in parts)


def distinct(names: Iterable[str]) -> Mapping[str, str]:
    """For each name the same without folders, but with as many parts of paths as make all of them different."""
    every = list(dict.fromkeys(names))
    for parts in range(1, 100):
        short = {name: last_parts(name, parts) for name in every}
        if len(set(short.values())) == len(every):
            return short
    return {name: f"{last_parts(name)} #{number}" for number, name in enumerate(every, 1)}


def suites_named(wanted: str, shown: Mapping[str, str]) -> set[str]:
    """The suites that names with commas between mean, which may be those that a sweep was given.

    That is one suite if they are its whole name, as of a sweep over all of them; else each suite that one of them
    names. A suite's file names the suite without its folder and ending, and a reference of one's own need not be named.

    Args:
        wanted: the names.
        shown: how each suite of the results is shown, by its name there.
    """
    parts = [part.strip() for part in wanted.split(",")]
    stems = [re.split(r"[/\\]", part)[-1].removesuffix(".toml") if part.endswith(".toml") else part for part in parts]

    def called(name: str) -> set[str]:
        for ending in ("", _REFERENCE):
            found = {
                each for each, text in shown.items() if name in (re.sub(ending, "", each), re.sub(ending, "", text))
            }
            if found:
                return found
        return set()

    whole = called(wanted) or called(",".join(stems))
    return whole or set().union(*(called(part) or called(stem) for part, stem in zip(parts, stems, strict=True)))


def _last(path: str, parts: int) -> str:
    found = [part for part in re.split(r"[/\\]", path.rstrip("/\\")) if part]
    return "/".join(found[-parts:]) or path


def _renamed(text: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        text = text.replace(old, new)
    return in_text(text)
