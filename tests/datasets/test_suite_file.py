"""A suite as data: a TOML file with a reference, shifts and data sets, and the built-in suites in the same form."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mergekit_wise.datasets.catalog as catalog_module
from mergekit_wise.datasets.catalog import ENTRIES, SUITES, find_entries, open_suite
from mergekit_wise.datasets.subsets import companions
from mergekit_wise.errors import SuiteError

SUITE = """
title = "Birds"
reference = "photos"
shifts = ["sketches", "night"]
train = "photos-train"
validate = ["night"]

[data.photos]
root = "photos"
title = "Photos"
templates = ["a photo of a {}, a bird."]
groups = "metadata.csv:place"

[data.photos-train]
root = "train"
"""


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    """The data folder of whoever runs the tests is not used."""
    monkeypatch.delenv("WISE_DATA", raising=False)


def write_images(folder, classes, images=2):
    """Images of every class, which differ in their names alone."""
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(images):
            Image.new("RGB", (4, 4)).save(folder / name / f"{name}-{number}.png")


@pytest.fixture
def birds(tmp_path):
    """A suite's file beside its images, in a folder that is not the working folder."""
    write_images(tmp_path / "photos", ("crow", "gull", "wren"))
    write_images(tmp_path / "train", ("crow", "gull", "wren"))
    write_images(tmp_path / "sketches", ("crow", "gull", "wren"))
    write_images(tmp_path / "night", ("wren", "gull"))
    rows = [
        f"photos/{n}/{n}-{i}.png,{'sea' if n == 'gull' else 'land'}" for n in ("wren", "gull", "crow") for i in (1, 0)
    ]
    (tmp_path / "metadata.csv").write_text("\n".join(["file,place", *rows]))
    (tmp_path / "birds.toml").write_text(SUITE)
    return tmp_path / "birds.toml"


def names(suite):
    """The names of a suite's data sets."""
    return [dataset.name for dataset in suite.datasets]


def test_a_suite_of_own_data_has_a_reference_and_shifts(birds):
    """Tables and folders beside the file are its data sets, whatever the working folder; its name is the file's."""
    suite = open_suite(str(birds))
    assert (suite.name, suite.reference.name, names(suite)) == ("birds", "photos", ["photos", "sketches", "night"])
    assert (suite.reference.title, suite.reference.templates) == ("Photos", ("a photo of a {}, a bird.",))


@pytest.mark.parametrize(
    ("use", "opened"),
    [
        ("evaluate", ["photos", "sketches", "night"]),
        ("validate", ["night"]),
        ("train", ["photos-train"]),
        ("recalibrate", ["photos-train"]),
    ],
)
def test_a_suite_says_what_to_train_and_to_validate_on(birds, use, opened):
    """Each use opens the data sets that the file names for it."""
    assert names(open_suite(str(birds), use=use)) == opened


def test_without_other_keys_validation_and_recalibration_use_the_reference(birds):
    """Without `validate` all sets are validated on; without `train` nothing is trained on."""
    birds.write_text('reference = "photos"\nshifts = ["night"]\n')
    assert names(open_suite(str(birds), use="validate")) == ["photos", "night"]
    assert open_suite(str(birds), use="recalibrate").reference.name == "photos"
    with pytest.raises(SuiteError, match=r"birds\.toml: names no training data\. Add train = "):
        open_suite(str(birds), use="train")
    with pytest.raises(SuiteError, match="imagenet-shifts: is a suite to evaluate on and names no training data"):
        open_suite("imagenet-shifts", use="train")


def test_a_table_of_a_suite_is_opened_by_itself(birds):
    """FILE::TABLE is one data set, so that it can be chosen on, trained on or corrupted."""
    assert names(open_suite(f"{birds}::photos-train")) == ["photos-train"]
    with pytest.raises(SuiteError, match=r"has no table \[data\.photo\]\. Did you mean 'photos'"):
        open_suite(f"{birds}::photo")


def test_known_data_sets_and_own_ones_are_mixed(birds):
    """A shift may be a built-in data set; one that is not found is listed as missing."""
    birds.write_text('reference = "photos"\nshifts = ["digits", "imagenet-r"]\n')
    suite = open_suite(str(birds))
    assert (names(suite), [part.name for part in suite.missing]) == (["photos", "digits"], ["imagenet-r"])


def test_a_reference_is_named_beside_any_suites(birds, monkeypatch):
    """The reference replaces those of the suites; a data set that is named twice is opened once."""
    monkeypatch.chdir(birds.parent)
    suite = open_suite(["night", "sketches", "./photos"], reference="photos")
    assert (suite.reference.name, names(suite)) == ("photos", ["photos", "night", "sketches"])
    assert suite.name == "night,sketches,./photos (reference photos)"
    assert names(open_suite("", reference="photos")) == ["photos"]
    assert open_suite("digits", reference="birds.toml::photos").reference.name == "photos"
    with pytest.raises(SuiteError, match="is a suite; expected one data set"):
        open_suite("night", reference="birds.toml")


def test_groups_come_from_a_table_by_the_images_paths(birds):
    """Each image has the group of its row, in whatever order the rows are; the metric is the worst group."""
    reference = open_suite(str(birds)).reference
    assert reference.metric.kind == "worst-group"
    assert {
        name: sorted(Path(reference.sample(i)).parent.name for i in rows)
        for name, rows in reference.metric.groups.items()
    } == {
        "land": ["crow", "crow", "wren", "wren"],
        "sea": ["gull", "gull"],
    }


def test_classes_follow_the_references_by_name(birds):
    """A shift whose class names have another order is labelled by the reference's, for heads that know no names."""
    (birds.parent / "sketches.toml").write_text(
        'root = "sketches"\nclass_map = { crow = 2, gull = 0, wren = 1 }\nclassnames = ["gull", "wren", "crow"]\n'
    )
    birds.write_text('reference = "photos"\nshifts = ["sketches.toml"]\n')
    (shift,) = open_suite(str(birds)).shifts
    assert shift.classnames == ("crow", "gull", "wren")
    assert [shift.classnames[label] for label in shift.labels] == [Path(shift.sample(i)).parent.name for i in range(6)]
    assert "in the order of those of photos" in shift.notes[-1]


def test_a_companion_is_found_by_class_names(birds):
    """The companion holds the reference's images of the shift's classes, labelled as the shift is."""
    suite = open_suite(str(birds))
    (companion,) = companions(suite)
    assert (companion.name, companion.classnames) == ("reference-of-night", ("gull", "wren"))
    folders = [Path(companion.sample(i)).parent.name for i in range(len(companion))]
    assert folders == ["gull", "gull", "wren", "wren"]
    assert [companion.classnames[label] for label in companion.labels] == folders
    assert {name: len(rows) for name, rows in companion.metric.groups.items()} == {"land": 2, "sea": 2}


def test_class_names_for_the_reference_fit_a_shift_with_some_of_its_classes(birds):
    """New names are given in the reference's order; a data set whose classes are none of them is refused."""
    suite = open_suite(str(birds), classnames=["black crow", "sea gull", "small wren"])
    assert [dataset.classnames for dataset in suite.shifts] == [
        ("black crow", "sea gull", "small wren"),
        ("sea gull", "small wren"),
    ]
    write_images(birds.parent / "other", ("duck",))
    with pytest.raises(SuiteError, match="other: expected 1 class names.* found 3.*its own names in a TOML file"):
        open_suite([str(birds), str(birds.parent / "other")], classnames=["a", "b", "c"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('reference = "photos"\nshifts = []', "'shifts' is empty"),
        ('reference = "photos"\nshifts = ["photos"]', "'photos' is both the reference and a shift"),
        ('reference = "photos"\nshifts = ["./photos"]', "'./photos' and 'photos' are the same data set"),
        ('shifts = ["night", "night"]', "lists 'night' 2 times"),
        ('shfts = ["night"]', "unknown key 'shfts'. Did you mean 'shifts'?"),
        ('reference = "photo"', "'photo' is not one of its tables.* Did you mean 'photos'"),
        ('reference = "birds.toml"', "'birds.toml' is a suite; a suite consists of data sets"),
        ('shifts = ["imagenet-shifts"]', "'imagenet-shifts' is a suite"),
        ('title = "x"\ntrain = "photos"', "names nothing to evaluate on"),
        ('reference = 3', "'reference' should be a string, found 3"),
        ('shifts = [3]', "'shifts' should be a list of names"),
        ('reference = "photos"\nroot = "photos"', "has both 'root'.* and 'reference'"),
        ('reference = "imagenet"\n[data.imagenet]\nroot = "photos"', "'imagenet' is the name of a built-in data set"),
        ('reference = "a"\n[data.a]\nroot = "photos"\nmetrc = "top-1"', r"\[data.a\]: unknown key.*mean 'metric'"),
        ('reference = "a"\n[data.a]\nroot = "nowhere"', r"\[data.a\]: root: .*nowhere: no such folder"),
        ('reference = "a"\n[data.a]\ntitle = "A"', r"\[data.a\]: the key 'root' is missing"),
        ('reference = "a"\n[data.a]\nroot = "photos"\nhint = "x"', "'hint' is for a data set with 'places'"),
        ('reference = "a"\n[data.a]\nroot = "photos"\nexpected = -1', "'expected' should be the number of images"),
        ('reference = "a"\n[data.a]\nroot = "photos"\nmetric = "worst-group"', "needs the key 'groups'"),
        ('reference = "a"\n[data]\na = "photos"', r"\[data.a\] should be a table"),
        ('shifts = ["night", "b"]\n[data.b]\nroot = "photos"\ntitle = "night"', "its title 'night' is already that of"),
    ],
)  # fmt: skip
def test_an_error_in_a_suite_names_the_file_and_what_is_wrong(birds, text, message):
    """The message names the file, the table or key, and what was expected."""
    birds.write_text(text)
    with pytest.raises(SuiteError, match=f"birds.toml.*{message}"):
        open_suite(str(birds))


def test_a_suite_named_like_a_built_in_one_is_refused(birds):
    """Records are distinguished by the suite's name."""
    with pytest.raises(SuiteError, match="'digits' is the name of a built-in suite. Rename the file"):
        open_suite(str(birds.rename(birds.parent / "digits.toml")))


def test_a_folder_named_like_a_built_in_word_breaks_nothing(birds, monkeypatch):
    """The built-in name is meant; the folder is a path with a slash."""
    monkeypatch.chdir(birds.parent)
    write_images(birds.parent / "digits", ("one",))
    write_images(birds.parent / "wilds", ("one",))
    assert len(open_suite("digits").datasets) == 8
    with pytest.raises(SuiteError, match="--data ROOT"):
        open_suite("wilds")
    assert names(open_suite("./wilds")) == ["wilds"]


def test_a_data_set_with_places_is_looked_for_under_the_data_folder(birds, tmp_path):
    """The first place that exists is opened; otherwise the hint is given, as for built-in data sets."""
    birds.write_text(
        'shifts = ["pacs"]\n[data.pacs]\nplaces = ["PACS/photo", "photos"]\nhint = "Download it."\nexpected = 7\n'
    )
    (dataset,) = open_suite(str(birds), tmp_path).shifts
    assert (dataset.location, dataset.expected) == (str(tmp_path / "photos"), 7)
    with pytest.raises(SuiteError, match=r"looked for PACS/photo, photos\. Download it\."):
        open_suite(str(birds), tmp_path / "night")


def test_every_data_set_of_a_suite_is_listed(birds):
    """For `wise suites`: those to evaluate, to validate and to train on, each once."""
    entries, suites = find_entries(str(birds))
    assert [entry.name for entry in entries.values()] == ["photos", "sketches", "night", "photos-train"]
    assert [suite.title for suite in suites] == ["Birds"]


def test_the_built_in_suites_are_files_of_this_form():
    """Each file in the package's folder is a suite of its name, read by tomllib, and is packed into wheels."""
    folder = Path(catalog_module.__file__).with_name("suites")
    files = {path.stem: tomllib.loads(path.read_text()) for path in folder.glob("*.toml")}
    assert files.keys() == SUITES.keys()
    for name, table in files.items():
        assert SUITES[name].title == table["title"]
        assert list(SUITES[name].shifts) == table.get("shifts", [])
        assert set(SUITES[name].members) <= ENTRIES.keys()
    packed = tomllib.loads((folder.parents[2] / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert "datasets/suites/*.toml" in packed["mergekit_wise"]


def with_labels(birds, labels, keys=""):
    """The data set of the photos with a file of labels."""
    (birds.parent / "real.json").write_text(json.dumps(labels))
    birds.write_text(f'reference = "p"\n[data.p]\nroot = "photos"\nlabels = "real.json"\n{keys}')
    return open_suite(str(birds)).reference


def test_several_right_classes_come_by_name_or_in_order(birds):
    """Numbers and names are classes; images without a class are left out and counted, as in ImageNet-ReaL."""
    by_name = {
        "crow/crow-0.png": ["crow", "wren"],
        "crow-1.png": 1,
        "gull-0.png": [],
        "gull-1.png": [0],
        "wren-0.png": "wren",
        "wren-1.png": [2],
    }
    dataset = with_labels(birds, by_name)
    assert dataset.metric.accepted == (*map(frozenset, ((0, 2), (1,), (0,), (2,), (2,))),)
    assert dataset.labels.tolist() == [0, 1, 0, 2, 2]
    assert [Path(dataset.sample(i)).name for i in range(5)] == [n.split("/")[-1] for n in by_name if n != "gull-0.png"]
    assert "1 image without a class in real.json: left out." in dataset.notes
    ordered = with_labels(birds, list(by_name.values()))  # the names of the images are in the order of their folders
    assert (ordered.metric.accepted, ordered.labels.tolist()) == (dataset.metric.accepted, dataset.labels.tolist())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[0]], "a list has one entry for each of the 6 images.* found 1 entries"),
        ({"crow-0.png": 0}, "no entry for 5 of the 6 images"),
        ({}, "expected an object or a list"),
        ([[3]] * 6, "the class 3, which is not among the 3 classes"),
        ([["duck"]] * 6, "the class \"'duck'\"|the class 'duck'"),
        ([True] * 6, "the class True"),
        ([[]] * 6, "gives no image a class"),
    ],
)
def test_labels_that_do_not_fit_are_refused(birds, labels, message):
    """The message names the file, and what is missing or unknown."""
    with pytest.raises(SuiteError, match=f"real.json.*({message})"):
        with_labels(birds, labels)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_separator_of_a_table_of_groups_is_recognised(birds, separator):
    """Spreadsheets write semicolons where the comma is the decimal sign; empty columns at the end do not count."""
    names = [f"{kind}-{number}" for kind in ("crow", "gull", "wren") for number in (0, 1)]
    rows = [
        ["place", "image"],
        *([("land", "water")[number % 2], f"{name}.png", ""] for number, name in enumerate(names)),
    ]
    (birds.parent / "m.csv").write_text("\n".join(map(separator.join, rows)))
    birds.write_text('reference = "p"\n[data.p]\nroot = "photos"\ngroups = "m.csv:place"\n')
    assert {name: len(g) for name, g in open_suite(str(birds)).reference.metric.groups.items()} == {
        "land": 3,
        "water": 3,
    }


@pytest.mark.parametrize(
    ("table", "groups", "message"),
    [
        ("file,place\nphotos/crow/crow-0.png,land\n", "m.csv:place", "no entry for 5 of the 6 images"),
        ("file,place\nx.png,land\n", "m.csv:place", "none of its columns holds the paths or names"),
        ("file,place\nx.png,land\n", "m.csv:plac", "no column 'plac'. Did you mean 'place'"),
        ("file,place\nx.png\n", "m.csv:place", "row 1 has 1 cell, the header has 2"),
        ("", "m.csv:place", "expected a table with a header"),
        ("file,place\n", "n.csv:place", "no such table"),
        ("<!DOCTYPE html><html></html>", "m.csv:place", "web page that was saved in place of the file"),
        ("file,place\n", "m.csv", "expected a table and one of its columns"),
        (
            "file,place\n"
            + "".join(f"{n}-{i}.png,{p}\n" for n in ("crow", "gull", "wren") for i in (0, 1) for p in "ab"),
            "m.csv:place",
            "fits several entries",
        ),
    ],
)
def test_groups_that_do_not_fit_are_refused(birds, table, groups, message):
    """The message names the file, the column or an image without a row."""
    (birds.parent / "m.csv").write_text(table)
    birds.write_text(f'reference = "p"\n[data.p]\nroot = "photos"\ngroups = "{groups}"\n')
    with pytest.raises(SuiteError, match=message):
        open_suite(str(birds))


def test_groups_of_two_columns_are_their_combinations(birds):
    """Waterbirds' groups are pairs; numbers are shown with their column, and empty cells are in no group."""
    cells = {"crow-0": "0,1", "crow-1": "0,0", "gull-0": "1,1", "gull-1": "1,1", "wren-0": "0,1", "wren-1": ",1"}
    (birds.parent / "m.csv").write_text("y,place,img\n" + "".join(f"{c},{n}.png\n" for n, c in cells.items()))
    birds.write_text('reference = "p"\n[data.p]\nroot = "photos"\nmetric = "top-1"\ngroups = "m.csv:y,place"\n')
    reference = open_suite(str(birds)).reference
    assert reference.metric.kind == "top-1"
    assert {name: rows.tolist() for name, rows in reference.metric.groups.items()} == {
        "y=0, place=0": [1],
        "y=0, place=1": [0, 4],
        "y=1, place=1": [2, 3],
    }
    assert any("1 image without a value" in note for note in reference.notes)
    assert np.array_equal(reference.labels, [0, 0, 1, 1, 2, 2])
