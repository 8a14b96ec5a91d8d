"""Class names and templates: from files, by name, as lists; and in place of a data set's own."""

import numpy as np
import open_clip
import pytest

from mergekit_wise.datasets.class_names import read_classnames, read_templates
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.renaming import renamed
from mergekit_wise.errors import SuiteError


def test_a_file_has_one_name_a_line(tmp_path):
    """Blanks around a name, a byte order mark and the last line's end are no part of it."""
    (tmp_path / "names.txt").write_bytes("\ufeffcat\r\n hot dog \nœuf\n\n".encode())
    assert read_classnames(tmp_path / "names.txt") == ("cat", "hot dog", "œuf")


def test_known_lists_have_names():
    """open_clip's 1000 names, its 80 prompts and 7, and the plain one."""
    assert read_classnames("imagenet") == tuple(open_clip.IMAGENET_CLASSNAMES)
    assert [len(read_templates(name)) for name in ("imagenet", "simple", "plain")] == [80, 7, 1]


def test_a_file_of_that_name_wins(tmp_path, monkeypatch):
    """What lies in the working folder is what was meant."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imagenet").write_text("my class\n")
    assert read_classnames("imagenet") == ("my class",)


def test_the_place_of_the_name_may_be_written_as_clip_benchmark_does(tmp_path):
    """{c} and {} are the same."""
    (tmp_path / "t.txt").write_text("a {c}.\nthe {}!\n")
    assert read_templates(tmp_path / "t.txt") == ("a {}.", "the {}!")
    assert read_templates(["one {}"]) == ("one {}",)


@pytest.mark.parametrize(
    "template", ["no place", "{} and {}", "{c} {}", "{name}", "{0}", "{} {", "}{}", "{{}}", "{!r}"]
)
def test_a_template_without_exactly_one_place_is_refused(tmp_path, template):
    """str.format would fail on it, or say something else."""
    (tmp_path / "t.txt").write_text(f"good {{}}\n{template}\n")
    with pytest.raises(SuiteError, match=r"t\.txt: expected one \{\} for the class name"):
        read_templates(tmp_path / "t.txt")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "found an empty file"),
        (b"\n\n", "found an empty file"),
        (b"cat\n\ndog\n", "found an empty line 2"),
        (b"caf\xe9\n", "in UTF-8"),
    ],
)
def test_a_file_that_is_no_list_is_refused(tmp_path, data, message):
    """An empty line in the middle would shift every class after it."""
    (tmp_path / "names.txt").write_bytes(data)
    with pytest.raises(SuiteError, match=message):
        read_classnames(tmp_path / "names.txt")


def test_an_unknown_name_is_refused_with_the_one_that_was_meant(tmp_path):
    """Neither a file nor a known list."""
    with pytest.raises(SuiteError, match="imagenets: no such file of class names.*Did you mean 'imagenet'"):
        read_classnames("imagenets")
    with pytest.raises(SuiteError, match="expected class names in UTF-8"):
        read_classnames(tmp_path)


def dataset(classes, columns=None, vocabulary="imagenet"):
    """A data set with nothing in it but names."""
    names = tuple(f"class {number}" for number in range(classes))
    return Dataset("x", "X", names, np.zeros(1, np.int64), lambda i: None, columns=columns, vocabulary=vocabulary)


THOUSAND = tuple(f"name {number}" for number in range(1000))


def test_as_many_names_as_classes_take_their_place():
    """Templates too, each without the other."""
    changed = renamed(dataset(2), ("a", "b"), None)
    assert (changed.classnames, changed.templates) == (("a", "b"), ("a photo of a {}.",))
    changed = renamed(dataset(2), None, ("{}",))
    assert (changed.classnames, changed.templates) == (("class 0", "class 1"), ("{}",))


def test_names_of_all_of_imagenet_fit_a_part_of_it():
    """Those of the part's classes are taken."""
    assert renamed(dataset(2, ((7,), (900,))), THOUSAND, None).classnames == ("name 7", "name 900")


@pytest.mark.parametrize(
    ("which", "names", "message"),
    [
        (dataset(3), ("a", "b"), "2 class names were given for 3 classes"),
        (dataset(3), THOUSAND, "1000 class names were given for 3 classes"),
        (dataset(2, ((7,), (8,)), "other"), THOUSAND, "1000 class names were given for 2"),
        (dataset(2, ((7,), (8, 9))), THOUSAND, "several of ImageNet's"),
    ],
)
def test_names_that_fit_nothing_are_refused(which, names, message):
    """Rather than left out without a word."""
    with pytest.raises(SuiteError, match=f"X: .*{message}"):
        renamed(which, names, None)
