"""Suites of what is there: names, paths and lists of them; what is missing is told, or an error."""

import os

import pytest
from PIL import Image
from timm.data import ImageNetInfo

from mergekit_wise.datasets.catalog import ENTRIES, SUITES, data_root, open_suite
from mergekit_wise.errors import SuiteError

WNIDS = ImageNetInfo("imagenet-1k").label_names()


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    """The tester's own data is left alone."""
    monkeypatch.delenv("WISE_DATA", raising=False)


def write(folder, *names):
    """One tiny image in each class folder."""
    for name in names:
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / name / "0.jpg")
    return folder


@pytest.fixture
def root(tmp_path):
    """ImageNet and two of its shifts, a little of each."""
    write(tmp_path / "data" / "imagenet" / "val", WNIDS[0], WNIDS[1], WNIDS[999])
    write(tmp_path / "data" / "imagenetv2-matched-frequency-format-val", "0", "2", "10")
    write(tmp_path / "data" / "sketch", WNIDS[3])
    return tmp_path / "data"


def names(suite):
    """Of a suite's data sets, the reference first."""
    return [dataset.name for dataset in suite.datasets]


def test_a_suite_is_what_is_there_and_what_is_missing(root):
    """In the suite's order, with the folders that were looked for and the next step."""
    suite = open_suite("imagenet-shifts", root)
    assert suite.reference.name == "imagenet"
    assert [shift.name for shift in suite.shifts] == ["imagenet-v2", "imagenet-sketch"]
    assert [part.name for part in suite.missing] == ["imagenet-r", "objectnet", "imagenet-a"]
    missing = suite.missing[0]
    assert str(root / "imagenet-r") in missing.places
    assert str(root / "wds_imagenet-r") in missing.places
    assert "imagenet-r.tar" in missing.hint


def test_strict_makes_a_missing_part_an_error(root):
    """Naming each of them with the next step; a whole suite passes."""
    with pytest.raises(SuiteError) as caught:
        open_suite("imagenet-shifts", root, strict=True)
    for title in ("ImageNet-R", "ObjectNet", "ImageNet-A"):
        assert f"{title}: looked for " in str(caught.value)
    assert "ImageNet-V2" not in str(caught.value)
    assert open_suite("imagenet,imagenet-v2", root, strict=True).missing == ()


def test_nothing_there_is_an_error_with_the_folders_that_were_looked_for(tmp_path):
    """All of them."""
    with pytest.raises(SuiteError) as caught:
        open_suite("imagenet-r,imagenet-a", tmp_path)
    for place in (*ENTRIES["imagenet-r"].places, *ENTRIES["imagenet-a"].places):
        assert place in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_parts_with_the_same_next_step_are_told_of_once(tmp_path):
    """ImageNet-C has 75 of them, in four downloads."""
    with pytest.raises(SuiteError) as caught:
        open_suite("imagenet-c", tmp_path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 + 1 + 4
    assert "19 others: looked for" in lines[3]


def test_without_a_root_it_is_said_how_to_tell_one():
    """An option and a variable; what is built in needs none."""
    with pytest.raises(SuiteError, match="Give it with --data ROOT, or set WISE_DATA"):
        open_suite("imagenet")
    assert len(open_suite("digits").datasets) == 8
    suite = open_suite("digits,imagenet")
    assert (len(suite.datasets), [part.name for part in suite.missing]) == (8, ["imagenet"])


def test_the_variable_says_where_data_is_and_the_option_wins(root, tmp_path, monkeypatch):
    """WISE_DATA."""
    monkeypatch.setenv("WISE_DATA", str(root))
    assert names(open_suite("imagenet")) == ["imagenet"]
    assert data_root(None) == root
    assert data_root(tmp_path) == tmp_path
    monkeypatch.setenv("WISE_DATA", "")
    assert data_root(None) is None


def test_a_root_that_is_no_folder_is_refused(tmp_path, monkeypatch):
    """Whoever told of it."""
    with pytest.raises(SuiteError, match=f"--data names {tmp_path}/no as"):
        open_suite("digits", tmp_path / "no")
    monkeypatch.setenv("WISE_DATA", str(tmp_path / "no"))
    with pytest.raises(SuiteError, match=f"WISE_DATA names {tmp_path}/no as"):
        open_suite("digits")


def test_a_data_set_by_name_has_no_reference(root):
    """Nobody named one."""
    suite = open_suite("imagenet-v2", root)
    assert (suite.reference, names(suite), suite.name) == (None, ["imagenet-v2"], "imagenet-v2")


def test_a_list_joins_suites_and_data_sets_each_once(root):
    """The reference is the suites', if they have one and the same."""
    suite = open_suite(" imagenet-v2, imagenet-shifts ,imagenet-sketch,", root)
    assert suite.reference.name == "imagenet"
    assert names(suite) == ["imagenet", "imagenet-v2", "imagenet-sketch"]
    assert open_suite("imagenet-shifts,digits", root).reference is None
    assert names(open_suite("imagenet-shifts,digits", root))[:3] == ["imagenet", "imagenet-v2", "imagenet-sketch"]


def test_a_missing_reference_is_missing(root):
    """The shifts are evaluated all the same."""
    (root / "imagenet").rename(root / "moved")
    suite = open_suite("imagenet-shifts", root)
    assert suite.reference is None
    assert "imagenet" in [part.name for part in suite.missing]


def test_a_users_own_folder_and_file_are_named_by_their_paths(root, tmp_path, monkeypatch):
    """Alone, in a list, relative to the working folder, without a root."""
    write(tmp_path / "pets", "cat", "dog")
    (tmp_path / "p.toml").write_text('root = "pets"\ntitle = "Pets"\n')
    assert names(open_suite(str(tmp_path / "pets"))) == ["pets"]
    monkeypatch.chdir(tmp_path)
    assert names(open_suite("pets,p.toml,imagenet-v2", root)) == ["pets", "p", "imagenet-v2"]


def test_two_data_sets_of_one_name_are_refused(root, tmp_path):
    """Records are told apart by it; nor may a user's own be called like a known one."""
    write(tmp_path / "a" / "pets", "cat")
    write(tmp_path / "b" / "pets", "dog")
    with pytest.raises(SuiteError, match=r"b/pets: its name 'pets' is already that of .*a/pets"):
        open_suite(f"{tmp_path}/a/pets,{tmp_path}/b/pets")
    write(tmp_path / "objectnet", "cat")
    with pytest.raises(SuiteError, match="its name 'objectnet' is already that of objectnet"):
        open_suite(f"{tmp_path}/objectnet")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("imagnet", "no suite or data set 'imagnet', nor a folder of that name. Did you mean .*'imagenet'"),
        ("imagenet-shift", "Did you mean 'imagenet-shifts'"),
        ("digit", "Known suites: .*digits"),
        ("/no/such/folder", "/no/such/folder: no such folder or file"),
        ("my.toml", "my.toml: no such folder or file"),
        ("", "No suite was named. Known suites: imagenet-shifts"),
        (" , ", "No suite was named"),
        ("imagenet,nonsense", "'nonsense'"),
    ],
)
def test_an_unknown_name_is_refused_with_what_was_meant(root, name, message):
    """Before anything is opened."""
    with pytest.raises(SuiteError, match=message):
        open_suite(name, root)


def test_what_is_damaged_is_no_missing_part(root):
    """It stops the run, and says what is wrong."""
    write(root / "imagenet-r", "cat")
    with pytest.raises(SuiteError, match="imagenet-r: expected class folders named by the WordNet ids of its 200"):
        open_suite("imagenet-shifts", root)


def test_names_and_templates_take_the_place_of_every_data_sets_own(root, tmp_path):
    """From files or by name."""
    (tmp_path / "names.txt").write_text("".join(f"name {number}\n" for number in range(1000)))
    suite = open_suite("imagenet-shifts", root, classnames=tmp_path / "names.txt", templates="simple")
    for dataset in suite.datasets:
        assert dataset.classnames[999] == "name 999"
        assert len(dataset.templates) == 7
    assert open_suite("imagenet", root, templates=["a {}"]).reference is None
    with pytest.raises(SuiteError, match="10 class names.* found 1000"):
        open_suite("digits", classnames="imagenet")


def test_every_name_in_a_suite_is_a_data_set():
    """And every data set that is looked for says where, and what to do if it is not there."""
    for plan in SUITES.values():
        assert {*plan.shifts, plan.reference} - {None} <= ENTRIES.keys()
    for name, entry in ENTRIES.items():
        assert entry.name == name
        assert entry.hint
        assert not any(os.path.isabs(place) for place in entry.places)
