"""`sweep` on images without labels: one pass, no record, and no label is looked at."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from mergekit_wise.api.report import write_report as report
from mergekit_wise.api.sweep import sweep
from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.errors import SuiteError, UsageError
from mergekit_wise.evaluation.engine import Engine
from mergekit_wise.results import read_estimations, read_records
from tests.api.test_sweep import save
from tests.datasets.made_files import encoded, write_tar

ALPHAS = (0.0, 0.5, 1.0)
REFERENCE, SHIFT = "digits", "digits-inverted"
LIMIT = 40

GIVEN = {"alphas": ALPHAS, "suite": SHIFT, "reference": REFERENCE, "limit": LIMIT}


@pytest.fixture
def sides(tmp_path):
    """Two models that differ in all weights."""
    return save(tmp_path / "zs.safetensors", tower=0, head=0), save(tmp_path / "ft.safetensors", tower=1, head=1)


@pytest.fixture
def photos(tmp_path):
    """Forty images of digits without labels, in two folders."""
    images = open_suite("digits-noisy").shifts[0]
    for number in range(40):
        path = tmp_path / "photos" / f"part{number % 2}" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        images.image(number).save(path)
    return tmp_path / "photos"


@pytest.fixture
def passes(monkeypatch):
    """The titles of the data sets that the engine predicts, and the number of variants, pass by pass."""
    seen, predict = [], Engine.predict

    def counted(self, variants, dataset, *args, **kwargs):
        seen.append((dataset.title, len(variants)))
        return predict(self, variants, dataset, *args, **kwargs)

    monkeypatch.setattr(Engine, "predict", counted)
    return seen


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Commands write results.jsonl where they run."""
    monkeypatch.chdir(tmp_path)


def run(sides, photos, **more):
    return sweep(*sides, **{**GIVEN, "unlabelled": photos, **more})


def test_each_set_is_one_pass_for_all_alphas_and_no_record(sides, photos, passes, tmp_path):
    """The images are decoded once; records are of labelled data alone; classes of folders are said to be ignored."""
    found = run(sides, photos, results=tmp_path / "r.jsonl")
    assert passes == [(title, 3) for title in ("Reference", "Inverted", "photos")]
    assert {record.role for record in found.records} == {"reference", "shift"}
    assert all("photos" not in (record.dataset, record.title) for record in read_records(tmp_path / "r.jsonl"))
    (estimated,) = found.without_labels.sets
    assert (estimated.title, estimated.images, estimated.accuracy) == ("photos", 40, None)
    assert ((estimated.low <= estimated.atc) & (estimated.atc <= estimated.high)).all()
    assert any("2 folders below it, whose names are ignored: 'part0', 'part1'" in note for note in found.notes)


def test_a_second_run_predicts_nothing_and_writes_no_line_again(sides, photos, passes, tmp_path):
    """Answers for unlabelled images are kept beside the results file, and so are the estimates in it."""
    first = run(sides, photos, results=tmp_path / "r.jsonl")
    lines = (tmp_path / "r.jsonl").read_text()
    passes.clear()
    again = run(sides, photos, results=tmp_path / "r.jsonl")
    assert passes == []
    assert (tmp_path / "r.jsonl").read_text() == lines
    assert again.without_labels.lines == first.without_labels.lines
    assert read_estimations(tmp_path / "r.jsonl") == first.without_labels.lines
    run(sides, photos, results=tmp_path / "r.jsonl", alphas=(0.0, 0.25, 0.5, 1.0))
    assert [count for _, count in passes] == [1, 1, 1]


def test_answers_that_were_not_kept_are_had_by_evaluating_again(sides, photos, tmp_path):
    """A results file without answers holds only counts: the labelled sets are evaluated again, which is said."""
    sweep(*sides, **GIVEN, results=tmp_path / "r.jsonl", answers=False)
    found = run(sides, photos, results=tmp_path / "r.jsonl")
    assert found.added == 0
    assert sum("evaluated again, because only the counts were kept" in note for note in found.notes) == 2
    assert found.without_labels.lines == run(sides, photos).without_labels.lines


def test_labels_change_nothing(sides, photos, tmp_path):
    """As a labelled shift the same images have the same estimates, which the back-test compares with the labels."""
    images = open_suite("digits-noisy").shifts[0]
    names = images.classnames
    for number in range(40):
        folder = tmp_path / "labelled" / names[images.labels[number]]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / f"part{number % 2}" / f"{number:02d}.png", folder / f"{number:02d}.png")
    if len(set(images.labels[:40].tolist())) < len(names):
        pytest.fail("the shift would have other classes")
    found = run(sides, photos, suite=tmp_path / "labelled").without_labels
    (unlabelled,), (shift,) = found.sets, found.shifts
    assert shift.atc == pytest.approx(unlabelled.atc, abs=1e-12)
    assert shift.doc == pytest.approx(unlabelled.doc, abs=1e-6)
    assert shift.entropy == pytest.approx(unlabelled.entropy, abs=1e-6)
    assert found.trials[0].error == pytest.approx(np.abs(shift.atc - shift.accuracy).mean())


def test_tars_with_labels_give_what_the_folder_gives(sides, photos, tmp_path):
    """A tar of the same images, in the same order, with labels beside them: the same estimates, and a note."""
    files = sorted(photos.rglob("*.png"))
    members = [pair for path in files for pair in ((path.name, path.read_bytes()), (f"{path.stem}.cls", 3))]
    write_tar(tmp_path / "photos.tar", *members)
    of_tar, of_folder = run(sides, tmp_path / "photos.tar"), run(sides, photos)
    assert of_tar.without_labels.sets[0].atc.tolist() == of_folder.without_labels.sets[0].atc.tolist()
    assert any("40 labels" in note for note in of_tar.notes)


def test_a_reference_alone_is_enough_for_the_estimates_to_choose(sides, photos):
    """--prefer estimated without a shift: the mean of reference and estimate decides, and no back-test is made."""
    found = run(sides, photos, suite=None, prefer="estimated")
    assert "mean of the reference and the estimate on photos" in found.recommendation.reason
    assert "estimated without labels" in found.recommendation.warning
    assert found.choice.prefer == "estimated"
    assert found.without_labels.trials == ()
    evidence = found.without_labels.evidence
    reference, estimate, both = evidence.values
    assert both == pytest.approx((reference + estimate) / 2)


def test_one_of_several_sets_is_an_equal_part_of_the_choice(sides, photos, tmp_path):
    """The alpha that ATC chooses has the best mean over the sets."""
    other = tmp_path / "other"
    other.mkdir()
    for path in sorted(photos.rglob("*.png"))[:9]:
        shutil.copy(path, other)
    found = run(sides, [photos, other]).without_labels
    mean = (found.sets[0].atc + found.sets[1].atc) / 2
    assert found.certainty.value == pytest.approx(mean.max())


def test_limit_draws_of_unlabelled_images_too(sides, photos):
    """--limit 10 uses 10 of the 40."""
    assert run(sides, photos, limit=10).without_labels.sets[0].images == 10


def test_unreadable_images_are_counted_against_max_bad_every_time(sides, photos, tmp_path):
    """One more than allowed is an error; a tolerated one is said, in a resumed run too."""
    (photos / "part0" / "broken.png").write_bytes(encoded()[:20])
    with pytest.raises(SuiteError, match="photos: 1 image is unreadable"):
        run(sides, photos, limit=41)
    for _ in range(2):
        found = run(sides, photos, max_bad=1, limit=41, results=tmp_path / "r.jsonl")
        assert found.without_labels.sets[0].images == 40
        assert any("broken.png" in note and "not counted" in note for note in found.notes)
    with pytest.raises(SuiteError, match="photos: 1 image is unreadable"):
        run(sides, photos, limit=41, results=tmp_path / "r.jsonl")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"reference": None}, "need a reference with labels.*`reference`"),
        ({"prefer": "estimated", "unlabelled": ()}, "`unlabelled`"),
        ({"prefer": "estimated", "select_on": "digits-inverted"}, "Leave one out"),
    ],
)
def test_what_cannot_be_estimated_is_refused(sides, photos, more, message):
    """Before anything is evaluated, with the option that helps."""
    with pytest.raises(UsageError, match=message):
        run(sides, photos, **more)


def test_images_of_the_reference_are_refused(sides, photos, tmp_path):
    """The reference's own folder, one in it, or one around it: there the accuracy is measured."""
    names = open_suite("digits").reference.classnames
    for number, name in enumerate(names):
        (tmp_path / "val" / name).mkdir(parents=True)
        shutil.copy(photos / f"part{number % 2}" / f"{number:02d}.png", tmp_path / "val" / name)
    for place in (tmp_path / "val", tmp_path / "val" / names[0], tmp_path):
        with pytest.raises(UsageError, match="holds images of the reference val"):
            run(sides, place, reference=tmp_path / "val")


def test_the_page_draws_estimates_and_the_back_test(sides, photos, tmp_path):
    """A figure for each set and each shift; without estimates there is no such section."""
    run(sides, photos, results=tmp_path / "r.jsonl")
    report(tmp_path / "r.jsonl", output=tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    section = page.partition("Accuracy estimated without labels")[2].partition("</section>")[0]
    assert section.count("<figure>") == 2
    assert section.count('class="c0 more"') == 2
    assert "Mean error:" in section
    sweep(*sides, **GIVEN, results=tmp_path / "without.jsonl")
    report(tmp_path / "without.jsonl", output=tmp_path / "r.html")
    assert "estimated without labels" not in (tmp_path / "r.html").read_text()


def test_json_holds_the_estimates(sides, photos, wise):
    """`--json` has the lines of the results file, the favoured alpha and the back-test."""
    words = ["sweep", *sides, "--alphas", "0,0.5,1", "--suite", SHIFT, "--limit", LIMIT]
    words += ["--reference", REFERENCE, "--unlabelled", photos]
    printed = json.loads(wise(*words, "--json").stdout)
    found = run(sides, photos).without_labels
    assert [line["role"] for line in printed["estimates"]] == ["unlabelled", "shift"]
    assert printed["estimates"][0]["atc"] == list(found.lines[0].atc)
    assert printed["by_estimates"]["alpha"] == found.certainty.point.alpha
    assert [trial["method"] for trial in printed["back_test"]] == [trial.method for trial in found.trials]


def test_the_terminal_says_how_far_to_trust_the_estimates(sides, photos, wise):
    """With a labelled shift the error is printed, without one that there is no back-test."""
    words = ["sweep", *sides, "--alphas", "0,0.5,1", "--limit", LIMIT, "--unlabelled", photos]
    words += ["--reference", REFERENCE]
    with_shift = wise(*words, "--suite", SHIFT).stdout
    assert "Back-test" in with_shift
    assert "always 0.5" in with_shift
    assert "No back-test" in wise(*words).stdout


def test_few_wrong_answers_on_the_reference_are_noted(sides, photos):
    """The threshold of ATC is taken from them; a model with many of them has no note."""
    few = run(sides, photos, limit=20)
    assert any("the threshold of ATC rests on few images" in note for note in few.notes)
    wrong = (~next(each for each in few.answers if each.role == "reference").right).sum(axis=1)
    assert (wrong < 30).all()


def test_a_copied_folder_is_noted(sides, photos, tmp_path):
    """The same images by another name count twice, which is said."""
    shutil.copytree(photos, tmp_path / "copy")
    notes = run(sides, [photos, tmp_path / "copy"]).notes
    assert any("the same unlabelled images, which count 2 times" in note for note in notes)


def test_lines_of_estimates_differ_by_what_they_depend_on(sides, photos, tmp_path):
    """Another limit adds lines; the reader keeps both."""
    run(sides, photos, results=tmp_path / "r.jsonl")
    run(sides, photos, results=tmp_path / "r.jsonl", limit=30)
    held = read_estimations(tmp_path / "r.jsonl")
    assert [line.limit for line in held] == [40, 40, 30, 30]
    assert replace(held[0], limit=30) != held[2]


def test_unlabelled_images_are_not_forgotten_where_mixtures_are_only_written(sides, photos, wise, tmp_path):
    """--save alone evaluates nothing, so --unlabelled beside it is an error that names --suite; nothing is written."""
    done = wise("sweep", *sides, "--save", tmp_path / "{alpha}.safetensors", "--unlabelled", photos)
    assert done.exit_code == 2
    assert "--suite" in done.stderr
    assert not list(tmp_path.glob("0*.safetensors"))
