"""The command ``wise card``."""

from typing import TYPE_CHECKING

from mergekit_wise.wording import plural

if TYPE_CHECKING:
    from mergekit_wise.options import CardOptions


def card(options: "CardOptions", json: bool) -> None:
    """Write a model card: recipe, digests, results of these weights, how to load them, and metadata for the hub."""
    from mergekit_wise.api.card import card
    from mergekit_wise.cli.console import notes, out, show_json
    from mergekit_wise.cli.progress import perform

    report = perform(card, options)
    notes(report.notes)
    if json:
        show_json(report.to_dict())
        return
    measured = f"results on {plural(report.datasets, 'data set')}" if report.datasets else "no results"
    plot = "" if report.plot is None else f" and {report.plot}"
    out.print(f"Wrote {report.output}{plot}: {measured}", soft_wrap=True)
