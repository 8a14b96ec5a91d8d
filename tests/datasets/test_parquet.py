"""Copies of Hugging Face data sets: the library's own rules for classes, parts and hidden labels."""

import json
import pickle
import sys

import numpy as np
import open_clip
import pytest
from timm.data import ImageNetInfo

from mergekit_wise.datasets import parquet
from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.custom import open_path
from mergekit_wise.datasets.own_folders import open_folder
from mergekit_wise.errors import SuiteError
from tests.datasets.made_files import encoded, reds

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def table(labels, names=None, label="label", image="image", first=0):
    """A table as the library datasets writes it: features in the schema's metadata, images as bytes and path."""
    rows = [{"bytes": encoded(first + number), "path": f"{number}.png"} for number in range(len(labels))]
    made = pa.table({image: rows, label: labels})
    if names is None:
        return made
    features = {image: {"_type": "Image"}, label: {"names": list(names), "_type": "ClassLabel"}}
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write(root, *, rows_in_a_group=2, **tables):
    (root / "data").mkdir(parents=True)
    for name, shards in tables.items():
        for number, shard in enumerate(shards):
            path = root / "data" / f"{name}-{number:05d}-of-{len(shards):05d}.parquet"
            pq.write_table(shard, path, row_group_size=rows_in_a_group)
    return root


def test_rows_are_images_with_the_classes_of_the_schema(tmp_path):
    """In the order of files and rows, across groups of rows; a pickled copy gives the same."""
    shards = [table([2, 0, 1], ["ant", "bee", "cat"]), table([1, 2], ["ant", "bee", "cat"], first=3)]
    dataset = open_folder(write(tmp_path / "x", test=shards))
    assert (dataset.labels.tolist(), dataset.classnames) == ([2, 0, 1, 1, 2], ("ant", "bee", "cat"))
    assert reds(dataset) == [0, 1, 2, 3, 4]
    copy = pickle.loads(pickle.dumps(dataset.image))
    assert [copy(index).getpixel((0, 0))[0] for index in (4, 0, 2)] == [4, 0, 2]
    assert dataset.sample(3).endswith("test-00001-of-00002.parquet:0:0")
    assert all(dataset.size(index) > 0 for index in range(5))


def test_a_file_that_was_replaced_is_read_again(tmp_path):
    """Also in the same process, as in a notebook: it holds other images under the same name."""
    for first in (0, 7):
        write(tmp_path / f"{first}", test=[table([0, 1], ["ant", "bee"], first=first)])
        (tmp_path / "x").mkdir(exist_ok=True)
        (made,) = (tmp_path / f"{first}" / "data").iterdir()
        made.replace(tmp_path / "x" / "test.parquet")
        assert reds(open_folder(tmp_path / "x")) == [first, first + 1]


def test_one_group_of_rows_is_read_at_a_time(tmp_path, monkeypatch):
    """An image of a large file needs the rows of its group alone."""
    dataset = open_folder(write(tmp_path / "x", test=[table(list(range(6)), list("abcdef"))]))
    read = []
    whole = parquet._File.column
    monkeypatch.setattr(
        parquet._File, "column", lambda file, name, group: read.append(group) or whole(file, name, group)
    )
    dataset.image(4)
    assert read == [2]


CARD = """---
license: mit
dataset_info:
  features:
  - name: image
    dtype: image
  - name: label
    dtype:
      class_label:
        names:
          '0': bee
          '1': ant
---
# A data set
"""


def test_class_names_are_read_from_the_card(tmp_path):
    """README.md lists the classes where the files do not."""
    root = write(tmp_path / "x", test=[table([1, 0])])
    assert open_folder(root).classnames == ("0", "1")
    (root / "README.md").write_text(CARD)
    assert open_folder(root).classnames == ("bee", "ant")
    (root / "README.md").write_text("---\ndataset_info: [\n---\n")
    assert open_folder(root).classnames == ("0", "1")


def test_a_part_without_labels_is_passed_over(tmp_path):
    """ImageNet's test images have the label -1 on the hub, so its validation images are the ones to judge on."""
    names = ["ant", "bee"]
    root = write(tmp_path / "x", test=[table([-1, -1], names)], validation=[table([1, 0], names)])
    dataset = open_folder(root)
    assert dataset.labels.tolist() == [1, 0]
    assert "the part 'test' has no labels" in " ".join(dataset.notes)
    with pytest.raises(SuiteError, match=r"2 rows of 2 have no label \(-1\)"):
        open_folder(root / "data" / "test-00000-of-00001.parquet")


def test_names_are_numbered_over_all_parts(tmp_path):
    """A class without test images does not shift the numbers of the others."""
    root = write(tmp_path / "x", train=[table(["ant", "bee", "cat"])], test=[table(["cat", "ant"])])
    assert (open_folder(root).labels.tolist(), open_folder(root).classnames) == ([2, 0], ("ant", "bee", "cat"))


def test_an_unclear_column_is_settled_in_a_toml_file(tmp_path):
    """CIFAR-100 has fine and coarse labels; the error says how to choose, and that works."""
    names = {"fine_label": ["a", "b"], "coarse_label": ["c", "d"]}
    made = pa.table(
        {"img": [{"bytes": encoded(n), "path": None} for n in (0, 1)], "fine_label": [1, 0], "coarse_label": [0, 0]}
    )
    features = {name: {"names": classes, "_type": "ClassLabel"} for name, classes in names.items()}
    made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    root = write(tmp_path / "x", test=[made])
    with pytest.raises(SuiteError, match='fine_label, coarse_label among .* label = "NAME"'):
        open_folder(root)
    (tmp_path / "fine.toml").write_text('root = "x"\nlabel = "fine_label"\n')
    dataset = open_path(tmp_path / "fine.toml")
    assert (dataset.labels.tolist(), dataset.classnames) == ([1, 0], ("a", "b"))


@pytest.mark.parametrize("form", ["stream", "file"])
def test_arrow_files_are_read(tmp_path, form):
    """save_to_disk writes streams, one folder a part, beside caches that are no data."""
    import pyarrow.ipc as ipc

    for part, first in (("train", 0), ("test", 5)):
        folder = tmp_path / "x" / part
        folder.mkdir(parents=True)
        made = table([0, 1, 1], ["ant", "bee"], first=first)
        for name in ("data-00000-of-00001.arrow", "cache-0123.arrow"):
            make = ipc.new_stream if form == "stream" else ipc.new_file
            with make(str(folder / name), made.schema) as writer:
                writer.write_table(made, max_chunksize=2)
    dataset = open_folder(tmp_path / "x")
    assert (reds(dataset), dataset.labels.tolist(), dataset.classnames) == ([5, 6, 7], [0, 1, 1], ("ant", "bee"))
    assert reds(open_folder(tmp_path / "x", None, "train")) == [0, 1, 2]


def test_imagenets_copy_is_imagenet(tmp_path):
    """With WordNet's names in the order of their ids, classes are ImageNet's, under its name and by path."""
    info = ImageNetInfo("imagenet-1k")
    names = [info.index_to_description(number) for number in range(1000)]
    write(tmp_path / "imagenet-1k", validation=[table([5, 999], names)], train=[table([7], names, first=9)])
    (known,) = open_suite("imagenet", tmp_path).datasets
    own = open_folder(tmp_path / "imagenet-1k")
    for dataset in (known, own):
        assert (dataset.labels.tolist(), dataset.vocabulary) == ([5, 999], "imagenet")
        assert dataset.classnames == tuple(open_clip.IMAGENET_CLASSNAMES)
    (trained,) = open_suite("imagenet", tmp_path, use="train").datasets
    assert (trained.name, reds(trained)) == ("imagenet-train", [9])


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_damaged_file_is_named(tmp_path, damage):
    """What pyarrow says becomes a sentence with the file's name."""
    root = write(tmp_path / "x", test=[table([0, 1], ["a", "b"])])
    (file,) = (root / "data").iterdir()
    file.write_bytes({"cut": file.read_bytes()[:-200], "text": b"hello, this is no table", "empty": b""}[damage])
    with pytest.raises(SuiteError, match=r"test-00000-of-00001\.parquet: is damaged"):
        open_folder(root)


def test_a_missing_file_is_an_error(tmp_path):
    """The names count the files of a part."""
    shards = [table([0], ["a", "b"]), table([1], ["a", "b"])]
    root = write(tmp_path / "x", test=shards)
    (root / "data" / "test-00000-of-00002.parquet").unlink()
    with pytest.raises(SuiteError, match="1 file of 2 missing, such as number 0"):
        open_folder(root)


def test_a_path_in_place_of_bytes_is_named(tmp_path):
    """Such a copy depends on files elsewhere."""
    made = pa.table({"image": [{"bytes": None, "path": "a.png"}, {"bytes": encoded(), "path": None}], "label": [0, 1]})
    dataset = open_folder(write(tmp_path / "x", test=[made]))
    with pytest.raises(SuiteError, match=r"parquet:0:0: holds no bytes of an image, but only a path"):
        dataset.image(0)


def test_without_pyarrow_the_command_that_installs_it_is_named(tmp_path, monkeypatch):
    """The package is optional."""
    root = write(tmp_path / "x", test=[table([0, 1], ["a", "b"])])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SuiteError, match="Run: pip install pyarrow"):
        open_folder(root)


def test_no_image_is_read_when_a_data_set_is_opened(tmp_path):
    """Opening takes the labels alone: images that are no images are found later."""
    made = pa.table({"image": [{"bytes": b"no image", "path": None}] * 2, "label": np.array([0, 1])})
    dataset = open_folder(write(tmp_path / "x", test=[made]))
    with pytest.raises(SuiteError, match="cannot be decoded"):
        dataset.image(1)
