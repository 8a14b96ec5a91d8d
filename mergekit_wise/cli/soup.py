"""The command ``wise soup``."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mergekit_wise.api.soup import SoupReport
    from mergekit_wise.options import SoupOptions


def soup(options: "SoupOptions", json: bool) -> None:
    """Average several fine-tunings of one model: all, the best together, or by Model Stock."""
    from mergekit_wise.api.soup import soup
    from mergekit_wise.cli.console import in_bytes, notes, out
    from mergekit_wise.cli.progress import perform

    report = perform(soup, options)
    notes(report.notes)
    if json:
        _print_json(report)
        return
    _show_tables(report)
    size = in_bytes(report.merged.size)
    out.print(f"\nWrote {report.output}: {_described(report)} ({size}, {report.merged.seconds:.1f} s)", soft_wrap=True)


def _described(report: "SoupReport") -> str:
    from mergekit_wise.wording import plural

    if report.how == "greedy":
        added = [each for each in report.ingredients if each.added]
        chosen = f"{len(added)} of {plural(len(report.ingredients), 'member')}"
        return f"the mean of {chosen}, with {added[-1].soup.value:.1%} on {added[-1].soup.title}"
    return {"uniform": "the mean of all members", "stock": "Model Stock of all members"}[report.how]


def _show_tables(report: "SoupReport") -> None:
    from mergekit_wise.cli.console import show
    from mergekit_wise.report.soup_tables import geometry_table, greedy_table

    if report.geometry is not None:
        title = "Members: relative change ||ft - zs|| / ||zs||, and angles between their updates in degrees"
        show(geometry_table(report.geometry), title)
    if report.ingredients:
        record = report.ingredients[0].record
        tried = [(each.name, each.record, each.soup, each.added) for each in report.ingredients]
        show(greedy_table(tried), f"Greedy soup on {record.title} ({record.total:,} images; %)")


def _print_json(report: "SoupReport") -> None:
    from dataclasses import asdict

    from mergekit_wise.cli.console import show_json

    found: dict[str, object] = {"output": str(report.output), "how": report.how}
    if report.geometry is not None:
        found["geometry"] = asdict(report.geometry)
    if report.ingredients:
        found["members"] = [
            {"name": each.name, "alone": each.record.value, "soup": each.soup.value, "added": each.added}
            for each in report.ingredients
        ]
    show_json(found)
