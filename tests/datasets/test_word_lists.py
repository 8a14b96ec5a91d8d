"""Lists of words are understood in the forms that people keep them in, or refused; nothing else becomes text."""

import json

import open_clip
import pytest

from mergekit_wise.datasets.class_names import notes_on_prompts, prompt_names, read_classnames, read_templates
from mergekit_wise.errors import SuiteError

WANTED = ("tench", "hot dog", "jack-o'-lantern")
FORMS = {
    "lines": "tench\nhot dog\njack-o'-lantern\n",
    "JSON list": '["tench", "hot dog", "jack-o\'-lantern"]',
    "JSON by number": '{"0": "tench", "2": "jack-o\'-lantern", "1": "hot dog"}',
    "JSON from 1": '{"1": "tench", "2": "hot dog", "3": "jack-o\'-lantern"}',
    "torchvision's class_to_idx": '{"hot dog": 1, "tench": 0, "jack-o\'-lantern": 2}',
    "ImageNet's class index": json.dumps(
        {str(i): [f"n0144076{i}", name] for i, name in enumerate(WANTED)},
    ),
    "WordNet ids with synonyms": json.dumps({f"n0144076{i}": [name, "x"] for i, name in enumerate(WANTED)}),
    "a configuration of transformers": json.dumps({"model_type": "clip", "id2label": dict(enumerate(WANTED))}),
    "a configuration of timm": json.dumps({"architecture": "vit", "label_names": list(WANTED)}),
    "YAML items": '- tench\n- hot dog\n- "jack-o\'-lantern"\n',
    "YAML by number": "0: tench\n1: 'hot dog'\n2: jack-o'-lantern\n",
    "YAML under a key": "names:\n  0: tench\n  1: hot dog\n  2: jack-o'-lantern\n",
    "Python list": "classes = [\n    'tench',\n    'hot dog',\n    \"jack-o'-lantern\",\n]\n",
    "Python dictionary": "{0: 'tench', 1: 'hot dog', 2: \"jack-o'-lantern\"}",
    "quoted lines": '\'tench\',\n"hot dog",\n"jack-o\'-lantern"\n',
    "commas": "tench,\nhot dog,\njack-o'-lantern\n",
    "numbers": "0 tench\n1 hot dog\n2 jack-o'-lantern\n",
    "CSV": "0,tench\n1,hot dog\n2,jack-o'-lantern\n",
    "synset_words.txt": "n01440764 tench\nn07697537 hot dog\nn03590841 jack-o'-lantern\n",
}


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_names_and_says_what_was_removed(form, mark, ending, tmp_path):
    """The names are the same in every form, with Windows' line ends and byte order mark; plain lines need no note."""
    (tmp_path / "names").write_bytes((mark + FORMS[form].replace("\n", ending)).encode())
    notes: list[str] = []
    assert read_classnames(tmp_path / "names", notes.append) == WANTED
    assert bool(notes) == (form != "lines")
    assert all("names: " in note for note in notes)


@pytest.mark.parametrize(
    "text",
    [
        '{"0": "cat", "2": "dog"}',
        '{"imagenet1k": ["tench"], "cifar10": ["cat"]}',
        '[["cat"], ["dog"]]',
        "[1, 2]",
        "cat,\ndog\nbird,\n",
        "cat, dog, bird",
        "names:\ncat\ndog\n",
        "id,name\n0,cat\n1,dog\n",
        "a photo of a {}.\ndog\n",
        "lambda c: c + 'x'\ndog\n",
        '"hot" dog\ncat\n',
    ],
)
def test_what_is_no_list_of_names_is_refused_with_the_file(text, tmp_path):
    """Gaps, several lists, other values, half a comma list, a line of several names, headings and code are refused."""
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(SuiteError, match=r"names\.txt: "):
        read_classnames(tmp_path / "names.txt")


def test_words_that_look_like_code_stay_words(tmp_path):
    """Numbers that are part of names, apostrophes, brackets and commas inside a line are kept."""
    names = ("2 door car", "4 door car", "'s-Hertogenbosch", "crane (bird)", "tench, Tinca tinca", "100% wool")
    (tmp_path / "names.txt").write_text("\n".join(names))
    notes: list[str] = []
    assert read_classnames(tmp_path / "names.txt", notes.append) == names
    assert not notes


TEMPLATES = ("a photo of a {}.", "the {}!")


@pytest.mark.parametrize(
    "lines",
    [
        "lambda c: f'a photo of a {c}.',\nlambda c: f'the {c}!',",
        "[\n    lambda c: f'a photo of a {c}.',\n    lambda c: f'the {c}!',\n]",
        "imagenet_templates = [\n    'a photo of a {}.',\n    'the {}!',\n]",
        'f"a photo of a {name}."\nf"the {name}!"',
        "a photo of a {c}.\nthe {c}!",
        "a photo of a {class}.\nthe {name}!",
        "a photo of a %s.\nthe %s!",
        "a photo of a [CLASS].\nthe <class>!",
        '["a photo of a {}.", "the {label}!"]',
        '["lambda c: f\'a photo of a {c}.\'", "the {0}!"]',
    ],
)
def test_templates_of_other_tools_are_rewritten(lines, tmp_path):
    """Lambdas, f-strings and other places for the name give this tool's templates."""
    (tmp_path / "t").write_text(lines)
    assert read_templates(tmp_path / "t") == TEMPLATES


@pytest.mark.parametrize(
    "line",
    ["lambda c: f'a {article(c)} {c}.'", "lambda c: 'a ' + c", "f'{c!r} and more'", "a {} {c}", "a photo of a cat"],
)
def test_templates_that_compute_something_are_refused(line, tmp_path):
    """Code that is more than a string with a place is never taken as text."""
    (tmp_path / "t").write_text(line + "\n")
    with pytest.raises(SuiteError, match="t: "):
        read_templates(tmp_path / "t")


def test_open_clips_own_source_gives_open_clips_templates(tmp_path):
    """The list of lambdas, copied from open_clip's source, gives the prompts of open_clip's functions."""
    import inspect

    from open_clip import zero_shot_metadata

    source = inspect.getsource(zero_shot_metadata)
    start = source.index("OPENAI_IMAGENET_TEMPLATES")
    (tmp_path / "t.py").write_text(source[start : source.index("\n)", start) + 2])
    templates = read_templates(tmp_path / "t.py")
    wanted = [function("newt") for function in open_clip.OPENAI_IMAGENET_TEMPLATES]
    assert [template.replace("{}", "newt") for template in templates] == wanted


def test_names_of_several_classes_are_said_and_allowed():
    """open_clip's own list of ImageNet has two such names; how many, from a count of the list itself."""
    notes: list[str] = []
    assert read_classnames("imagenet", notes.append) == tuple(open_clip.IMAGENET_CLASSNAMES)
    twice = {name for name in open_clip.IMAGENET_CLASSNAMES if open_clip.IMAGENET_CLASSNAMES.count(name) > 1}
    (note,) = notes
    assert note.startswith(f"imagenet: {len(twice)} names")
    assert all(name in note for name in twice)


def test_a_folder_called_like_a_known_list_breaks_nothing(tmp_path, monkeypatch):
    """Folders named imagenet, openai, simple and plain in the working folder are no lists."""
    monkeypatch.chdir(tmp_path)
    for name in ("imagenet", "openai", "simple", "plain"):
        (tmp_path / name).mkdir()
    assert len(read_classnames("imagenet")) == 1000
    assert [len(read_templates(name)) for name in ("openai", "simple", "plain")] == [80, 7, 1]


def test_prompts_have_words_for_ids_and_underscores():
    """Each id that ImageNet knows is named even beside others; what is no word is counted, and stays as it is."""
    names = ("n01440764", "hot_dog", "n99999999", "17", "cat")
    assert prompt_names(names) == (open_clip.IMAGENET_CLASSNAMES[0], "hot dog", "n99999999", "17", "cat")
    known, meaningless = notes_on_prompts(names)
    assert known.startswith("1 of 5 class names is a WordNet id")
    assert meaningless.startswith("2 of 5 class names are no words ('n99999999', '17')")
    assert not list(notes_on_prompts(("cat", "hot_dog")))


def test_the_class_name_alone_is_a_template(tmp_path):
    """A file that holds `{}` is not taken for an object without entries."""
    path = tmp_path / "prompts.txt"
    path.write_text("{}\n")
    assert read_templates(path) == ("{}",)
    with pytest.raises(SuiteError):
        read_classnames(path)
