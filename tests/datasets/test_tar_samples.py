"""Which members of a tar are a sample: webdataset's rule for keys, and what it leaves unclear."""

import re

import pytest

from mergekit_wise.datasets.custom import open_path
from mergekit_wise.datasets.own_folders import open_folder
from mergekit_wise.errors import SuiteError
from tests.datasets.made_files import encoded, reds, write_tar


def key_of(name):
    """webdataset's own rule (tariterators.base_plus_ext): the key ends at the first dot of the file's name."""
    match = re.match(r"^((?:.*/|)[^.]+)[.]([^/]*)$", name)
    return match[1] if match else None


@pytest.mark.parametrize(
    ("members", "labels"),
    [
        (
            [("a.png", encoded(0)), ("a.json", '{"label": 3}'), ("b.png", encoded(1)), ("b.json", '{"cls": "0"}')],
            [3, 0],
        ),
        (
            [("a.png", encoded(0)), ("a.json", "2"), ("b.json", '{"class_id": 1, "x": []}'), ("b.png", encoded(1))],
            [2, 1],
        ),
        ([("a.png", encoded(0)), ("a.txt", "2\n"), ("b.txt", " 1"), ("b.png", encoded(1))], [2, 1]),
        ([("x/a.png", encoded(0)), ("x/a.cls", 2), ("y/a.cls", 1), ("y/a.png", encoded(1))], [2, 1]),
        ([("./a.PNG", encoded(0)), ("./a.CLS", 2), ("./b.cls", 1), ("./b.Png", encoded(1))], [2, 1]),
        # A caption and metadata beside a class number are no labels.
        (
            [
                ("a.png", encoded(0)),
                ("a.cls", 2),
                ("a.txt", "a cat"),
                ("a.json", "{}"),
                ("b.png", encoded(1)),
                ("b.cls", 1),
            ],
            [2, 1],
        ),
    ],
)
def test_labels_may_be_in_cls_json_or_txt(tmp_path, members, labels):
    """A number in any of the three; members of one sample have one key by webdataset's rule."""
    dataset = open_path(write_tar(tmp_path / "x.tar", *members))
    assert (dataset.labels.tolist(), reds(dataset)) == (labels, [0, 1])
    keys = [key_of(dataset.sample(index).split(":", 1)[1]) for index in range(2)]
    assert len(set(keys)) == 2


@pytest.mark.parametrize("form", ["json", "txt"])
def test_names_as_labels_need_the_order_of_the_classes(tmp_path, form):
    """Without classnames.txt the numbers are unknown: a part of the data may lack a class."""
    text = '{{"class_name": "{}"}}' if form == "json" else "{}"
    members = [
        (f"{n}.{e}", encoded(n) if e == "png" else text.format(name))
        for n, name in enumerate(["dog", "cat"])
        for e in ("png", form)
    ]
    write_tar(tmp_path / "x" / "0.tar", *members)
    with pytest.raises(SuiteError, match=r"2 names such as 'cat', 'dog'.* in classnames\.txt next to the tars"):
        open_folder(tmp_path / "x")
    (tmp_path / "x" / "classnames.txt").write_text("bird\ncat\ndog\n")
    dataset = open_folder(tmp_path / "x")
    assert (dataset.labels.tolist(), dataset.classnames) == ([2, 1], ("bird", "cat", "dog"))
    (tmp_path / "x" / "classnames.txt").write_text("bird\ncat\n")
    with pytest.raises(SuiteError, match="its label 'dog' is not among the 2 class names"):
        open_folder(tmp_path / "x")
    (tmp_path / "y.toml").write_text('root = "x"\nclassnames = ["dog", "cat"]\n')
    assert open_path(tmp_path / "y.toml").labels.tolist() == [0, 1]


def test_dots_in_names_do_not_make_two_samples_one(tmp_path):
    """webdataset cuts both names at the first dot and so has one sample of the two; here each keeps its label."""
    first, second = "img.v1", "img.v2"
    assert key_of(f"{first}.png") == key_of(f"{second}.png") == "img"
    members = [(f"{first}.png", encoded(1)), (f"{first}.cls", 5), (f"{second}.png", encoded(2)), (f"{second}.cls", 6)]
    dataset = open_path(write_tar(tmp_path / "x.tar", *members))
    assert (dataset.labels.tolist(), reds(dataset)) == ([5, 6], [1, 2])


def test_further_images_of_a_sample_are_counted(tmp_path):
    """By webdataset's rule a.seg.png is a field of sample a, whose image is a.png; one field may be the image alone."""
    members = [("a.png", encoded(1)), ("a.seg.png", encoded(9)), ("a.cls", 5), ("b.left.png", encoded(2)), ("b.cls", 6)]
    dataset = open_path(write_tar(tmp_path / "x.tar", *members))
    assert (dataset.labels.tolist(), reds(dataset)) == ([5, 6], [1, 2])
    assert any("1 further image, such as 'a.seg.png'" in note for note in dataset.notes)
    with pytest.raises(SuiteError, match="incomplete"):
        open_path(write_tar(tmp_path / "y.tar", ("a.l.png", encoded()), ("a.r.png", encoded()), ("a.cls", 0)))


def test_hidden_members_are_left_out_and_counted(tmp_path):
    """What macOS and old archivers add is no sample."""
    hidden = ["._a.png", "__MACOSX/._a.png", "__MACOSX/a.png", "PaxHeader/a.png", "./PaxHeaders.7/a.png", ".DS_Store"]
    members = [(name, encoded(9)) for name in hidden]
    dataset = open_path(
        write_tar(tmp_path / "x.tar", *members, ("a.png", encoded(1)), ("a.cls", 0), ("readme.txt", "hello"))
    )
    assert reds(dataset) == [1]
    assert any("6 hidden or system files, such as '._a.png'" in note for note in dataset.notes)


@pytest.mark.parametrize(
    "extra", [[("b.png", encoded())], [("b.cls", 0)], [("b.png", encoded()), ("b.json", '{"caption": "x"}')]]
)
def test_incomplete_samples_are_an_error_that_a_toml_file_settles(tmp_path, extra):
    """The advice in the error works, and what is left out is counted."""
    write_tar(tmp_path / "x" / "0.tar", ("a.png", encoded(1)), ("a.cls", 0), *extra)
    with pytest.raises(SuiteError, match="sample 'b' has no .*incomplete = \"leave-out\" in a TOML file"):
        open_folder(tmp_path / "x")
    (tmp_path / "y.toml").write_text('root = "x"\nincomplete = "leave-out"\n')
    dataset = open_path(tmp_path / "y.toml")
    assert reds(dataset) == [1]
    assert any("1 incomplete sample, such as 'b'" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"a\.json: expected a JSON object with a label"),
        ('{"label": -1}', "found -1"),
        ('{"label": 1.5}', r"found 1\.5"),
        ('{"label": true}', "found True"),
        ('{"label": [1, 2]}', r"found \[1, 2\]"),
        ('{"label": ""}', "found ''"),
        ("[" * 50_000, r"a\.json: expected a JSON object with a label"),
    ],
)
def test_a_label_that_is_none_is_refused(tmp_path, content, message):
    """The sentence shows the member and the value."""
    with pytest.raises(SuiteError, match=message):
        open_path(write_tar(tmp_path / "x.tar", ("a.png", encoded()), ("a.json", content)))


def test_compressed_tars_name_the_command(tmp_path):
    """A gzip file cannot be read at an offset; gunzip fixes it."""
    for name in ("0.tar.gz", "1.tgz"):
        (tmp_path / name).write_bytes(b"\x1f\x8b")
    with pytest.raises(SuiteError, match=r"Run: gunzip .*/\*\.tar\.gz .*/\*\.tgz$"):
        open_folder(tmp_path)
    write_tar(tmp_path / "test" / "0.tar", ("a.png", encoded(4)), ("a.cls", 0))
    assert reds(open_folder(tmp_path)) == [4]
