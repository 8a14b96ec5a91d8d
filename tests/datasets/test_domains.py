"""PACS, OfficeHome, VLCS, TerraIncognita, DomainNet: labels are those of DomainBed's loader and of authors' lists."""

import json

import numpy as np
import pytest
import torchvision

from mergekit_wise.datasets.catalog import ENTRIES, SUITES, open_suite
from mergekit_wise.errors import SuiteError
from tests.datasets.test_wilds import picture

# The folders that DomainBed downloads: of domains, and of classes.
OFFICE_HOME = (
    "Alarm_Clock Backpack Batteries Bed Bike Bottle Bucket Calculator Calendar Candles Chair Clipboards Computer Couch "
    "Curtains Desk_Lamp Drill Eraser Exit_Sign Fan File_Cabinet Flipflops Flowers Folder Fork Glasses Hammer Helmet "
    "Kettle Keyboard Knives Lamp_Shade Laptop Marker Monitor Mop Mouse Mug Notebook Oven Pan Paper_Clip Pen Pencil "
    "Postit_Notes Printer Push_Pin Radio Refrigerator Ruler Scissors Screwdriver Shelf Sink Sneakers Soda Speaker "
    "Spoon TV Table Telephone ToothBrush Toys Trash_Can Webcam"
)
SETS = {
    "pacs": ("PACS", ["photo", "art_painting", "cartoon", "sketch"], "dog elephant giraffe guitar horse house person"),
    "office-home": ("office_home", ["Real World", "Art", "Clipart", "Product"], OFFICE_HOME),
    "vlcs": ("VLCS", ["Caltech101", "LabelMe", "SUN09", "VOC2007"], "bird car chair dog person"),
    "terra-incognita": (
        "terra_incognita",
        ["location_100", "location_38", "location_43", "location_46"],
        "bird bobcat cat coyote dog empty opossum rabbit raccoon squirrel",
    ),
}


@pytest.fixture(params=SETS)
def domains(request, tmp_path):
    """A root with the domains of one of the sets, three images a class."""
    folder, names, classes = SETS[request.param]
    number = 0
    for domain in names:
        for name in classes.split():
            for image in range(3 if domain == names[0] else 1):
                number += 1
                picture(tmp_path / folder / domain / name / f"pic_{image:03d}.jpg", number)
    return request.param, tmp_path


def test_labels_are_in_the_order_of_imagefolder(domains):
    """DomainBed reads each domain by torchvision's ImageFolder."""
    name, root = domains
    folder, names, classes = SETS[name]
    suite = open_suite(name, root)
    assert suite.missing == ()
    assert {dataset.location for dataset in suite.datasets} == {str(root / folder / domain) for domain in names}
    for dataset in suite.datasets:
        wanted = torchvision.datasets.ImageFolder(dataset.location)
        assert [dataset.sample(index) for index in range(len(dataset))] == [path for path, _ in wanted.samples]
        assert dataset.labels.tolist() == wanted.targets
        assert [text.replace(" ", "").casefold() for text in dataset.classnames] == [
            text.replace("_", "").casefold() for text in wanted.classes
        ]
        assert wanted.classes == classes.split()


def test_any_domain_is_the_reference(domains):
    """The others are shifts, whichever the suite's own reference is."""
    name, root = domains
    for member in SUITES[name].members:
        suite = open_suite(name, root, reference=member)
        assert suite.reference.name == member
        assert {shift.name for shift in suite.shifts} == set(SUITES[name].members) - {member}


def test_a_class_folder_that_is_missing_shifts_no_label(domains):
    """Labels go by the names of folders, so the others keep theirs."""
    name, root = domains
    folder, names, classes = SETS[name]
    gone = root / folder / names[0] / classes.split()[1]
    for path in gone.iterdir():
        path.unlink()
    gone.rmdir()
    dataset = (
        open_suite(name, root).datasets[0] if SUITES[name].reference else ENTRIES[SUITES[name].members[0]].find(root)
    )
    assert sorted(set(dataset.labels.tolist())) == [0, *range(2, len(classes.split()))]


def test_a_folder_that_is_no_class_is_refused(domains):
    """It is named."""
    name, root = domains
    folder, names, _ = SETS[name]
    picture(root / folder / names[2] / "unicorn" / "0.jpg", 0)
    with pytest.raises(SuiteError, match=f"{names[2]}: expected class folders named after.*'unicorn'"):
        open_suite(name, root)


def test_counts_that_are_not_verified_make_nothing_incomplete(wise, domains):
    """The list of data sets says what is expected, and that it is not verified."""
    name, root = domains
    done = wise("suites", "--data", root, "--json")
    found = {entry["name"]: entry for entry in json.loads(done.stdout)["data_sets"]}
    lines = {line.split()[0]: line for line in wise("suites", "--data", root).stdout.splitlines() if line}
    for member in SUITES[name].members:
        assert found[member]["complete"]
        assert not found[member]["verified"]
        assert ("unverified" in lines[member]) == (ENTRIES[member].expected is not None)


DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
# The authors' numbers do not follow the order of the folders' names: capitals come first there.
NAMES = sorted(
    [f"thing_{n:03d}" for n in range(342)] + ["The_Eiffel_Tower", "The_Mona_Lisa", "The_Great_Wall"], key=str.lower
)


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """A root with DomainNet: an image of each class in each part of two domains, and the lists."""
    root = tmp_path_factory.mktemp("domainnet")
    (root / "domain_net").mkdir()
    for at, domain in enumerate(("real", "sketch")):
        for part in ("train", "test"):
            lines = []
            for label, name in enumerate(NAMES):
                file = f"{domain}/{name}/{domain}_{label:03d}_{part}.jpg"
                if part == "test":
                    picture(root / "domain_net" / file, label + 1000 * at)
                lines.append(f"{file} {label}")
            order = np.random.default_rng(at).permutation(len(lines))
            text = "".join(f"{lines[row]}\n" for row in order)
            (root / "domain_net" / f"{domain}_{part}.txt").write_text(text)
    return root


def test_domainnet_is_the_listed_test_part_with_the_listed_numbers(listed):
    """Labels are the numbers of the list, not the order of folders; names are the folders'."""
    suite = open_suite("domainnet", listed)
    assert (suite.reference.name, [shift.name for shift in suite.shifts]) == ("domainnet-real", ["domainnet-sketch"])
    assert len(suite.missing) == 4
    for at, dataset in enumerate(suite.datasets):
        pixels = [dataset.image(index).getpixel((0, 0)) for index in range(len(dataset))]
        assert [red + 256 * green - 1000 * at for red, green, _ in pixels] == dataset.labels.tolist()
        lines = (listed / "domain_net" / f"{dataset.name.removeprefix('domainnet-')}_test.txt").read_text().split("\n")
        assert dataset.labels.tolist() == [int(line.split()[1]) for line in lines[:-1]]
        assert dataset.classnames == tuple(name.replace("_", " ") for name in NAMES)
        assert len(dataset) == dataset.expected == 345


def copied(listed, tmp_path, change):
    """A root with links to the images of the fixture and its lists after `change` of their text."""
    (tmp_path / "domain_net").mkdir()
    for path in (listed / "domain_net").iterdir():
        target = tmp_path / "domain_net" / path.name
        if path.is_dir():
            target.symlink_to(path)
        elif (text := change(path.name, path.read_text())) is not None:
            target.write_text(text)
    return tmp_path


def test_without_its_list_a_domain_is_not_guessed(listed, tmp_path):
    """The message names the list, and how to evaluate a whole domain; that works."""
    root = copied(listed, tmp_path, lambda name, text: None if name == "sketch_test.txt" else text)
    with pytest.raises(SuiteError, match=r"sketch_test\.txt, is missing.*folder's path"):
        ENTRIES["domainnet-sketch"].find(root)
    assert len(open_suite(f"{root}/domain_net/sketch").shifts[0]) == 345


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace(" 7\n", "\n"), "expected lines such as"),
        (lambda text: text.replace(" 7\n", " 8\n"), "give class 8 to both"),
        (lambda text: text.replace(" 344\n", " 345\n"), "give class 345|found 346 classes|345 classes"),
    ],
)
def test_damaged_lists_are_refused(listed, tmp_path, change, message):
    """A list that contradicts itself or the other one gives no labels."""
    root = copied(listed, tmp_path, lambda name, text: change(text) if name == "real_test.txt" else text)
    with pytest.raises(SuiteError, match=message):
        ENTRIES["domainnet-real"].find(root)
