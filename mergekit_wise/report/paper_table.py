"""A compact LaTeX table for papers: the two models, alpha 0.5 and the recommended mixture, no wider than the text.

Knows summaries. Every text of a record is escaped.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from mergekit_wise.analysis.point import DEFAULT
from mergekit_wise.report.comparison import SHIFTS, Column, Comparison, Curve, Images
from mergekit_wise.report.exports import escaped_latex
from mergekit_wise.report.page_tables import heading
from mergekit_wise.report.summary import Summary
from mergekit_wise.report.table import ENDPOINTS, percent
from mergekit_wise.results import At

TEXT_WIDTH = 340.0
"""Points of the text of LaTeX's article at 10 points, 345, less a little: in all common styles, it is wider."""

CHARACTER, SPACE, NUMBER = 4.5, 8.0, 22.0
"""Points, at LaTeX's font of 9 points: of a character, between two columns, and of a bold number."""

HEAD = 9
"""Characters of a line of a column's head, where it can be broken."""

IMAGENET, SHORT = "ImageNet", "IN"
"""How the heads call ImageNet and its shifts, as in the paper."""

METHOD = "WiSE-FT"
RECOMMENDED = "†"

NAME, TOPIC = 30, 60
"""Characters of the name of a row, and of a model's name above its rows and in the caption."""


@dataclass(frozen=True, slots=True)
class _Line:
    """A row.

    Attributes:
        curve: the number of its curve.
        name: what it is called.
        numbers: of each column; NaN if it was not measured.
        images: what each number was measured on.
        widest: half the width of its widest 95 % interval; NaN if none is known.
        best: for each column, whether the number is the best.
    """

    curve: int
    name: str
    numbers: tuple[float, ...]
    images: tuple[Images, ...]
    widest: float
    best: tuple[bool, ...] = ()


def paper_table(summary: Summary) -> str:
    """A ``table`` environment with caption and label, for booktabs.

    Columns are the reference, each shift, and the shifts' average. What is wider than the text continues in a second
    part below. The best of each column is bold, of several models the best of all.
    """
    comparison = summary.comparison
    columns = [
        column
        for column in comparison.columns
        if column.role in ("reference", "shift") or (column.name == SHIFTS and column.role == "average")
    ]
    lines = _with_best([line for index in range(len(comparison.curves)) for line in _lines(summary, index, columns)])
    names = max((CHARACTER * len(line.name) for line in lines), default=0.0)
    parts = [_tabular(comparison, part, columns, lines) for part in _parts(columns, names)]
    body = "\n\n\\medskip\n".join(parts)
    return (
        "% Needs \\usepackage{booktabs}.\n"
        "\\begin{table}[t]\n\\centering\n\\small\n\\setlength{\\tabcolsep}{4pt}\n\\setlength{\\belowcaptionskip}{4pt}\n"
        f"\\caption{{{_caption(summary, columns, lines)}}}\n"
        f"\\label{{tab:wise-{_slug(comparison.suite)}}}\n"
        f"{body}\n\\end{{table}}\n"
    )


def _lines(summary: Summary, index: int, columns: Sequence[Column]) -> Iterator[_Line]:
    """The rows of one curve."""
    curve, chosen = summary.comparison.curves[index], summary.recommendations[index]
    found = None if chosen is None or curve.is_grid else chosen.point.numbers[0]
    recommended: At = found if found is None else min(curve.mixtures, key=lambda at: abs(at - found))
    if chosen is not None and curve.is_grid:
        recommended = tuple(round(number, 12) for number in chosen.point.numbers)  # as records have them
    ends = list(ENDPOINTS) if curve.has_ends else []
    middle = [DEFAULT] if curve.has_ends else []
    for at in dict.fromkeys((None, *ends, *middle, recommended)):
        if at not in curve.alphas:
            continue
        results = [curve.result(at, column) for column in columns]
        if all(result is None for result in results):
            continue
        mark = RECOMMENDED if at is not None and at == recommended else ""
        known = [(each.high - each.low) / 2 for each in results if each is not None and not math.isnan(each.low)]
        yield _Line(
            index,
            _name(curve, at) + mark,
            tuple(math.nan if result is None else result.value for result in results),
            tuple(curve.images(at, column) for column in columns),
            max(known, default=math.nan),
        )


def _name(curve: Curve, at: At) -> str:
    """What a row is called."""
    if at is None:
        return _shortened(curve.name, NAME)
    if curve.has_ends and isinstance(at, float) and at in ENDPOINTS:
        name = curve.ends[at]
        return ENDPOINTS[at].capitalize() if name == ENDPOINTS[at] else _shortened(name, NAME)
    values = at if isinstance(at, tuple) else (at,)
    names = curve.symbol.split(", ")
    pairs = (f"{name} = {value:g}" for name, value in zip(names, values, strict=True))
    return f"{METHOD}, {', '.join(pairs)}"


def _with_best(lines: Sequence[_Line]) -> list[_Line]:
    """The rows with the largest number of each column marked, if several were measured on the same images."""
    found = []
    for line in lines:
        best = []
        for place, number in enumerate(line.numbers):
            others = [each.numbers[place] for each in lines if each.images[place] == line.images[place]]
            known = [other for other in others if not math.isnan(other)]
            is_known = len(known) > 1 and not math.isnan(number)
            best.append(is_known and percent(number) == percent(max(known)))
        found.append(replace(line, best=tuple(best)))
    return found


def _parts(columns: Sequence[Column], names: float) -> list[list[int]]:
    """The numbers of the columns that fit beside each other into the text, `names` being the first column's width."""
    widths = [max(NUMBER, *(CHARACTER * len(line) for line in _head_lines(column))) + SPACE for column in columns]
    parts: list[list[int]] = [[]]
    room = TEXT_WIDTH - names
    for number, width in enumerate(widths):
        if parts[-1] and sum(widths[each] for each in parts[-1]) + width > room:
            parts.append([])
        parts[-1].append(number)
    if len(parts) == 1:
        return parts
    each, more = divmod(len(columns), len(parts))  # of similar length, if that fits
    ends = list(accumulate(each + (place < more) for place in range(len(parts))))
    even = [list(range(start, end)) for start, end in pairwise([0, *ends])]
    return even if all(sum(widths[number] for number in part) <= room for part in even) else parts


def _tabular(comparison: Comparison, part: Sequence[int], columns: Sequence[Column], lines: Sequence[_Line]) -> str:
    several = len({line.curve for line in lines}) > 1
    heads = ["", *(_head(columns[number]) for number in part)]
    text = [
        f"\\begin{{tabular}}{{@{{}}l{'r' * len(part)}@{{}}}}",
        "\\toprule",
        f"{' & '.join(heads)} \\\\",
        "\\midrule",
    ]
    before = None
    for line in lines:
        curve = comparison.curves[line.curve]
        if several and line.curve != before and curve.mixtures:
            text += ["\\addlinespace"] if before is not None else []
            name = escaped_latex(_shortened(curve.name, TOPIC))
            text.append(f"\\multicolumn{{{1 + len(part)}}}{{@{{}}l}}{{\\emph{{{name}}}}} \\\\")
        before = line.curve
        text.append(f"{' & '.join([escaped_latex(line.name), *(_cell(line, number) for number in part)])} \\\\")
    return "\n".join([*text, "\\bottomrule", "\\end{tabular}"])


def _cell(line: _Line, number: int) -> str:
    text = percent(line.numbers[number], "--")
    return f"\\textbf{{{text}}}" if line.best[number] else text


def _head(column: Column) -> str:
    lines = r" \\ ".join(map(escaped_latex, _head_lines(column)))
    return f"\\shortstack[r]{{{lines}}}" if r"\\" in lines else lines


def _head_lines(column: Column) -> list[str]:
    """The title of a column in short lines, broken at spaces, behind hyphens, and within very long words."""
    title = "Avg. shifts" if column.name == SHIFTS else re.sub(rf"\b{IMAGENET}\b", SHORT, heading(column))
    lines = [""]
    for word in re.findall(rf"[^\s\-_/]{{1,{HEAD + 5}}}[\-_/]*\s*|[\-_/]{{1,{HEAD}}}\s*", title) or [title]:
        if lines[-1] and len((lines[-1] + word).rstrip()) > HEAD:
            lines.append("")
        lines[-1] += word
    return [line.rstrip() for line in lines]


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _caption(summary: Summary, columns: Sequence[Column], lines: Sequence[_Line]) -> str:
    """What the table shows: the measure, the models, the marks, and how wide intervals are."""
    comparison = summary.comparison
    curves = comparison.curves
    of = f" of {_shortened(curves[0].name, TOPIC)}" if len(curves) == 1 else ""
    where = [f"on the reference ({comparison.reference.title})"] if comparison.reference is not None else []
    where += ["under distribution shift"] if any(column.role == "shift" for column in columns) else []
    sentences = [f"{comparison.measure} (%){of} {' and '.join(where)}."]
    if any(any(line.best) for line in lines):
        sentences.append("The best of each column is bold.")
    if any(line.name.endswith(RECOMMENDED) for line in lines):
        sentences.append(f"{RECOMMENDED}: the recommended mixture.")
    if any(SHORT in _head(column) for column in columns if IMAGENET in column.title):
        sentences.append(f"{SHORT}: {IMAGENET}.")
    widest = max((line.widest for line in lines if not math.isnan(line.widest)), default=math.nan)
    if not math.isnan(widest):
        sentences.append(f"95 % intervals are at most ± {math.ceil(1000 * widest) / 10:.1f} points.")
    return escaped_latex(" ".join(sentences))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "results"
