"""What makes a measurement another one, and how that is said."""

import pytest

from mergekit_wise.results.identity import IDENTITY, MEASUREMENT, changes, comparable, key_of

FACTS = dict.fromkeys(IDENTITY, "x") | {
    "versions": {"mergekit_wise": "0.1.0", "measurement": MEASUREMENT, "torch": "2.7.0", "pillow": "11.0.0"},
    "preprocess": {"size": 224, "mean": [0.5]},
    "limit": None,
    "seed": None,
    "draw": "",
}


@pytest.mark.parametrize(
    "versions",
    [
        {"mergekit_wise": "9.0"},
        {"torch": "2.7.1"},
        {"torch": "2.7.0+cu126"},
        {"pillow": "11.0.0.post1"},
        {"python": "3.14"},
    ],
)
def test_versions_that_cannot_change_a_number_do_not_make_it_stale(versions):
    """Our own version, patches and builds of libraries, and libraries that compute nothing."""
    other = FACTS | {"versions": FACTS["versions"] | versions}
    assert key_of(other) == key_of(FACTS)
    assert changes(FACTS, other) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"precision": "bf16"}, "precision x -> bf16"),
        ({"preprocess": {"size": 336, "mean": [0.5]}}, "preprocessing size 224 -> 336"),
        ({"versions": FACTS["versions"] | {"torch": "2.8.0"}}, "torch 2.7 -> 2.8"),
        ({"versions": FACTS["versions"] | {"pillow": "12.0"}}, "pillow 11.0 -> 12.0"),
        ({"versions": FACTS["versions"] | {"measurement": "9"}}, "another version of wise measured it otherwise"),
        ({"limit": 10, "seed": 0, "draw": "proportional", "data": "y"}, "--limit none -> 10"),
        ({"weights": "y"}, "the weights changed"),
        ({"data": "y"}, "the images, their labels or groups changed"),
        ({"prompts": "y"}, "the class names or templates changed"),
        ({"head": "zero-shot"}, "head x -> zero-shot"),
    ],
)
def test_what_makes_a_result_stale_is_said(change, said):
    """The sentence names the attribute and both values, or what a digest stands for; nothing else."""
    assert changes(FACTS, FACTS | change) == (said,)
    assert key_of(FACTS) != key_of(FACTS | change)


def test_lists_of_a_file_are_tuples_in_memory():
    """The same preprocessing after it was written and read is no change."""
    other = FACTS | {"preprocess": {"size": 224, "mean": (0.5,)}}
    assert changes(FACTS, other) == ()
    assert key_of(FACTS) == key_of(other)


def test_records_without_a_version_of_the_measurement_are_of_the_first():
    """Earlier versions of the tool did not record it."""
    assert comparable("versions", {"torch": "2.7.0", "numpy": "2.3.1", "mergekit_wise": "0.1"}) == {
        "torch": "2.7",
        "numpy": "2.3",
        "measurement": "1",
    }
