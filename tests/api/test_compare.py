"""Two results files, or the mixtures of one sweep, compared: paired where the answers are known, else unpaired."""

import numpy as np
import pytest
from scipy.stats import binomtest
from typer.testing import CliRunner

from mergekit_wise import compare
from mergekit_wise.analysis import Answers, Choice, Point, Recommendation, clopper_pearson
from mergekit_wise.cli.app import app
from mergekit_wise.datasets.dataset import Metric
from mergekit_wise.errors import ResultsError, UsageError
from mergekit_wise.results import AnswerStore, Record, append_records, choice_of

IMAGES = 200
SETS = {"ref": "reference", "one": "shift", "two": "shift"}


def right_of(seed, share):
    """Which of the images a model is right on, bool [IMAGES]."""
    return np.random.default_rng(seed).random(IMAGES) < share


def write(path, model, right, *, alpha=None, answers=True, suite="s", **other):
    """Append the records of a model, `right` by data set, and keep its answers."""
    found = []
    for name, answered in right.items():
        facts = {"data": f"digest of {name}", **other}
        record = Record(
            model,
            f"{model} {alpha}",
            alpha,
            suite,
            name,
            name.title(),
            SETS[name],
            int(answered.sum()),
            IMAGES,
            **facts,
        )
        found.append(record)
        if answers:
            labels = np.zeros(IMAGES, np.int64)
            numbers = np.full((1, 4, IMAGES), 0.5, np.float32)
            classes = np.where(answered, 0, 1).astype(np.int32)[None]
            given = Answers(
                name, name.title(), SETS[name], Metric(), 2, labels, np.arange(IMAGES), "", classes, numbers
            )
            AnswerStore.beside(path).save(record, given)
    append_records(path, found)
    return found


def models(seed=0):
    """Two models that share most of their errors: the second is right on some more images of every data set."""
    first = {name: right_of(seed + place, 0.7) for place, name in enumerate(SETS)}
    return first, {
        name: right | (right_of(seed + 50 + place, 0.1)) for place, (name, right) in enumerate(first.items())
    }


@pytest.fixture
def files(tmp_path):
    """Two results files with answers, and which images their models are right on."""
    first, second = models()
    write(tmp_path / "a.jsonl", "a.pt", first)
    write(tmp_path / "b.jsonl", "b.pt", second)
    return tmp_path / "a.jsonl", tmp_path / "b.jsonl", first, second


def by_column(found):
    """The only comparison's columns, by name."""
    (one,) = found.comparisons
    return {each.column: each for each in one.columns}


def test_two_models_are_compared_image_by_image(files):
    """Results, differences and p-values are those of the counts and of scipy's binomial test; averages are means."""
    path, other, first, second = files
    found = compare(path, other)
    assert found.notes == ()
    columns = by_column(found)
    for name in SETS:
        one, mine, theirs = columns[name.title()], first[name], second[name]
        only_first, only_second = int((mine & ~theirs).sum()), int((theirs & ~mine).sum())
        assert one.paired
        assert (one.first, one.second) == pytest.approx((mine.mean(), theirs.mean()))
        assert one.difference.value == pytest.approx(theirs.mean() - mine.mean())
        assert one.p == pytest.approx(binomtest(only_first, only_first + only_second).pvalue)
        assert one.better == ("second" if one.p < 0.05 else "")
    gains = {name: second[name].mean() - first[name].mean() for name in SETS}
    shifts = (gains["one"] + gains["two"]) / 2
    assert columns["average of shifts"].difference.value == pytest.approx(shifts)
    assert columns["average of both"].difference.value == pytest.approx((gains["ref"] + shifts) / 2)
    assert columns["average of both"].better == "second"


def test_turning_the_files_round_turns_the_result_round(files):
    """B against A is A against B with the other sign and the same test."""
    path, other, *_ = files
    there, back = by_column(compare(path, other)), by_column(compare(other, path))
    for name, one in there.items():
        assert back[name].difference.value == pytest.approx(-one.difference.value)
        assert back[name].p == one.p
        assert {one.better, back[name].better} in ({""}, {"first", "second"})


@pytest.mark.parametrize("lacking", ["a", "b"])
def test_without_answers_intervals_are_of_independent_results(files, lacking, tmp_path):
    """The interval is MOVER's from both Clopper-Pearson intervals, wider than the paired one, and a note says why."""
    path, other, first, second = files
    paired = by_column(compare(path, other))
    for each in (tmp_path / f"{lacking}.answers").iterdir():
        each.unlink()
    found = compare(path, other)
    (note,) = found.notes
    assert str(tmp_path / f"{lacking}.answers") in note
    columns = by_column(found)
    one = columns["One"]
    mine, theirs = first["one"], second["one"]
    low, high = clopper_pearson(int(mine.sum()), IMAGES)
    lower, upper = clopper_pearson(int(theirs.sum()), IMAGES)
    difference = theirs.mean() - mine.mean()
    assert (one.paired, one.p) == (False, None)
    assert one.difference.low == pytest.approx(difference - np.hypot(theirs.mean() - lower, high - mine.mean()))
    assert one.difference.high == pytest.approx(difference + np.hypot(upper - theirs.mean(), mine.mean() - low))
    for name, each in columns.items():
        assert each.difference.low < paired[name].difference.low
        assert each.difference.value == pytest.approx(paired[name].difference.value)


def test_other_images_are_not_compared(tmp_path):
    """A data set of one name with other images, or measured by one model alone, is named in a note and left out."""
    first, second = models()
    write(tmp_path / "a.jsonl", "a.pt", first)
    write(tmp_path / "c.jsonl", "c.pt", {"ref": second["ref"]})
    write(tmp_path / "c.jsonl", "c.pt", {"one": second["one"]}, data="other")
    found = compare(tmp_path / "a.jsonl", tmp_path / "c.jsonl")
    assert list(by_column(found)) == ["Ref"]
    assert any(note.startswith("One is not compared: other images") for note in found.notes)
    assert any("not compared: Two" in note for note in found.notes)
    write(tmp_path / "d.jsonl", "d.pt", {"one": second["one"]}, data="other")
    with pytest.raises(ResultsError, match="No data set was measured on the same images"):
        compare(tmp_path / "a.jsonl", tmp_path / "d.jsonl")


def test_a_file_of_several_models_or_suites_must_be_chosen_from(files, tmp_path):
    """The refusal lists what there is; --model, once or twice, and --suite choose."""
    path, other, _, second = files
    write(path, "c.pt", second)
    with pytest.raises(UsageError, match=r"2 models on s: 'a\.pt', 'c\.pt'"):
        compare(path, other)
    pair = compare(path, model=["a.pt", "c.pt"])
    assert (pair.comparisons[0].first, pair.comparisons[0].second) == ("a.pt", "c.pt")
    assert (
        by_column(pair)["One"].difference
        == by_column(compare(tmp_path / "a.jsonl", other, model=["a.pt", "b.pt"]))["One"].difference
    )
    with pytest.raises(UsageError, match="holds no record of it on s"):
        compare(path, model="d.pt")
    write(other, "b.pt", second, suite="more")
    with pytest.raises(UsageError, match="2 suites: s, more"):
        compare(other, path, model=["b.pt", "a.pt"])
    assert by_column(compare(other, path, suite="s", model=["b.pt", "a.pt"]))


def a_sweep(path, alphas, seed=0):
    """A sweep whose mixtures get better along alpha."""
    records, base = [], {name: right_of(seed + place, 0.6) for place, name in enumerate(SETS)}
    for place, alpha in enumerate(alphas):
        better = {name: right | right_of(seed + 9, 0.1 * place) for name, right in base.items()}
        records += write(path, "zs + ft", better, alpha=alpha, pair="z+f")
    return records


def test_the_mixtures_of_one_sweep_are_compared_with_one_of_them(tmp_path):
    """By default with 0.5, else with --against; --alphas restricts which, and the count is of single data sets."""
    a_sweep(tmp_path / "r.jsonl", (0.0, 0.25, 0.5, 1.0))
    found = compare(tmp_path / "r.jsonl")
    assert [each.point.alpha for each in found.comparisons] == [0.0, 0.25, 1.0]
    assert len(found.on_data_sets) == 9
    other = compare(tmp_path / "r.jsonl", against=1.0, alphas=[0.5])
    assert [each.point.alpha for each in other.comparisons] == [0.5]
    last = {each.column: each.difference.value for each in found.comparisons[-1].columns}
    turned = {each.column: -each.difference.value for each in other.comparisons[0].columns}
    assert turned == pytest.approx(last)
    with pytest.raises(UsageError, match=r"alpha 0.3 was not measured; there are: alpha 0, alpha 0.25, alpha 0.5"):
        compare(tmp_path / "r.jsonl", alphas="0.3")
    with pytest.raises(UsageError, match="cannot be compared with itself"):
        compare(tmp_path / "r.jsonl", alphas="0.5")


def test_two_sweeps_are_compared_at_what_each_recommends(tmp_path):
    """The written choice counts; --alphas compares at these instead; one model alone meets every mixture."""
    for name, seed, alpha in (("a", 0, 1.0), ("b", 20, 0.25)):
        path = tmp_path / f"{name}.jsonl"
        records = a_sweep(path, (0.0, 0.25, 0.5, 1.0), seed)
        kept = Recommendation(Point.of_alpha(alpha), "so")
        append_records(path, [choice_of(records, Choice("average", "", 0.0, kept, (), (), None, paired=True))])
    found = compare(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    (one,) = found.comparisons
    assert (one.first.endswith("at alpha 1"), one.second.endswith("at alpha 0.25")) == (True, True)
    assert found.notes == ()
    several = compare(tmp_path / "a.jsonl", tmp_path / "b.jsonl", alphas=[0, 0.5])
    assert [each.point.alpha for each in several.comparisons] == [0.0, 0.5]
    write(tmp_path / "c.jsonl", "c.pt", models()[0])
    against = compare(tmp_path / "c.jsonl", tmp_path / "b.jsonl", alphas=[0, 0.5])
    assert [(each.first, each.point.alpha) for each in against.comparisons] == [("c.pt", 0.0), ("c.pt", 0.5)]


def test_one_model_alone_has_nothing_to_be_compared_with(files):
    """The error says what is missing."""
    with pytest.raises(UsageError, match="Give a second results file"):
        compare(files[0])


def test_the_command_prints_both_models_and_who_is_better(files):
    """A row for every data set and average with both results, and the count; as JSON the same numbers."""
    path, other, *_ = files
    shown = CliRunner().invoke(app, ["compare", str(path), str(other)])
    assert shown.exit_code == 0
    columns = by_column(compare(path, other))
    row = next(line for line in shown.stdout.splitlines() if line.startswith("One"))
    for number in (columns["One"].first, columns["One"].second, columns["One"].difference.value):
        assert f"{100 * number:.1f}" in row
    separated = sum(columns[name.title()].p < 0.05 for name in SETS)
    assert f"{separated} of 3 comparisons" in shown.stdout
    assert CliRunner().invoke(app, ["compare", str(path), str(other), "--json"]).stdout.count('"p"') == 5


def test_the_advice_on_several_models_in_one_of_two_files_works(tmp_path):
    """One `model` would be looked for in both files, so the message asks for one of each, and these are compared."""
    first, second = models()
    write(tmp_path / "a.jsonl", "one", first)
    write(tmp_path / "b.jsonl", "two", first)
    write(tmp_path / "b.jsonl", "three", second)
    with pytest.raises(UsageError, match="the model of each file, in their order: `model` A `model` B"):
        compare(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    (found,) = compare(tmp_path / "a.jsonl", tmp_path / "b.jsonl", model=("one", "three")).comparisons
    assert (found.first, found.second) == ("one", "three")


def test_a_sweep_without_the_default_is_compared_with_what_it_recommends(tmp_path):
    """The note says so; a grid has no alpha that could be named in place of 0.5."""
    right = {"one": right_of(0, 0.7)}
    for alpha, found in ((0.2, right), (0.8, {"one": right["one"] | right_of(1, 0.5)})):
        write(tmp_path / "a.jsonl", "mixed", found, alpha=alpha)
    report = compare(tmp_path / "a.jsonl")
    assert [each.first for each in report.comparisons] == ["mixed at alpha 0.8"]
    assert any("0.5 was not measured" in note and "alpha 0.8" in note for note in report.notes)
