"""The command ``wise rules``."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mergekit_wise.api.rules import RulesReport
    from mergekit_wise.options import RulesOptions


def rules(options: "RulesOptions", json: bool) -> None:
    """Measure merging rules that need no data, each beside a mixture that only shrinks the update to its size."""
    from mergekit_wise.api.rules import RulesReport, rules
    from mergekit_wise.cli.console import say
    from mergekit_wise.cli.progress import perform
    from mergekit_wise.errors import Unsaved

    try:
        report = perform(rules, options)
    except Unsaved as error:
        if isinstance(error.found, RulesReport):
            _show(error.found, options, json=json)
        raise
    _show(report, options, json=json)
    if options.plot is not None:
        say(f"Wrote {options.plot}.")


def _show(report: "RulesReport", options: "RulesOptions", *, json: bool) -> None:
    from mergekit_wise.cli.console import notes, out, say, say_lines, show, show_json
    from mergekit_wise.report.rules_table import rules_table
    from mergekit_wise.wording import plural

    notes(report.notes)
    if json:
        show_json(report.to_dict())
        return
    show(rules_table(report.results, report.columns), report.title)
    out.print(
        "\nSize: how long the update is, relative to fine-tuning. Gain: over the row above, which only shrinks the "
        "update to the same size; image by image, with its 95 % interval (a * after it: excludes 0). It is what is "
        "left of a rule once its shrinking is taken out."
    )
    say_lines([f"Not found: {part.title}: {part.hint}" for part in report.missing])
    reused = len(report.records) - report.added
    if options.results is not None:
        again = f"{plural(reused, 'result')} reused from {options.results} (--redo to re-run). " if reused else ""
        say(f"{again}{plural(report.added, 'result')} added to {options.results}.")
