"""A data set's classes are found among a head's by name, and what cannot be found is refused with what settles it."""

import random
import tomllib
from dataclasses import replace

import numpy as np
import open_clip
import pytest
from hypothesis import given
from hypothesis import strategies as st
from timm.data import ImageNetInfo

from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.head_columns import head_columns
from mergekit_wise.datasets.name_matching import are_numbers
from mergekit_wise.errors import ModelError

WNIDS = ImageNetInfo("imagenet-1k").label_names()
IMAGENET = tuple(open_clip.IMAGENET_CLASSNAMES)


def data(*names, **facts):
    return Dataset("x", "X", names, np.array([0], np.int64), None, **facts)


@given(st.lists(st.text(min_size=1), min_size=2, max_size=6, unique=True), st.data())
def test_names_decide_whatever_the_order(names, draw):
    """A class's column is where its name stands in the head, for any names and any part of them in any order."""
    if are_numbers(names):
        return
    part = draw.draw(st.permutations(names))[: draw.draw(st.integers(1, len(names)))]
    found = head_columns(data(*part), len(names), names)
    if found.columns is None:
        assert list(part) == names or are_numbers(part)
    else:
        assert [names[column] for (column,) in found.columns] == list(part)


def test_numbers_that_are_the_heads_names_in_another_order_decide():
    """Classes called '0' and '1' are those of a head that has these names the other way round, all or some of them."""
    assert head_columns(data("0", "1"), 2, ["1", "0"]).columns == ((1,), (0,))
    assert head_columns(data("1"), 2, ["1", "0"]).columns == ((0,),)


def test_same_names_in_the_same_order_say_nothing():
    """Case, underscores and surrounding blanks are no difference, nor is the way an accent is encoded."""
    found = head_columns(data("Hot_Dog", " cafe\u0301"), 2, ["hot dog", "café"])
    assert (found.columns, found.notes, found.by_name) == (None, (), False)


def test_other_orders_and_fewer_classes_are_noted():
    """The note says that names decided; of fewer classes it counts both."""
    found = head_columns(data("dog", "cat"), 2, ["cat", "dog"])
    assert found.columns == ((1,), (0,))
    assert "another order" in found.notes[0]
    found = head_columns(data("dog"), 2, ["cat", "dog"])
    assert found.columns == ((1,),)
    assert "1 class" in found.notes[0]
    assert "has 2" in found.notes[0]


def test_names_that_differ_in_case_alone_are_compared_exactly():
    """Normalisation that makes two classes one is not used."""
    assert head_columns(data("us", "US"), 2, ["US", "us"]).columns == ((1,), (0,))
    with pytest.raises(ModelError, match="'Us'"):
        head_columns(data("Us", "us"), 2, ["US", "us"])


def test_a_name_of_several_classes_is_refused_where_the_order_differs():
    """In the same order it says nothing; in another one it could be either class."""
    names = ["missile", "cat", "missile"]
    assert head_columns(data(*names), 3, names).columns is None
    with pytest.raises(ModelError, match="'missile' is the name of several classes"):
        head_columns(data("cat", "missile"), 3, names)


@pytest.mark.parametrize("names", [["0", "1"], ["LABEL_0", "LABEL_1"], ["class 1", "class 2"], None])
def test_numbers_are_no_names(names):
    """A head whose names are its numbers is a head without names, so that the number of classes decides."""
    assert head_columns(data("cat", "dog"), 2, names).columns is None
    with pytest.raises(ModelError, match="3 classes, the model's head 2"):
        head_columns(data("cat", "dog", "emu"), 2, names)


def test_numbered_data_are_in_the_heads_order_and_that_is_said():
    """Folders 0 and 1 are the head's first and second class."""
    found = head_columns(data("0", "1"), 2, ["cat", "dog"])
    assert found.columns is None
    assert "0 is 'cat', 1 is 'dog'" in found.notes[0]
    assert head_columns(data("1902", "1901"), 2, ["1901", "1902"]).columns == ((1,), (0,))


def test_without_names_an_order_that_depends_on_case_is_a_warning():
    """Zebra comes before ant for computers, and after it for people."""
    assert "class 0 is 'Zebra' here, but 'ant'" in head_columns(data("Zebra", "ant"), 2, None).notes[0]
    for fine in (data("Ant", "Zebra"), data("zebra", "Ant")):
        assert not head_columns(fine, 2, None).notes
    assert not head_columns(data("Zebra", "ant"), 2, ["Zebra", "ant"]).notes


def test_without_names_the_order_that_is_taken_is_said_for_data_of_ones_own():
    """It is a guess there; the order of a known data set is the usual one, and numbers state theirs."""
    stored = {"size": lambda index: 1}
    own = replace(data("cat", "dog"), **stored)
    assert "(0 is 'cat', 1 is 'dog')" in head_columns(own, 2, None).notes[0]
    assert not head_columns(own, 2, ["cat", "dog"]).notes
    for known in (replace(own, expected=2), replace(data("0", "1"), **stored)):
        assert not head_columns(known, 2, None).notes


def test_the_refusal_shows_both_lists_and_toml_that_settles_it(tmp_path):
    """The two lines are valid TOML: the folder, and a class of the head for each folder."""
    for name in ("gato", "Dog", 'a "b"'):
        (tmp_path / "pets" / name).mkdir(parents=True)
    folders = data('a "b"', "Dog", "gato", location=str(tmp_path / "pets"))
    with pytest.raises(ModelError) as caught:
        head_columns(folders, 4, ["cat", "dog", 'a "b"', "emu"])
    text = str(caught.value)
    assert "1 of its 3 classes is not among the head's 4: 'gato'" in text
    assert "'cat', 'emu'" in text
    lines = [line for line in text.splitlines() if line.startswith(("root", "class_map"))]
    table = tomllib.loads("\n".join(lines))
    assert table == {
        "root": str((tmp_path / "pets").resolve()),
        "class_map": {'a "b"': 'a "b"', "Dog": "dog", "gato": "?"},
    }


def test_guesses_are_similar_names_or_the_only_one_left(tmp_path):
    """Of more classes than the head has, those that can be none of its are left out of the table."""
    for name in ("golden_retriver", "gato", "pug"):
        (tmp_path / name).mkdir()
    place = {"location": str(tmp_path)}
    with pytest.raises(ModelError, match=r'class_map = \{ "gato" = "cat", "pug" = "pug" \}'):
        head_columns(data("gato", "pug", **place), 2, ["cat", "pug"])
    with pytest.raises(ModelError, match=r'class_map = \{ "golden_retriver" = "golden retriever", "pug" = "\?" \}'):
        head_columns(data("golden_retriver", "pug", **place), 2, ["cat", "golden retriever"])
    with pytest.raises(ModelError, match=r'no other classes.*class_map = \{ "pug" = "pug" \}'.replace(".*", "(?s:.*)")):
        head_columns(data("gato", "pug", **place), 1, ["pug"])


def test_data_that_are_no_folders_are_renamed_by_a_file():
    """Built-in data sets have no folders to map."""
    with pytest.raises(ModelError, match="--classnames FILE") as caught:
        head_columns(data("gato", "pug"), 2, ["cat", "pug"])
    assert "class_map" not in str(caught.value)


def test_names_of_another_number_than_the_heads_classes_are_not_compared():
    """A file may keep the names of a head that was replaced; a note says that they are not used."""
    found = head_columns(data("cat", "dog"), 2, ["a", "b", "c"])
    assert found.columns is None
    assert "3 classes for a head of 2" in found.notes[0]


def part(*columns, names=None):
    names = names or tuple(IMAGENET[several[0]] for several in columns)
    return data(*names, columns=columns, vocabulary="imagenet")


WORDS = tuple(f"Ding Nr. {number}" for number in range(1000))
"""Names that no list of ImageNet's knows."""


@pytest.mark.parametrize("names", [IMAGENET, WNIDS], ids=["names", "ids"])
def test_a_head_of_imagenets_classes_is_known_under_several_lists(names):
    """With open_clip's names or WordNet ids, a part of ImageNet has its own columns, and nothing is said."""
    shift = part((423, 559, 765), (954,), names=("chair", "banana"))
    found = head_columns(shift, 1000, names)
    assert (found.columns, found.by_name, found.notes) == (shift.columns, False, ())
    whole = data(*IMAGENET, vocabulary="imagenet")
    assert head_columns(whole, 1000, names).columns is None


def test_a_head_of_imagenets_classes_in_another_order_is_mapped():
    """Each column is where the class's id stands in the head, also for a head of some of the classes."""
    order = random.Random(0).sample(range(1000), 1000)
    shift = part((423, 559, 765), (954,), names=("chair", "banana"))
    found = head_columns(shift, 1000, [WNIDS[label] for label in order])
    assert [{order[column] for column in several} for several in found.columns] == [{423, 559, 765}, {954}]
    some = [7, 3, 954]
    assert head_columns(part((3,), (954,)), 3, [WNIDS[label] for label in some]).columns == ((1,), (2,))


def test_a_few_unknown_names_among_imagenets_are_noted():
    """With 20 names in other words, all others in their places show the order; with 220, nothing does."""
    names = list(IMAGENET)
    names[500:520] = [f"etwas {number}" for number in range(20)]
    found = head_columns(data(*IMAGENET, vocabulary="imagenet"), 1000, names)
    assert found.columns is None
    assert found.notes[0].startswith("20 of the head's 1000 names")
    with pytest.raises(ModelError, match="220 of its 1,000 classes"):
        head_columns(data(*IMAGENET, vocabulary="imagenet"), 1000, [*names[:800], *(f"x {n}" for n in range(200))])


def test_replaced_names_are_compared():
    """What --classnames gives a data set is compared with the head's names, so that it can settle a difference."""
    whole = replace(data(*IMAGENET, vocabulary="imagenet"), classnames=WORDS)
    assert head_columns(whole, 1000, WORDS).columns is None
    assert head_columns(whole, 1000, WORDS[::-1]).columns[0] == (999,)
