"""The command ``wise soup``."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mergekit_wise.api.soup import SoupReport
    from mergekit_wise.options import SoupOptions


def soup(options: "SoupOptions", json: bool) -> None:
    """Average several fine-tunings of one model: all, the best together, or by Model Stock."""
    from mergekit_wise.api.soup import soup
    from mergekit_wise.cli.console import notes, out, show, show_json
    from mergekit_wise.cli.progress import perform
    from mergekit_wise.wording import in_bytes

    report = perform(soup, options)
    notes(report.notes)
    if json:
        show_json(report.to_dict())
        return
    for table in report.tables():
        show(table, table.title)
    size = in_bytes(report.merged.size)
    out.print(f"\nWrote {report.output}: {_described(report)} ({size}, {report.merged.seconds:.1f} s)", soft_wrap=True)


def _described(report: "SoupReport") -> str:
    from mergekit_wise.wording import plural

    if report.how == "greedy":
        added = [each for each in report.ingredients if each.added]
        chosen = f"{len(added)} of {plural(len(report.ingredients), 'member')}"
        return f"the mean of {chosen}, with {100 * added[-1].soup.value:.1f} % on {added[-1].soup.title}"
    return {"uniform": "the mean of all members", "stock": "Model Stock of all members"}[report.how]
