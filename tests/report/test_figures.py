"""Figures: the plots of a report, the picture of a sweep, and the figure for papers."""

import io
import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mergekit_wise.analysis import Point, Recommendation
from mergekit_wise.api.report import write_report as report
from mergekit_wise.errors import OutputError
from mergekit_wise.report.comparison import compare
from mergekit_wise.report.figure_style import ALONE, COLOURS
from mergekit_wise.report.figures import draw_plots, draw_sweep, plot_figure, require_drawable, sweep_figure
from mergekit_wise.report.overview import overview_plots
from mergekit_wise.report.paper_figure import INCHES, paper_figure
from mergekit_wise.report.paper_plots import every_plot, with_diagonal
from mergekit_wise.report.plots import alpha_plots, scatter_plots
from mergekit_wise.report.summary import summarize
from mergekit_wise.results import read_records, read_results

HALF = Recommendation(Point.of_alpha(0.5), "of a test", "")


@pytest.fixture
def plots(tmp_path, lines):
    """One plot of either kind: of curves with nothing and all right, with names that matplotlib takes for formulas."""
    names = ("imagenet", "imagenet-v2")
    flat = [{**each, "correct": 0} for each in lines.sweep([0, 1], names, model=r"$\frac$")]
    full = [{**each, "correct": each["total"]} for each in lines.sweep([0, 1], names, model="full_$x")]
    reading = read_results(
        [lines.write(tmp_path / "r.jsonl", [*flat, *full, *lines.sweep([None], names, model="one")])]
    )
    (comparison,) = compare(reading)
    return [scatter_plots(comparison)[0], alpha_plots(comparison)[0]]


@pytest.fixture
def records(tmp_path, lines):
    """A function that returns the records of a sweep as `wise sweep` has them in memory."""

    def build(*words, **other):
        return read_records(lines.write(tmp_path / "records.jsonl", lines.sweep(*words, **other)))

    return build


def test_png_has_pixels(plots):
    """The pictures are large enough and have more than a few colours."""
    for content in draw_plots(plots, "png").values():
        with Image.open(io.BytesIO(content)) as image:
            assert image.format == "PNG"
            assert min(image.size) > 500
            assert len(image.convert("RGB").getcolors(1 << 20)) > 10


@pytest.mark.parametrize(("kind", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_same_plot_gives_the_same_bytes(plots, kind, start):
    """Files hold no date and no random name, and PDFs embed TrueType, not fonts of Type 3, which journals refuse."""
    first, second = (draw_plots(plots, kind) for _ in range(2))
    assert first == second
    assert list(first) == [f"imagenet-shifts-scatter-imagenet-v2.{kind}", f"imagenet-shifts-alpha-imagenet.{kind}"]
    for content in first.values():
        assert content.startswith(start)
        assert b"/Type3" not in content
        assert kind == "svg" or b"/FontFile2" in content


def test_plots_of_equal_names_get_files_of_their_own(plots):
    """Plots whose names are equal after removing special characters get numbered files."""
    assert len(draw_plots([plots[0], plots[0], plots[0]], "svg")) == 3


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_picture_of_a_sweep_is_the_first_one_of_the_report(suffix, tmp_path, lines, records):
    """The suffix chooses the format, and the bytes are those that the report writes of the same records."""
    draw_sweep(records(), HALF, tmp_path / f"sweep.{suffix}")
    (comparison,) = compare(read_results([tmp_path / "records.jsonl"]))
    summary = summarize(comparison)
    assert summary.recommendations[0].point == HALF.point
    name, content = next(iter(draw_plots(every_plot(summary)[:1], suffix).items()))
    assert name == f"imagenet-shifts-scatter-average-shifts.{suffix}"
    assert (tmp_path / f"sweep.{suffix}").read_bytes() == content


def test_the_picture_of_a_grid_is_its_map(tmp_path, lines):
    """Two parameters have no curve: the picture is a map with both names, and a frame around the recommended cell."""
    entries = [
        {**each, "alpha": None, "point": [["depth-first", a], ["depth-last", b]]}
        for a in (0.0, 0.5)
        for b in (0.0, 1.0)
        for each in lines.sweep(((a + b) / 2,), ("imagenet", "imagenet-v2"))
    ]
    found = read_records(lines.write(tmp_path / "r.jsonl", entries))
    chosen = Recommendation(Point((("depth-first", 0.5), ("depth-last", 1.0))), "of a test", "")
    draw_sweep(found, chosen, tmp_path / "x.svg")
    assert {"depth-first", "depth-last"} <= set(texts_of(tmp_path / "x.svg"))
    (axes, _) = sweep_figure(found, chosen).axes
    assert len(axes.patches) == 2


def texts_of(path):
    """The texts of an SVG, which matplotlib names beside the glyphs that it draws."""
    return re.findall(r"<!-- (.*?) -->", path.read_text())


def test_the_picture_of_a_sweep_names_all_that_it_shows(tmp_path, records):
    """The legend has the two models, the recommended mixture, intervals, the baseline and y = x; points have alphas."""
    draw_sweep(records((0.0, 0.25, 0.5, 0.75, 1.0), ("imagenet", "imagenet-v2")), HALF, tmp_path / "x.svg")
    texts = texts_of(tmp_path / "x.svg")
    for text in (
        "zero-shot (α = 0)",
        "fine-tuned (α = 1)",
        "recommended (α = 0.5)",
        "merged models, with α",
        "95 % interval",
        "baseline models",
        "y = x",
        "0.25",
        "0.5",
        "0.75",
        "ImageNet (%)",
        "ImageNet-V2 (%)",
    ):
        assert texts.count(text) == 1, text


def test_a_sweep_with_accuracies_of_zero_and_one_is_drawn(tmp_path, records):
    """Their logits are infinite, so they are drawn just inside the axes."""
    zero = records((0.0,), ("imagenet", "imagenet-v2"), correct=0)
    one = records((1.0,), ("imagenet", "imagenet-v2"), correct=7500, total=7500)
    draw_sweep((*zero, *one), HALF, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10


def test_the_interval_of_an_accuracy_of_one_is_drawn(plots):
    """An interval lies where its point is drawn, just inside logit axes, and nowhere at infinity."""
    plot = plots[0]
    trace = plot.traces[0]
    marks = tuple(replace(mark, x=1.0, y_interval=(mark.y - 0.01, mark.y + 0.01)) for mark in trace.marks)
    figure = plot_figure(replace(plot, traces=(replace(trace, marks=marks),), x=replace(plot.x, kind="logit")))
    (axes, *_) = figure.axes
    for line in axes.lines:
        assert np.isfinite(axes.transData.transform(line.get_xydata())).all()


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path, records):
    """The error comes before any work if the folder is missing or the suffix names no picture."""
    with pytest.raises(OutputError, match="Create it first"):
        require_drawable(tmp_path / "no" / "x.png")
    with pytest.raises(OutputError, match=r"\.png, \.svg, \.pdf"):
        require_drawable(tmp_path / "x.jpg")
    (tmp_path / "x.png").mkdir()
    with pytest.raises(OutputError, match=r"x\.png"):
        draw_sweep(records((0.0, 1.0)), HALF, tmp_path / "x.png")


def test_a_sweep_without_a_shift_cannot_be_drawn(tmp_path, records):
    """There is nothing to draw the reference against, and no picture is left."""
    measured = records((0.0, 0.5), ("imagenet",))
    with pytest.raises(OutputError, match="a reference and a shift"):
        draw_sweep(measured, HALF, tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


LONG = "a_fine-tuned/model_with_a_very_long_name-vit-large-patch14-336px.safetensors + another one of the same kind"
NEAR = (0.0, 0.49, 0.495, 0.5, 0.505, 0.51, 1.0)


def many(lines, count, alphas=(0.0, 0.25, 0.5, 0.75, 1.0)):
    """A sweep on the reference and so many shifts."""
    shifts = [
        {**each, "dataset": f"shift-{number}", "title": f"Shift number {number} of a long list"}
        for number in range(count)
        for each in lines.sweep(alphas, ("imagenet-sketch",), loss=0.02 * number)
    ]
    return [*lines.sweep(alphas, ("imagenet",)), *shifts]


CASES = {
    "headline": lambda lines: lines.sweep(),
    "near": lambda lines: lines.sweep(NEAR),
    "hundred": lambda lines: lines.sweep([step / 100 for step in range(101)]),
    "long names": lambda lines: [
        {**each, "model": model, "title": f"{each['title']} of {LONG}", "suite": LONG}
        for model in (LONG, "short")
        for each in lines.sweep((0.0, 0.5, 1.0), loss=0.05 * (model == "short"))
    ],
    "one shift": lambda lines: lines.sweep(names=("imagenet", "imagenet-a")),
    "no reference": lambda lines: lines.sweep(names=("imagenet-v2", "imagenet-a")),
    "eleven shifts": lambda lines: many(lines, 11),
    "four models": lambda lines: [
        each
        for number in range(4)
        for each in lines.sweep((0.0, 0.25, 0.5, 0.75, 1.0), model=f"model {number}", loss=0.03 * number)
    ],
}


@pytest.fixture
def summary_of(compared, lines):
    """A function that returns the summary of a case."""

    def build(case):
        ((comparison,), _) = compared(CASES[case](lines))
        return summarize(comparison)

    return build


def require_order(figure):
    """No two texts of a figure meet, none leaves it, and no alpha lies on a point."""
    from matplotlib.text import Annotation, Text

    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    texts = [each for each in figure.findobj(Text) if each.get_visible() and each.get_text().strip()]
    boxes = [(each.get_text(), each.get_window_extent(renderer)) for each in texts]
    whole = figure.bbox
    for text, box in boxes:
        inside = box.x0 >= whole.x0 and box.x1 <= whole.x1 and box.y0 >= whole.y0 and box.y1 <= whole.y1
        assert inside, f"{text!r} leaves the figure"
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        assert not first.overlaps(second), f"{one!r} meets {other!r}"
    for axes in figure.axes:
        points = np.concatenate([line.get_xydata() for line in axes.lines if line.get_marker() not in ("None", "")])
        places = axes.transData.transform(points)
        for label in (each for each in axes.texts if isinstance(each, Annotation)):
            box = label.get_window_extent(renderer)
            assert not any(box.contains(*place) for place in places), f"{label.get_text()} is on a point"
    return [text for text, _ in boxes]


@pytest.mark.parametrize("case", CASES)
def test_nothing_overlaps_in_a_plot(case, summary_of):
    """In the first plot of a report, texts keep apart and stay inside, however near alphas and long names are."""
    summary = summary_of(case)
    texts = require_order(plot_figure(every_plot(summary)[0]))
    if case in ("headline", "hundred"):
        alphas = [f"{step / 10:g}" for step in range(1, 10)]
        assert sum(texts.count(alpha) > 0 for alpha in alphas) >= 5
    if case in ("headline", "near", "hundred", "four models"):
        assert texts.count("0.5") >= 1


@pytest.mark.parametrize(
    ("case", "width", "panels"),
    [
        *(("headline", width, 4) for width in INCHES),
        *(("long names", width, 4) for width in INCHES),
        ("one shift", "column", 1),
        ("no reference", "column", 3),
        ("eleven shifts", "column", 9),
        ("eleven shifts", "text", 12),
        ("four models", "column", 4),
    ],
)
def test_nothing_overlaps_in_the_figure_for_papers(case, width, panels, summary_of):
    """It has a panel for each shift, the width that was asked for, room on a page, and a note on what is left out."""
    figure, notes = paper_figure(summary_of(case), width)
    require_order(figure)
    assert len(figure.axes) == panels
    assert figure.get_figwidth() == INCHES[width]
    assert figure.get_figheight() <= 9
    assert bool(notes) == (case == "eleven shifts" and width == "column")
    assert all("Shift number 8" in note and "--width text" in note for note in notes)


def test_characters_without_a_sign_are_a_note_and_no_flood_of_warnings(tmp_path, lines, recwarn):
    """Matplotlib's font has no Chinese: one note names the characters, once each, only if there are figures."""
    path = lines.write(tmp_path / "r.jsonl", lines.sweep((0.0, 1.0), ("imagenet", "imagenet-a")))
    label = ["imagenet-a=数据 é数", "zeroshot=基"]
    found = report(path, output=tmp_path / "r.html", label=label, figure=tmp_path / "f.png", svg=tmp_path / "svg")
    (note,) = [note for note in found.notes if "boxes" in note]
    assert "lacks: 数据基." in note or "lacks: 基数据." in note
    assert not [each for each in recwarn if "Glyph" in str(each.message)]
    found = report(path, output=tmp_path / "r.html", label=label)
    assert not [note for note in found.notes if "boxes" in note]


@pytest.mark.parametrize("case", ["headline", "eleven shifts", "four models"])
def test_the_chart_of_all_data_sets_is_a_figure_for_each_model(case, summary_of):
    """It names every line, the average of the shifts too, and the lines have the results, all ringed where recommended.

    What the legend needs makes the figure higher and leaves the plot its size.
    """
    summary = summary_of(case)
    plots = overview_plots(summary)
    assert len(plots) == len(summary.comparison.curves)
    for plot, curve, chosen in zip(plots, summary.comparison.curves, summary.recommendations, strict=True):
        figure = plot_figure(plot)
        texts = require_order(figure)
        columns = [column for column in summary.comparison.columns if column.title != "Average of both"]
        assert {column.title for column in columns} <= {text.replace("\n", " ") for text in texts}
        for trace, column in zip(plot.traces, columns, strict=True):
            assert [mark.y for mark in trace.marks] == [curve.result(alpha, column).value for alpha in curve.alphas]
            assert trace.ringed == (chosen.point.numbers[0], "recommended")
        assert len({(trace.index % 7, trace.index % 5) for trace in plot.traces}) == len(columns)
        assert figure.get_figheight() * figure.axes[0].get_position().height > 2


def test_files_have_the_size_of_the_figure(summary_of, tmp_path):
    """A PDF's page, an SVG's canvas and a PNG's pixels are those of the width in inches, with nothing cut off."""
    from mergekit_wise.report.figures import figure_content

    figure, _ = paper_figure(summary_of("one shift"), "column")
    height = figure.get_figheight()
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", figure_content(figure, tmp_path / "x.pdf"))
    assert [float(each) for each in box.groups()] == pytest.approx([3.25 * 72, height * 72])
    svg = figure_content(figure, tmp_path / "x.svg").decode()
    assert float(re.search(r'width="([\d.]+)pt"', svg)[1]) == pytest.approx(3.25 * 72)
    with Image.open(io.BytesIO(figure_content(figure, tmp_path / "x.png"))) as image:
        assert image.size == (650, round(200 * height))


@pytest.mark.parametrize("case", ["headline", "one shift"])
def test_y_equals_x_is_in_every_plot_against_the_reference(case, summary_of):
    """It crosses the plot, and the curve keeps at least half of the height that it had."""
    for plot in scatter_plots(summary_of(case).comparison):
        drawn = with_diagonal(plot)
        (guide,) = [each for each in drawn.guides if each.kind == "diagonal"]
        assert all(x == y for x, y in guide.points)
        (low, _), (high, _) = guide.points
        assert drawn.x.place(high) - drawn.x.place(low) > 0.25
        heights = [mark.y for trace in plot.traces for mark in trace.marks]
        before, after = (each.y.place(max(heights)) - each.y.place(min(heights)) for each in (plot, drawn))
        assert after > 0.45 * before


def test_a_sweep_figure_has_the_numbers_of_the_records(records):
    """The curve goes through reference and average of the shifts, in shares, at every alpha."""
    found = records((0.0, 0.5, 1.0))
    shares = {(each.alpha, each.dataset): each.value for each in found}
    shifts = [name for name in dict.fromkeys(each.dataset for each in found) if name != "imagenet"]
    expected = [
        (shares[alpha, "imagenet"], np.mean([shares[alpha, name] for name in shifts])) for alpha in (0.0, 0.5, 1.0)
    ]
    (axes,) = sweep_figure(found, HALF).axes
    drawn = [line.get_xydata() for line in axes.lines if line.get_linewidth() == ALONE.line]
    assert any(each.shape == (3, 2) and np.allclose(each, expected) for each in drawn)


def lightness_and_colours(colours, matrix):
    """CIELAB (D65) of colours as people see them whose cones a matrix describes, [n, 3]."""
    from matplotlib.colors import to_rgb

    rgb = np.array([to_rgb(each) for each in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.array(matrix).T, 0, 1)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    )
    xyz = linear @ to_xyz.T / [0.95047, 1, 1.08883]
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize(
    "matrix",
    [
        np.eye(3),
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    ],
    ids=["normal", "deuteranopia", "protanopia"],
)
def test_colours_are_distinguished_by_the_colour_blind(matrix):
    """Any two colours of curves are at least 15 apart in CIELAB, with the cones of Machado et al. (2009)."""
    seen = lightness_and_colours(COLOURS, matrix)
    distances = [np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2)]
    assert min(distances) > 15
    white = lightness_and_colours(["white"], matrix)
    assert min(np.linalg.norm(seen - white, axis=1)) > 30
