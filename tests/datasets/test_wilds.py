"""WILDS' lists give splits by date, images by line, and regions; metrics equal those of independent formulas."""

import csv
import pickle
from datetime import datetime

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score

from mergekit_wise.analysis.metrics import score
from mergekit_wise.datasets.wilds import ENTRIES, FMOW_CLASSES, FMOW_TEMPLATES
from mergekit_wise.errors import SuiteError

FIND = {entry.name: entry.find for entry in ENTRIES}
REGION = {"FRA": "Europe", "DEU": "Europe", "KEN": "Africa", "JPN": "Asia", "USA": "Americas", "ATA": ""}
TIMES = [
    "2012-12-31T23:59:59Z",
    "2013-01-01T00:00:00Z",
    "2015-07-28T18:20:42Z",
    "2016-01-01T00:00:00Z",
    "2017-05-01T00:00:00Z",
]


def write(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def picture(path, number):
    """Write an image whose colour encodes its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (number % 256, number // 256, 7)).save(path, "PNG")


@pytest.fixture
def fmow(tmp_path):
    """A root with FMoW's lists and images: every split, several years, a country without a region, sequestered rows."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "fmow_v1.1"
    rows = [
        (
            f"path/{n}.jpg",
            FMOW_CLASSES[rng.integers(62)],
            rng.choice(["train", "val", "test", "test", "seq"]),
            rng.choice([*REGION, "XKX"]),
            rng.choice(TIMES),
        )
        for n in range(300)
    ]
    write(folder / "rgb_metadata.csv", ["img_path", "category", "split", "country_code", "timestamp"], rows)
    countries = [(f"the, {code}", code[:2], code, region) for code, region in REGION.items()]
    write(folder / "country_code_mapping.csv", ["name", "alpha-2", "alpha-3", "region"], countries)
    for n in range(300):
        picture(folder / "images" / f"rgb_img_{n}.png", n)
    return tmp_path, rows


@pytest.mark.parametrize("split", ["id", "ood"])
def test_fmow_is_the_test_part_before_2013_or_from_2016(fmow, split):
    """Image n is line n of the whole list, sequestered lines counted; labels are places among the 62 categories."""
    root, rows = fmow
    dataset = FIND[f"fmow-{split}"](root)
    years = range(2000, 2013) if split == "id" else range(2016, 2030)
    wanted = [n for n, row in enumerate(rows) if row[2] == "test" and datetime.fromisoformat(row[4]).year in years]
    image = pickle.loads(pickle.dumps(dataset.image))
    pixels = [image(i).getpixel((0, 0)) for i in range(len(dataset))]
    assert [red + 256 * green for red, green, _ in pixels] == wanted
    assert [FMOW_CLASSES[label] for label in dataset.labels] == [rows[n][1] for n in wanted]
    assert (dataset.expected, len(dataset.classnames)) == ({"id": 11_327, "ood": 22_108}[split], 62)


def test_the_metric_of_fmow_is_the_accuracy_of_its_worst_region(fmow):
    """Countries without a region, or missing from the mapping, are in no group."""
    root, rows = fmow
    dataset = FIND["fmow-ood"](root)
    kept = [row for row in rows if row[2] == "test" and row[4] >= "2016"]
    rng = np.random.default_rng(1)
    predictions = np.where(rng.random(len(kept)) < 0.6, dataset.labels, rng.integers(0, 62, len(kept)))
    hits = {}
    for row, right in zip(kept, predictions == dataset.labels, strict=True):
        if region := REGION.get(row[3]):
            hits.setdefault(region, []).append(right)
    found = score(dataset.metric, predictions, dataset.labels, 62)
    assert found.value == min(np.mean(flags) for flags in hits.values())
    assert {name: found.values[name] for name in hits} == {name: np.mean(flags) for name, flags in hits.items()}
    assert set(dataset.metric.groups) == {"Europe", "Africa", "Asia", "Americas"}


def test_groups_follow_the_images_that_exist(fmow):
    """Groups are indices of the images that were found, not of the lines of the list."""
    root, rows = fmow
    kept = [n for n, row in enumerate(rows) if row[2] == "test" and row[4] >= "2016"]
    for n in kept[::3]:
        (root / "fmow_v1.1" / "images" / f"rgb_img_{n}.png").unlink()
    dataset = FIND["fmow-ood"](root)
    left = [n for n in kept if n not in kept[::3]]
    assert len(dataset) == len(left)
    for region, members in dataset.metric.groups.items():
        assert [REGION.get(rows[left[i]][3]) for i in members] == [region] * len(members)


@pytest.fixture
def iwildcam(tmp_path):
    """A root with iWildCam's list: five parts, 12 classes of which some occur in one part only."""
    rng = np.random.default_rng(2)
    folder = tmp_path / "iwildcam_v2.0"
    parts = rng.choice(["train", "val", "test", "id_val", "id_test"], 200)
    labels = np.concatenate([np.arange(12), rng.integers(0, 9, 188)])
    rows = [(part, f"{n:05x}.jpg", y, n * 3) for n, (part, y) in enumerate(zip(parts, labels, strict=True))]
    write(folder / "metadata.csv", ["split", "filename", "y", "location_remapped"], rows)
    names = [(y, 100 - y, f"Genus species{y}") for y in range(12)] + [
        (99999, 7, "absent one"),
        (99999, 8, "absent two"),
    ]
    write(folder / "categories.csv", ["y", "category_id", "name"], names)
    for n in range(200):
        picture(folder / "train" / f"{n:05x}.jpg", n)
    return tmp_path, rows


@pytest.mark.parametrize(("name", "part"), [("iwildcam-id", "id_test"), ("iwildcam-ood", "test")])
def test_iwildcam_is_scored_by_macro_f1(iwildcam, name, part):
    """F1 is averaged over the classes that occur in the part, as scikit-learn does; all images are in train/."""
    root, rows = iwildcam
    dataset = FIND[name](root)
    wanted = [row for row in rows if row[0] == part]
    assert [dataset.image(i).getpixel((0, 0))[0] for i in range(len(dataset))] == [row[3] // 3 for row in wanted]
    assert dataset.labels.tolist() == [row[2] for row in wanted]
    predictions = np.random.default_rng(3).integers(0, 12, len(wanted))
    f1 = f1_score(dataset.labels, predictions, average="macro", labels=np.unique(dataset.labels), zero_division=0)
    assert score(dataset.metric, predictions, dataset.labels, 12).value == pytest.approx(f1)
    assert dataset.classnames == tuple(f"genus species{y}" for y in range(12))


def test_english_names_are_preferred_if_the_authors_list_exists(iwildcam):
    """The paper's prompts have "ocelot", not "leopardus pardalis"."""
    root, _ = iwildcam
    english = [(y, y, "latin", f"Animal {y}") for y in range(12)] + [(99999, 1, "latin", "Nobody")]
    write(root / "iwildcam_v2.0" / "labels.csv", ["y", "category_id", "name", "english"], english)
    assert FIND["iwildcam-id"](root).classnames[3] == "animal 3"


def test_fmow_has_sixteen_prompts_and_iwildcam_two(iwildcam):
    """The paper has as many prompts, and FMoW's name the same continents."""
    assert len(FMOW_TEMPLATES) == 16
    assert {t.partition("{}")[2] for t in FMOW_TEMPLATES} >= {
        " in asia.",
        " in africa.",
        " in the americas.",
        " in oceania.",
    }
    assert FIND["iwildcam-ood"](iwildcam[0]).templates == ("a photo of {}.", "{} in the wild.")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("rgb_metadata.csv", "timestamp", "when", "expected the column 'timestamp'"),
        ("rgb_metadata.csv", ",test,", ",test", "expected a table"),
        ("rgb_metadata.csv", "2016-01-01T00:00:00Z", "yesterday", "has the time 'yesterday'"),
        ("rgb_metadata.csv", "airport,test", "spaceport,test", "unknown category 'spaceport'"),
        ("country_code_mapping.csv", "region", "continent", "expected the column 'region'"),
    ],
)
def test_damaged_lists_are_refused(fmow, file, old, new, message):
    """The error names the file and the entry that is wrong."""
    path = fmow[0] / "fmow_v1.1" / file
    text = path.read_text()
    if "airport" in old:
        text += f"x,{old},FRA,2017-05-01T00:00:00Z\n"
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(SuiteError, match=f"{file}.*{message}"):
        FIND["fmow-ood"](fmow[0])


def test_iwildcam_without_class_names_is_refused(iwildcam):
    """The error names the list of the download and that of the authors."""
    (iwildcam[0] / "iwildcam_v2.0" / "categories.csv").unlink()
    with pytest.raises(SuiteError, match=r"categories\.csv.* 12 classes.*labels\.csv"):
        FIND["iwildcam-id"](iwildcam[0])


def test_an_empty_folder_has_no_data_set(tmp_path):
    """A missing data set is not an error: its catalogue entry describes the download."""
    assert [find(tmp_path) for find in FIND.values()] == [None] * 4
