"""The command ``wise merge``."""

from collections import Counter
from typing import TYPE_CHECKING

from mergekit_wise.wording import plural

if TYPE_CHECKING:
    from mergekit_wise.api.merge_report import MergePreview, MergeReport
    from mergekit_wise.options import MergeOptions


def merge(options: "MergeOptions", dry_run: bool) -> None:
    """Merge the weights of two checkpoints: (1 - alpha) * zeroshot + alpha * finetuned."""
    from mergekit_wise.api.merge import merge, preview
    from mergekit_wise.cli.console import notes
    from mergekit_wise.cli.progress import perform
    from mergekit_wise.errors import Interrupted
    from mergekit_wise.option_types import run

    if dry_run:
        _show_plan(run(preview, options))
        return
    try:
        report = perform(merge, options)
    except KeyboardInterrupt as error:
        raise Interrupted.of(error, "Interrupted. Nothing was written.") from error
    notes(report.notes)
    _summarize(report)


def _show_plan(found: "MergePreview") -> None:
    from mergekit_wise.cli.console import line_writer, notes, out, say, show
    from mergekit_wise.report.tensor_tables import PLAN_COLUMNS, plan_rows, plan_table
    from mergekit_wise.wording import in_bytes

    notes(found.notes)
    title = "What each tensor would get"
    if out.on_screen:
        show(plan_table(found.steps), title)
    else:
        say(title)
        write = line_writer(*PLAN_COLUMNS)
        for row in plan_rows(found.steps):
            write(row)
    files = "1 file" if found.files == 1 else f"{found.files} files"
    free = "" if found.free is None else f"; {in_bytes(found.free)} free there"
    out.print(f"\n{files}, {in_bytes(found.size)}{free}. Nothing was written.")


def _summarize(report: "MergeReport") -> None:
    from mergekit_wise.checkpoint.formats import ending_of
    from mergekit_wise.cli.console import out
    from mergekit_wise.wording import in_bytes

    rate = report.size / max(report.seconds, 1e-9)
    kind = "" if ending_of(report.output) or report.output.is_dir() else " in the safetensors format"
    out.print(f"Wrote {report.output}{kind} ({in_bytes(report.size)}, {report.seconds:.1f} s, {in_bytes(int(rate))}/s)")
    for line in _lines(report):
        out.print(f"  {line}")


def _lines(report: "MergeReport") -> list[str]:
    from mergekit_wise.cli.console import names

    counts = Counter((outcome.plan.action, outcome.source) for outcome in report.outcomes)
    alphas = sorted({o.plan.alpha for o in report.outcomes if o.source == "mixed"})
    mixed = counts["mix", "mixed"]
    equal = counts["mix", "equal"] + counts["choose", "equal"]
    chosen = [o.name for o in report.outcomes if o.plan.action == "choose" and o.source != "equal"]
    lines = []
    if mixed:
        spread = f"alpha {alphas[0]:g}" if len(alphas) == 1 else f"alphas from {alphas[0]:g} to {alphas[-1]:g}"
        lines.append(f"{plural(mixed, 'tensor')} mixed at {spread}")
    if equal:
        lines.append(f"{plural(equal, 'tensor')} copied, equal in both files")
    if frozen := counts["mix", "zeroshot"] + counts["mix", "finetuned"]:
        lines.append(f"{plural(frozen, 'tensor')} copied, equal up to --frozen-tolerance")
    for side, kind in (("zeroshot", "zero-shot"), ("finetuned", "fine-tuned")):
        if taken := counts[side, side]:  # type: ignore[index]
            lines.append(f"{plural(taken, 'tensor')} copied from the {kind} file")
    if chosen:
        lines.append(
            f"{plural(len(chosen), 'tensor')} of integers that differ copied from the fine-tuned file: {names(chosen)}"
        )
    if report.distance is not None:
        lines.append(f"relative change in fine-tuning: ||ft - zs|| / ||zs|| = {report.distance:.3g}")
    return lines
