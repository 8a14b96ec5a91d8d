"""The report draws the choice that a sweep wrote, and says where it does not cover what is shown."""

import json
import re

import pytest

from mergekit_wise.analysis import Choice, CrossFit, Difference, Estimate, Loss, Point, Recommendation
from mergekit_wise.api.report import write_report as report
from mergekit_wise.report.comparison import compare
from mergekit_wise.report.plots import difference_plots
from mergekit_wise.report.summary import summarize
from mergekit_wise.results import as_entry, choice_of, read_records, read_results

COMMAND = "wise merge zs.pt ft.pt --alpha 0.9 -o best.safetensors"


def chosen(alpha, differences=(), losses=(), **other):
    """A choice of an alpha."""
    point = Point.of_alpha(alpha)
    kept = Recommendation(point, f"because of {alpha}", "Mind this.")
    return Choice(
        "shifts", "", 0.0, kept, tuple(losses), tuple(differences), paired=True, **{"cross_fit": None, **other}
    )


def with_choices(path, lines, *choices, entries=None):
    """A results file with a sweep and choices among its mixtures."""
    entries = lines.sweep() if entries is None else entries
    lines.write(path, entries)
    records = read_records(path)
    lines.write(path, [*entries, *(as_entry(choice_of(records, choice, COMMAND)) for choice in choices)])
    return path


def page_of(path):
    """The page of a results file."""
    report(path, output=path.with_suffix(".html"))
    return path.with_suffix(".html").read_text(encoding="utf-8")


def test_the_page_recommends_what_was_written(tmp_path, lines):
    """The latest of two choices is shown with its reason and its warning, and the line that merges it."""
    page = page_of(with_choices(tmp_path / "r.jsonl", lines, chosen(0.2), chosen(0.9)))
    assert "<b>α = 0.9</b> – because of 0.9." in page
    assert "because of 0.2" not in page
    assert "Mind this." in page
    line = re.sub("<[^>]*>", "", re.search("<code>(.*?)</code>", page)[1])
    assert line == "wise merge zs.pt ft.pt --alpha 0.9 -o merged-0.9.safetensors"
    assert "skipped" not in page


def test_without_a_written_choice_the_page_says_that_it_chose_itself(tmp_path, lines):
    """Results of an earlier version get a choice by intervals, and the advice to run the sweep again."""
    page = page_of(lines.write(tmp_path / "r.jsonl", lines.sweep()))
    assert "<b>α = 0.5</b>" in page
    assert "holds no choice of a sweep" in page


def test_a_choice_among_other_measurements_is_not_shown(tmp_path, lines):
    """A choice among other weights, on other images or in another precision is not that of these results."""
    entries = lines.sweep()
    for change in ({"precision": "bf16"}, {"data": "other"}, {"weights": "0"}):
        path = with_choices(tmp_path / "other.jsonl", lines, chosen(0.9), entries=[{**e, **change} for e in entries])
        line = path.read_text().splitlines()[-1]
        page = page_of(lines.write(tmp_path / "r.jsonl", [*entries, line]))
        assert "because of 0.9" not in page, change
        assert "holds no choice of a sweep" in page


def test_each_way_of_measuring_has_its_own_choice(tmp_path, lines):
    """A quick look and the whole measurement, both in one file, are each shown with their own choice."""
    quick = [
        {**each, "total": 100, "correct": each["correct"] * 100 // each["total"], "limit": 100, "seed": 0}
        for each in lines.sweep()
    ]
    texts = []
    for number, (entries, alpha) in enumerate(((quick, 0.9), (lines.sweep(), 0.2))):
        texts += (
            with_choices(tmp_path / f"{number}.jsonl", lines, chosen(alpha), entries=entries).read_text().splitlines()
        )
    (comparison,) = compare(read_results([lines.write(tmp_path / "r.jsonl", texts)]))
    assert [each.alpha for each in summarize(comparison).recommendations] == [0.2, 0.9]


def test_what_was_added_after_the_choice_is_said(tmp_path, lines):
    """Alphas, data sets and new results that the choice does not know are named in a sentence each."""
    path = with_choices(tmp_path / "r.jsonl", lines, chosen(0.9))
    text = path.read_text()
    more = lines.sweep(alphas=(0.35, 0.45))
    page = page_of(lines.write(path, [*text.splitlines(), *more]))
    assert "Chosen among 11 of the 13 alphas shown." in page
    extra = [{**each, "dataset": "new", "title": "New"} for each in lines.sweep(names=("imagenet-v2",))]
    page = page_of(lines.write(path, [*text.splitlines(), *extra]))
    assert "Chosen on 4 of the 5 data sets shown." in page
    loss = Loss("ImageNet-A", Point.of_alpha(0.4), Estimate(0.5, 0.4, 0.6), None, None, significant=False)
    page = page_of(with_choices(path, lines, chosen(0.9, losses=[loss])))
    assert "measured again after alpha was chosen" in page


@pytest.fixture
def compared_pair(tmp_path, lines):
    """A file whose choice has losses, differences and a corrected number."""
    results = {each["alpha"]: each["correct"] / each["total"] for each in lines.sweep(names=("imagenet-a",))}
    point = Point.of_alpha(0.4)
    best = Estimate(results[0.4], 0.79, 0.81)
    loss = Loss("ImageNet-A", point, best, best, 0.0123, significant=True, difference=Estimate(0.0123, 0.004, 0.021))
    differences = [
        Difference(
            column,
            Point.of_alpha(alpha),
            Estimate(alpha / 100, alpha / 200, alpha / 50),
            Estimate(alpha / 100, -0.05, 0.07),
            None,
            significant=alpha > 0.6,
        )
        for column in ("ImageNet-A", "average of shifts")
        for alpha in (0.4, 0.8)
    ]
    fitted = CrossFit("halves", 0.812, 0.798, (point, Point.of_alpha(0.7)))
    return with_choices(tmp_path / "r.jsonl", lines, chosen(0.7, differences, [loss], cross_fit=fitted))


def test_losses_and_differences_have_their_paired_intervals(compared_pair, tmp_path):
    """On the page and in Markdown and LaTeX: the loss and every difference with its interval, in points, and stars."""
    report(compared_pair, output=tmp_path / "r.html", markdown=tmp_path / "r.md", latex=tmp_path / "r.tex")
    page, markdown = ((tmp_path / name).read_text(encoding="utf-8") for name in ("r.html", "r.md"))
    assert "1.2*<small>+0.4 to +2.1</small>" in page
    assert "+0.8*<small>+0.4 to +1.6</small>" in page
    assert "+0.4<small>+0.2 to +0.8</small>" in page
    assert "<details>" in page
    assert r"1.2\* (+0.4 to +2.1)" in markdown
    assert r"+0.8\* (+0.4 to +1.6)" in markdown
    assert r"Difference from $\alpha$ = 0.5" in (tmp_path / "r.tex").read_text(encoding="utf-8")


def test_naive_and_cross_fitted_numbers_are_shown(compared_pair):
    """Both numbers, and which alphas were chosen in the parts."""
    page = page_of(compared_pair)
    assert "81.2 % on the images that chose it; 79.8 % corrected" in page
    assert "(chosen: alpha 0.4, alpha 0.7)" in page


def test_the_plot_of_differences_has_both_bands(compared_pair, tmp_path):
    """The average that was compared has a plot with two bands, also as a file; other columns have none.

    At 0.5 itself the difference is zero.
    """
    report(compared_pair, output=tmp_path / "r.html", svg=tmp_path / "svg")
    names = [path.name for path in (tmp_path / "svg").iterdir() if "difference" in path.name]
    assert names == ["imagenet-shifts-difference-average-shifts.svg"]
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    plot = page[page.index('id="s0d0t"') :].partition("</svg>")[0]
    assert plot.count('class="band"') == 2
    (comparison,) = compare(read_results([compared_pair]))
    (drawn,) = difference_plots(comparison)
    marks = {mark.alpha: (mark.y, mark.y_interval, mark.y_wide) for mark in drawn.traces[0].marks}
    assert marks == {
        0.4: (0.004, (0.002, 0.008), (-0.05, 0.07)),
        0.5: (0.0, (0.0, 0.0), (0.0, 0.0)),
        0.8: (0.008, (0.004, 0.016), (-0.05, 0.07)),
    }


def test_averages_of_other_shifts_are_not_mixed(compared_pair, lines, tmp_path):
    """If the page's averages are over other shifts than the choice's, the choice's averages are not drawn."""
    extra = [{**each, "dataset": "new", "title": "New"} for each in lines.sweep(names=("imagenet-v2",))]
    path = lines.write(tmp_path / "more.jsonl", [*compared_pair.read_text().splitlines(), *map(json.dumps, extra)])
    report(path, output=tmp_path / "r.html", svg=tmp_path / "svg")
    assert not [each for each in (tmp_path / "svg").iterdir() if "difference" in each.name]
    assert "+0.8*<small>+0.4 to +1.6</small>" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_recommended_third_is_found_among_the_measurements(tmp_path, lines):
    """1/3, which has more digits than the keys of measurements, has its button, and its line in the diagrams."""
    entries = [*map(lines.with_calibration, lines.sweep((0.0, 1 / 3, 2 / 3, 1.0)))]
    page = page_of(with_choices(tmp_path / "r.jsonl", lines, chosen(1 / 3), entries=entries))
    assert '<button type="button" data-stop="1" aria-pressed="true">recommended</button>' in page
    assert "α = 0.333333: mean confidence 70.0 %" in page


def test_models_with_different_recommendations_have_a_button_each(tmp_path, lines):
    """The button says for which model, so that nobody takes one's alpha for the other's."""
    texts = []
    for number, (model, alpha) in enumerate((("one", 0.2), ("two", 0.9), ("three", 0.2))):
        path = with_choices(tmp_path / f"{number}.jsonl", lines, chosen(alpha), entries=lines.sweep(model=model))
        texts += path.read_text().splitlines()
    page = page_of(lines.write(tmp_path / "r.jsonl", texts))
    buttons = dict(re.findall(r'data-stop="(\d+)"[^>]*>(.*?)</button>', page))
    assert (buttons["2"], buttons["9"]) == ("recommended for one and 1 more", "recommended for two")
