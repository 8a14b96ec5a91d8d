"""Tables of paths and labels: columns by name, numbers and names as labels, and what is unclear is refused."""

import pytest
from torchvision.datasets import ImageFolder

from mergekit_wise.datasets.custom import open_path
from mergekit_wise.errors import SuiteError
from tests.datasets.made_files import reds, write_image


@pytest.fixture
def images(tmp_path):
    for number, name in enumerate("abc"):
        write_image(tmp_path / "images" / f"{name}.png", number)
    return tmp_path


def write(images, text, name="x.csv"):
    (images / name).write_text(text)
    return images / name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", "path,label\nimages/a.png,1\nimages/b.png,0\nimages/c.png,1\n"),
        ("x.tsv", "label\tfile_name\n1\timages/a.png\n0\timages/b.png\n1\timages/c.png\n"),
        ("x.csv", "id;Image;Class\n7;images/a.png;1\n8;images/b.png;0\n9;images/c.png;1\n"),
        ("x.csv", "\ufefffilename,target\r\nimages/a.png,1\r\nimages/b.png,0\r\n\r\nimages/c.png,1\r\n"),
        ("x.csv", "images/a.png,1\nimages/b.png,0\nimages/c.png,1\n"),
        ("x.csv", 'image_path,y\n"images\\a.png",1\n./images/b.png,0\nimages/c.png,1\n'),
    ],
)
def test_columns_are_found_by_their_names(images, name, text):
    """Commas, semicolons and tabs separate; the header is recognised; paths are relative to the table."""
    dataset = open_path(write(images, text, name))
    assert (dataset.labels.tolist(), reds(dataset), dataset.classnames) == ([1, 0, 1], [0, 1, 2], ("0", "1"))
    assert dataset.name == "x"


def test_absolute_paths_are_opened(images):
    """Many tables hold the paths of the machine that wrote them."""
    text = "".join(f"{images}/images/{name}.png,{name}\n" for name in "cab")
    assert reds(open_path(write(images, f"path,label\n{text}"))) == [2, 0, 1]


def test_names_are_numbered_as_imagefolder_does(images):
    """The order is that of texts, over all parts of the table."""
    for name in ("Zebra", "ant", "bee"):
        write_image(images / "folders" / name / "0.png")
    names = ["bee", "Zebra", "ant"]
    rows = "".join(f"images/{i}.png,{name},test\n" for i, name in zip("abc", names, strict=True))
    dataset = open_path(write(images, f"path,label,split\n{rows}images/a.png,cow,train\n"))
    theirs = ImageFolder(str(images / "folders")).class_to_idx
    assert dataset.classnames == ("Zebra", "ant", "bee", "cow")
    assert dataset.labels.tolist() == [theirs[name] for name in names]


def test_class_names_stand_beside_the_numbers(images):
    """A second column names the classes, if each number has one name and none is missing."""
    rows = "images/a.png,2,cat\nimages/b.png,0,ant\nimages/c.png,1,bee\n"
    assert open_path(write(images, f"path,label,class\n{rows}")).classnames == ("ant", "bee", "cat")
    assert open_path(write(images, f"path,label,class\n{rows.replace('0,ant', '0,cat')}")).classnames == ("0", "1", "2")


def test_a_toml_file_gives_the_numbers_of_names(images):
    """The order of `classnames` is that of the classes."""
    write(images, "path,label\nimages/a.png,ant\nimages/b.png,cat\n")
    toml = write(images, 'root = "x.csv"\nclassnames = ["cat", "bee", "ant"]\n', "x.toml")
    assert open_path(toml).labels.tolist() == [2, 0]
    toml = write(images, 'root = "x.csv"\nclassnames = ["cat", "bee"]\n', "x.toml")
    with pytest.raises(SuiteError, match="1 label not among the 2 class names: 'ant'"):
        open_path(toml)


def test_numbers_from_one_on_need_a_word(images):
    """They may be classes from 1 on, or the class 0 may lack an image: the error says how to settle it."""
    write(images, "path,label\nimages/a.png,1\nimages/b.png,2\n")
    with pytest.raises(SuiteError, match='numbers from 1 to 2, .* numbers = "from-one"'):
        open_path(images / "x.csv")
    assert open_path(write(images, 'root = "x.csv"\nnumbers = "from-one"\n', "x.toml")).labels.tolist() == [0, 1]
    names = write(images, 'root = "x.csv"\nclassnames = ["a", "b", "c"]\n', "y.toml")
    assert open_path(names).labels.tolist() == [1, 2]


def test_missing_images_are_an_error_unless_they_are_left_out(images):
    """The error names one; left out, they are counted in a note."""
    write(images, "path,label\nimages/a.png,1\nimages/no.png,0\nimages/b.png,0\n")
    with pytest.raises(SuiteError, match=r"1 image of 3 do not exist, such as images/no\.png.*incomplete"):
        open_path(images / "x.csv")
    dataset = open_path(write(images, 'root = "x.csv"\nincomplete = "leave-out"\n', "x.toml"))
    assert (dataset.labels.tolist(), reds(dataset)) == ([1, 0], [0, 1])
    assert any("left out 1 row" in note and "images/no.png" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a header and a line for each image"),
        ("path,label\n", "a header and a line for each image"),
        ("where,label\nimages/a.png,1\n", "a column of paths, called path, .* found the columns where, label"),
        ("path,kind\nimages/a.png,1\n", "a column of labels, called label"),
        ("path,label\nimages/a.png\n", "its row 1 has 1 cell, the header has 2"),
        ("path,label\nimages/a.png,\n", "its row 1 has no label"),
        ("path,label\nimages/a.png,999999999\n", "class numbers below 100,000"),
        ("path,label\nimages/a.png,0\nimages/a.png,1\n", "stands in 2 rows with different labels"),
        ("path,label,split\nimages/a.png,0,first\n", "'split' should hold train, validation or test; found first"),
        ("path,label\nnowhere/a.png,0\n", "found none"),
    ],
)
def test_what_is_unclear_is_refused(images, text, message):
    """The sentence names the table and what was found."""
    with pytest.raises(SuiteError, match=message):
        open_path(write(images, text))


def test_what_is_not_used_is_named(images):
    """Repeated rows count again, and a column of folds is no column of parts."""
    rows = "images/a.png,0,1\nimages/a.png,0,2\nimages/b.png,1,3\n"
    dataset = open_path(write(images, f"path,label,fold\n{rows}"))
    assert len(dataset) == 3
    assert any("'fold' names no parts" in note for note in dataset.notes)
    assert any("1 row of images that are listed more than once" in note for note in dataset.notes)


def test_wordnet_ids_are_imagenets_classes(images):
    """As folders of these names are."""
    dataset = open_path(write(images, "path,label\nimages/a.png,n01443537\nimages/b.png,n01440764\n"))
    assert (dataset.labels.tolist(), dataset.columns, dataset.vocabulary) == ([1, 0], ((0,), (1,)), "imagenet")


@pytest.mark.parametrize(
    ("name", "advice"),
    [("x.tar.gz", "gunzip "), ("x.tgz", "gunzip "), ("x.zip", "unzip "), ("x.pdf", "Expected a folder, or a file")],
)
def test_another_file_says_what_to_do(tmp_path, name, advice):
    """An archive has to be unpacked first."""
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(SuiteError, match=advice):
        open_path(tmp_path / name)
