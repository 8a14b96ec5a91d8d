"""A known data set is recognised by the path of its folder, and a folder named like a built-in word breaks nothing."""

import shutil
from dataclasses import replace

import pytest
from timm.data import ImageNetInfo

from mergekit_wise.datasets import known_places
from mergekit_wise.datasets.catalog import ENTRIES, open_suite
from mergekit_wise.datasets.class_names import subset_columns
from mergekit_wise.errors import SuiteError
from tests.datasets.made_files import write_classes

WNIDS = ImageNetInfo("imagenet-1k").label_names()
OF_A = [WNIDS[column] for column in subset_columns("a")]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data folder with ImageNet-A, and with the validation images of ImageNet."""
    home = tmp_path_factory.mktemp("data")
    write_classes(home / "imagenet-a", *OF_A)
    write_classes(home / "imagenet" / "val", *WNIDS)
    return home


@pytest.mark.parametrize(
    ("path", "name"), [("imagenet-a", "imagenet-a"), ("imagenet", "imagenet"), ("imagenet/val", "imagenet")]
)
@pytest.mark.parametrize("relative", [False, True])
def test_the_path_of_a_known_data_set_is_that_data_set(root, monkeypatch, path, name, relative):
    """Its columns, templates and expected count are those of the name; a note says so."""
    monkeypatch.chdir(root)
    (found,) = open_suite(f"./{path}" if relative else str(root / path)).datasets
    (known,) = open_suite(name, root).datasets
    for field in ("name", "title", "classnames", "templates", "columns", "expected", "vocabulary"):
        assert getattr(found, field) == getattr(known, field)
    assert f"recognised as {name}" in found.notes[0]
    assert found.labels.tolist() == known.labels.tolist()


def test_the_folder_of_the_data_set_may_be_given_as_the_data_folder(root):
    """`--data /data/imagenet-a` is understood where /data was meant."""
    (found,) = open_suite("imagenet-a", root / "imagenet-a").datasets
    assert (found.name, found.location) == ("imagenet-a", str(root / "imagenet-a"))
    assert "recognised" in found.notes[0]


def test_a_folder_of_some_of_the_classes_is_a_data_set_of_its_own(tmp_path):
    """Ten of ImageNet's classes in val/ are evaluated among the ten, not among 1000."""
    write_classes(tmp_path / "val", *WNIDS[:10])
    (found,) = open_suite(str(tmp_path / "val")).datasets
    assert (found.name, len(found.classnames)) == ("val", 10)


def test_the_classes_alone_do_not_make_the_name(root, tmp_path):
    """The 200 classes of ImageNet-A with as many images are ImageNet-A; with fewer, a note names it."""
    shutil.copytree(root / "imagenet-a", tmp_path / "adversarial")
    (found,) = open_suite(str(tmp_path / "adversarial")).datasets
    assert (found.name, found.expected, len(found.columns)) == ("adversarial", None, 200)
    assert any("those of imagenet-a, which has 7,500 images; found 200" in note for note in found.notes)
    whole = dict(ENTRIES) | {"imagenet-a": replace(ENTRIES["imagenet-a"], expected=200)}
    named = known_places.recognised(found, whole)
    assert (named.name, named.title, named.expected) == ("imagenet-a", "ImageNet-A", 200)


def test_a_folder_with_several_data_sets_names_them(tmp_path):
    """ImageNet-C holds one data set for each corruption and severity; they are not classes."""
    for corruption in ("blur/defocus_blur", "noise/shot_noise"):
        write_classes(tmp_path / "imagenet-c" / corruption / "1", *WNIDS)
    with pytest.raises(SuiteError, match=r"several data sets: imagenet-c-.*--data " + str(tmp_path)):
        open_suite(str(tmp_path / "imagenet-c"))


def test_a_folder_of_a_built_in_name_breaks_nothing(root, monkeypatch, tmp_path):
    """The name is the built-in data set's, and ./NAME is the folder; a note says so where they differ."""
    write_classes(tmp_path / "imagenet-a", "cat", "dog")
    write_classes(tmp_path / "digits", "one", "two")
    monkeypatch.chdir(tmp_path)
    (found,) = open_suite("imagenet-a", root).datasets
    assert (found.location, len(found.classnames)) == (str(root / "imagenet-a"), 200)
    assert any("the folder here of this name is ./imagenet-a" in note for note in found.notes)
    assert open_suite("./digits").datasets[0].classnames == ("one", "two")
    assert any("./digits" in note for note in open_suite("digits").datasets[0].notes)
    monkeypatch.chdir(root)
    assert open_suite("imagenet-a", root).datasets[0].notes == ()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WISE_DATA", raising=False)
    with pytest.raises(SuiteError, match=r"No data folder given.* write \./imagenet-a"):
        open_suite("imagenet-a")


def test_a_user_s_folder_gets_a_name_of_its_own(tmp_path):
    """Records are identified by the name, so a folder called after a data set that it is not has another name there."""
    write_classes(tmp_path / "objectnet", "cat", "dog")
    (found,) = open_suite(str(tmp_path / "objectnet")).datasets
    assert (found.name, found.classnames) == ("my-objectnet", ("cat", "dog"))
    assert "called my-objectnet in results" in found.notes[0]
