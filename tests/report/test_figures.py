"""Plots for papers."""

import io

import pytest
from PIL import Image

from mergekit_wise.report.comparison import compare
from mergekit_wise.report.figures import draw_panels
from mergekit_wise.report.panels import alpha_panels, scatter_panels
from mergekit_wise.report.reading import read_results


@pytest.fixture
def panels(tmp_path, lines):
    """One plot of either kind: of curves with nothing and all right, with names that matplotlib takes for formulas."""
    names = ("imagenet", "imagenet-v2")
    flat = [{**each, "correct": 0} for each in lines.sweep([0, 1], names, model=r"$\frac$")]
    full = [{**each, "correct": each["total"]} for each in lines.sweep([0, 1], names, model="full_$x")]
    reading = read_results(
        [lines.write(tmp_path / "r.jsonl", [*flat, *full, *lines.sweep([None], names, model="one")])]
    )
    (comparison,) = compare(reading.measurements, reading.findings)
    return [scatter_panels(comparison)[0], alpha_panels(comparison)[0]]


def test_png_has_pixels(panels):
    """Not one colour."""
    for content in draw_panels(panels, "png").values():
        with Image.open(io.BytesIO(content)) as image:
            assert image.format == "PNG"
            assert min(image.size) > 500
            assert len(image.convert("RGB").getcolors(1 << 20)) > 10


@pytest.mark.parametrize(("kind", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_same_plot_gives_the_same_bytes(panels, kind, start):
    """No date, no random name; fonts in a PDF are not of Type 3, which journals refuse."""
    first, second = (draw_panels(panels, kind) for _ in range(2))
    assert first == second
    assert list(first) == [f"imagenet-shifts-scatter-imagenet-v2.{kind}", f"imagenet-shifts-alpha-imagenet.{kind}"]
    for content in first.values():
        assert content.startswith(start)
        assert b"/Type3" not in content


def test_plots_of_one_name_get_files_of_their_own(panels):
    """Data sets whose names differ in signs that files do without."""
    assert len(draw_panels([panels[0], panels[0], panels[0]], "png")) == 3
