"""A user's own data sets: folders, tars and TOML files, and the errors in them."""

import io
import tarfile

import numpy as np
import open_clip
import pytest
from PIL import Image
from timm.data import ImageNetInfo

from mergekit_wise.datasets.custom import open_toml
from mergekit_wise.datasets.own_folders import open_folder
from mergekit_wise.errors import SuiteError

WNIDS = ImageNetInfo("imagenet-1k").label_names()


def write_folders(root, *names):
    """Write one tiny image into each folder."""
    for name in names:
        (root / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(root / name / "0.jpg")
    return root


def write_tar(root, labels):
    """Write one tar with an image for each label into ``test/``."""
    (root / "test").mkdir(parents=True)
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "JPEG")
    with tarfile.open(root / "test" / "0.tar", "w") as tar:
        for number, label in enumerate(labels):
            for name, data in ((f"{number}.jpg", buffer.getvalue()), (f"{number}.cls", str(label).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return root


def write_toml(path, text):
    """Write a TOML file and return its path."""
    path.write_text(text)
    return path


def test_classes_are_called_after_their_folders(tmp_path):
    """Classes are in the order of their names, and the data set is named after the folder that holds them."""
    dataset = open_folder(write_folders(tmp_path / "pets", "dog", "cat"))
    assert (dataset.name, dataset.title, dataset.classnames) == ("pets", "pets", ("cat", "dog"))
    assert dataset.labels.tolist() == [0, 1]
    assert dataset.templates == ("a photo of a {}.",)
    assert (dataset.expected, dataset.columns) == (None, None)


def test_a_tar_next_to_class_folders_is_not_read(tmp_path):
    """Class folders are used even if the tar that they were unpacked from is still there."""
    write_folders(tmp_path / "pets", "dog", "cat")
    (tmp_path / "pets" / "pets.tar").write_bytes(b"whatever")
    assert open_folder(tmp_path / "pets").classnames == ("cat", "dog")


def test_folders_called_by_numbers_are_sorted_as_numbers(tmp_path):
    """Folder 10 comes after folder 9, and the label is the number."""
    dataset = open_folder(write_folders(tmp_path / "x", *map(str, range(12))))
    for index, label in enumerate(dataset.labels):
        assert f"/{label}/" in dataset.sample(index)
    assert dataset.classnames == tuple(map(str, range(12)))


def test_numbers_with_a_gap_are_refused(tmp_path):
    """Folders 0, 1 and 3 are refused, because 3 could be the third class or the fourth."""
    with pytest.raises(SuiteError, match="from 0 to 2.*class_map"):
        open_folder(write_folders(tmp_path / "x", "0", "1", "3"))


def test_wordnet_ids_are_imagenets_classes(tmp_path):
    """Folders named by some of the WordNet ids are columns of a head of all 1000 classes, as in ImageNet-R."""
    dataset = open_folder(write_folders(tmp_path / "x", WNIDS[999], WNIDS[3]))
    assert dataset.columns == ((3,), (999,))
    assert dataset.vocabulary == "imagenet"
    assert dataset.classnames == (open_clip.IMAGENET_CLASSNAMES[3], open_clip.IMAGENET_CLASSNAMES[999])
    assert len(dataset.templates) == 80


def test_tars_have_their_own_names(tmp_path):
    """Class names and templates are read from files next to the tars; otherwise classes are named by number."""
    root = write_tar(tmp_path / "x", [1, 0, 1])
    assert open_folder(root).classnames == ("0", "1")
    (root / "classnames.txt").write_text("no\nyes\n")
    (root / "zeroshot_classification_templates.txt").write_text("it is {c}.\n")
    dataset = open_folder(root)
    assert (dataset.classnames, dataset.templates) == (("no", "yes"), ("it is {}.",))
    assert dataset.labels.tolist() == [1, 0, 1]


def test_labels_beyond_the_names_are_refused(tmp_path):
    """Three labels with two class names raise SuiteError."""
    root = write_tar(tmp_path / "x", [0, 1, 2])
    (root / "classnames.txt").write_text("no\nyes\n")
    with pytest.raises(SuiteError, match="expected labels from 0 to 1, found them from 0 to 2"):
        open_folder(root)


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.touch()])
def test_a_place_without_classes_is_refused(tmp_path, make):
    """A missing folder, an empty folder and a file raise SuiteError."""
    make(tmp_path / "x")
    with pytest.raises(SuiteError, match=r"x: (no such folder|expected class folders|is no data set)"):
        open_folder(tmp_path / "x")


def test_a_toml_file_may_set_every_key(tmp_path):
    """Paths are relative to the TOML file, and the data set is named after it."""
    write_folders(tmp_path / "images", "siamese", "persian", "poodle", "unused")
    (tmp_path / "prompts.txt").write_text("my {}.\n")
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    dataset = open_toml(
        write_toml(
            tmp_path / "pets.toml",
            'root = "images"\ntitle = "Our pets"\nclassnames = "names.txt"\ntemplates = "prompts.txt"\n'
            'metric = "macro-f1"\n[class_map]\nsiamese = "cat"\npersian = 1\npoodle = "dog"\n',
        )
    )
    assert (dataset.name, dataset.title) == ("pets", "Our pets")
    assert (dataset.classnames, dataset.templates) == (("dog", "cat"), ("my {}.",))
    assert dataset.metric.kind == "macro-f1"
    assert {dataset.sample(i).split("/")[-2]: label for i, label in enumerate(dataset.labels.tolist())} == {
        "siamese": 1,
        "persian": 1,
        "poodle": 0,
    }


def test_a_map_of_names_alone_makes_the_classes(tmp_path):
    """Without class names, the classes are the sorted names in class_map."""
    write_folders(tmp_path, "a", "b", "c")
    dataset = open_toml(
        write_toml(tmp_path / "x.toml", 'root = "."\n[class_map]\nb = "zebra"\na = "ape"\nc = "zebra"\n')
    )
    assert dataset.classnames == ("ape", "zebra")
    assert dataset.labels.tolist() == [0, 1, 1]


def test_names_in_the_order_of_the_folders(tmp_path):
    """Class names in the TOML file itself name the folders in order."""
    write_folders(tmp_path, "a", "b")
    text = 'root = "."\nclassnames = ["ant", "bee"]\ntemplates = ["one {}", "two {}"]\n'
    dataset = open_toml(write_toml(tmp_path / "x.toml", text))
    assert (dataset.classnames, dataset.templates) == (("ant", "bee"), ("one {}", "two {}"))


def test_all_of_imagenets_classes_may_be_asked_for(tmp_path):
    """With ImageNet's class names, a model predicts among all 1000 classes, with WordNet ids and with class_map."""
    write_folders(tmp_path / "a", WNIDS[7], WNIDS[12])
    dataset = open_toml(write_toml(tmp_path / "x.toml", 'root = "a"\nclassnames = "imagenet"\n'))
    assert (len(dataset.classnames), dataset.columns, dataset.labels.tolist()) == (1000, None, [7, 12])
    assert dataset.vocabulary == "imagenet"
    write_folders(tmp_path / "b", "fish", "paper")
    mapped = 'root = "b"\nclassnames = "imagenet"\n[class_map]\nfish = "tench"\npaper = 999\n'
    assert open_toml(write_toml(tmp_path / "y.toml", mapped)).labels.tolist() == [0, 999]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("root = ", "not valid TOML"),
        ("title = 'x'", "the key 'root' is missing"),
        ("root = 3", "'root' should be a string, found 3"),
        ("root = ''", "'root' should be a string, found ''"),
        ("root = 'nowhere'", "nowhere: no such folder"),
        ("rot = 'images'", "unknown key 'rot'. Did you mean 'root'"),
        ("colour = 1", "unknown key 'colour'. Known keys: root, title"),
        ("root = 'images'\ntitle = ['x']", "'title' should be a string"),
        ("root = 'images'\nclassnames = 3", "'classnames' should be a list of strings or the name of a file, found 3"),
        ("root = 'images'\nclassnames = []", "'classnames' should be a list"),
        ("root = 'images'\nclassnames = ['a', 2]", "'classnames' should be a list"),
        ("root = 'images'\nclassnames = 'no.txt'", "no.txt: no such file of class names"),
        ("root = 'images'\nclassnames = ['a']", "2 class names, one per class folder, found 1"),
        ("root = 'images'\ntemplates = ['a']", "expected one {} for the class name"),
        ("root = 'images'\ntemplates = true", "'templates' should be a list"),
        ("root = 'images'\nmetric = 'accuracy'", "'metric' is 'accuracy'; expected one of top-1"),
        ("root = 'images'\nmetric = 1", "'metric' is 1"),
        ("root = 'images'\nclass_map = 'x'", "'class_map' should be a table"),
        ("root = 'images'\n[class_map]", "'class_map' should be a table"),
        ("root = 'images'\n[class_map]\ncat = true", "gives 'cat' the class True"),
        ("root = 'images'\n[class_map]\ncat = 1.5", "gives 'cat' the class 1.5"),
        ("root = 'images'\n[class_map]\ncat = 0", "needs the key 'classnames'"),
        ("root = 'images'\n[class_map]\ncart = 'x'", "names the folder 'cart', which is not among its 2"),
        ("root = 'images'\n[class_map]\n'../images/cat' = 'x'", "names the folder '../images/cat'"),
        (
            "root = 'images'\nclassnames = ['a']\n[class_map]\ncat = 'b'",
            "gives 'cat' the class 'b', which is not among the 1",
        ),
        (
            "root = 'images'\nclassnames = ['a']\n[class_map]\ncat = 1",
            "gives 'cat' the class 1, which is not among the 1",
        ),
        (
            "root = 'images'\nclassnames = ['a']\n[class_map]\ncat = -1",
            "gives 'cat' the class -1, which is not among the 1",
        ),
        ("root = 'images'\nclassnames = ['a', 'a']\n[class_map]\ncat = 'a'", "the name of 2 classes"),
        ("root = 'images'\nnumbers = 'two'", "'numbers' is 'two'; expected one of from-zero, from-one, as-text"),
        ("root = 'images'\nincomplete = 'skip'", "'incomplete' is 'skip'; expected error or leave-out"),
        ("root = 'images'\npart = 1", "'part' should be a string"),
        ("root = 'tars'\n[class_map]\ncat = 'a'", "class_map is for class folders"),
    ],
)
def test_an_error_in_a_toml_file_names_key_and_value(tmp_path, text, message):
    """The message names the key, the value that was found, and what was expected."""
    write_folders(tmp_path / "images", "cat", "dog")
    write_tar(tmp_path / "tars", [0])
    with pytest.raises(SuiteError) as caught:
        open_toml(write_toml(tmp_path / "x.toml", text))
    assert message in str(caught.value)


def test_a_toml_file_that_cannot_be_read_is_refused(tmp_path):
    """A binary file and a missing file raise SuiteError."""
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\0")
    with pytest.raises(SuiteError, match="not valid TOML"):
        open_toml(tmp_path / "x.toml")
    with pytest.raises(SuiteError, match="cannot be read"):
        open_toml(tmp_path / "y.toml")


def test_images_are_those_of_the_folders(tmp_path):
    """An image has the pixels of its file."""
    write_folders(tmp_path / "x", "a", "b")
    Image.fromarray(np.full((5, 6, 3), 77, np.uint8)).save(tmp_path / "x" / "b" / "1.png")
    dataset = open_folder(tmp_path / "x")
    assert np.array_equal(np.asarray(dataset.image(2)), np.full((5, 6, 3), 77))


def test_folders_that_are_no_classes_are_refused(tmp_path):
    """One folder above the classes, several data sets of one kind, images of all classes: what helps is said."""
    write_folders(tmp_path / "above", "images/cat", "images/dog")
    with pytest.raises(SuiteError, match=r"Give the path .*above/images\."):
        open_folder(tmp_path / "above")
    write_folders(tmp_path / "once", "pets/cat", "pets/dog")
    with pytest.raises(SuiteError, match=r"Give the path .*once/pets\."):
        open_folder(tmp_path / "once")
    write_folders(tmp_path / "domains", "art/cat", "art/dog", "photo/cat", "photo/dog")
    with pytest.raises(SuiteError, match=r"they seem to be data sets rather than classes\. Give .*domains/art"):
        open_folder(tmp_path / "domains")
    write_folders(tmp_path / "flat", "images")
    with pytest.raises(SuiteError, match="single folder 'images', whose name is no class. List the images in a CSV"):
        open_folder(tmp_path / "flat")
    write_folders(tmp_path / "tiny", "n01443537/images", "n01629819/images")
    assert len(open_folder(tmp_path / "tiny")) == 2


@pytest.mark.parametrize(
    ("names", "advice"),
    [
        (["a.jpg", "labels.csv"], "give the path .*labels.csv in place of the folder"),
        (["all.zip"], "Unpack all.zip"),
        (["a.jpg", "b.jpg"], "found 2 images without a class. List the images in a CSV file"),
    ],
)
def test_a_near_miss_says_what_helps(tmp_path, names, advice):
    """A folder without classes may hold a table, an archive or unsorted images."""
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(SuiteError, match=advice):
        open_folder(tmp_path)


def test_numbers_from_one_are_classes_if_a_toml_file_says_so(tmp_path):
    """The advice in the error works, for the order of the numbers and for that of ImageFolder."""
    root = write_folders(tmp_path / "flowers", *map(str, range(1, 13)))
    with pytest.raises(SuiteError, match='numbers = "from-one", numbers = "as-text"'):
        open_folder(root)
    for word, order in (("from-one", [*map(str, range(1, 13))]), ("as-text", sorted(map(str, range(1, 13))))):
        dataset = open_toml(write_toml(tmp_path / "x.toml", f'root = "flowers"\nnumbers = "{word}"\n'))
        found = {dataset.sample(i).split("/")[-2]: int(label) for i, label in enumerate(dataset.labels)}
        assert [found[name] for name in order] == list(range(12))
        assert dataset.classnames == tuple(order)


def test_the_order_of_numbered_folders_is_named(tmp_path):
    """ImageFolder has 10 before 2, which a model that was trained with it knows."""
    assert any("as-text" in note for note in open_folder(write_folders(tmp_path / "x", *map(str, range(12)))).notes)
    assert open_folder(write_folders(tmp_path / "y", *map(str, range(10)))).notes == ()


def test_classnames_of_a_toml_file_are_matched_with_folders_of_these_names(tmp_path):
    """Folders are sorted as dog, eel; a list in another order gives the order, not other names. So it is for tars."""
    write_folders(tmp_path / "a", "dog", "eel")
    toml = tmp_path / "a.toml"
    toml.write_text('root = "a"\nclassnames = ["eel", "dog"]')
    found = open_toml(toml)
    by_folder = {found.sample(i).split("/")[-2]: found.classnames[label] for i, label in enumerate(found.labels)}
    assert by_folder == {"dog": "dog", "eel": "eel"}
    assert any("in the order of the given class names" in note for note in found.notes)

    write_tar(tmp_path / "t", [0, 0, 1])
    (tmp_path / "t" / "classnames.txt").write_text("dog\neel\n")
    toml.write_text('root = "t"\nclassnames = ["eel", "dog"]')
    found = open_toml(toml)
    assert [found.classnames[label] for label in found.labels] == ["dog", "dog", "eel"]
    toml.write_text('root = "t"\nclassnames = ["hound", "fish"]')
    assert open_toml(toml).labels.tolist() == [0, 0, 1]


def test_classes_called_after_parts_are_named(tmp_path):
    """Among others, folders called train and test hold a class each; a note says so."""
    write_folders(tmp_path, "bus", "test", "train")
    found = open_folder(tmp_path)
    assert found.classnames == ("bus", "test", "train")
    assert any("read as classes: 'test', 'train'" in note for note in found.notes)
