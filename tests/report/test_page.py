"""The page as a text: what a browser will find in it. How it behaves there is in test_browser."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from mergekit_wise.api.report import write_report as report
from mergekit_wise.results import Analysis, append_records

HOSTILE = """</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">'"&]]>|"""
VOID = {"meta", "link", "input", "img", "br"}


class Reader(HTMLParser):
    """Elements, and whether each that is opened is closed in order."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.found, self.texts = [], [], []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))


@pytest.fixture
def page(tmp_path, lines):
    """The page of a file with the given lines, as text and as elements."""

    def build(content):
        report([lines.write(tmp_path / "r.jsonl", content)], output=tmp_path / "r.html")
        html = (tmp_path / "r.html").read_text("utf-8")
        reader = Reader()
        reader.feed(html)
        reader.close()
        assert reader.open == []
        return html, reader

    return build


def test_the_page_is_self_contained(page, lines):
    """The page links to the paper, refers to no other address, and its policy allows this script and style alone."""
    html, reader = page(lines.sweep())
    for tag, attributes in reader.found:
        assert tag not in {"img", "iframe", "object", "embed", "base", "form"}
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "action", "xlink:href"):
            paper = tag == "a" and attributes.get(name) == "https://arxiv.org/abs/2109.01903"
            assert paper or attributes.get(name, "data:").startswith(("data:", "#"))
    assert not re.search(r"@import|url\((?!#)", html)
    (policy,) = (each["content"] for tag, each in reader.found if each.get("http-equiv"))
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "blob:" not in policy
    for kind in ("script", "style"):
        (content,) = re.findall(rf"<{kind}>(.*?)</{kind}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_a_typical_page_is_small(page, lines):
    """A page of eleven alphas on eight data sets with an analysis is below 200 kB."""
    more = [{**each, "dataset": f"{each['dataset']}-2"} for each in lines.sweep()]
    found = [{"kind": "analysis", "suite": "imagenet-shifts", "dataset": "imagenet", "values": {"diversity": 0.1}}]
    html, _ = page([*lines.sweep(), *more, *found])
    assert len(html.encode()) < 200_000


def test_the_same_records_give_the_same_page(page, lines):
    """The page contains no date and nothing else that varies."""
    assert page(lines.sweep())[0] == page(lines.sweep())[0]


def test_names_are_text_everywhere(page, lines):
    """Names with markup stay text in the title, tables, plots, notes and announcements."""
    finding = {"kind": "analysis", "suite": HOSTILE, "dataset": HOSTILE, "values": {HOSTILE: HOSTILE}}
    content = lines.sweep(
        model=HOSTILE,
        suite=HOSTILE,
        title=HOSTILE,
        weights=HOSTILE,
        metric=HOSTILE,
        value=0.5,
        versions={HOSTILE: HOSTILE},
    )
    content += lines.sweep([0, 1], model="other", suite=HOSTILE, architecture=HOSTILE, **{HOSTILE: HOSTILE})
    html, reader = page([*content, finding, *content[:2]])
    plain, _ = page(lines.sweep())
    assert [tag for tag, _ in reader.found if tag in {"script", "img"}] == ["script", "script"]
    assert html.lower().count("<script") == plain.lower().count("<script") == 2
    assert not [attributes for _, attributes in reader.found if "onerror" in attributes]
    assert "window.hacked" in "".join(text for tag, text in reader.texts if tag in {"h2", "td", "li"})
    (data,) = (text for tag, text in reader.texts if tag == "script" and text.startswith("{"))
    assert HOSTILE in json.loads(data)["spoken"][0]


def test_identifiers_are_unique_and_references_lead_somewhere(page, lines):
    """Every id occurs once, and every reference for screen readers and clipping has its target."""
    html, reader = page([*lines.sweep(), *lines.sweep(suite="other")])
    names = [attributes["id"] for _, attributes in reader.found if "id" in attributes]
    assert len(names) == len(set(names))
    wanted = {name for _, each in reader.found for name in each.get("aria-labelledby", "").split()}
    wanted |= set(re.findall(r"url\(#([^)]*)\)", html))
    wanted |= {attributes["for"] for tag, attributes in reader.found if tag == "label"}
    assert len(wanted) > 10
    assert wanted <= set(names)


def test_moving_elements_have_a_position_for_every_alpha(page, lines):
    """Every moving element has as many positions as the slider has stops."""
    _, reader = page([*lines.sweep(), *lines.sweep([0, 0.25, 1], model="other")])
    lengths = {len(each["data-at"].split("|")) for _, each in reader.found if "data-at" in each}
    assert lengths == {12}
    (slider,) = (each for tag, each in reader.found if tag == "input")
    assert (slider["min"], slider["max"], slider["step"]) == ("0", "11", "1")


def test_every_number_of_the_records_is_in_the_table(page, lines):
    """The results table has every accuracy with one decimal."""
    _, reader = page(lines.sweep())
    texts = [text for tag, text in reader.texts if tag in {"td", "b"}]
    for row in lines.sweep():
        assert f"{100 * row['correct'] / row['total']:.1f}" in texts


def test_how_it_was_measured_is_shown(page, lines):
    """The page shows models, fingerprints, versions, counts and every other field of the records."""
    _, reader = page(lines.sweep(architecture="ViT-B-32", head="own", data="d1d2", tiles="4x4"))
    text = " ".join(text for _, text in reader.texts)
    for expected in ("zs.pt + ft.pt", f"{500:016x}", "torch 2.15.0", "50,000", "ViT-B-32", "d1d2", "tiles", "4x4"):
        assert expected in text, expected


@pytest.mark.parametrize(
    "content",
    [
        "one",
        "two models",
        "no reference",
        "unknown alpha",
        "only reference",
        "all or nothing",
        "extrapolated",
        "gap",
    ],
)
def test_there_is_a_page_whatever_was_measured(page, lines, content):
    """A page is drawn from a single record, without a reference, with gaps and with extrapolation."""
    made = {
        "one": [lines.entry("imagenet-v2", 0.5)],
        "two models": lines.sweep([0, 1]),
        "no reference": lines.sweep(names=("imagenet-v2", "imagenet-a")),
        "unknown alpha": lines.sweep([None]),
        "only reference": lines.sweep(names=("imagenet",)),
        "all or nothing": [
            {**each, "correct": each["total"] if each["role"] == "shift" else 0} for each in lines.sweep()
        ],
        "extrapolated": lines.sweep([-0.5, 0, 1, 1.5], loss=0.3),
        "gap": [lines.entry("imagenet", 0), lines.entry("imagenet-v2", 1)],
    }[content]
    html, reader = page(made)
    assert any(tag == "table" for tag, _ in reader.found)
    assert "nan" not in re.sub(r"<(script|style).*?</\1>", "", html, flags=re.DOTALL).lower()
    slider = [tag for tag, _ in reader.found if tag == "input"]
    assert bool(slider) == (content not in {"one", "unknown alpha"})


def test_captions_explain_only_what_is_there(page, lines):
    """With one mixture nothing is the best and no plot has a number; with several both are explained."""
    for alphas, explained in (([0.3], False), ([0, 0.5, 1], True)):
        html, _ = page(lines.sweep(alphas))
        assert ("the best of each column in bold" in html) == explained
        assert ("ρ is a model" in html) == explained
        assert "expected of models without robustness interventions" in html


def test_analysis_is_tables(tmp_path, page, lines):
    """The page shows what `wise sweep --analyze` found and what follows from the records alone."""
    values = {"prediction diversity": 0.1234, "overrides: zeroshot": 0.75}
    ensembles = {f"output-space ensemble at {alpha:g}": 0.8 for alpha in (0.25, 0.5)}
    about = {"model": "zs.pt + ft.pt", "suite": "imagenet-shifts", "images": 50000}
    about |= {"zeroshot": f"{0:016x}", "finetuned": f"{1000:016x}"}
    about |= {"dataset": "imagenet", "title": "ImageNet", "role": "reference", "data": "", "setting": ""}
    append_records(tmp_path / "found.jsonl", [Analysis(**about, values=values), Analysis(**about, values=ensembles)])
    html, reader = page([*lines.sweep(), *(tmp_path / "found.jsonl").read_text().splitlines()])
    texts = [text for _, text in reader.texts]
    for expected in (
        "prediction diversity",
        "overrides: zero-shot",
        "0.1234",
        "0.75",
        "Effective robustness",
        "Linear mode connectivity",
    ):
        assert expected in texts
    weights = lines.entry("imagenet", 0.5)
    assert f"weights +{100 * weights['correct'] / weights['total'] - 80:.1f}" in texts
    assert html.count('class="guide outputs c0"') == 1
    assert "output-space ensemble at" not in html


def test_an_analysis_without_a_record_is_reported(page, lines):
    """An analysis without a record of its data set is left out, and a warning names it."""
    lost = {"kind": "analysis", "suite": "imagenet-shifts", "dataset": "x", "title": "X-Net", "values": {"kl": 7.25}}
    html, _ = page([*lines.sweep(), lost])
    assert "The analysis of X-Net" in html
    assert "7.25" not in html
