"""Results as Markdown: every contestant in one table, and what the README shows of it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from contest import Contest, Run

MB = 1e6
BEGIN, END = "<!-- written by `make bench` -->", "<!-- up to here -->"
HEADER = (
    "| | contestant | × wise | × what it is measured by | seconds | after imports | CPU seconds "
    "| peak RSS, MB | peak RssAnon, MB | peak RssFile, MB | found |\n|---|---|" + "--:|" * 8 + "---|"
)
ENGINE = "wise, from Python"
"""The contestant whose work alone counts in the README, without the start of its process."""
MERGERS = {
    "wise merge": "`wise merge`",
    ENGINE: "its engine alone",
    "cp": "`cp` of one file",
    "load both, mix, save_file": "load both, mix, `save_file`",
    "mergekit-pytorch": "mergekit",
    "sd-mecha": "sd-mecha",
}
Results = Sequence[tuple[Contest, Mapping[str, Run]]]


def seconds(contest: Contest, run: Run) -> float:
    """What the contestants of a contest are compared by."""
    return run.wall if contest.whole or run.inner is None else run.inner


def rows(contest: Contest, runs: Mapping[str, Run]) -> Iterator[str]:
    """Lines of the whole table, in the order of the contestants."""
    ours, scale = runs[contest.ours], runs.get(contest.scale)
    for name, run in runs.items():
        first = f"| {contest.section}: {contest.what} | {name} |"
        if run.failure:
            yield f"{first} failed: {run.failure} |" + " |" * 8
            continue
        taken = seconds(contest, run)
        against = f"{taken / seconds(contest, scale):.2f}" if scale and not scale.failure else ""
        inner = "" if run.inner is None else f"{run.inner:.2f}"
        cells = [f"{taken / seconds(contest, ours):.2f}", against, f"{run.wall:.2f}", inner, f"{run.cpu:.2f}"]
        cells += [f"{size / MB:,.0f}" for size in (run.resident, run.private, run.mapped)] + [run.result]
        yield f"{first} " + " | ".join(cells) + " |"


def summary(results: Results) -> Iterator[str]:
    """Lines for the README: merging as a table of its own, everything else a line each."""
    merging = [(contest, runs) for contest, runs in results if contest.section == "merge"]
    if merging:
        shown = [name for name in MERGERS if any(name in runs for _, runs in merging)]
        yield "| merging two checkpoints | " + " | ".join(MERGERS[name] for name in shown) + " |"
        yield "|---|" + "--:|" * len(shown)
        for contest, runs in merging:
            ours = runs[contest.ours]
            yield f"| {contest.what} | " + " | ".join(_merged(name, runs.get(name), ours) for name in shown) + " |"
        yield ""
    rest = [(contest, runs) for contest, runs in results if contest.section != "merge"]
    if rest:
        yield "| | | beside |"
        yield "|---|---|---|"
        for contest, runs in rest:
            ours, parts = runs[contest.ours], {part for total in contest.sums.values() for part in total}
            others = {name: run for name, run in runs.items() if name != contest.ours and name not in parts}
            beside = [_beside(contest, name, run, ours) for name, run in others.items()]
            memory = f", {ours.resident / 1e9:.2f} GB of memory" if contest.section == "memory" else ""
            taken = f"`{contest.ours}`: {seconds(contest, ours):.2f} s{memory}"
            yield f"| {contest.section}: {contest.what} | {taken} | {'; '.join(beside)} |"


def _merged(name: str, run: Run | None, ours: Run) -> str:
    if run is None:
        return ""
    if run.failure:
        return "fails"
    memory = "" if run.resident < 10 * MB else f", {run.resident / 1e9:.2f} GB"
    taken = run.inner if name == ENGINE and run.inner is not None else run.wall
    return f"**{taken:.2f} s**{memory}" if run is ours else f"{taken / ours.wall:.1f} ×{memory}"


def _beside(contest: Contest, name: str, run: Run, ours: Run) -> str:
    if run.failure:
        return f"{name}: fails"
    memory = f", {run.resident / 1e9:.2f} GB" if contest.section == "memory" else ""
    return f"{name}: {seconds(contest, run) / seconds(contest, ours):.2f} ×{memory}"


def write_between(path: Path, lines: Iterable[str]) -> None:
    """Replace what stands between the marks.

    Raises:
        ValueError: the file has no such marks.
    """
    text = path.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no lines {BEGIN} and {END}")
    path.write_text(before + begin + "\n\n" + "\n".join(lines).strip() + "\n\n" + end + after)
