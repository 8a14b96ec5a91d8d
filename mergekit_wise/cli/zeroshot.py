"""The command ``wise zeroshot``."""

from typing import TYPE_CHECKING

from mergekit_wise.wording import plural

if TYPE_CHECKING:
    from mergekit_wise.options import ZeroshotOptions


def zeroshot(options: "ZeroshotOptions") -> None:
    """Build a zero-shot classifier: the image encoder plus a head made from class names."""
    from mergekit_wise.api.zeroshot import zeroshot
    from mergekit_wise.cli.console import notes, out
    from mergekit_wise.cli.progress import perform
    from mergekit_wise.wording import in_bytes

    report = perform(zeroshot, options)
    notes((*report.notes, f"architecture: {report.architecture}"))
    classes, templates = plural(len(report.classnames), "class"), plural(len(report.templates), "template")
    size = in_bytes(report.output.stat().st_size)
    out.print(f"{report.output}: {classes} x {templates}, {size}", soft_wrap=True)
