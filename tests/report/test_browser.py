"""The page in a real browser: Debian's Chromium, without a screen and without a network."""

import math
import re
from itertools import pairwise

import pytest

from mergekit_wise.api.report import write_report as report
from tests.report.test_choices import compared_pair

__all__ = ["compared_pair"]

HOSTILE = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">'

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

# The values of a plot, read off its own ticks: [[value, pixel], ...] of an axis.
TICKS = """(svg, name) => [...svg.querySelectorAll(`text.${name}:not(.name)`)]
    .map(text => [Number(text.textContent), Number(text.getAttribute(name))])"""

CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    if (element.closest("script, style, .hidden") || !element.getClientRects().length) continue;
    if (![...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(rgb(element.closest("svg") ? style.fill : style.color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push([element.tagName, element.className, ratio]);
  }
  return found;
}"""


@pytest.fixture
def visit(browser, tmp_path, lines):
    """Open the page of files with the given lines; afterwards: no error, no message, no request but for the page."""
    contexts, seen, asked = [], [], []

    def go(*files, width=1280, **settings):
        paths = [lines.write(tmp_path / f"file{number}.jsonl", content) for number, content in enumerate(files)]
        report(paths, output=tmp_path / "r.html")
        context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("dialog", lambda dialog: seen.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "r.html").as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert seen == []
    assert [url for url in asked if not url.startswith("data:")] == [(tmp_path / "r.html").as_uri()] * len(contexts)


def set_slider(page, stop):
    page.get_by_role("slider").fill(str(stop))


def on_axis(ticks, pixel, curved):
    """The value at a pixel: between two ticks, in logits on curved axes."""
    (a, at_a), (b, at_b) = ticks[0], ticks[-1]
    if curved:
        a, b = (math.log(x / (100 - x)) for x in (a, b))
    value = a + (b - a) * (pixel - at_a) / (at_b - at_a)
    return 100 / (1 + math.exp(-value)) if curved else value


@pytest.mark.parametrize("stop", [0, 3, 7, 10])
def test_the_slider_moves_every_point_to_its_alpha(visit, lines, stop):
    """Read off each plot's own ticks, a point is at the accuracy that the records have at that alpha."""
    page = visit(lines.sweep())
    set_slider(page, stop)
    page.wait_for_timeout(200)
    shares = {r["title"]: 100 * r["correct"] / r["total"] for r in lines.sweep([stop / 10])}
    shifts = [share for title, share in shares.items() if title != "ImageNet"]
    shares["Average of 3 shifts"] = sum(shifts) / 3
    shares["Average of both"] = (shares["ImageNet"] + sum(shifts) / 3) / 2
    figures = page.locator("figure").all()
    assert len(figures) == 1 + 6 + 4
    for figure in figures[1:]:
        svg = figure.locator("svg")
        curved = "scatter" in svg.get_attribute("class")
        ticks = {name: svg.evaluate(TICKS, name) for name in "xy"}
        point = svg.locator("circle.now")
        x = on_axis(ticks["x"], float(point.get_attribute("cx")), curved)
        y = on_axis(ticks["y"], float(point.get_attribute("cy")), curved)
        title = figure.locator("h4").text_content()
        assert y == pytest.approx(shares[title], abs=0.15), title
        assert x == (pytest.approx(shares["ImageNet"], abs=0.15) if curved else pytest.approx(stop / 10, abs=0.005))


def test_the_slider_changes_every_number_beside_a_plot(visit, lines):
    """The merged model's number follows the slider, and those of the zero-shot and the fine-tuned model stay."""
    page = visit(lines.sweep())
    for stop in (2, 9):
        set_slider(page, stop)
        figure = page.locator("figure", has=page.get_by_role("heading", name="ImageNet-V2", exact=True)).first
        shown = figure.locator(".readout").inner_text()
        wanted = [lines.entry("imagenet-v2", alpha) for alpha in (0, stop / 10, 1)]
        first, middle, last = (f"{100 * row['correct'] / row['total']:.1f}" for row in wanted)
        assert re.sub(r"\s+", " ", shown).split(" ")[1] == first
        assert f"α = {stop / 10:g}" in shown
        assert middle in shown
        assert shown.strip().endswith(last)
        (row,) = page.locator("table").first.locator("tbody tr.now").all()
        assert row.locator("th").text_content() == f"{stop / 10:g}"


def test_it_starts_at_the_recommended_alpha(visit, lines):
    """The slider starts at the recommended alpha and has buttons for it and for the two models."""
    page = visit(lines.sweep())
    slider = page.get_by_role("slider")
    assert slider.get_attribute("aria-valuetext") == "α = 0.5, recommended"
    for name, stop in (("zero-shot", "0"), ("fine-tuned", "10"), ("recommended", "5")):
        page.get_by_role("button", name=name, exact=True).click()
        assert slider.input_value() == stop
        assert page.locator("[aria-pressed=true]").all_text_contents() == [name]


def test_the_keyboard_is_enough(visit, lines):
    """Arrows and Home move the slider, changes are announced to screen readers, and Enter sorts."""
    page = visit(lines.sweep())
    page.keyboard.press("Tab")
    while page.evaluate("document.activeElement.id") != "alpha":
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    slider = page.get_by_role("slider", name="α = 0.6")
    assert slider.get_attribute("aria-valuetext") == "α = 0.6"
    page.keyboard.press("Home")
    assert page.get_by_role("slider").get_attribute("aria-valuetext") == "α = 0, zero-shot"
    live = page.locator("[aria-live=polite]")
    reference, *shifts = (100 * row["correct"] / row["total"] for row in lines.sweep([0]))
    mean = sum(shifts) / 3
    both = f"Average of 3 shifts {mean:.1f} %, Average of both {(reference + mean) / 2:.1f} %"
    announced = f"α = 0, zero-shot. ImageNet {reference:.1f} %, {both}."
    sync_api.expect(live).to_have_text(announced)
    head = page.locator("th", has_text="ImageNet-A").first
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    sync_api.expect(live).to_have_text("sorted by ImageNet-A, descending")


def test_tables_sort(visit, lines):
    """Numbers sort descending, ascending and back, one column at a time, and missing numbers come last."""
    gap = [each for each in lines.sweep([0, 0.5, 1, 10]) if (each["dataset"], each["alpha"]) != ("imagenet-a", 0.5)]
    page = visit([{**each, "correct": 7} if each["alpha"] == 10 else each for each in gap])
    table = page.locator("table").first

    def column(number):
        return [text.split("\n")[0] for text in table.locator(f"tbody tr > :nth-child({number})").all_inner_texts()]

    assert column(1) == ["0", "0.5", "1", "10"]
    head = table.locator("th", has_text="ImageNet-A")
    head.get_by_role("button").click()
    assert column(1) == ["0", "1", "10", "0.5"]
    assert [float(text) for text in column(5)[:3]] == sorted((float(t) for t in column(5)[:3]), reverse=True)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(1) == ["10", "1", "0", "0.5"]
    other = table.locator("thead th").first
    other.get_by_role("button").click()
    assert (head.get_attribute("aria-sort"), other.get_attribute("aria-sort")) == ("none", "ascending")
    assert column(1) == ["0", "0.5", "1", "10"]
    other.get_by_role("button").click()
    assert column(1) == ["10", "1", "0.5", "0"]
    other.get_by_role("button").click()
    assert (column(1), other.get_attribute("aria-sort")) == (["0", "0.5", "1", "10"], "none")
    page = visit([*lines.sweep([0, 0.5]), *lines.sweep([None])])
    table = page.locator("table").first
    for order in (["0", "0.5", "–"], ["0.5", "0", "–"]):
        table.locator("thead th").first.get_by_role("button").click()
        assert column(1) == order


def test_a_click_on_a_plot_goes_to_the_nearest_alpha(visit, lines):
    """In plots along alpha only the horizontal distance counts."""
    page = visit(lines.sweep())
    svg = page.locator("svg.alpha:not(.overview)").first
    box = svg.bounding_box()
    svg.click(position={"x": box["width"] * (38 + 0.72 * 290) / 340, "y": box["height"] / 2})
    assert page.get_by_role("slider").input_value() == "7"


def test_several_files_are_compared(visit, lines):
    """Every plot has a point for each file; a file without the slider's alpha shows its nearest and names it."""
    page = visit(lines.sweep(), lines.sweep([0, 0.25, 0.5, 1], loss=0.05))
    figure = page.locator("figure:has(.readout)").first
    assert figure.locator("circle.now").count() == 2
    set_slider(page, 9)  # the stops are 0, 0.1, 0.2, 0.25 ...
    shown = figure.locator(".readout").all_inner_texts()
    assert "α = 0.8" in shown[0]
    assert "α = 1" in shown[1]


def test_names_do_no_harm(visit, lines):
    """Names that contain markup are shown as text, and no script in them runs."""
    content = lines.sweep(model=HOSTILE, suite=HOSTILE, title=HOSTILE, **{HOSTILE: HOSTILE})
    page = visit([*content, *lines.sweep([0, 1], model="other", suite=HOSTILE)])
    assert page.evaluate("window.hacked") is None
    assert page.locator("h2", has_text=HOSTILE).count() == 1
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 768, 1280])
def test_it_fits_and_can_be_read(visit, lines, width, scheme):
    """No width scrolls sideways, text has a contrast of 4.5 to 1, and buttons are large enough for a finger."""
    long = "a-very-long-name-without-any-space-in-it" * 3
    page = visit(lines.sweep(), lines.sweep([0, 0.5, 1], model=long), width=width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 23)"
    assert dark == (scheme == "dark")
    sizes = [button.bounding_box() for button in page.locator(".jumps button").all()]
    assert sizes
    assert all(size["height"] >= 24 and size["width"] >= 24 for size in sizes)


def test_names_in_plots_end_inside_them(visit, lines):
    """However wide its characters are, a name is cut with an ellipsis before the edge of the drawing."""
    names = {"imagenet": "CIFAR-10.1, FMOW, WILDS: OOD TEST", "imagenet-v2": "m%" * 20, "imagenet-a": "数据" * 30}
    page = visit([{**each, "title": names.get(each["dataset"], each["title"])} for each in lines.sweep([0, 0.5, 1])])
    ends = page.evaluate(
        """() => [...document.querySelectorAll("svg text.end, svg text.name")].map((text) => {
          const { x, width } = text.getBBox();
          return [text.textContent, x, x + width, text.ownerSVGElement.viewBox.baseVal.width];
        })"""
    )
    assert [text for text, low, high, room in ends if low < 0 or high > room] == []
    assert {"ImageNet-Sketch", "Average of 3 shifts"} < {text for text, *_ in ends}
    assert sum("…" in text for text, *_ in ends) >= 3


def test_high_contrast_still_shows_where_the_slider_is(visit, lines):
    """Where the system takes backgrounds away, the pressed button and the row of the mixture differ from the others."""
    page = visit(lines.sweep(), forced_colors="active")
    colour = "element => getComputedStyle(element).backgroundColor"
    for chosen, other in (
        (".jumps [aria-pressed=true]", ".jumps [aria-pressed=false]"),
        ("tr.now td", "tr:not(.now) td"),
    ):
        assert page.locator(chosen).first.evaluate(colour) != page.locator(other).first.evaluate(colour)


def test_it_prints(visit, lines):
    """The printed page is dark on white, has no slider, and fits on a few pages."""
    page = visit(lines.sweep(), color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.get_by_role("slider").is_visible()
    assert page.evaluate(CONTRAST) == []
    assert len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4"))) in range(2, 8)


def test_screen_readers_find_names_for_everything(visit, lines):
    """Plots have titles and describe their numbers, tables are named, and heading levels descend one at a time."""
    page = visit(lines.sweep())
    plot = page.get_by_role("group", name="ImageNet against ImageNet-V2")
    assert plot.count() == 1
    assert plot.get_by_role("button").count() == 11
    for landmark in ("banner", "navigation", "main", "contentinfo"):
        assert page.get_by_role(landmark).count() == 1, landmark
    about = page.locator("svg.scatter desc").first.text_content()
    assert "% on ImageNet" in about
    about = page.locator("svg:not(.overview) desc").first.text_content()
    assert about.startswith("zs.pt + ft.pt: alpha 0 (zero-shot): 76.6 %; ")
    assert page.get_by_role("region", name="Results on imagenet-shifts").count() == 1
    levels = [int(tag[1]) for tag in page.locator("h1, h2, h3, h4").evaluate_all("all => all.map(h => h.tagName)")]
    assert levels[:2] == [1, 2]
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_without_its_script_it_is_still_a_page(visit, lines):
    """Without the script everything is drawn at the recommended alpha, and no control is shown that would not work."""
    page = visit(lines.sweep(), java_script_enabled=False)
    assert not page.get_by_role("slider").is_visible()
    assert "α = 0.5" in page.locator("figure:has(.readout)").first.inner_text()
    assert page.locator("figure:has(.readout) circle.now").count() == 10
    assert page.get_by_role("img").count() == page.locator("svg").count() == 11
    assert page.locator(".command code").inner_text() == "wise merge zs.pt ft.pt --alpha 0.5 -o merged-0.5.safetensors"
    assert page.get_by_role("button", name="Copy").count() == 0


@pytest.mark.parametrize("width", [390, 1280])
def test_a_written_choice_is_shown_in_the_browser(visit, compared_pair, width):
    """Its command can be read, its table unfolds, the plot's point follows the slider, and nothing is too wide."""
    page = visit(compared_pair.read_text().splitlines(), width=width)
    assert page.locator(".command code").inner_text().startswith("wise merge ")
    table = page.get_by_role("table", name="Difference from")
    assert not table.is_visible()
    page.locator("summary", has_text="Difference from").click()
    assert table.is_visible()
    svg = page.locator("figure:has(svg)", has_text="Difference from α = 0.5").locator("svg")
    for stop, points in ((4, 0.4), (5, 0.0), (8, 0.8)):
        set_slider(page, stop)
        page.wait_for_timeout(200)
        ticks = svg.evaluate(TICKS.replace("text.textContent", 'text.textContent.replace("−", "-")'), "y")
        assert on_axis(ticks, float(svg.locator("circle.now").get_attribute("cy")), False) == pytest.approx(
            points, abs=0.1
        )
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) == []
