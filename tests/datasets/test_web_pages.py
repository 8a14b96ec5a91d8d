"""A web page that was saved in place of a file is named as one by every reader of lists, arrays, tables and tars."""

import pytest

from mergekit_wise.datasets.catalog import ENTRIES
from mergekit_wise.datasets.class_names import read_classnames
from mergekit_wise.datasets.custom import open_toml
from mergekit_wise.datasets.layouts import read_json, read_lines
from mergekit_wise.datasets.npy_files import map_npy
from mergekit_wise.datasets.pickled_arrays import read_npy_dict, read_pickle
from mergekit_wise.datasets.tar_index import tar_members
from mergekit_wise.datasets.web_pages import refuse_web_page
from mergekit_wise.errors import SuiteError

PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>...</body></html>\n" * 9


@pytest.mark.parametrize(
    "read",
    [
        *(read_lines, read_json, map_npy, read_npy_dict, read_pickle, open_toml, read_classnames),
        lambda path: list(tar_members(str(path))),
    ],
)
def test_every_reader_names_a_web_page(read, tmp_path):
    """The sentence names the file, and says what it is."""
    path = tmp_path / "list.txt"
    path.write_bytes(PAGE)
    with pytest.raises(SuiteError, match=r"list\.txt: is a web page"):
        read(path)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("fmow-ood", ("fmow_v1.1/rgb_metadata.csv", "fmow_v1.1/country_code_mapping.csv")),
        ("iwildcam-ood", ("iwildcam_v2.0/metadata.csv",)),
        ("cars", ("stanford_cars/cars_test_annos_withlabels.mat", "stanford_cars/devkit/cars_meta.mat")),
        ("dtd", ("dtd/labels/test1.txt", "dtd/images/x.jpg")),
        ("sun397", ("SUN397/ClassName.txt",)),
        ("food101", ("food-101/meta/test.txt", "food-101/images/x.jpg")),
        ("cifar10.1", ("CIFAR-10.1/cifar10.1_v6_data.npy", "CIFAR-10.1/cifar10.1_v6_labels.npy")),
        ("cifar10", ("cifar-10-batches-bin/test_batch.bin", "cifar-10-batches-bin/batches.meta.txt")),
        ("imagenet-vid-robust", ("imagenet-vid-robust/metadata/pmsets.json", "imagenet-vid-robust/val/x.jpg")),
        ("imagenet-a", ("wds_imagenet-a/test/0.tar",)),
    ],
)
def test_a_known_data_set_of_web_pages_is_refused_as_such(name, files, tmp_path):
    """Downloads without a login leave pages in the places of all files."""
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(PAGE)
    with pytest.raises(SuiteError, match="is a web page that was saved in place of the file"):
        ENTRIES[name].open(tmp_path)


@pytest.mark.parametrize("content", [b"", b"a <html> tag", b"html\n", b"<x/>", b"\x93NUMPY"])
def test_other_files_are_left_to_their_readers(content, tmp_path):
    """Neither a list that mentions a tag nor XML is a page; a missing file has a sentence of its reader's."""
    (tmp_path / "x").write_bytes(content)
    refuse_web_page(tmp_path / "x")
    refuse_web_page(tmp_path / "absent")
