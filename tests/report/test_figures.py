"""Plots for papers, and the picture of a sweep."""

import io
import re

import pytest
from PIL import Image

from mergekit_wise.analysis import Candidate, Point
from mergekit_wise.errors import OutputError
from mergekit_wise.report.comparison import compare
from mergekit_wise.report.figures import draw_plots, draw_scatter, require_drawable
from mergekit_wise.report.plots import alpha_plots, scatter_plots
from mergekit_wise.results import read_results


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


def test_png_has_pixels(plots):
    """The pictures are large enough and have more than a few colours."""
    for content in draw_plots(plots, "png").values():
        with Image.open(io.BytesIO(content)) as image:
            assert image.format == "PNG"
            assert min(image.size) > 500
            assert len(image.convert("RGB").getcolors(1 << 20)) > 10


@pytest.mark.parametrize(("kind", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_same_plot_gives_the_same_bytes(plots, kind, start):
    """Files hold no date and no random name, and PDFs no fonts of Type 3, which journals refuse."""
    first, second = (draw_plots(plots, kind) for _ in range(2))
    assert first == second
    assert list(first) == [f"imagenet-shifts-scatter-imagenet-v2.{kind}", f"imagenet-shifts-alpha-imagenet.{kind}"]
    for content in first.values():
        assert content.startswith(start)
        assert b"/Type3" not in content


def test_plots_of_equal_names_get_files_of_their_own(plots):
    """Plots whose names are equal after removing special characters get numbered files."""
    assert len(draw_plots([plots[0], plots[0], plots[0]], "png")) == 3


SWEEP = tuple(
    Candidate(Point.of_alpha(alpha), (int(r * 1000), 1000), ((int(s * 1000), 1000),) * 3)
    for alpha, r, s in ((0.0, 0.8, 0.7), (0.25, 0.9, 0.79), (0.5, 0.95, 0.8), (1.0, 0.97, 0.6))
)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_picture_of_a_sweep_is_the_same_file_every_time(suffix, tmp_path):
    """The suffix chooses the format, and the same sweep gives the same bytes."""
    for name in ("a", "b"):
        draw_scatter(SWEEP, Point.of_alpha(0.5), tmp_path / f"{name}.{suffix}")
    content = (tmp_path / f"a.{suffix}").read_bytes()
    assert content.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix])
    assert content == (tmp_path / f"b.{suffix}").read_bytes()


def test_the_picture_of_a_sweep_names_its_alphas(tmp_path):
    """The legend names the two models and the recommended alpha, and every merged model is labelled with its alpha."""
    draw_scatter(SWEEP, Point.of_alpha(0.5), tmp_path / "x.svg")
    texts = re.findall(r"<!-- (.*?) -->", (tmp_path / "x.svg").read_text())  # matplotlib names the glyphs that it draws
    for text in ("zero-shot (α = 0)", "fine-tuned (α = 1)", "recommended (α = 0.5)", "0.25", "0.5"):
        assert text in texts


def test_a_sweep_with_accuracies_of_zero_and_one_is_drawn(tmp_path):
    """Their logits are infinite, so they are drawn just inside the axes."""
    extremes = (
        Candidate(Point.of_alpha(0.0), (0, 100), ((0, 100),)),
        Candidate(Point.of_alpha(1.0), (100, 100), ((100, 100),)),
    )
    draw_scatter(extremes, Point.of_alpha(1.0), tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path):
    """The error comes before any work if the folder is missing or the suffix names no picture."""
    with pytest.raises(OutputError, match="Create it first"):
        require_drawable(tmp_path / "no" / "x.png")
    with pytest.raises(OutputError, match=r"\.png, \.svg, \.pdf"):
        require_drawable(tmp_path / "x.jpg")
    (tmp_path / "x.png").mkdir()
    with pytest.raises(OutputError, match=r"x\.png"):
        draw_scatter(SWEEP, Point.of_alpha(0.5), tmp_path / "x.png")


def test_a_sweep_without_a_shift_cannot_be_drawn(tmp_path):
    """There is nothing to draw the reference against, and no file is left."""
    with pytest.raises(OutputError, match="a reference and a shift"):
        draw_scatter((Candidate(Point.of_alpha(0.5), (1, 2), ()),), Point.of_alpha(0.5), tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []
