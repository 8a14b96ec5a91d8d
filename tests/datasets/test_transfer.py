"""Cars, DTD, SUN397 and Food-101 in torchvision's layouts have the images and labels that torchvision reads."""

import io
import json
import pickle
import tarfile

import numpy as np
import pytest
import torchvision
from PIL import Image
from scipy.io import savemat

from mergekit_wise.datasets.transfer import ENTRIES
from mergekit_wise.errors import SuiteError

FIND = {entry.name: entry.find for entry in ENTRIES}


def picture(path, seed):
    """Write a small JPEG of one random colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), tuple(np.random.default_rng(seed).integers(0, 256, 3).tolist())).save(path, quality=95)


def names_of(classes):
    """Made-up class names that are not in alphabetical order."""
    return [f"thing_{(n * 7) % classes:03d}" for n in range(classes)]


def make_cars(root):
    """Write annotations like those of the authors' MATLAB files, with class numbers from 1 in random order."""
    folder = root / "stanford_cars"
    names = [f"Maker Model {n} Sedan 2012" for n in range(196)]
    numbers = np.random.default_rng(0).integers(1, 197, 30)
    fields = [("bbox_x1", "O"), ("bbox_y1", "O"), ("bbox_x2", "O"), ("bbox_y2", "O"), ("class", "O"), ("fname", "O")]
    rows = [(1, 2, 3, 4, int(number), f"{i + 1:05d}.jpg") for i, number in enumerate(numbers)]
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "cars_test_annos_withlabels.mat", {"annotations": np.array([rows], dtype=fields)})
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array([names], dtype=object)})
    for i in range(30):
        picture(folder / "cars_test" / f"{i + 1:05d}.jpg", i)
    return torchvision.datasets.StanfordCars(str(root), split="test")


def make_dtd(root):
    """Write the lists of two partitions, the first of which is used."""
    folder = root / "dtd" / "dtd"
    (folder / "labels").mkdir(parents=True)
    lines = [f"{name}/{name}_{i:04d}.jpg" for name in names_of(47) for i in range(2)]
    (folder / "labels" / "test1.txt").write_text("\n".join(lines) + "\n")
    (folder / "labels" / "test2.txt").write_text("thing_000/other.jpg\n")
    for i, line in enumerate(lines):
        picture(folder / "images" / line, i)
    return torchvision.datasets.DTD(str(root), split="test", partition=1)


def make_sun397(root):
    """Write class folders inside letters; some classes are divided into indoor and outdoor."""
    folder = root / "SUN397"
    plain = names_of(397)
    names = sorted(
        f"/t/{name}/{'indoor' if n % 3 else 'outdoor'}" if n % 5 else f"/t/{name}" for n, name in enumerate(plain)
    )
    for n, name in enumerate(names):
        picture(folder / name[1:] / f"sun_{n:05d}.jpg", n)
    (folder / "ClassName.txt").write_text("\n".join(names) + "\n")
    return torchvision.datasets.SUN397(str(root))


def make_food101(root):
    """Write the lists in both formats of the download."""
    folder = root / "food-101"
    (folder / "meta").mkdir(parents=True)
    listed = {name: [f"{name}/{i}" for i in (12, 3)] for name in names_of(101)}
    (folder / "meta" / "test.json").write_text(json.dumps(listed))
    (folder / "meta" / "test.txt").write_text("\n".join(line for lines in listed.values() for line in lines) + "\n")
    for i, line in enumerate(line for lines in listed.values() for line in lines):
        picture(folder / "images" / f"{line}.jpg", i)
    return torchvision.datasets.Food101(str(root), split="test")


MAKE = {"cars": make_cars, "dtd": make_dtd, "sun397": make_sun397, "food101": make_food101}
EXPECTED = {"cars": 8041, "dtd": 1880, "sun397": 108_754, "food101": 25_250}


def prompt_name(name, path):
    """The class name in prompts, from torchvision's."""
    return path if name == "cars" else path.replace("_", " ").replace("/", " ")


@pytest.mark.parametrize("name", MAKE)
def test_labels_images_and_names_are_torchvisions(tmp_path, name):
    """Each image of torchvision's has the same label here, also when a pickled copy decodes it."""
    theirs = MAKE[name](tmp_path)
    ours = FIND[name](tmp_path)
    wanted = {np.asarray(image).tobytes(): label for image, label in theirs}
    assert len(ours) == len(theirs) == len(wanted)
    image = pickle.loads(pickle.dumps(ours.image))
    found = {np.asarray(image(i)).tobytes(): int(label) for i, label in enumerate(ours.labels)}
    assert found == wanted
    assert ours.classnames == tuple(prompt_name(name, path) for path in theirs.classes)
    assert (ours.expected, ours.labels.dtype, ours.metric.kind) == (EXPECTED[name], np.int64, "top-1")
    assert all(template.count("{}") == 1 for template in ours.templates)


@pytest.mark.parametrize("where", ["", "Partitions"])
def test_sun397_is_its_first_test_partition_if_the_list_exists(tmp_path, where):
    """CLIP and the paper report accuracies on the 19,850 images of Testing_01.txt, not on all images."""
    make_sun397(tmp_path)
    whole = FIND["sun397"](tmp_path)
    chosen = list(range(5, 300, 7))
    lines = [whole.sample(i).partition("SUN397")[2] for i in chosen]
    (tmp_path / "SUN397" / where).mkdir(exist_ok=True)
    (tmp_path / "SUN397" / where / "Testing_01.txt").write_text("\n".join(lines) + "\n")
    part = FIND["sun397"](tmp_path)
    assert [part.sample(i) for i in range(len(part))] == [whole.sample(i) for i in chosen]
    assert np.array_equal(part.labels, whole.labels[chosen])
    assert part.expected == 19_850
    assert part.classnames == whole.classnames


@pytest.mark.parametrize("name", ["dtd", "food101", "cars"])
def test_missing_images_are_left_out_of_the_count(tmp_path, name):
    """An incomplete download can be evaluated; its number of images is below the expected one."""
    MAKE[name](tmp_path)
    whole = FIND[name](tmp_path)
    gone = range(0, len(whole), 3)
    for i in gone:
        (tmp_path / whole.sample(i)).unlink()
    part = FIND[name](tmp_path)
    left = [i for i in range(len(whole)) if i not in gone]
    assert [part.sample(i) for i in range(len(part))] == [whole.sample(i) for i in left]
    assert np.array_equal(part.labels, whole.labels[left])


@pytest.mark.parametrize(("name", "folder", "classes"), [("cars", "wds_cars", 196), ("dtd", "wds_vtab-dtd", 47)])
def test_tars_are_read_if_there_are_no_image_files(tmp_path, name, folder, classes):
    """Class names and templates come from the files next to the tars."""
    (tmp_path / folder / "test").mkdir(parents=True)
    (tmp_path / folder / "test" / "nshards.txt").write_text("1")
    (tmp_path / folder / "classnames.txt").write_text("\n".join(names_of(classes)))
    (tmp_path / folder / "zeroshot_classification_templates.txt").write_text("one {c}.\n")
    with tarfile.open(tmp_path / folder / "test" / "0.tar", "w") as tar:
        for i in range(4):
            buffer = io.BytesIO()
            Image.new("RGB", (8, 8), (i, 0, 0)).save(buffer, "PNG")
            for kind, data in (("png", buffer.getvalue()), ("cls", str(i * 11).encode())):
                info = tarfile.TarInfo(f"s{i}.{kind}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    dataset = FIND[name](tmp_path)
    assert dataset.labels.tolist() == [0, 11, 22, 33]
    assert [dataset.image(i).getpixel((0, 0)) for i in range(4)] == [(i, 0, 0) for i in range(4)]
    assert (dataset.templates, dataset.classnames) == (("one {}.",), tuple(names_of(classes)))


def cut_annotations(root):
    path = root / "stanford_cars" / "cars_test_annos_withlabels.mat"
    path.write_bytes(path.read_bytes()[:400])


def other_annotations(root):
    savemat(root / "stanford_cars" / "cars_test_annos_withlabels.mat", {"annotations": np.arange(3)})


def too_many_cars(root):
    savemat(root / "stanford_cars" / "devkit" / "cars_meta.mat", {"class_names": np.array(["a", "b"], dtype=object)})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut_annotations, "annos_withlabels.mat: expected"),
        (other_annotations, "'fname' and 'class'"),
        (too_many_cars, "expected labels from 0 to 1"),
    ],
)
def test_damaged_annotations_are_refused(tmp_path, spoil, message):
    """The error names the file, or the labels that have no class name."""
    make_cars(tmp_path)
    spoil(tmp_path)
    with pytest.raises(SuiteError, match=message):
        FIND["cars"](tmp_path)


def test_a_list_without_images_and_an_unknown_class_folder_are_refused(tmp_path):
    """The error names an expected image, or the folder that is not a class."""
    make_dtd(tmp_path)
    images = tmp_path / "dtd" / "dtd" / "images"
    images.rename(tmp_path / "elsewhere")
    images.mkdir()
    with pytest.raises(SuiteError, match=r"expected 94 images .*thing_000/thing_000_0000.jpg; found none"):
        FIND["dtd"](tmp_path)
    make_sun397(tmp_path)
    picture(tmp_path / "SUN397" / "z" / "zoo" / "sun_zoo.jpg", 0)
    with pytest.raises(SuiteError, match="ClassName.txt: 'zoo'"):
        FIND["sun397"](tmp_path)


def test_an_empty_folder_has_no_data_set(tmp_path):
    """A missing data set is not an error: its catalogue entry describes the download."""
    assert [find(tmp_path) for find in FIND.values()] == [None] * 4
