"""Measurements under one model's name divided into series: what was measured in the same way, with the same weights.

A results file may hold a quick look at 10 images beside a measurement of all, other precisions, or other weights that
had the same file name. One row of a table and one curve never hold two of these. Knows measurements alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mergekit_wise.results import At, Measurement, comparable
from mergekit_wise.wording import plural

OF_A_RUN = ("architecture", "head", "precision")
"""Settings that are the same for all data sets of a run."""

DRAWN = ("limit", "seed", "draw")
"""How images were drawn; also the same for all data sets of a run, except that a small one may be used whole."""

OF_A_SET = ("preprocess", "prompts", "columns", "metric", "data")
"""What may differ between data sets, and is the same for all models on one of them."""

NAMES = {
    "architecture": "another architecture",
    "head": "head {}",
    "precision": "{}",
    "limit": "--limit {}",
    "seed": "--seed {}",
    "draw": "{} draw",
    "preprocess": "other preprocessing",
    "prompts": "other class names or templates",
    "columns": "another mapping of classes",
    "metric": "{}",
    "data": "other images or labels",
}
"""How the name of a series says what is different in it."""

Place = tuple[At, str]
"""An alpha, or other values of a sweep, and the name of a data set."""

Setting = tuple[str, ...]


@dataclass(slots=True)
class Series:
    """Measurements that belong together.

    Attributes:
        rows: by place in the sweep and data set; of repeated measurements the latest.
        label: what distinguishes it from the main series of the same model; empty for the main series.
        repeated: where an earlier measurement had another result.
    """

    setting: Setting
    pair: str
    rows: dict[Place, Measurement] = field(default_factory=dict)
    label: str = ""
    repeated: tuple[Place, ...] = ()
    last: int = 0
    _weights: dict[At, str] = field(default_factory=dict)
    _sets: dict[str, Setting] = field(default_factory=dict)

    @property
    def limit(self) -> int | None:
        """The value of ``--limit``."""
        text = self.setting[len(OF_A_RUN)]
        return int(text) if text.isdecimal() else None

    @property
    def images(self) -> int:
        """Images of all data sets together."""
        return sum({name: row.total for (_, name), row in self.rows.items()}.values())

    def agrees(self, row: Measurement) -> bool:
        """Whether a measurement has the weights of its alpha and the settings of its data set here."""
        return self._weights.get(row.at, row.weights) == row.weights and self._sets.get(
            row.dataset, _of_set(row)
        ) == _of_set(row)

    def takes(self, row: Measurement) -> bool:
        """Whether a measurement may be added."""
        return (self.setting, self.pair) == (_of_run(row), row.pair) and self.agrees(row)

    def add(self, row: Measurement, number: int) -> None:
        """Add a measurement, the `number`-th of its file."""
        place = (row.at, row.dataset)
        earlier = self.rows.get(place, row)
        if (earlier.result, earlier.correct) != (row.result, row.correct):
            self.repeated += (place,)
        self.rows[place] = row
        self._weights[row.at] = row.weights
        self._sets[row.dataset] = _of_set(row)
        self.last = number

    def differences(self, main: "Series") -> Iterator[str]:
        """What is different here from `main`, for people."""
        here, there = (dict(zip((*OF_A_RUN, *DRAWN), each.setting, strict=True)) for each in (self, main))
        yield from (
            _named(name, here[name])
            for name in here
            if here[name] != there[name] and (here[name] or name not in DRAWN) and not _is_implied(name, here, there)
        )
        if there["limit"] and not here["limit"]:
            yield "all images"
        shared = [name for name in self._sets if name in main._sets]
        for place, name in enumerate(OF_A_SET):
            values = {self._sets[each][place] for each in shared if self._sets[each][place] != main._sets[each][place]}
            # Another subset has other images, of course.
            if values and not (name == "data" and any(here[each] != there[each] for each in DRAWN)):
                yield _named(name, ", ".join(sorted(values)))
        if self.pair != main.pair or any(main._weights.get(a, w) != w for a, w in self._weights.items()):
            known = [weights for alpha, weights in self._weights.items() if main._weights.get(alpha) != weights]
            yield f"other weights {known[-1][:8]}" if known else "other weights"


def divided(rows: Sequence[Measurement]) -> tuple[Series, ...]:
    """The series of the measurements of one sweep under one name, the main one first.

    The main series is the largest whole measurement: one without ``--limit``, of those the one with the most images,
    and of those the latest.
    """
    found: list[Series] = []
    # Records of earlier versions do not name a mixture's pair; they are left out if a later version repeated them.
    for number, row in sorted(enumerate(rows), key=lambda each: not each[1].pair):
        if not row.pair and any(_repeats(series, row) for series in found):
            continue
        series = next((each for each in reversed(found) if each.takes(row)), None)
        if series is None:
            found.append(series := Series(_of_run(row), row.pair))
        series.add(row, number)
    for series in found:
        _add_small_sets(series, found)
    found = [each for each in found if not any(_holds(other, each) for other in found)]
    found.sort(key=lambda each: (each.limit is None, each.images, each.last), reverse=True)
    labels: list[str] = []
    for series in found[1:]:
        label = ", ".join(series.differences(found[0])) or "measured separately"
        times = 2
        while label in labels:
            label, times = f"{label.rpartition(' #')[0] or label} #{times}", times + 1
        labels.append(label)
        series.label = label
    return tuple(found)


def described(name: str, series: Iterable[tuple[str, int]]) -> str:
    """A sentence on series under one name; of each its label, which is empty for the main one, and its images."""
    (_, images), *others = series
    latest = ", of equally large ones the latest" if any(count == images for _, count in others) else ""
    listed = ", ".join(f"'{name} ({label})' ({plural(count, 'image')})" for label, count in others)
    return (
        f"{name} was measured in {1 + len(others)} ways, which are never mixed: '{name}' is the largest whole "
        f"measurement{latest} ({plural(images, 'image')}), shown beside {listed}."
    )


def _of_run(row: Measurement) -> Setting:
    return tuple(_detail(row, name) for name in (*OF_A_RUN, *DRAWN))


def _of_set(row: Measurement) -> Setting:
    found = {name: _detail(row, name) for name in OF_A_SET}
    # The number of images stands for their digest, which records of the first version lack.
    return (*({**found, "metric": row.metric, "data": f"{found['data']} {row.total}"}.values()),)


def _detail(row: Measurement, name: str) -> str:
    return str(comparable(name, row.details.get(name, "")))


def _is_implied(name: str, here: Mapping[str, str], there: Mapping[str, str]) -> bool:
    """Whether a seed or a draw need not be named: it is the usual one, and only one of the two drew images at all."""
    return here[name] == {"seed": "0", "draw": "proportional"}.get(name) and not there["limit"]


def _named(name: str, value: str) -> str:
    return NAMES[name].format(value or "not recorded")


def _repeats(series: Series, row: Measurement) -> bool:
    """Whether the series of a known pair holds the same measurement."""
    return (
        series.pair != ""
        and series.setting == _of_run(row)
        and (row.at, row.dataset) in series.rows
        and series.agrees(row)
    )


def _add_small_sets(series: Series, found: Sequence[Series]) -> None:
    """Add to a series with ``--limit`` the data sets that have no more images, which are recorded as whole."""
    if series.limit is None:
        return
    whole = (*series.setting[: len(OF_A_RUN)], *("" for _ in DRAWN))
    for other in found:
        if (other.setting, other.pair) != (whole, series.pair):
            continue
        for place, row in other.rows.items():
            if place not in series.rows and row.total <= series.limit and series.agrees(row):
                series.rows[place] = row


def _holds(series: Series, other: Series) -> bool:
    """Whether a series holds all measurements of another one, and more."""
    return len(series.rows) > len(other.rows) and all(series.rows.get(at) is row for at, row in other.rows.items())
