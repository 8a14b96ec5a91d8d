"""The picture."""

import pytest
from PIL import Image

from mergekit_wise.analysis import Candidate
from mergekit_wise.errors import OutputError
from mergekit_wise.report.scatter import draw_scatter

CURVE = tuple(
    Candidate(alpha, (int(r * 1000), 1000), ((int(s * 1000), 1000),) * 3)
    for alpha, r, s in ((0.0, 0.8, 0.7), (0.5, 0.95, 0.8), (1.0, 0.97, 0.6))
)


def test_a_picture_is_drawn(tmp_path):
    """A PNG that is not blank."""
    draw_scatter(CURVE, 0.5, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        assert image.format == "PNG"
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10


def test_accuracies_of_zero_and_one_have_a_place(tmp_path):
    """Their logit is infinite."""
    ends = (Candidate(0.0, (0, 100), ((0, 100),)), Candidate(1.0, (100, 100), ((100, 100),)))
    draw_scatter(ends, 1.0, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 0


def test_a_picture_that_cannot_be_written_is_told(tmp_path):
    """The folder is missing."""
    with pytest.raises(OutputError, match="cannot be written"):
        draw_scatter(CURVE, 0.5, tmp_path / "no" / "x.png")
