"""What is read from the files of timm and open_clip is what these libraries say when they are asked."""

import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import timm
from timm.data import ImageNetInfo

from mergekit_wise.datasets import libraries
from mergekit_wise.datasets.libraries import (
    imagenet_classnames,
    imagenet_templates,
    imagenet_wnids,
    simple_templates,
    subset_columns,
)
from mergekit_wise.errors import SuiteError


def test_wnids_are_timms():
    """All 1000, sorted: a class's number is its place."""
    assert imagenet_wnids() == tuple(ImageNetInfo("imagenet-1k").label_names())
    assert list(imagenet_wnids()) == sorted(set(imagenet_wnids()))


@pytest.mark.parametrize("subset", ["r", "a"])
def test_subsets_are_timms(subset):
    """200 classes each; timm lists them by WordNet id and by number, and the two agree."""
    numbers = Path(timm.__file__).parent / "data" / "_info" / f"imagenet_{subset}_indices.txt"
    assert subset_columns(subset) == tuple(map(int, numbers.read_text().split()))
    assert len(subset_columns(subset)) == 200


def test_class_names_are_open_clips():
    """In the order of wnids: 0 is the tench, 999 the toilet paper."""
    assert imagenet_classnames() == tuple(open_clip.IMAGENET_CLASSNAMES)
    assert (imagenet_classnames()[0], imagenet_classnames()[999]) == ("tench", "toilet paper")


@pytest.mark.parametrize(
    ("ours", "theirs", "count"),
    [
        (imagenet_templates, open_clip.OPENAI_IMAGENET_TEMPLATES, 80),
        (simple_templates, open_clip.SIMPLE_IMAGENET_TEMPLATES, 7),
    ],
)
def test_templates_say_what_open_clips_functions_say(ours, theirs, count):
    """For every prompt and some class names."""
    assert len(ours()) == len(theirs) == count
    for name in ("tench", "jack-o'-lantern", "{}"):
        assert [text.format(name) for text in ours()] == [function(name) for function in theirs]


def test_neither_library_is_imported():
    """Their files are read; torch alone would take a second."""
    code = (
        "import sys; from mergekit_wise.datasets import libraries as l; l.imagenet_templates(); l.subset_columns('r');"
        "print(sorted({'timm', 'open_clip', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_library_that_is_not_there_is_a_sentence(monkeypatch):
    """With what to install."""
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    libraries.imagenet_wnids.cache_clear()
    with pytest.raises(SuiteError, match=r"timm is not installed with its .*imagenet_synsets\.txt: pip install"):
        imagenet_wnids()
