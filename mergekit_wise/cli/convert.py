"""The command ``wise convert``."""

from typing import TYPE_CHECKING

from mergekit_wise.wording import plural

if TYPE_CHECKING:
    from mergekit_wise.options import ConvertOptions


def convert(options: "ConvertOptions") -> None:
    """Write a checkpoint under the tensor names of another library, with every value unchanged."""
    from mergekit_wise.api.convert import convert
    from mergekit_wise.cli.console import notes, out
    from mergekit_wise.cli.progress import perform
    from mergekit_wise.wording import in_bytes

    report = perform(convert, options)
    notes(report.notes)
    out.print(f"Wrote {report.output}: {plural(report.tensors, 'tensor')}, {in_bytes(report.size)}", soft_wrap=True)
