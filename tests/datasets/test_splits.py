"""In every layout the training part is learned from and the test part judged on; nothing stands in for the former."""

import pytest

from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.custom import open_path
from mergekit_wise.datasets.own_folders import open_folder
from mergekit_wise.datasets.splits import choose_part, role_in, role_of
from mergekit_wise.errors import SuiteError
from mergekit_wise.options import FinetuneOptions
from mergekit_wise.training.data import open_training_data
from tests.datasets.made_files import encoded, reds, write_classes, write_image, write_tar

pa = pytest.importorskip("pyarrow")


def tar(path, red, count=2):
    """A tar with `count` samples of one colour, of the classes 0, 1, 0 ..."""
    members = [(f"{n}.{end}", encoded(red) if end == "png" else n % 2) for n in range(count) for end in ("png", "cls")]
    return write_tar(path, *members)


def class_folders(root, **red_of):
    for part, red in red_of.items():
        for folder in ("cat", "dog"):
            write_image(root / part / folder / "0.png", red)
    return root


def tar_folders(root, **red_of):
    for part, red in red_of.items():
        tar(root / part / "0.tar", red)
        (root / part / "nshards.txt").write_text("1")
    (root / "classnames.txt").write_text("cat\ndog\n")
    return root


def tars_in_one_folder(root, **red_of):
    for part, red in red_of.items():
        tar(root / f"pets-{part}-000000.tar", red)
    (root / "classnames.txt").write_text("cat\ndog\n")
    return root


def parquet_files(root, **red_of):
    import pyarrow.parquet as pq

    (root / "data").mkdir(parents=True)
    for part, red in red_of.items():
        images = [{"bytes": encoded(red), "path": None}] * 2
        table = pa.table({"image": images, "label": ["cat", "dog"]})
        pq.write_table(table, root / "data" / f"{part}-00000-of-00001.parquet")
    return root


def table(root, **red_of):
    lines = ["path,label,split"]
    for part, red in red_of.items():
        for number, name in enumerate(("cat", "dog")):
            write_image(root / "images" / f"{part}{number}.png", red)
            lines.append(f"images/{part}{number}.png,{name},{part}")
    (root / "all.csv").write_text("\n".join(lines))
    return root / "all.csv"


LAYOUTS = [class_folders, tar_folders, tars_in_one_folder, parquet_files, table]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("names", [("train", "test"), ("training", "testing"), ("Train", "Test")])
def test_each_part_is_opened_for_its_use(tmp_path, layout, names):
    """Training takes the training part and evaluation the test part; a note names both."""
    path = layout(tmp_path / "pets", **dict(zip(names, (10, 20), strict=True)))
    for part, red, name in (("train", 10, names[0]), ("test", 20, names[1])):
        dataset = open_path(path, part)
        assert set(reds(dataset)) == {red}
        assert (dataset.labels.tolist(), dataset.classnames) == ([0, 1], ("cat", "dog"))
        assert any(f"read the part '{name}'" in note and "not read" in note for note in dataset.notes)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_is_the_test_part_where_there_is_none(tmp_path, layout, name):
    """The note says that there is no test part; training does not take it."""
    dataset = open_path(layout(tmp_path / "a", train=10, **{name: 20}))
    assert set(reds(dataset)) == {20}
    assert "because there is no test part" in " ".join(dataset.notes)
    assert set(reds(open_path(layout(tmp_path / "b", train=10, test=30, **{name: 20})))) == {30}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_test_part_alone_is_not_trained_on(tmp_path, layout):
    """CLIP_benchmark's layout has test/ alone; the error says how to train on it all the same."""
    path = layout(tmp_path / "pets", test=20)
    assert set(reds(open_path(path))) == {20}
    with pytest.raises(SuiteError, match=r"no training part; found the part 'test'\. To use 'test' all the same, "):
        open_path(path, "train")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_training_part_alone_is_not_judged_on(tmp_path, layout):
    """Accuracy on training images is asked for by their own path only."""
    path = layout(tmp_path / "pets", train=20)
    assert set(reds(open_path(path, "train"))) == {20}
    with pytest.raises(SuiteError, match="no test part; found the part 'train'"):
        open_path(path)


@pytest.mark.parametrize("layout", [class_folders, tar_folders])
@pytest.mark.parametrize("part", ["train", "test"])
def test_the_path_of_a_part_is_always_opened(tmp_path, layout, part):
    """Whatever it is opened for; class names are still found above it."""
    root = layout(tmp_path / "pets", train=10, test=20)
    for name, red in (("train", 10), ("test", 20)):
        dataset = open_path(root / name, part)
        assert (set(reds(dataset)), dataset.classnames) == ({red}, ("cat", "dog"))


@pytest.mark.parametrize("layout", [parquet_files, table])
def test_a_toml_file_may_name_the_part(tmp_path, layout):
    """The advice in the error works when it is followed."""
    path = layout(tmp_path / "pets", test=20)
    with pytest.raises(SuiteError, match='set part = "test" in a TOML file with root = '):
        open_path(path, "train")
    (tmp_path / "x.toml").write_text(f'root = "{path}"\npart = "test"\n')
    assert set(reds(open_path(tmp_path / "x.toml", "train"))) == {20}


def test_finetune_learns_from_the_training_part(tmp_path):
    """`wise finetune --train` of a data set with both parts opens the training part, and says so."""
    root = class_folders(tmp_path / "pets", train=10, test=20)
    options = FinetuneOptions(checkpoint="x", train=str(root), output="y")
    dataset, notes, _ = open_training_data(options)
    assert set(reds(dataset)) == {10}
    assert "read the part 'train'" in " ".join(notes)


def test_built_in_data_has_its_training_part(tmp_path):
    """The digits that are learned from are none of the digits that are judged on."""
    dataset, notes, _ = open_training_data(FinetuneOptions(checkpoint="x", train="digits", output="y"))
    assert (dataset.name, len(dataset), notes) == ("digits-train", 797, ())
    shift, notes, _ = open_training_data(FinetuneOptions(checkpoint="x", train="digits-blurred", output="y"))
    assert (shift.name, len(notes)) == ("digits-blurred", 1)
    assert "is an evaluation set" in notes[0]


def test_a_class_may_be_called_train(tmp_path):
    """Pascal VOC has a class of trains, whose folder holds images."""
    assert open_folder(write_classes(tmp_path / "voc", "bus", "train", "person")).classnames == (
        "bus",
        "person",
        "train",
    )
    assert open_folder(tmp_path / "voc", None, "train").classnames == ("bus", "person", "train")


@pytest.mark.parametrize("part", ["train", "test"])
def test_what_is_unclear_is_refused(tmp_path, part):
    """Images without classes, folders beside the parts, parts inside classes, two test parts, tars of no part."""
    write_classes(tmp_path / "flat", "train", "test")
    with pytest.raises(SuiteError, match="hold images without class folders"):
        open_folder(tmp_path / "flat", None, part)
    write_classes(class_folders(tmp_path / "more", train=1, test=2), "extra")
    with pytest.raises(SuiteError, match="'extra' with images are neither among its parts"):
        open_folder(tmp_path / "more", None, part)
    write_classes(tmp_path / "inside", "cat/train", "cat/test", "dog/train", "dog/test")
    with pytest.raises(SuiteError, match="each of its folders holds the parts"):
        open_folder(tmp_path / "inside", None, part)
    class_folders(tmp_path / "two", train=1, training=2, test=3, testing=4)
    with pytest.raises(SuiteError, match=f"may be its {part} part"):
        open_folder(tmp_path / "two", None, part)
    tar(tars_in_one_folder(tmp_path / "tars", train=1, test=2) / "0.tar", 3)
    with pytest.raises(SuiteError, match=r"the part of 0\.tar is unclear"):
        open_folder(tmp_path / "tars", None, part)


def test_folders_without_images_do_not_make_parts_unclear(tmp_path):
    """Annotations beside the parts are no part, and a test part without labels is named."""
    root = class_folders(tmp_path / "pets", train=1, val=2)
    (root / "annotations").mkdir()
    (root / "annotations" / "a.xml").touch()
    write_image(root / "test" / "0.png")
    dataset = open_folder(root)
    assert set(reds(dataset)) == {2}
    assert any("'test' has images without labels" in note for note in dataset.notes)


def test_classes_are_numbered_as_in_the_training_part(tmp_path):
    """A class without test images must not shift the numbers of those after it; a further class is named."""
    write_classes(tmp_path / "pets" / "train", "ant", "bee", "cat")
    write_classes(tmp_path / "pets" / "test", "ant", "cat")
    for path in (tmp_path / "pets", tmp_path / "pets" / "test"):
        dataset = open_folder(path)
        assert (dataset.labels.tolist(), dataset.classnames) == ([0, 2], ("ant", "bee", "cat"))
        assert any("without images here: bee" in note for note in dataset.notes)
    write_classes(tmp_path / "pets" / "test", "dog")
    assert any("lacks the classes 'dog'" in note for note in open_folder(tmp_path / "pets").notes)


def test_tars_that_are_not_counted_are_named(tmp_path):
    """nshards.txt decides which tars are read; others beside them are not left out in silence."""
    root = tar_folders(tmp_path / "x", test=1)
    tar(root / "test" / "1.tar", 2)
    dataset = open_folder(root)
    assert set(reds(dataset)) == {1}
    assert any("1 tar that nshards.txt does not count not read: 1.tar" in note for note in dataset.notes)


def test_words_that_name_parts():
    """Roles are those words alone, in letters of either case; a longer word is none."""
    roles = {"train": "train", "Training": "train", "TEST": "test", "val": "validation", "dev": "validation"}
    assert {word: role_of(word) for word in roles} == roles
    assert [role_of(word) for word in ("trains", "tester", "trainval", "")] == [None] * 4
    assert [role_in(n) for n in ("imagenet-train-0001.tar", "0.tar", "validation-00000-of-00014.parquet")] == [
        "train",
        "",
        "validation",
    ]
    with pytest.raises(SuiteError, match="no test part"):
        choose_part(["train"], "test", "x", str)


def test_recalibration_and_named_tars_take_the_training_part(tmp_path):
    """A known data set as the hub's tars is opened for training from train/."""
    root = tar_folders(tmp_path / "wds_vtab-cifar10", train=1, test=2)
    (root / "classnames.txt").write_text("\n".join("abcdefghij"))
    (trained,) = open_suite("cifar10", tmp_path, use="train").datasets
    (judged,) = open_suite("cifar10", tmp_path).datasets
    assert (set(reds(trained)), trained.name) == ({1}, "cifar10-train")
    assert (set(reds(judged)), judged.name) == ({2}, "cifar10")
