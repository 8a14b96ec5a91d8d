"""Suites and data sets are opened by name, by path or as a list; missing ones are listed or an error."""

import os

import pytest
from PIL import Image
from timm.data import ImageNetInfo

from mergekit_wise.datasets.catalog import ENTRIES, SUITES, data_root, open_suite
from mergekit_wise.errors import SuiteError

WNIDS = ImageNetInfo("imagenet-1k").label_names()


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    """The data folder of whoever runs the tests is not used."""
    monkeypatch.delenv("WISE_DATA", raising=False)


def write(folder, *names):
    """Write one tiny image into each class folder."""
    for name in names:
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / name / "0.jpg")
    return folder


@pytest.fixture
def root(tmp_path):
    """A data folder with a few images of ImageNet and of two of its shifts."""
    write(tmp_path / "data" / "imagenet" / "val", WNIDS[0], WNIDS[1], WNIDS[999])
    write(tmp_path / "data" / "imagenetv2-matched-frequency-format-val", "0", "2", "10")
    write(tmp_path / "data" / "sketch", WNIDS[3])
    return tmp_path / "data"


def names(suite):
    """The names of a suite's data sets, the reference first."""
    return [dataset.name for dataset in suite.datasets]


def test_a_suite_has_the_data_sets_found_and_lists_the_missing(root):
    """Both are in the suite's order; a missing one has the folders that were looked for and a hint."""
    suite = open_suite("imagenet-shifts", root)
    assert suite.reference.name == "imagenet"
    assert [shift.name for shift in suite.shifts] == ["imagenet-v2", "imagenet-sketch"]
    assert [part.name for part in suite.missing] == ["imagenet-r", "objectnet", "imagenet-a"]
    missing = suite.missing[0]
    assert str(root / "imagenet-r") in missing.places
    assert str(root / "wds_imagenet-r") in missing.places
    assert "imagenet-r.tar" in missing.hint


def test_strict_makes_a_missing_data_set_an_error(root):
    """The error names each missing data set; a complete suite is opened."""
    with pytest.raises(SuiteError) as caught:
        open_suite("imagenet-shifts", root, strict=True)
    for title in ("ImageNet-R", "ObjectNet", "ImageNet-A"):
        assert f"{title}: looked for " in str(caught.value)
    assert "ImageNet-V2" not in str(caught.value)
    assert open_suite("imagenet,imagenet-v2", root, strict=True).missing == ()


def test_no_data_set_found_is_an_error(tmp_path):
    """The message names all folders that were looked for."""
    with pytest.raises(SuiteError) as caught:
        open_suite("imagenet-r,imagenet-a", tmp_path)
    for place in (*ENTRIES["imagenet-r"].places, *ENTRIES["imagenet-a"].places):
        assert place in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_data_sets_with_the_same_hint_share_a_line(tmp_path):
    """The 75 data sets of ImageNet-C take four lines, one per download."""
    with pytest.raises(SuiteError) as caught:
        open_suite("imagenet-c", tmp_path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 + 1 + 4
    assert "19 others: looked for" in lines[3]


def test_without_a_data_folder_the_option_and_the_variable_are_named():
    """Only data sets that are built in open without a data folder."""
    with pytest.raises(SuiteError, match="--data ROOT.*WISE_DATA"):
        open_suite("imagenet")
    assert len(open_suite("digits").datasets) == 8
    suite = open_suite("digits,imagenet")
    assert (len(suite.datasets), [part.name for part in suite.missing]) == (8, ["imagenet"])


def test_the_option_takes_precedence_over_the_variable(root, tmp_path, monkeypatch):
    """WISE_DATA names the data folder unless --data is given; an empty variable names none."""
    monkeypatch.setenv("WISE_DATA", str(root))
    assert names(open_suite("imagenet")) == ["imagenet"]
    assert data_root(None) == root
    assert data_root(tmp_path) == tmp_path
    monkeypatch.setenv("WISE_DATA", "")
    assert data_root(None) is None


def test_a_data_folder_that_does_not_exist_is_refused(tmp_path, monkeypatch):
    """The message says whether --data or WISE_DATA names the folder."""
    with pytest.raises(SuiteError, match=f"--data {tmp_path}/no: no such folder"):
        open_suite("digits", tmp_path / "no")
    monkeypatch.setenv("WISE_DATA", str(tmp_path / "no"))
    with pytest.raises(SuiteError, match=f"WISE_DATA {tmp_path}/no: no such folder"):
        open_suite("digits")


def test_a_data_set_by_name_has_no_reference(root):
    """A single data set becomes a suite with one shift and no reference."""
    suite = open_suite("imagenet-v2", root)
    assert (suite.reference, names(suite), suite.name) == (None, ["imagenet-v2"], "imagenet-v2")


def test_a_list_joins_suites_and_data_sets_each_once(root):
    """The reference is that of the suites if they have the same one, and None otherwise."""
    suite = open_suite(" imagenet-v2, imagenet-shifts ,imagenet-sketch,", root)
    assert suite.reference.name == "imagenet"
    assert names(suite) == ["imagenet", "imagenet-v2", "imagenet-sketch"]
    assert open_suite("imagenet-shifts,digits", root).reference is None
    assert names(open_suite("imagenet-shifts,digits", root))[:3] == ["imagenet", "imagenet-v2", "imagenet-sketch"]


def test_a_missing_reference_is_listed_as_missing(root):
    """The shifts are opened although the reference is missing."""
    (root / "imagenet").rename(root / "moved")
    suite = open_suite("imagenet-shifts", root)
    assert suite.reference is None
    assert "imagenet" in [part.name for part in suite.missing]


def test_a_users_own_folder_and_file_are_named_by_their_paths(root, tmp_path, monkeypatch):
    """Paths work alone, in a list, relative to the working folder, and without a data folder."""
    write(tmp_path / "pets", "cat", "dog")
    (tmp_path / "p.toml").write_text('root = "pets"\ntitle = "Pets"\n')
    assert names(open_suite(str(tmp_path / "pets"))) == ["pets"]
    monkeypatch.chdir(tmp_path)
    assert names(open_suite("pets,p.toml,imagenet-v2", root)) == ["pets", "p", "imagenet-v2"]


def test_two_data_sets_of_one_name_are_refused(root, tmp_path):
    """Records are identified by the name, so two data sets of a suite have different ones."""
    write(tmp_path / "a" / "pets", "cat")
    write(tmp_path / "b" / "pets", "dog")
    with pytest.raises(SuiteError, match=r"b/pets: its name 'pets' is already that of .*a/pets"):
        open_suite(f"{tmp_path}/a/pets,{tmp_path}/b/pets")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("imagnet", "'imagnet': .*Did you mean .*'imagenet'"),
        ("imagenet-shift", "Did you mean 'imagenet-shifts'"),
        ("digit", "Known suites: .*digits"),
        ("/no/such/folder", "/no/such/folder: no such folder or file"),
        ("my.toml", "my.toml: no such folder or file"),
        ("", "No suite given. Known suites: .*imagenet-shifts"),
        (" , ", "No suite given"),
        ("imagenet,nonsense", "'nonsense'"),
    ],
)
def test_an_unknown_name_is_refused_with_suggestions(root, name, message):
    """The message names similar names, the known suites, or the path that does not exist."""
    with pytest.raises(SuiteError, match=message):
        open_suite(name, root)


def test_a_damaged_data_set_is_not_treated_as_missing(root):
    """Opening a suite with a damaged data set raises SuiteError with its problem."""
    write(root / "imagenet-r", "cat")
    with pytest.raises(SuiteError, match="imagenet-r: expected class folders named by the WordNet ids of its 200"):
        open_suite("imagenet-shifts", root)


def test_names_and_templates_replace_those_of_every_data_set(root, tmp_path):
    """Class names and templates are given by file, by name or as a list."""
    (tmp_path / "names.txt").write_text("".join(f"name {number}\n" for number in range(1000)))
    suite = open_suite("imagenet-shifts", root, classnames=tmp_path / "names.txt", templates="simple")
    for dataset in suite.datasets:
        assert dataset.classnames[999] == "name 999"
        assert len(dataset.templates) == 7
    assert open_suite("imagenet", root, templates=["a {}"]).reference is None
    with pytest.raises(SuiteError, match="10 class names.* found 1000"):
        open_suite("digits", classnames="imagenet")


def test_every_name_in_a_suite_is_a_data_set():
    """Every member of a suite is in the catalogue, and every data set has a hint and relative places."""
    for suite in SUITES.values():
        assert set(suite.members) <= ENTRIES.keys()
    for name, entry in ENTRIES.items():
        assert entry.name == name
        assert entry.hint
        assert not any(os.path.isabs(place) for place in entry.places)
