"""The soup of several fine-tunings of one model: their mean, the mean of the best of them, or Model Stock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergekit_wise import launcher
from mergekit_wise.api.merge import merge
from mergekit_wise.api.merge_report import MergeReport
from mergekit_wise.api.result_object import ResultObject
from mergekit_wise.checkpoint import require_folder
from mergekit_wise.errors import UsageError
from mergekit_wise.merging.soup_geometry import Geometry
from mergekit_wise.option_types import SoupSource, run, takes
from mergekit_wise.options import MergeOptions, SoupOptions
from mergekit_wise.wording import plural

if TYPE_CHECKING:
    from mergekit_wise.api.greedy_soup import Ingredient
    from mergekit_wise.report.table import Table

MEASURING = (
    *("select_on", "classnames", "templates", "limit", "balanced", "head", "head_features", "head_rows"),
    *("image_size", "results", "transform"),
)
"""Options that have a meaning for greedy alone."""


@dataclass(frozen=True, slots=True, repr=False)
class SoupReport(ResultObject):
    """What `soup` did.

    Attributes:
        output: the file or folder that was written.
        how: "uniform", "greedy" or "stock".
        geometry: how the members lie around the zero-shot model; None if they have no weights in common with it.
        ingredients: what greedy tried, in its order; empty for the other ways.
        merged: what was written, and notes.
    """

    output: Path
    how: str
    geometry: Geometry | None
    ingredients: "tuple[Ingredient, ...]"
    merged: MergeReport

    @property
    def notes(self) -> tuple[str, ...]:
        """What was changed, left out or decided on the way, one sentence each."""
        return self.merged.notes

    def _summary(self) -> str:
        return f"{self.output.name}, {self.how} soup of {plural(len(self.members), 'member')}"

    @property
    def members(self) -> tuple[str, ...]:
        """The names of all that were given."""
        if self.ingredients:
            return tuple(each.name for each in self.ingredients)
        return self.geometry.names if self.geometry is not None else ()

    def _entry(self) -> Mapping[str, Any]:
        found: dict[str, Any] = {"output": self.output, "how": self.how}
        if self.geometry is not None:
            found["geometry"] = self.geometry
        if self.ingredients:
            found["members"] = self._rows()
        return found

    def _rows(self) -> list[Mapping[str, Any]]:
        return [
            {"name": each.name, "alone": each.record.value, "soup": each.soup.value, "added": each.added}
            for each in self.ingredients
        ]

    def tables(self) -> "Sequence[Table]":
        """How the members lie, and what greedy tried; each with a title."""
        from mergekit_wise.report.soup_tables import GEOMETRY_TITLE, geometry_table, greedy_table

        found = []
        if self.geometry is not None:
            found.append(replace(geometry_table(self.geometry), title=GEOMETRY_TITLE))
        if self.ingredients:
            record = self.ingredients[0].record
            tried = [(each.name, each.record, each.soup, each.added) for each in self.ingredients]
            title = f"Greedy soup on {record.title} ({record.total:,} images; %)"
            found.append(replace(greedy_table(tried), title=title))
        return found

    _tables = tables


@takes(SoupOptions)
def soup(options: SoupOptions) -> SoupReport | Any:
    """Average several fine-tunings of one zero-shot model (Wortsman et al., ICML 2022; Jang et al., ECCV 2024).

    `how` is "uniform" for the mean of all members; "greedy" for the mean of those that are added, best first, as long
    as the accuracy on `select_on` does not fall; or "stock" for Model Stock, which goes for each tensor the share
    N c / (1 + (N - 1) c) of the way from the zero-shot model to the mean, c being the mean cosine of the updates.
    Models and the data set of `select_on` may be in memory, and `transform` is used, as for `sweep`.

    Without `output`, nothing is written, and the result is the soup as a `StateDict`, as `merge` returns it. Means are
    computed in float64 and rounded once to each tensor's dtype.

    Raises:
        WiseError: as `merge` and `evaluate` do; MismatchError also for members that were not fine-tuned from the
            zero-shot model.
    """
    _require_options(options)
    if options.output is not None:
        require_folder(options.output)
    source = SoupSource.of(options.members, options.how)
    found: tuple[Ingredient, ...] = ()
    notes: tuple[str, ...] = ()
    if options.how == "greedy":
        from mergekit_wise.api.greedy_soup import greedy  # torch, which the other ways do without

        source, found, notes = greedy(options)
    merged: Any = run(merge, as_merge(options, source))
    notes = tuple(dict.fromkeys((*notes, *merged.notes)))
    if options.output is None:
        merged.notes = notes
        return merged
    merged = replace(merged, notes=notes)
    return SoupReport(merged.output, options.how, merged.geometry, found, merged)


def _require_options(options: SoupOptions) -> None:
    """Raise UsageError unless the options fit each other."""
    if not options.members:
        raise UsageError("A soup needs members: give the checkpoints to average.")
    if options.how == "greedy":
        if launcher.world_size() > 1:
            raise UsageError("wise soup --how greedy runs in one process. Start it without torchrun.")
        if options.select_on is None:
            raise UsageError("--how greedy chooses members by their accuracy. Name held-out images with --select-on.")
        return
    for name in MEASURING:
        if getattr(options, name) not in (None, False):
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} is for --how greedy, which evaluates; --how is {options.how}. Leave one out.")


def as_merge(options: SoupOptions, source: SoupSource) -> MergeOptions:
    """The soup as a merge at alpha 1."""
    return MergeOptions(
        options.zeroshot,
        source,
        options.output,
        alpha=1.0,
        allow_other_starts=options.allow_other_starts,
        base=options.base,
        keep=options.keep,
        only=options.only,
        like=options.like,
        rename=options.rename,
        allow_non_finite=options.allow_non_finite,
        dtype=options.dtype,
        shard_size=options.shard_size,
        recalibrate=options.recalibrate,
        data=options.data,
        max_bad=options.max_bad,
        max_pixels=options.max_pixels,
        model=options.model,
        device=options.device,
        memory=options.memory,
        mmap=options.mmap,
        progress=options.progress,
    )
