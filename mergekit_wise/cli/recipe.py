"""The command ``wise recipe``."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mergekit_wise.options import RecipeOptions


def recipe(options: "RecipeOptions") -> None:
    """Run zeroshot, finetune, sweep and report from one file; only steps whose inputs changed are run again."""
    from mergekit_wise.api.recipe import recipe
    from mergekit_wise.cli.console import out
    from mergekit_wise.cli.estimates import show_estimates
    from mergekit_wise.cli.progress import perform
    from mergekit_wise.cli.sweep import show_command, show_sweep, show_unsaved
    from mergekit_wise.errors import Unsaved

    try:
        report = perform(recipe, options)
    except Unsaved as error:
        show_unsaved(error, "the suite of the recipe")
        raise
    show_sweep(report.sweep, report.sweep.records[0].suite)
    show_command(report.sweep)
    if report.sweep.without_labels is not None:
        show_estimates(report.sweep.without_labels)
    out.print("")
    for file in filter(None, (report.zeroshot, report.finetuned, report.results, report.page)):
        out.print(str(file))
