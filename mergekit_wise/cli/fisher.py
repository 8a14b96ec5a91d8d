"""The command ``wise fisher``."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mergekit_wise.options import FisherOptions


def fisher(options: "FisherOptions", json: bool) -> None:
    """Compute the diagonal Fisher information of a model, with which merge and sweep can weight parameters."""
    from mergekit_wise.api.fisher import fisher
    from mergekit_wise.cli.console import notes, out, show_json
    from mergekit_wise.cli.progress import perform
    from mergekit_wise.wording import plural

    report = perform(fisher, options)
    notes(report.notes)
    if json:
        show_json(report.to_dict())
        return
    text = (
        f"Wrote {report.output}: {report.kind} Fisher information of {plural(report.tensors, 'tensor')} "
        f"({report.elements:,} elements) on {plural(report.images, 'image')} of {report.dataset}."
    )
    out.print(text, soft_wrap=True)
