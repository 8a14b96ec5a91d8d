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
COPIES = ("cp", "cp, then sync")
"""Whose seconds say how fast the disk is."""
MERGERS = {
    "wise merge": "`wise merge`",
    "load both, mix, save_file": "than: load both, mix, `save_file`",
    "mergekit-pytorch": "than mergekit",
    "sd-mecha": "than sd-mecha",
    "cp": "for scale: `cp` of one file",
    "cp, then sync": "`cp`, then `sync`, as `wise` does",
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
    """Lines for the README: merging as a table of its own, everything else that has rivals a row each."""
    merging = [(contest, runs) for contest, runs in results if contest.section == "merge"]
    if merging:
        shown = [name for name in MERGERS if any(name in runs for _, runs in merging)]
        yield "| Merging two checkpoints | " + " | ".join(MERGERS[name] for name in shown) + " |"
        yield "|---|" + "--:|" * len(shown)
        for contest, runs in merging:
            ours = runs[contest.ours]
            yield f"| {contest.what} | " + " | ".join(_merged(name, runs.get(name), ours) for name in shown) + " |"
        yield ""
    rest = [(contest, runs) for contest, runs in results if contest.section != "merge"]
    if rest:
        yield "| Job | time | compared with |"
        yield "|---|---|---|"
        for contest, runs in rest:
            ours = runs[contest.ours]
            others = [_compared(contest, name, runs[name], ours) for name in contest.rivals if name in runs]
            if others or contest.section == "memory":
                memory = f", {ours.resident / 1e9:.2f} GB" if contest.section == "memory" else ""
                row = f"{contest.section}: {contest.what} | `{contest.ours}`: {seconds(contest, ours):.2f} s{memory}"
                yield f"| {row} | {'; '.join(others)} |"


def _merged(name: str, run: Run | None, ours: Run) -> str:
    """Seconds of the tool and of a copy, else how many times faster the tool is; and the largest memory."""
    if run is None:
        return ""
    if run.failure:
        return "fails"
    if name in COPIES:
        return f"{run.wall:.2f} s"
    memory = f", {run.resident / 1e9:.2f} GB"
    return f"**{run.wall:.2f} s**{memory}" if run is ours else f"{_times(run.wall / ours.wall)}{memory}"


def _compared(contest: Contest, name: str, run: Run, ours: Run) -> str:
    if run.failure:
        return f"{name} fails"
    memory = f" ({run.resident / 1e9:.2f} GB)" if contest.section == "memory" else ""
    ratio = _times(seconds(contest, run) / seconds(contest, ours))
    return f"{ratio} {'than' if ratio.endswith('faster') else 'as'} {name}{memory}"


def _times(ratio: float) -> str:
    """How many times faster, of the other's seconds over ours; 5 % are noise."""
    shown = f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}"
    if ratio >= 1.05:
        return f"{shown} × faster"
    return "as fast" if ratio > 0.95 else f"{ratio:.2f} × as fast"


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
