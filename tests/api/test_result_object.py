"""How results look in Python: a line, the JSON of the command, a data frame, tables of a notebook, and a figure."""

import dataclasses
import importlib
import io
import json
import math
import pkgutil
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import mergekit_wise
from mergekit_wise import api
from mergekit_wise.api.fetch_data import Fetched
from mergekit_wise.api.result_object import LONGEST_REPR, ResultObject, plain
from mergekit_wise.models.towers import create_clip
from mergekit_wise.report.notebook import as_html
from mergekit_wise.report.table import Cell, Row, Table

CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}
HOSTILE = "<script>alert('&')</script>"


def classifier(path, seed):
    """A tiny image encoder with a head of ten classes."""
    torch.manual_seed(seed)
    visual = create_clip(CONFIG["model_cfg"]).visual
    tensors = {
        f"visual.{name}": tensor + 0.02 * torch.randn(tensor.shape) for name, tensor in visual.state_dict().items()
    }
    head = {"classification_head.weight": 9 * torch.randn(10, 16), "classification_head.bias": torch.randn(10)}
    save_file(tensors | head, path, {"open_clip_config": json.dumps(CONFIG)})
    return path


def labelled(root, checkpoint):
    """A data set of noise in which the checkpoint is right about seven of ten images, and every class has one."""
    rng, noise = np.random.default_rng(len(root.name)), Path("noise")
    noise.mkdir(exist_ok=True)
    for number in range(40):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(noise / f"{number:02}.png")
    for number, found in enumerate(mergekit_wise.predict(checkpoint, noise).predictions):
        label = number if number < 10 else (found.classes[0] + (number % 10 > 6)) % 10
        (root / f"{label}").mkdir(parents=True, exist_ok=True)
        (noise / found.file).rename(root / f"{label}" / found.file)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a pair of classifiers and unlabelled images, in which every function of the package has run once.

    Attributes:
        folder: where results files and outputs are, under the names that commands in this folder use.
        found: the result of each function by its name.
        printed: what the functions wrote on stdout and stderr.
    """
    folder, written = tmp_path_factory.mktemp("home"), io.StringIO()
    with chdir(folder):
        classifier("zs.safetensors", 0)
        classifier("ft.safetensors", 1)
        Path("images").mkdir()
        for number in range(3):
            Image.new("RGB", (32, 32), (80 * number, 0, 0)).save(f"images/{number}.png")
        for root, checkpoint in (("labelled", "zs"), ("shifted", "ft"), ("turned", "zs")):
            labelled(Path(root), f"{checkpoint}.safetensors")
        with redirect_stdout(written), redirect_stderr(written):
            found = {name: function(*given, **options) for name, (function, given, options) in CALLS.items()}
    return SimpleNamespace(folder=folder, found=found, printed=written.getvalue())


PAIR = ("zs.safetensors", "ft.safetensors")
SETS = {"suite": ["./shifted", "./turned"], "reference": "./labelled", "workers": 0}
EPOCH = {"epochs": 1, "batch_size": 5, "warmup": 0, "device": "cpu", "workers": 0}
w = mergekit_wise
CALLS = {
    "merge": (w.merge, (*PAIR, "m.safetensors"), {"alpha": 0.25}),
    "preview": (w.preview, (*PAIR, "m2.safetensors"), {}),
    "verify": (w.verify, ("m.safetensors",), {"zeroshot": PAIR[0], "finetuned": PAIR[1]}),
    "inspect": (w.inspect, (PAIR[0],), {}),
    "diff": (w.diff, PAIR, {}),
    "evaluate": (w.evaluate, (PAIR[0],), {**SETS, "results": "e.jsonl"}),
    "sweep": (w.sweep, PAIR, {**SETS, "alphas": [0, 0.5, 1], "analyze": True, "results": "s.jsonl"}),
    "compare": (w.compare, ("s.jsonl",), {"against": 0.5}),
    "compare models": (w.compare, ("e.jsonl", "s.jsonl"), {"alphas": [1]}),
    "rules": (w.rules, PAIR, {**SETS, "results": "r.jsonl"}),
    "predict": (w.predict, (PAIR[0], "images"), {"top": 2}),
    "calibrate": (w.calibrate, (PAIR[0], "c.safetensors"), {"on": "./labelled", "workers": 0}),
    "suites": (w.suites, (), {"names": "digits"}),
    "write_report": (w.write_report, (["s.jsonl"],), {"output": "page.html"}),
    "finetune": (w.finetune, (PAIR[0], "labelled", "tuned.safetensors"), EPOCH),
}
NAMES = tuple(CALLS)


def test_nothing_is_printed(home):
    """Functions write nothing on stdout and stderr."""
    assert home.printed == ""


@pytest.mark.parametrize("name", NAMES)
def test_a_result_is_a_line(name, home):
    """`repr` of every result is one line of a known length, whatever it holds."""
    text = repr(home.found[name])
    assert text.startswith(f"<{type(home.found[name]).__name__}: ")
    assert "\n" not in text
    assert len(text) < LONGEST_REPR + 40


def test_the_line_says_what_matters(home):
    """The numbers in the line are the result's own."""
    swept = home.found["sweep"]
    chosen = next(each for each in swept.candidates if each.point == swept.recommendation.point)
    text = repr(swept)
    assert f"alpha {swept.recommendation.alpha:g}" in text
    assert f"{100 * chosen.reference_accuracy:.1f} %" in text
    assert f"{100 * np.mean([c / t for c, t in chosen.shifts]):.1f} %" in text
    assert "3 mixtures on 3 data sets" in text
    assert f"{home.found['merge'].distance:.3g}" in repr(home.found["merge"])
    assert f"T = {home.found['calibrate'].fit.temperature:.4f}" in repr(home.found["calibrate"])


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_a_result_are_short_as_well(name, home):
    """Records, candidates, choices, answers and predictions inside a result are lines, too."""
    result = home.found[name]
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        for part in value if isinstance(value, tuple) else (value,):
            if type(part).__name__ in ("Record", "Candidate", "Choice", "Answers", "Analysis", "Prediction"):
                assert len(repr(part)) < 250
                assert "\n" not in repr(part)


def test_every_class_of_results_has_this_line():
    """No result class shows all its fields, as a dataclass would by itself."""
    for module in pkgutil.iter_modules(api.__path__):
        importlib.import_module(f"mergekit_wise.api.{module.name}")
    # A dataclass with slots is made twice, and the first one may still be there.
    found = [
        each for each in ResultObject.__subclasses__() if vars(sys.modules[each.__module__])[each.__name__] is each
    ]
    assert len(found) > 15
    for each in found:
        assert each.__repr__ is ResultObject.__repr__, each
        assert "__slots__" in vars(each)
        assert dataclasses.is_dataclass(each)
        assert each._summary is not ResultObject._summary
        assert getattr(mergekit_wise, each.__name__) is each


COMMANDS = {
    "inspect": ("inspect", "zs.safetensors"),
    "diff": ("diff", "zs.safetensors", "ft.safetensors"),
    "evaluate": ("eval", "zs.safetensors", "--results", "e.jsonl"),
    "sweep": ("sweep", "zs.safetensors", "ft.safetensors", "--alphas", "0,0.5,1", "--analyze", "--results", "s.jsonl"),
    "compare": ("compare", "s.jsonl", "--against", "0.5"),
    "compare models": ("compare", "e.jsonl", "s.jsonl", "--alphas", "1"),
    "rules": ("rules", "zs.safetensors", "ft.safetensors", "--results", "r.jsonl"),
    "predict": ("predict", "zs.safetensors", "images", "--top", "2"),
    "calibrate": ("calibrate", "zs.safetensors", "-o", "c.safetensors", "--on", "./labelled", "--workers", "0"),
    "suites": ("suites", "digits"),
    "finetune": (
        *("finetune", "zs.safetensors", "--train", "labelled", "-o", "tuned.safetensors", "--epochs", "1", "--restart"),
        *("--batch-size", "5", "--warmup", "0", "--device", "cpu", "--workers", "0"),
    ),
}
MEASURING = ("--suite", "./shifted,./turned", "--reference", "./labelled", "--workers", "0")


@pytest.mark.parametrize("name", COMMANDS)
def test_json_is_the_dictionary(name, home, wise, monkeypatch):
    """What ``--json`` prints is `to_dict`, of which eval, compare and predict print the list alone.

    Both runs measure the same, so only times are left out.
    """
    monkeypatch.chdir(home.folder)
    measuring = MEASURING if name in ("evaluate", "sweep", "rules") else ()
    done = wise(*COMMANDS[name], *measuring, "--json")
    assert done.exit_code == 0, done.output
    found = home.found[name].to_dict()
    if name == "predict":
        printed = [json.loads(line) for line in done.stdout.splitlines()]
        assert printed == found["predictions"]
        return
    printed = json.loads(done.stdout)
    part = {"evaluate": "records", "compare": "comparisons", "compare models": "comparisons"}.get(name)
    assert without_times(printed) == without_times(found[part] if part else found)


def without_times(value):
    """JSON without durations."""
    if isinstance(value, dict):
        return {key: without_times(entry) for key, entry in value.items() if key != "seconds"}
    return [without_times(entry) for entry in value] if isinstance(value, list) else value


def test_a_download_is_its_json():
    """The dictionary of a download is what ``wise data fetch --json`` prints."""
    fetched = Fetched("cars", Path("wds_cars"), 3, 4096, 8, 8041)
    names = {"name": "cars", "folder": "wds_cars", "files": 3, "bytes": 4096, "images": 8, "expected": 8041}
    assert fetched.to_dict() == names
    assert repr(fetched) == "<Fetched: cars, 8 images in 3 files, 4,096 bytes>"


@pytest.mark.parametrize("name", NAMES)
def test_a_dictionary_is_plain_json(name, home):
    """Dictionaries hold nothing that JSON lacks, neither tuples nor paths, infinities nor NaN."""
    found = home.found[name].to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_plain_values():
    """Tuples become lists, paths texts, and what is not finite None, at any depth."""
    value = {"a": (1, Path("x"), float("nan")), 2: {"b": [math.inf, True, None, "t"]}}
    assert plain(value) == {"a": [1, "x", None], "2": {"b": [None, True, None, "t"]}}


def test_the_frame_of_measurements_has_the_records_numbers(home):
    """A sweep's frame has a row per record with its number, interval, counts and calibration."""
    report = home.found["sweep"]
    frame = report.to_frame()
    assert len(frame) == len(report.records)
    for (_, row), record in zip(frame.iterrows(), report.records, strict=True):
        assert (row["dataset"], row["alpha"], row["role"]) == (record.dataset, record.alpha, record.role)
        assert (row["correct"], row["total"]) == (record.correct, record.total)
        assert row["value"] == record.correct / record.total
        assert (row["low"], row["high"]) == record.interval
        assert row["ece"] == record.calibration["ece"]
    wide = frame[frame.role != "companion"].pivot(index="alpha", columns="dataset", values="value")
    assert wide.shape == (3, 3)


def test_the_frame_of_a_merge_has_its_tensors(home):
    """A merge's frame has a row per tensor; the bytes add up to the weights, and equal tensors say so."""
    report = home.found["merge"]
    frame = report.to_frame()
    assert list(frame["tensor"]) == [outcome.name for outcome in report.outcomes]
    assert set(frame["source"]) <= {"mixed", "equal"}
    assert (frame[frame.action == "mix"]["alpha"] == 0.25).all()
    assert frame["bytes"].sum() == sum(4 * np.prod(outcome.plan.info.shape) for outcome in report.outcomes)


def test_the_frames_of_other_results(home):
    """Comparisons, rules, predictions, calibration, epochs and tensors have a row each, with their own numbers."""
    found = home.found
    compared = found["compare"].to_frame()
    assert len(compared) == sum(len(each.columns) for each in found["compare"].comparisons)
    first = found["compare"].comparisons[0].columns[0]
    assert compared.iloc[0][["difference_value", "difference_low"]].tolist() == [
        first.difference.value,
        first.difference.low,
    ]
    assert np.allclose(compared["second_value"] - compared["first_value"], compared["difference_value"])
    ruled = found["rules"].to_frame().set_index("rule")
    for result in found["rules"].results:
        assert ruled.loc[result.name, "reference_value"] == result.values[0].value
        assert math.isnan(ruled.loc[result.name, "shifts_gain_low"]) != bool(result.gains)
    predicted = found["predict"].to_frame()
    assert list(predicted["file"]) == ["0.png", "1.png", "2.png"]
    assert (predicted["probability"] >= predicted["probability_2"]).all()
    assert predicted["class"].tolist() == [each.classes[0] for each in found["predict"].predictions]
    calibrated = found["calibrate"].to_frame().set_index("when")
    assert calibrated.loc["after", "nll"] == found["calibrate"].fit.after.values["nll"]
    assert calibrated.loc["after", "nll"] <= calibrated.loc["before", "nll"]
    assert found["finetune"].to_frame()["loss"].tolist() == [found["finetune"].epochs[0].loss]
    assert len(found["diff"].to_frame()) == len(found["inspect"].to_frame()) == len(found["inspect"].tensors)
    assert found["verify"].to_frame().loc[0, "mixed"] == found["verify"].mixed
    assert found["suites"].to_frame()["name"].tolist() == [each.name for each in found["suites"].data_sets]


def test_without_pandas_the_error_says_how_to_get_it(home, monkeypatch):
    """pandas is no dependency; without it, `to_frame` is an ImportError that says what to install."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        home.found["sweep"].to_frame()


class Page(HTMLParser):
    """The tags and texts of a piece of HTML, whose elements must be closed in order."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_shows_tables(name, home):
    """The HTML of every result is a whole table with a row for each of its parts."""
    page = Page(home.found[name]._repr_html_())
    assert "table" in page.tags
    assert page.tags.count("tr") > 1 or name in ("verify",)
    assert not {"script", "style", "link", "img"} & set(page.tags)


def test_the_notebook_shows_the_numbers_of_the_terminal(home):
    """A cell of the notebook's table is that of the record."""
    texts = Page(home.found["evaluate"]._repr_html_()).texts
    for record in home.found["evaluate"].records:
        assert record.title in texts
        assert f"{record.correct}/{record.total}" in texts


def test_hostile_titles_are_escaped():
    """Names from files and from other people's data sets are texts in the HTML and nothing else."""
    cells = (Cell(HOSTILE, HOSTILE), Cell(HOSTILE, best=True))
    table = Table((HOSTILE, HOSTILE), (Row(cells, marked=True),), (Row(cells),), HOSTILE)
    html = as_html([table])
    assert "<script" not in html
    page = Page(html)
    assert "script" not in page.tags
    assert page.texts.count(HOSTILE) == 9


def test_a_long_table_is_cut_with_a_number():
    """A notebook keeps at most so many rows, and the number of the others."""
    page = Page(as_html([Table.of_texts(("n",), [(str(n),) for n in range(1250)])], most=50))
    assert page.tags.count("tr") == 51
    assert any("1,200 more rows" in text for text in page.texts)


@pytest.mark.parametrize("name", ["sweep", "compare", "compare models", "rules", "calibrate"])
def test_a_figure_is_drawn_apart_from_pyplot(name, home):
    """`plot` returns a figure with something in it; pyplot's figures, backend and settings stay as they were."""
    import matplotlib
    from matplotlib import pyplot
    from matplotlib.figure import Figure

    before = dict(matplotlib.rcParams)
    figure = home.found[name].plot()
    assert isinstance(figure, Figure)
    assert pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == before
    (axes,) = figure.axes
    assert axes.lines or axes.collections
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_the_figures_points_are_the_candidates(home):
    """The headline's line goes through the accuracies of the mixtures."""
    swept = home.found["sweep"]
    expected = [(each.reference_accuracy, each.shift_accuracy) for each in swept.candidates]
    lines = [np.column_stack(line.get_data()) for line in swept.plot().axes[0].lines]
    assert any(line.shape == (3, 2) and np.allclose(line, expected) for line in lines)


def test_the_reliability_diagram_holds_the_bins(home):
    """Each point of the diagram is a bin's mean confidence and share of right answers, in percent."""
    report = home.found["calibrate"]
    drawn = {line.get_label(): np.column_stack(line.get_data()) for line in report.plot().axes[0].lines}
    for name, found in (("before", report.fit.before), ("after", report.fit.after)):
        bins = np.array([each for each in found.bins if each[0]], np.float64)
        assert np.allclose(drawn[name], 100 * bins[:, [2, 1]] / bins[:, :1])


def test_without_a_shift_there_is_no_headline(home):
    """A sweep on one data set has no plot of shifts against the reference, and says so."""
    alone = mergekit_wise.sweep(
        home.folder / "zs.safetensors", home.folder / "ft.safetensors", alphas=[0, 1], suite="digits-noisy", limit=20
    )
    with pytest.raises(mergekit_wise.ResultsError, match="a reference and a shift"):
        alone.plot()
    assert len(repr(alone)) < LONGEST_REPR + 40


def test_drawing_imports_no_pyplot(home):
    """A process that draws a result does not import pyplot at all."""
    code = (
        "import sys, mergekit_wise; found = mergekit_wise.compare('s.jsonl', against=0.5); found.plot(); "
        "assert 'matplotlib.figure' in sys.modules; assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=home.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
