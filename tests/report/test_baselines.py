"""The lines that plots of shifts against the reference show."""

import re

import numpy as np
import pytest

from mergekit_wise.analysis import BASELINES, IMAGENET_BASELINES, Baseline
from mergekit_wise.datasets.subsets import companion_name
from mergekit_wise.report.comparison import SHIFTS, compare
from mergekit_wise.report.plots import scatter_plots
from mergekit_wise.report.summary import robustness
from mergekit_wise.report.svg import draw
from mergekit_wise.results import read_results

COMPANION = companion_name("imagenet-a")


def with_companion(lines, alphas=(0.0, 0.5, 1.0)):
    """A sweep that measured ImageNet's images of ImageNet-A's classes, too, as `--analyze` does."""
    found = lines.sweep(alphas, names=("imagenet", "imagenet-v2", "imagenet-a"))
    companion = {"dataset": COMPANION, "title": "ImageNet, A's classes", "role": "companion", "total": 10000}
    shares = {0.0: 8900, 0.5: 9400, 1.0: 9500}
    return [*found, *({**lines.entry("imagenet", a), **companion, "correct": shares[a]} for a in alphas)]


def plots_of(comparison):
    return {plot.column.name: plot for plot in scatter_plots(comparison)}


def line_of(plot):
    (guide,) = [guide for guide in plot.guides if guide.kind == "baseline"]
    return np.array(guide.points)


def test_imagenet_a_is_drawn_with_its_bend(compared, lines):
    """Where its classes of the reference were measured, they are the axis, and the line has both pieces and a jump.

    A point's distance from the line is the effective robustness of the table.
    """
    ((comparison,), _) = compared(with_companion(lines))
    plot = plots_of(comparison)["imagenet-a"]
    assert plot.x_label == "ImageNet, A's classes (%)"
    line, published = line_of(plot), BASELINES["imagenet-a"]
    below, above = line[line[:, 0] <= published.split], line[line[:, 0] > published.split]
    assert below[-1, 0] == published.split
    assert above[0, 0] - below[-1, 0] < 1e-12
    assert below[:, 1] == pytest.approx(published.below.expected(below[:, 0]))
    assert above[:, 1] == pytest.approx(published.above.expected(above[:, 0]))
    assert above[0, 1] > below[-1, 1] + 0.005
    for mark in plot.traces[0].marks:
        rho = robustness(comparison, comparison.curves[0], mark.alpha, plot.column).value.value
        assert mark.y - np.interp(mark.x, line[:, 0], line[:, 1]) == pytest.approx(rho, abs=2e-3)


def test_without_these_classes_the_line_is_over_all_of_imagenet(compared, lines):
    """The axis is the reference, and the line is another one, of the same models."""
    entries = [each for each in with_companion(lines) if (each["dataset"], each["alpha"]) != (COMPANION, 0.5)]
    ((comparison,), _) = compared(entries)
    plot = plots_of(comparison)["imagenet-a"]
    assert plot.x_label == "ImageNet (%)"
    line = line_of(plot)
    assert line[:, 1] == pytest.approx(IMAGENET_BASELINES["imagenet-a"].expected(line[:, 0]))


def test_the_average_of_the_shifts_has_the_average_of_their_lines(compared, lines):
    """Each shift has the same weight, as in the average itself."""
    ((comparison,), _) = compared(lines.sweep())
    line = line_of(plots_of(comparison)[SHIFTS])
    names = ("imagenet-v2", "imagenet-sketch", "imagenet-a")
    expected = np.mean([IMAGENET_BASELINES[name].expected(line[:, 0]) for name in names], axis=0)
    assert line[:, 1] == pytest.approx(expected)


def test_a_line_of_ones_own_comes_first(tmp_path, lines):
    """Lines from --baseline are drawn for their shifts, and the average uses them where they are known."""
    names = ("imagenet-v2", "imagenet-sketch")
    reading = read_results([lines.write(tmp_path / "r.jsonl", lines.sweep(names=("imagenet", *names)))])
    own = Baseline(0.8, -0.4)
    (comparison,) = compare(reading, {"imagenet-v2": own})
    plots = plots_of(comparison)
    line, average = line_of(plots["imagenet-v2"]), line_of(plots[SHIFTS])
    assert line[:, 1] == pytest.approx(own.expected(line[:, 0]))
    x = average[:, 0]
    assert average[:, 1] == pytest.approx((own.expected(x) + BASELINES["imagenet-sketch"].expected(x)) / 2)


@pytest.mark.parametrize("other", [{"dataset": "new"}, {"metric": "macro-f1", "value": 0.5}])
def test_a_shift_without_a_line_leaves_the_average_without_one(compared, lines, other):
    """The mean of some of the lines would be that of another average."""
    entries = [{**each, **other} if each["dataset"] == "imagenet-a" else each for each in lines.sweep()]
    ((comparison,), _) = compared(entries)
    plots = plots_of(comparison)
    assert not [guide for guide in plots[SHIFTS].guides if guide.kind == "baseline"]
    assert [guide for guide in plots["imagenet-v2"].guides if guide.kind == "baseline"]


def test_words_name_the_images_that_a_plot_is_drawn_against(compared, lines):
    """The description for screen readers names the column of the horizontal axis; an end that is the best is both."""
    (comparison,), _ = compared(with_companion(lines))
    plot = plots_of(comparison)["imagenet-a"]
    words = re.search("<desc[^>]*>(.*?)</desc>", draw(plot, "p", [0.0, 0.5, 1.0], 0))[1]
    assert "alpha 0 (zero-shot): 77.7 % at 89.0 % on ImageNet, A&#x27;s classes" in words
    assert "reference" not in words
    (comparison,), _ = compared(lines.sweep((0.0, 1.0)))
    words = draw(plots_of(comparison)["imagenet-a"], "p", [0.0, 1.0], 0)
    assert "alpha 0 (zero-shot, best): 77.7 % at 76.6 % on ImageNet;" in words
