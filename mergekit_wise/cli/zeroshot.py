"""The command ``wise zeroshot``."""

from mergekit_wise.options import ZeroshotOptions


def zeroshot(options: ZeroshotOptions) -> None:
    """Build a zero-shot classifier: the image encoder plus a head made from class names."""
    from mergekit_wise.api.zeroshot import zeroshot
    from mergekit_wise.cli.console import in_bytes, notes, out
    from mergekit_wise.cli.progress import perform

    report = perform(zeroshot, options)
    notes((*report.notes, f"architecture: {report.architecture}"))
    templates = "1 template" if len(report.templates) == 1 else f"{len(report.templates)} templates"
    size = in_bytes(report.output.stat().st_size)
    out.print(f"{report.output}: {len(report.classnames)} classes x {templates}, {size}", soft_wrap=True)
