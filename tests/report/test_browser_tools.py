"""What a reader does with the page in a browser: reads values, copies, saves, links to an alpha, prints it."""

import io
import json
import re
from itertools import pairwise
from types import SimpleNamespace

import pytest

from mergekit_wise.analysis import CrossFit, Difference, Estimate, Point
from mergekit_wise.api.report import write_report as report
from mergekit_wise.results import as_entry, choice_of, read_records
from tests.report import conftest as made
from tests.report.test_choices import chosen

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

TYPED = "wise merge '/home/me/my runs/zs.pt' /home/me/ft.pt --alpha 0.7 -o /home/me/best.pt"
LINE = "wise merge zs.pt ft.pt --alpha {0} -o merged-{0}.pt"
lines = SimpleNamespace(sweep=made.sweep, write=made.write)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A sweep with calibration, whose choice compared alphas in pairs, corrected its number, and was typed in full."""
    path = tmp_path_factory.mktemp("results") / "r.jsonl"
    entries = [
        {**each, "calibration": {"ece": 0.02 + each["alpha"] / 50, "nll": 0.5 + each["alpha"] / 5}}
        for each in made.sweep()
    ]
    lines.write(path, entries)
    near, wide = Estimate(0.01, 0.005, 0.02), Estimate(0.01, -0.05, 0.07)
    differences = [
        Difference("average of shifts", Point.of_alpha(alpha), near, wide, None, significant=True)
        for alpha in (0.4, 0.7)
    ]
    fitted = CrossFit("halves", 0.812, 0.798, (Point.of_alpha(0.4),))
    choice = choice_of(read_records(path), chosen(0.7, differences, cross_fit=fitted), TYPED)
    return lines.write(path, [*entries, as_entry(choice)])


@pytest.fixture(scope="module")
def context(browser):
    """A window of ordinary size in which copying is allowed."""
    found = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    found.grant_permissions(["clipboard-read", "clipboard-write"])
    yield found
    found.close()


@pytest.fixture(scope="module")
def page(context, results):
    """The page of the results, opened once; no test may leave an error or a broken policy behind."""
    report(results, output=results.with_suffix(".html"))
    found, seen = context.new_page(), []
    found.on("console", lambda message: seen.append(message.text))
    found.on("pageerror", lambda error: seen.append(str(error)))
    yield found
    assert seen == []


@pytest.fixture
def opened(page, results):
    """Open the page as if for the first time, by an address that ends with a text."""

    def go(fragment=""):
        page.goto("about:blank")
        page.goto(results.with_suffix(".html").as_uri() + fragment)
        return page

    return go


def shown_alpha(page):
    """What the label of the slider says."""
    return page.locator("label b").inner_text()


def saved(page, region, what):
    """The file that a button of a menu saves: its name, and its bytes."""
    region.locator(".menu summary").first.click()
    with page.expect_download() as download:
        region.get_by_role("button", name=what).first.click()
    return download.value.suggested_filename, download.value.path().read_bytes()


def copied(page, button):
    """What the clipboard holds after a click on a button that then says so."""
    button.click()
    sync_api.expect(page.locator("#live")).to_have_text("Copied")
    return page.evaluate("navigator.clipboard.readText()")


def table_region(page, title):
    """A table's region, with the menu above it."""
    return page.locator(".bar", has=page.locator(f"[aria-label^='{title}']")).first


def test_every_part_is_in_the_contents(opened):
    """Each heading of a part has a link that leads there, and the address says so without a change of alpha."""
    page = opened("#alpha=0.2")
    links = page.get_by_role("navigation", name="Contents").get_by_role("link")
    headings = page.locator("section h2, section h3").all_inner_texts()
    assert links.all_inner_texts() == headings
    assert "All data sets" in headings
    links.get_by_text("Results", exact=True).click()
    assert page.evaluate("location.hash") == "#s0-results"
    assert 0 <= page.locator("#s0-results").bounding_box()["y"] < 250
    assert shown_alpha(page) == "0.2"
    page.go_back()
    assert page.evaluate("location.hash") == "#alpha=0.2"


def test_the_address_says_the_alpha(opened):
    """It is read when the page is opened, also between stops, and replaced when the slider moves."""
    page = opened("#alpha=0.41")
    assert shown_alpha(page) == "0.4"
    before = page.evaluate("history.length")
    for stop in (6, 8, 9):
        page.get_by_role("slider").fill(str(stop))
    page.wait_for_url("**#alpha=0.9")
    assert page.evaluate("history.length") == before
    page.go_back()
    assert page.url == "about:blank"
    for nonsense in ("", "#alpha=", "#alpha=x", "#alpha=%E0%A4%A", "#beta=0.1"):
        assert shown_alpha(opened(nonsense)) == "0.7", nonsense


def test_a_changed_address_moves_the_slider(opened):
    """A reader who edits the address sees the alpha that it names."""
    page = opened()
    page.evaluate("location.hash = 'alpha=0.3'")
    sync_api.expect(page.locator("label b")).to_have_text("0.3")
    assert page.get_by_role("slider").get_attribute("aria-valuetext") == "α = 0.3"


def test_the_keyboard_reads_the_values_of_points(opened):
    """A plot is one stop of Tab; arrows go from point to point, whose name has all its values, and Enter goes there."""
    page = opened()
    plot = page.get_by_role("group", name="ImageNet against ImageNet-A")
    points = plot.get_by_role("button")
    assert points.count() == 11
    assert plot.locator("[tabindex='0']").count() == 1
    points.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    name = page.evaluate("document.activeElement.getAttribute('aria-label')")
    rows = {row["dataset"]: 100 * row["correct"] / row["total"] for row in made.sweep([0.2])}
    assert name.startswith(f"α = 0.2: ImageNet {rows['imagenet']:.1f} % (")
    assert f", ImageNet-A {rows['imagenet-a']:.1f} % (" in name
    assert page.locator(".tip").inner_text() == name
    page.keyboard.press("Enter")
    assert shown_alpha(page) == "0.2"
    page.keyboard.press("End")
    assert "α = 1 (fine-tuned): " in page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("Escape")
    assert not page.locator(".tip").is_visible()
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.closest('svg')") is None


def test_the_pointer_reads_the_values_of_points(opened):
    """The value of the point under the pointer is shown inside the window, and hidden away from points."""
    page = opened()
    plot = page.get_by_role("group", name="ImageNet-V2 along alpha")
    plot.scroll_into_view_if_needed()
    for place, start in ((0, "α = 0 (zero-shot): ImageNet-V2 70.5 %"), (10, "α = 1 (fine-tuned): ImageNet-V2 76.8 %")):
        box = plot.locator(".point").nth(place).bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tip = page.locator(".tip")
        assert tip.inner_text().startswith(start)
        around = tip.bounding_box()
        assert 0 <= around["x"] <= around["x"] + around["width"] <= 1280
    page.mouse.move(5, 5)
    assert not page.locator(".tip").is_visible()


def test_one_chart_has_all_data_sets(opened):
    """Every data set and the average is a line on one axis, and is named at its end, where no two names overlap."""
    page = opened()
    chart = page.locator("svg.overview")
    assert chart.locator("[data-points] > .line").count() == 5
    names = chart.locator("text.end")
    assert sorted(names.all_text_contents()) == sorted([*(each[1] for each in made.SETS), "Average of 3 shifts"])
    heights = sorted(float(name.get_attribute("y")) for name in names.all())
    assert all(after - before >= 13.9 for before, after in pairwise(heights))
    styles = chart.locator("[data-points]").evaluate_all(
        "all => all.map(g => getComputedStyle(g.querySelector('.line')).stroke)"
    )
    assert len(set(styles)) == 5


def test_the_merge_line_follows_the_slider(opened):
    """The command has the slider's alpha and the files' names without folders, and is copied whole."""
    page = opened()
    command = page.locator(".command code")
    assert command.inner_text() == LINE.format("0.7")
    page.get_by_role("slider").fill("4")
    assert command.inner_text() == LINE.format("0.4")
    assert copied(page, page.get_by_role("button", name="Copy the command")) == LINE.format("0.4")
    assert "/home" not in page.content()


def test_tables_are_copied_and_saved_as_the_command_writes_them(opened, results, tmp_path):
    """A table's Markdown and LaTeX are those of the options, and its CSV has a column for each number and interval."""
    page = opened()
    report(results, output=tmp_path / "r.html", markdown=tmp_path / "r.md", latex=tmp_path / "r.tex")
    region = table_region(page, "Results on")
    region.locator("summary").click()
    markdown = copied(page, region.get_by_role("button", name="Copy Markdown"))
    assert (tmp_path / "r.md").read_text(encoding="utf-8").startswith(markdown.strip())
    page.keyboard.press("Escape")
    name, latex = saved(page, region, "Save LaTeX")
    assert name == "results-on-imagenet-shifts.tex"
    assert (tmp_path / "r.tex").read_text(encoding="utf-8").startswith(latex.decode().strip())
    page.keyboard.press("Escape")
    _, csv = saved(page, region, "Save CSV")
    head, first = csv.decode().splitlines()[:2]
    assert head.startswith('α,"α, note",ImageNet,"ImageNet, note",')
    assert first.startswith("0,zero-shot,76.6,")
    assert page.locator(".bar .menu").count() == page.locator("table").count()


def test_a_plot_is_saved_as_a_drawing_that_needs_no_page(opened, browser, tmp_path):
    """The SVG has its colours as attributes, no script and no style, and draws the same alone, dark on white."""
    page = opened()
    page.emulate_media(color_scheme="dark")
    figure = page.locator("figure", has=page.get_by_role("heading", name="ImageNet-V2", exact=True)).first
    name, text = saved(page, figure, "Save SVG")
    page.emulate_media(color_scheme="light")
    assert name == "imagenet-v2-along-alpha.svg"
    drawn = text.decode()
    assert not re.search(r"<style|<script|class=|data-|var\(--", drawn)
    assert re.search(r'<rect [^>]*fill="#fff"', drawn)
    assert 'stroke="rgb(' in drawn
    (tmp_path / name).write_bytes(text)
    alone = browser.new_page()
    alone.goto((tmp_path / name).as_uri())
    assert alone.locator("text").count() == figure.locator("svg text").count()
    alone.close()


def test_a_plot_is_saved_as_a_picture(opened):
    """The PNG has three pixels for every unit of its plot, and something is drawn on white."""
    image = pytest.importorskip("PIL.Image")
    page = opened()
    figure = page.locator("figure", has=page.locator("svg.overview"))
    name, content = saved(page, figure, "Save PNG")
    assert name == "all-data-sets-along-alpha.png"
    picture = image.open(io.BytesIO(content)).convert("RGB")
    assert picture.size == (2040, 1080)
    colours = picture.getcolors(1 << 20)
    assert max(colours)[1] == (255, 255, 255)
    assert len(colours) > 50


def test_copying_works_without_a_clipboard(opened):
    """Where the browser gives the page no clipboard, the text is copied as a selection."""
    page = opened()
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined, configurable: true })")
    page.get_by_role("button", name="Copy the command").click()
    sync_api.expect(page.locator("#live")).to_have_text("Copied")
    page.evaluate("delete navigator.clipboard")
    assert page.evaluate("navigator.clipboard.readText()") == LINE.format("0.7")


def test_digests_are_folded_and_printed(opened):
    """Files, digests and versions are closed on the screen, and open while the page is printed, without controls."""
    page = opened()
    folded = page.locator("details", has_text="files, digests, versions, time")
    assert folded.get_attribute("open") is None
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert folded.get_by_text("torch 2.15.0").is_visible()
    assert [each.is_visible() for each in page.locator(".menu, .control, .toc, .copied > button").all()].count(
        True
    ) == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    assert folded.get_attribute("open") is None


def test_what_was_measured_beside_accuracy_is_shown(opened):
    """Calibration has curves and a table, paired differences have two bands, and the corrected number is shown."""
    page = opened()
    assert page.get_by_role("group", name="ECE").locator("circle.point").count() == 22
    page.locator("summary", has_text="Calibration on").click()
    table = page.get_by_role("table", name="Calibration on imagenet-shifts")
    assert table.locator("tbody tr").nth(5).locator("td").first.inner_text() == "3.0"
    plot = page.get_by_role("group", name="Average of 3 shifts: difference")
    assert plot.locator(".band").count() == 2
    assert page.get_by_text("79.8 % corrected").is_visible()


def test_a_phone_never_scrolls_the_page_sideways(opened, page):
    """With menus open and a value shown, nothing is wider than 360 pixels, and a table's first column stays in view."""
    opened()
    page.set_viewport_size({"width": 360, "height": 800})
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) == 360
    for head in (page.locator("section > .bar summary").first, page.locator("figcaption .menu summary").first):
        head.click()
        assert page.evaluate(width) == 360
        box = page.locator(".menu[open] .choices").bounding_box()
        assert 0 <= box["x"] <= box["x"] + box["width"] <= 360
    page.locator("circle.point").last.focus()
    assert page.evaluate(width) == 360
    region = page.get_by_role("region", name="Results on")
    first = region.locator("tbody th").first
    before = first.bounding_box()["x"]
    region.evaluate("region => { region.scrollLeft = 200; }")
    assert region.evaluate("region => region.scrollLeft") == 200
    assert first.bounding_box()["x"] == pytest.approx(before, abs=1.5)
    page.set_viewport_size({"width": 1280, "height": 900})


@pytest.mark.parametrize("width", [360, 1280])
def test_the_longest_labels_fit(context, results, tmp_path, width):
    """Labels of 80 characters without a space make nothing wider than the window, and buttons stay a line high."""
    labels = [f"zeroshot={'x' * 80}", f"finetuned={'W' * 80}", f"imagenet={'Y' * 80}"]
    report(results, output=tmp_path / "l.html", label=labels)
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 800})
    page.goto((tmp_path / "l.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert all(button.bounding_box()["height"] < 40 for button in page.locator(".jumps button").all())
    page.close()


def test_labels_are_what_readers_see(opened, page, results, tmp_path):
    """Models and data sets have their labels in buttons, tables, values and plots; the command has the files' names."""
    report(
        results,
        output=tmp_path / "l.html",
        label=["zeroshot=CLIP", "finetuned=CLIP, my data", "imagenet-a=Hard <images>"],
    )
    page.goto((tmp_path / "l.html").as_uri())
    assert page.locator(".jumps button").all_inner_texts() == ["CLIP", "recommended", "CLIP, my data"]
    assert "CLIP + CLIP, my data" in page.locator("header").inner_text()
    assert page.locator(".readout .zs").first.inner_text() == "CLIP"
    assert page.locator("svg.overview text.end", has_text="Hard <images>").count() == 1
    assert "ImageNet-A" not in page.locator("main").inner_text()
    plot = page.get_by_role("group", name="ImageNet against Hard <images>")
    assert plot.get_by_role("button").last.get_attribute("aria-label").startswith("α = 1 (CLIP, my data): ")
    assert page.locator(".command code").inner_text() == LINE.format("0.7")
    assert "zs.pt + ft.pt" in page.locator("dl.facts").text_content()
    (data,) = [json.loads(text) for text in page.locator("#data").all_text_contents()]
    assert all("ImageNet-A" not in text for texts in data["tables"].values() for text in texts.values())
