"""The command ``wise sweep``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mergekit_wise.cli import options

if TYPE_CHECKING:
    from mergekit_wise.api.sweep import SweepReport


def sweep(
    zeroshot: options.ZeroShot,
    finetuned: options.FineTuned,
    alphas: Annotated[
        str,
        typer.Option(
            "--alphas",
            metavar="LIST",
            help="start:stop:step with its end, numbers with commas between, or both.",
        ),
    ] = "0:1:0.1",
    suite: options.SuiteOfSweep = None,
    prefer: Annotated[
        str,
        typer.Option(metavar="HOW", help="Best at: average, reference, shifts, both or no-regret."),
    ] = "average",
    select_on: Annotated[
        str | None, typer.Option(metavar="DATASET", help="Choose alpha on this data set instead, a held-out one.")
    ] = None,
    refine: Annotated[
        bool, typer.Option("--refine", help="Add alphas around the best one until intervals can't tell them apart.")
    ] = False,
    output_ensemble: Annotated[
        bool, typer.Option("--output-ensemble", help="Mix outputs, too: (1 - alpha) f(x, zs) + alpha f(x, ft).")
    ] = False,
    analyze: Annotated[
        bool, typer.Option("--analyze", help="Also how the two ends differ: diversity, CKA, overrides, confidence.")
    ] = False,
    save: Annotated[
        str | None, typer.Option(metavar="PATH", help="Write every mixture, too: 'out/wise-{alpha}.safetensors'.")
    ] = None,
    data: options.Data = None,
    strict: options.Strict = False,
    classnames: options.ClassNames = None,
    templates: options.Templates = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    model: options.Model = None,
    head: options.Head = None,
    device: options.Device = "cpu",
    precision: options.Precision = "auto",
    batch_size: options.BatchSize = 128,
    workers: options.Workers = None,
    max_bad: options.MaxBad = 0,
    results: options.Results = Path("results.jsonl"),
    redo: options.Redo = False,
    per_class: options.PerClass = None,
    per_sample: options.PerSample = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw reference against shifts, as PNG."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Evaluate every alpha in one pass over the images, and say which to choose."""
    from mergekit_wise.cli.console import notes, say
    from mergekit_wise.cli.evaluate import say_rest
    from mergekit_wise.cli.progress import bars
    from mergekit_wise.merging import parse_alphas

    if suite is None and save is not None:
        _save(zeroshot, finetuned, save, alphas, device)
        return
    from mergekit_wise.api.sweep import sweep
    from mergekit_wise.report.figures import draw_scatter, require_drawable

    if plot is not None:
        require_drawable(plot)
    with bars() as progress:
        report = sweep(
            zeroshot,
            finetuned,
            alphas=parse_alphas(alphas),
            suite=suite,
            prefer=prefer,
            select_on=select_on,
            refine=refine,
            output_ensemble=output_ensemble,
            analyze=analyze,
            save=save,
            data=data,
            strict=strict,
            classnames=classnames,
            templates=templates,
            limit=limit,
            seed=seed,
            model=model,
            head=head,
            device=device,
            precision=precision,
            batch_size=batch_size,
            workers=workers,
            max_bad=max_bad,
            results=results,
            redo=redo,
            per_class=per_class,
            per_sample=per_sample,
            progress=progress,
        )
    notes(report.notes)
    for path in report.saved:
        say(f"Wrote {path}.")
    if as_json:
        _print_json(report)
    else:
        show_sweep(report, str(suite))
        _show_more(report)
    say_rest(report, results, (per_class, per_sample))
    if plot is not None:
        draw_scatter(report.candidates, report.recommendation.alpha, plot)
        say(f"Drew {plot}.")


def _save(zeroshot: str, finetuned: str, path: str, alphas: str, device: str) -> None:
    """Every mixture, and nothing else: needs no torch."""
    from mergekit_wise.api.merge import merge_each
    from mergekit_wise.cli.console import notes, say
    from mergekit_wise.cli.progress import bars
    from mergekit_wise.merging import parse_alphas

    with bars() as progress:
        reports = merge_each(zeroshot, finetuned, path, parse_alphas(alphas), device=device, progress=progress)
    notes(tuple(dict.fromkeys(note for report in reports for note in report.notes)))
    for report in reports:
        say(f"Wrote {report.output}.")


def _print_json(report: "SweepReport") -> None:
    from mergekit_wise.cli.console import show_json
    from mergekit_wise.results import as_entry

    chosen = {"alpha": report.recommendation.alpha, "reason": report.recommendation.reason}
    found: dict[str, object] = {"recommended": chosen, "records": [as_entry(record) for record in report.records]}
    if report.analyses:
        found["analyses"] = [as_entry(analysis) for analysis in report.analyses]
    show_json(found)


def show_sweep(report: "SweepReport", suite: str) -> None:
    """The table of a sweep, what 0.5 costs, and the recommended alpha, on stdout."""
    from mergekit_wise.cli.console import out, show
    from mergekit_wise.report.terminal_tables import loss_table, sweep_table

    chosen = report.recommendation
    shown = [record for record in report.records if record.role != "companion"]
    show(sweep_table(report.candidates, shown, chosen.alpha), f"Accuracy on {suite} (%)")
    show(loss_table(report.losses), "The best alpha for each, and what 0.5 costs (* beyond the intervals)")
    out.print(f"\nRecommended alpha: {chosen.alpha:g} - {chosen.reason}.", markup=False)
    if chosen.warning:
        out.print(chosen.warning, markup=False)


def _show_more(report: "SweepReport") -> None:
    from mergekit_wise.cli.console import show
    from mergekit_wise.report.terminal_tables import analysis_table, connectivity_table, ensemble_table
    from mergekit_wise.results import ENSEMBLE

    names = {name for analysis in report.analyses for name in analysis.values}
    if any(name.startswith(ENSEMBLE) for name in names):
        show(ensemble_table(report.analyses, report.records), "Mixed weights / mixed outputs (%)")
    if any(not name.startswith(ENSEMBLE) for name in names):
        show(connectivity_table(report.records), "Linear mode connectivity, in points (* beyond the intervals)")
        show(analysis_table(report.analyses), "How the two ends differ")
