"""Sweeps of other parameters than alpha in a report: apart from each other, along their own axis, grids as maps."""

import csv
import re
from io import StringIO

import matplotlib as mpl
import pytest

from mergekit_wise.report.calibration_plots import calibration_diagrams
from mergekit_wise.report.exports import as_csv
from mergekit_wise.report.figures import draw_plots
from mergekit_wise.report.heat_map import PALETTE, colour_at, draw_heat_map, heat_maps
from mergekit_wise.report.page import render_page
from mergekit_wise.report.page_tables import analysis_tables, results_table
from mergekit_wise.report.plots import alpha_plots, scatter_plots
from mergekit_wise.report.reproducibility import weights_table
from mergekit_wise.report.summary import summarize

DEPTHS = (0.0, 0.2, 0.4, 0.6)


@pytest.fixture
def depth(lines):
    """Lines of a sweep of depth-first."""
    return [line | {"alpha": None, "point": [["depth-first", line["alpha"]]], "rule": "--alpha 0.5"} for line in
            lines.sweep(DEPTHS)]  # fmt: skip


@pytest.fixture
def grid(lines):
    """Lines of a grid of depth-first and depth-last; the accuracy depends on their mean."""
    found = []
    for first in (0.0, 0.5, 1.0):
        for last in (0.0, 0.5):
            point = {"alpha": None, "point": [["depth-first", first], ["depth-last", last]]}
            found += [line | point for line in lines.sweep(((first + last) / 2,))]
    return found


def test_sweeps_of_different_parameters_are_different_curves(compared, lines, depth, grid):
    """No curve holds measurements of two sweeps, nor of the same parameter with another rule."""
    other = [line | {"rule": "--alpha 0.9"} for line in depth]
    (comparison,), _ = compared([*lines.sweep(), *depth, *other, *grid])
    assert [(curve.name, curve.swept, curve.rule) for curve in comparison.curves] == [
        ("alpha", ("alpha",), ""),
        ("depth-first --alpha 0.5", ("depth-first",), "--alpha 0.5"),
        ("depth-first --alpha 0.9", ("depth-first",), "--alpha 0.9"),
        ("depth-first x depth-last", ("depth-first", "depth-last"), ""),
    ]
    for curve in comparison.curves:
        assert {(row.swept, row.rule) for row in curve.rows.values()} == {(curve.swept, curve.rule)}
    assert comparison.curves[1].alphas == DEPTHS
    assert comparison.curves[3].alphas[:3] == ((0.0, 0.0), (0.0, 0.5), (0.5, 0.0))


def test_each_parameter_has_its_own_plots(compared, lines, depth, grid):
    """The axis bears the parameter's name, and a grid is no line in any plot."""
    (comparison,), _ = compared([*lines.sweep(), *depth, *grid])
    plots = alpha_plots(comparison)
    assert {plot.x_label for plot in plots} == {"α", "depth-first"}
    for plot in plots:
        assert [trace.index for trace in plot.traces] == [0 if plot.x_label == "α" else 1]
        assert any(guide.kind == "line" for guide in plot.guides) == (plot.x_label == "α")
    for plot in scatter_plots(comparison):
        by_curve = {trace.index: trace for trace in plot.traces}
        assert len(by_curve[2].marks) == 6
        assert by_curve[2].mixtures == ()
        assert [by_curve[1].role(mark) for mark in by_curve[1].marks] == [""] * len(DEPTHS)


def test_calibration_along_another_parameter_names_it(compared, lines, depth):
    """Its diagrams are along the parameter, and show the recommended value between both ends, none of them a model."""
    (comparison,), _ = compared([*map(lines.with_calibration, depth)])
    summary = summarize(comparison)
    ece, *reliability = calibration_diagrams(summary)
    assert ece.x_label == "depth-first"
    assert ece.text(0.2, 0.1) == "depth-first = 0.2: ECE 10.0 %"
    best = summary.recommendations[0].point.numbers[0]
    assert [line.name for line in reliability[0].lines] == ["depth-first = 0", f"depth-first = {best:g}"]


def test_neither_end_of_another_parameter_is_a_model(compared, depth):
    """No row, gain or connectivity of such a sweep calls a mixture zero-shot or fine-tuned."""
    (comparison,), warned = compared(depth)
    summary = summarize(comparison)
    assert not [warning for warning in warned if "zero-shot" in warning or "fine-tuned" in warning]
    assert summary.connectivities == ({},)
    table = results_table(summary)
    assert table.columns[0] == "depth-first"
    assert [row.cells[0].note for row in table.body] == [""] * len(DEPTHS)
    assert table.summary[0].cells[0].text == "best depth-first"
    page = render_page([summary], warned)
    assert "over zero-shot" not in page
    assert 'data-stop="0"' not in page
    assert "Squares are" not in page
    assert 'aria-valuetext="depth-first = ' in page


@pytest.mark.parametrize("rule", ["--alpha-for head.*=1", "--depth-alpha 0.2:0.8", "--keep ft:head.*"])
def test_with_such_a_rule_alpha_0_is_not_the_zero_shot_model(compared, lines, rule):
    """Other rules leave the ends of a sweep of alpha what they are."""
    (comparison,), _ = compared([line | {"rule": rule} for line in lines.sweep()])
    assert not comparison.curves[0].has_ends
    (comparison,), _ = compared([line | {"rule": "--fisher a b"} for line in lines.sweep()])
    assert comparison.curves[0].has_ends


def test_tables_have_a_column_for_each_parameter(compared, lines, depth, grid):
    """Alpha comes first; what a curve does not vary is empty."""
    (comparison,), _ = compared([*depth, *grid, *lines.sweep((0.0, 1.0))])
    table = results_table(summarize(comparison))
    assert table.columns[:4] == ("Model", "α", "depth-first", "depth-last")
    assert table.names == 4
    assert {tuple(cell.text for cell in row.cells[:4]) for row in table.body} >= {
        ("depth-first --alpha 0.5", "", "0.2", ""),
        ("depth-first x depth-last", "", "0.5", "0"),
        ("alpha", "1", "", ""),
    }
    width = len(table.columns)
    assert {len(row.cells) for row in (*table.body, *table.summary)} == {width}
    for each in analysis_tables(summarize(comparison)):
        assert {len(row.cells) for row in each.body} == {len(each.columns)}
    assert weights_table(comparison.curves[1]).columns[0] == "depth-first, depth-last"


def test_the_csv_names_point_and_rule(compared, lines, depth, grid):
    """Alpha is empty unless alpha alone was swept."""
    comparisons, _ = compared([*lines.sweep((0.3, 1.0)), *depth, *grid])
    rows = list(csv.DictReader(StringIO(as_csv(comparisons))))
    found = {(row["alpha"], row["point"], row["rule"]) for row in rows}
    assert ("0.3", "", "") in found
    assert ("", "depth-first 0.2", "'--alpha 0.5") in found
    assert ("", "depth-first 0.5, depth-last 0", "") in found


def test_a_grid_is_a_map_of_the_average_of_both(compared, lines, grid):
    """Each cell has the number that the table has, and the recommended one has a frame."""
    (comparison,), _ = compared(grid)
    summary = summarize(comparison)
    (drawn,) = heat_maps(summary)
    assert (drawn.xs, drawn.ys) == ([0.0, 0.5, 1.0], [0.0, 0.5])
    assert drawn.recommended == summary.recommendations[0].point.numbers
    table = results_table(summary)
    shown = {tuple(float(cell.text) for cell in row.cells[:2]): row.cells[-1].text for row in table.body}
    assert {at: f"{100 * share:.1f}" for at, share in drawn.shares.items()} == shown
    svg = draw_heat_map(drawn, "h")
    assert re.findall(r'class="x on-(?:light|dark)">([^<]*)<', svg) == [shown[at] for at in sorted(shown)]
    assert svg.count('class="frame"') == 1
    text = re.search("<desc[^>]*>(.*?)</desc>", svg)[1]
    assert "Highest: " in text
    assert f"Recommended: {shown[drawn.recommended]} % at depth-first {drawn.recommended[0]:g}" in text
    page = render_page([summary], ())
    assert svg.partition("<desc")[2].partition(">")[2] in page.replace("s0h0", "h")
    assert "Accuracy vs." not in page


def test_without_room_cells_have_no_numbers(compared, lines):
    """A fine grid is read by its colours."""
    steps = [round(step / 20, 2) for step in range(21)]
    content = [
        line | {"alpha": None, "point": [["alpha", a], ["alpha[x]", b]]}
        for a in steps for b in steps for line in lines.sweep((a,), names=("imagenet", "imagenet-v2"))
    ]  # fmt: skip
    (comparison,), _ = compared(content)
    (drawn,) = heat_maps(summarize(comparison))
    svg = draw_heat_map(drawn, "h")
    assert len(re.findall("<rect", svg)) > 441
    assert "on-light" not in svg
    assert "on-dark" not in svg


def test_the_colours_are_those_of_cividis():
    """Dark is low and bright is high, in colours that matplotlib knows by this name."""
    scale = mpl.colormaps["cividis"]
    assert [mpl.colors.to_hex(scale(step / 8)) for step in range(9)] == PALETTE
    assert [colour_at(step / 8) for step in range(9)] == PALETTE


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_maps_are_written_for_papers_too(compared, grid, kind):
    """The same map gives the same bytes."""
    (comparison,), _ = compared(grid)
    drawn = heat_maps(summarize(comparison))
    files = draw_plots(drawn, kind)
    assert list(files) == [f"imagenet-shifts-grid-depth-first-depth-last.{kind}"]
    assert files == draw_plots(drawn, kind)


@pytest.mark.parametrize("point", [["alpha"], "alpha", [["alpha", "x"]], [[1, 0.5]], [["alpha", 1e9]], {"a": 1}])
def test_an_impossible_point_is_no_measurement(compared, lines, point):
    """The line is skipped, as any other damaged one."""
    (comparison,), _ = compared([*lines.sweep(), lines.entry("imagenet", None, point=point)])
    assert len(comparison.curves) == 1
