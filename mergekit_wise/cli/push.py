"""The command ``wise push``."""

from typing import TYPE_CHECKING

from mergekit_wise.wording import plural

if TYPE_CHECKING:
    from mergekit_wise.options import PushOptions


def push(options: "PushOptions", json: bool) -> None:
    """Upload a model with its card and its report to the Hugging Face hub, in one commit."""
    from mergekit_wise.api.push import push
    from mergekit_wise.cli.console import notes, out, show, show_json
    from mergekit_wise.cli.progress import perform
    from mergekit_wise.report.table import Table
    from mergekit_wise.wording import in_bytes

    report = perform(push, options)
    notes(report.notes)
    if json:
        show_json(report.to_dict())
        return
    total = f"{plural(len(report.files), 'file')}, {in_bytes(sum(file.size for file in report.files))}"
    if report.commit is None:
        rows = [(file.name, f"{file.size:,}", file.origin) for file in report.files]
        show(Table.of_texts(("File", "Bytes", "From"), rows), f"To be uploaded to {report.repository}: {total}")
        return
    out.print(f"Uploaded {total} to {report.url}", soft_wrap=True)
