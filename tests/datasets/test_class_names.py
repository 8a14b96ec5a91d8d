"""Class names and templates come from files, from lists, or from timm and open_clip by name."""

import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import timm
from timm.data import ImageNetInfo

from mergekit_wise.datasets import class_names
from mergekit_wise.datasets.class_names import (
    imagenet_classnames,
    imagenet_wnids,
    read_classnames,
    read_templates,
    subset_columns,
)
from mergekit_wise.errors import SuiteError


def test_a_file_has_one_name_a_line(tmp_path):
    """Blanks around a name, a byte order mark and trailing line ends are removed."""
    (tmp_path / "names.txt").write_bytes("\ufeffcat\r\n hot dog \nœuf\n\n".encode())
    assert read_classnames(tmp_path / "names.txt") == ("cat", "hot dog", "œuf")


def test_known_lists_have_names():
    """The class names of ImageNet are known by name, and so are OpenAI's 80 and 7 templates and the plain one."""
    assert read_classnames("imagenet") == tuple(open_clip.IMAGENET_CLASSNAMES)
    assert [len(read_templates(name)) for name in ("openai", "simple", "plain")] == [80, 7, 1]
    assert read_templates("imagenet") == read_templates("openai")


def test_a_file_of_a_known_name_takes_precedence(tmp_path, monkeypatch):
    """A file in the working folder is read even if its name is that of a known list."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imagenet").write_text("my class\n")
    (tmp_path / "openai").write_text("my {}\n")
    assert read_classnames("imagenet") == ("my class",)
    assert read_templates("openai") == ("my {}",)


def test_the_class_name_may_be_written_as_clip_benchmark_does(tmp_path):
    """A template may have {c} in place of {}."""
    (tmp_path / "t.txt").write_text("a {c}.\nthe {}!\n")
    assert read_templates(tmp_path / "t.txt") == ("a {}.", "the {}!")
    assert read_templates(["one {}"]) == ("one {}",)


@pytest.mark.parametrize(
    "template", ["no place", "{} and {}", "{c} {}", "{name} {}", "{1}", "{} {", "}{}", "{{}}", "{!r}"]
)
def test_a_template_without_exactly_one_place_is_refused(tmp_path, template):
    """The message names the file and the template, because str.format would fail or give another text."""
    (tmp_path / "t.txt").write_text(f"good {{}}\n{template}\n")
    with pytest.raises(SuiteError, match=r"t\.txt: .*\{\} for the class name") as caught:
        read_templates(tmp_path / "t.txt")
    assert repr(template) in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "an empty file"),
        (b"\n\n", "an empty file"),
        (b"cat\n\ndog\n", "line 2 is empty"),
        (b"caf\xe9\n", "in UTF-8"),
    ],
)
def test_a_file_that_is_no_list_is_refused(tmp_path, data, message):
    """An empty line between two names is refused, because it would shift every class after it."""
    (tmp_path / "names.txt").write_bytes(data)
    with pytest.raises(SuiteError, match=message):
        read_classnames(tmp_path / "names.txt")


def test_an_unknown_name_is_refused_with_a_suggestion(tmp_path):
    """A text that is neither a file nor a known list is refused; a folder is no list either."""
    with pytest.raises(SuiteError, match="imagenets: no such file.*'imagenet'"):
        read_classnames("imagenets")
    with pytest.raises(SuiteError, match="opnai: no such file.*'openai'"):
        read_templates("opnai")
    with pytest.raises(SuiteError, match="class names in UTF-8"):
        read_classnames(tmp_path)


def test_wordnet_ids_are_those_of_timm():
    """All 1000 ids are sorted, so that the label of a class is its index."""
    assert imagenet_wnids() == tuple(ImageNetInfo("imagenet-1k").label_names())
    assert list(imagenet_wnids()) == sorted(set(imagenet_wnids()))


@pytest.mark.parametrize("subset", ["r", "a"])
def test_subsets_are_those_of_timm(subset):
    """Each subset has 200 classes; timm lists them by WordNet id and by number, and the two lists agree."""
    numbers = Path(timm.__file__).parent / "data" / "_info" / f"imagenet_{subset}_indices.txt"
    assert subset_columns(subset) == tuple(map(int, numbers.read_text().split()))
    assert len(subset_columns(subset)) == 200


def test_class_names_are_those_of_open_clip():
    """Class 0 is the tench and class 999 the toilet paper, in the order of the WordNet ids."""
    assert imagenet_classnames() == tuple(open_clip.IMAGENET_CLASSNAMES)
    assert (imagenet_classnames()[0], imagenet_classnames()[999]) == ("tench", "toilet paper")


@pytest.mark.parametrize(
    ("name", "functions", "count"),
    [
        ("openai", open_clip.OPENAI_IMAGENET_TEMPLATES, 80),
        ("simple", open_clip.SIMPLE_IMAGENET_TEMPLATES, 7),
    ],
)
def test_templates_give_the_prompts_of_open_clips_functions(name, functions, count):
    """Every template gives the same prompt as open_clip's function, whatever the class is called."""
    templates = read_templates(name)
    assert len(templates) == len(functions) == count
    for classname in ("tench", "jack-o'-lantern", "{}"):
        assert [text.format(classname) for text in templates] == [function(classname) for function in functions]


def test_neither_library_is_imported():
    """The files of timm and open_clip are read without an import, because importing torch takes a second."""
    code = (
        "import sys; from mergekit_wise.datasets import class_names as c;"
        "c.imagenet_templates(); c.subset_columns('r');"
        "print(sorted({'timm', 'open_clip', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_library_that_is_not_installed_is_named(monkeypatch):
    """The message names the missing file and the command that installs it."""
    monkeypatch.setattr(class_names, "find_spec", lambda name: None)
    imagenet_wnids.cache_clear()
    with pytest.raises(SuiteError, match=r"timm.*imagenet_synsets\.txt.*pip install"):
        imagenet_wnids()
