"""Images with captions: tables, COCO's and Karpathy's JSON and tars give the same pairs, and losses are named."""

import json
import pickle

import pandas as pd
import pytest

from mergekit_wise.datasets.captioned_images import gather
from mergekit_wise.datasets.captions import open_captions
from mergekit_wise.errors import SuiteError
from tests.datasets.made_files import encoded, write_image, write_tar

CAPTIONS = (("a red square", "a square, in red"), ("a dark square",), ("a bright one", "it is bright", "bright"))


def reds(found):
    return [found.image(index).getpixel((0, 0))[0] for index in range(len(found))]


@pytest.fixture
def folder(tmp_path):
    """Three images in images/."""
    for number, name in enumerate("abc"):
        write_image(tmp_path / "images" / f"{name}.png", number)
    return tmp_path


def write(folder, text, name="flickr.csv"):
    (folder / name).write_text(text)
    return folder / name


def table(separator=",", columns=("filepath", "title")):
    rows = [
        f'images/{name}.png{separator}"{text}"' for name, texts in zip("abc", CAPTIONS, strict=True) for text in texts
    ]
    return "\n".join([separator.join(columns), *rows]) + "\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("flickr.csv", table()),
        ("flickr.tsv", table("\t", ("image", "caption"))),
        ("flickr.csv", table(";", ("File_Name", "Text"))),
        ("flickr.csv", "\n".join(table().splitlines()[1:])),
    ],
)
def test_a_table_gives_all_captions_of_each_image(folder, name, text):
    """Rows of one image are its captions, in the order of the table; columns may have any of the usual names."""
    found = open_captions(write(folder, text, name))
    assert (found.captions, reds(found), found.notes) == (CAPTIONS, [0, 1, 2], ())
    assert found.texts == tuple(text for texts in CAPTIONS for text in texts)
    assert (found.name, len(found), found.size(1)) == ("flickr", 3, len(encoded(1)))
    assert reds(pickle.loads(pickle.dumps(found))) == [0, 1, 2]


def test_pairs_are_those_that_open_clip_trains_on(folder):
    """open_clip reads the same columns with pandas."""
    frame = pd.read_csv(write(folder, table("\t"), "train.tsv"), sep="\t")
    found = open_captions(folder / "train.tsv")
    pairs = [(found.sample(i), text) for i, texts in enumerate(found.captions) for text in texts]
    assert pairs == [(str(folder / path), title) for path, title in zip(frame["filepath"], frame["title"], strict=True)]


def test_a_column_of_parts_is_respected(folder):
    """The test part is evaluated; the training part is another one."""
    path = write(folder, "path,caption,split\nimages/a.png,one,train\nimages/b.png,two,test\nimages/c.png,three,val\n")
    assert open_captions(path).captions == (("two",),)
    assert open_captions(path, "train").captions == (("one",),)
    assert "'train' and 'val'" in open_captions(path).notes[0] or "'train', 'val'" in open_captions(path).notes[0]


def test_what_is_left_out_is_counted(folder):
    """Empty captions, repeated captions and images without any are left out, each with its number and an example."""
    path = write(
        folder, "path,caption\nimages/a.png,one\nimages/a.png,one\nimages/a.png,\nimages/b.png,\nimages/c.png,one\n"
    )
    found = open_captions(path)
    assert (found.captions, reds(found)) == ((("one",), ("one",)), [0, 2])
    empty, repeated, without, shared = found.notes
    assert "2 empty captions" in empty
    assert "1 repeated caption" in repeated
    assert "1 uncaptioned image" in without
    assert "images/b.png" in without
    assert "more than one image" in shared


def test_unused_columns_are_named(folder):
    """Where two columns could be the captions, a note says which one is."""
    found = open_captions(write(folder, "path,caption,title\nimages/a.png,one,two\n"))
    assert found.captions == (("one",),)
    assert "'title'" in found.notes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\nimages/a.png,1\n", "expected a column of captions"),
        ("id,caption\n1,one\n", "expected a column of paths"),
        ("url,caption\nhttp://x.org/a.png,one\n", "img2dataset"),
        ("path,caption\nhttps://x.org/a.png,one\n", "img2dataset"),
        ("path,caption\nimages/a.png,one\nimages/z.png,two\n", "1 image of 2 does not exist, such as images/z.png"),
        ("path,caption\n,one\n", "its row 1 names no image"),
        ("path,caption\nimages/a.png,\n", "found empty ones alone"),
        ("path,caption\n", "no such line"),
        ("path,caption,split\nimages/a.png,one,train\n", "has no test part"),
    ],
)
def test_what_cannot_be_used_is_refused(folder, text, message):
    """The sentence says what was expected and what was found."""
    with pytest.raises(SuiteError, match=message):
        open_captions(write(folder, text))


def coco(names="abc"):
    images = [{"id": 7 + number, "file_name": f"{name}.png"} for number, name in enumerate(names)]
    annotations = [{"image_id": 7 + n, "caption": text} for n, texts in enumerate(CAPTIONS) for text in texts]
    return {"info": {}, "images": images, "annotations": annotations[::-1]}


def test_coco_is_read_with_its_images_in_the_folder_next_to_it(folder):
    """annotations/captions_val2017.json names images that lie in val2017/."""
    (folder / "annotations").mkdir()
    found = open_captions(write(folder / "annotations", json.dumps(coco()), "captions_val2017.json"))
    assert found.captions == tuple(texts[::-1] for texts in CAPTIONS)
    assert reds(found) == [0, 1, 2]


def test_karpathys_splits_are_read(folder):
    """The test part alone is evaluated, and the note names the others."""
    entries = [
        {"filepath": "images", "filename": f"{name}.png", "split": split, "sentences": [{"raw": t} for t in texts]}
        for name, split, texts in zip("abc", ("test", "restval", "test"), CAPTIONS, strict=True)
    ]
    found = open_captions(write(folder, json.dumps({"images": entries, "dataset": "coco"}), "dataset_coco.json"))
    assert (found.captions, reds(found)) == ((CAPTIONS[0], CAPTIONS[2]), [0, 2])
    assert "'restval'" in found.notes[0]
    entries[0]["sentences"] = []
    entries[1]["split"] = "test"
    entries[1]["sentences"] = []
    found = open_captions(write(folder, json.dumps({"images": entries}), "dataset_coco.json"))
    assert reds(found) == [2]
    assert any("2 uncaptioned images" in note for note in found.notes)


@pytest.mark.parametrize(
    "text",
    [
        "image,caption\na.png,a red square\na.png,a square, in red\nb.png,a dark square\n",
        "a.png#0\ta red square\na.png#1\ta square, in red\nb.png#0\ta dark square\n",
    ],
)
def test_the_lines_of_flickr_are_read(folder, text):
    """Captions hold commas without quotation marks; the images lie in a folder next to the file."""
    found = open_captions(write(folder, text, "flickr30k_test_karpathy.txt"))
    assert (found.captions, reds(found)) == (CAPTIONS[:2], [0, 1])


def test_lines_without_an_image_are_refused(folder):
    """The sentence shows the line."""
    with pytest.raises(SuiteError, match="found 'hello'"):
        open_captions(write(folder, "a.png,one\nhello\n", "x.txt"))
    with pytest.raises(SuiteError, match="found none"):
        open_captions(write(folder, "hello\n", "x.txt"))


def test_a_quotation_mark_that_is_not_closed_is_noticed(folder):
    """The lines after it would be parts of its caption."""
    found = open_captions(write(folder, 'path,caption\nimages/a.png,"one\nimages/b.png,two"\nimages/c.png,three\n'))
    assert reds(found) == [0, 2]
    assert "1 caption of several lines" in found.notes[0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1], "found a list"),
        ({"categories": []}, "the keys 'categories'"),
        ({"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 2, "caption": "x"}]}, "not listed"),
        ({"images": [{"filename": "a.png"}]}, "no 'sentences'"),
        ({"images": [{"id": 1, "file_name": "z.png"}], "annotations": [{"image_id": 1, "caption": "x"}]}, "not exist"),
        ({"images": [{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}], "annotations": []}, "same id"),
        ({"images": [{"id": 1, "file_name": 5}], "annotations": [{"image_id": 1, "caption": "x"}]}, "found 5"),
    ],
)
def test_other_json_is_refused(folder, value, message):
    """The sentence says what the file holds in place of captions."""
    with pytest.raises(SuiteError, match=message):
        open_captions(write(folder, json.dumps(value), "x.json"))


def test_images_that_lie_in_two_folders_are_refused(folder):
    """Nothing says which of them the captions are about."""
    write_image(folder / "small" / "a.png")
    with pytest.raises(SuiteError, match=r"lies both in .*images and in .*small"):
        open_captions(write(folder, json.dumps(coco()), "captions.json"))


def test_tars_have_the_captions_in_lines_or_in_json(tmp_path):
    """As clip-benchmark's tars and img2dataset's have them; a .txt counts before a .json."""
    write_tar(
        tmp_path / "coco" / "test" / "0.tar",
        ("0.jpg", encoded(0)),
        ("0.txt", "\ufeffa red square\na square, in red\n"),
        ("1.txt", "a dark square"),
        ("1.jpg", encoded(1)),
        ("1.json", json.dumps({"caption": "another"})),
        ("readme.txt", "hello"),
    )
    write_tar(
        tmp_path / "coco" / "test" / "1.tar", ("2.png", encoded(2)), ("2.json", json.dumps({"captions": CAPTIONS[2]}))
    )
    (tmp_path / "coco" / "test" / "nshards.txt").write_text("2")
    found = open_captions(tmp_path / "coco")
    assert (found.captions, reds(found), found.name) == (CAPTIONS, [0, 1, 2], "coco")
    assert open_captions(tmp_path / "coco" / "test").name == "coco"
    assert "'readme'" in found.notes[0]
    assert open_captions(tmp_path / "coco" / "test" / "0.tar").captions == CAPTIONS[:2]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("0.jpg", encoded())], "no .txt and no .json"),
        ([("0.txt", "one")], "found no image"),
        ([("0.jpg", encoded()), ("0.png", encoded()), ("0.txt", "x")], "Remove one"),
        ([("0.jpg", encoded()), ("0.json", '{"label": 3}')], "no caption under"),
        ([("0.jpg", encoded()), ("0.txt", b"\xff\xfe")], "UTF-8"),
    ],
)
def test_incomplete_tars_are_refused(tmp_path, members, message):
    """The sentence names the tar and the member."""
    with pytest.raises(SuiteError, match=message):
        open_captions(write_tar(tmp_path / "x.tar", *members))


def test_what_holds_no_captions_is_refused(folder):
    """The sentence lists what is read."""
    for path in (folder / "nowhere.csv", write(folder, "x", "x.md"), folder / "images"):
        with pytest.raises(SuiteError, match=r"tars?|table"):
            open_captions(path)


def test_the_fingerprint_depends_on_images_and_captions(folder):
    """Another caption, or a caption that moved to another image, is another data set."""
    one = open_captions(write(folder, table())).fingerprint
    assert open_captions(write(folder, table(), "copy.csv")).fingerprint == one
    other = open_captions(write(folder, table().replace("dark", "darker"))).fingerprint
    moved = open_captions(write(folder, table().replace('a.png,"a square', 'b.png,"a square'))).fingerprint
    assert len({one, other, moved}) == 3


def test_captions_are_bounded_in_number():
    """Millions of captions do not fill the memory."""
    with pytest.raises(SuiteError, match="at most 3 captions"):
        gather((("a.png", str(number)) for number in range(10)), "x.csv", most=3)
