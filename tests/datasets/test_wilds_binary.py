"""Camelyon17, Waterbirds and CelebA: parts, labels and groups are those of the wilds package's rules."""

import numpy as np
import pytest

from mergekit_wise.analysis.metrics import score
from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.wilds_binary import ENTRIES
from mergekit_wise.errors import SuiteError
from tests.datasets.test_wilds import picture, write

FIND = {entry.name: entry.find for entry in ENTRIES}


def numbers(dataset):
    """The numbers of the images that their colours encode."""
    pixels = [dataset.image(index).getpixel((0, 0)) for index in range(len(dataset))]
    return [red + 256 * green for red, green, _ in pixels]


@pytest.fixture
def camelyon17(tmp_path):
    """A root with 200 patches of five hospitals; the column split has the two parts of training in every hospital."""
    rng = np.random.default_rng(0)
    rows = [
        (
            n,
            f"{rng.integers(100):03d}",
            rng.integers(5),
            n * 32,
            n * 96,
            rng.integers(2),
            n % 50,
            rng.integers(5),
            rng.integers(2),
        )
        for n in range(200)
    ]
    folder = tmp_path / "camelyon17_v1.0"
    write(
        folder / "metadata.csv",
        ["", "patient", "node", "x_coord", "y_coord", "tumor", "slide", "center", "split"],
        rows,
    )
    for n, patient, node, x, y, *_ in rows:
        place = folder / "patches" / f"patient_{patient}_node_{node}"
        picture(place / f"patch_patient_{patient}_node_{node}_x_{x}_y_{y}.png", n)
    return tmp_path, rows


@pytest.mark.parametrize("part", ["id", "val", "ood"])
def test_the_hospital_decides_the_part(camelyon17, part):
    """The package's rule: first the column split, then hospital 1 is for validation and hospital 2 for the test."""
    root, rows = camelyon17
    splits = {n: {0: "train", 1: "id"}[split] for n, *_, split in rows}
    splits |= {n: {1: "val", 2: "ood"}[center] for n, *_, center, _ in rows if center in (1, 2)}
    dataset = FIND[f"camelyon17-{part}"](root)
    wanted = [row for row in rows if splits[row[0]] == part]
    assert numbers(dataset) == [row[0] for row in wanted]
    assert dataset.labels.tolist() == [row[5] for row in wanted]
    assert (dataset.expected, dataset.metric.kind) == (len(wanted), "top-1")


def test_the_suite_of_camelyon17_has_the_hospitals_of_training_as_its_reference(camelyon17):
    """The other two are shifts."""
    suite = open_suite("camelyon17", camelyon17[0])
    assert suite.reference.name == "camelyon17-id"
    assert [shift.name for shift in suite.shifts] == ["camelyon17-val", "camelyon17-ood"]


def test_patches_that_are_missing_show_in_the_count(camelyon17):
    """The list says how many there are."""
    root, rows = camelyon17
    next((root / "camelyon17_v1.0" / "patches").rglob(f"*_y_{next(r for r in rows if r[7] == 2)[4]}.png")).unlink()
    dataset = FIND["camelyon17-ood"](root)
    assert len(dataset) == dataset.expected - 1


@pytest.fixture(params=["waterbirds_v1.0", "waterbird_complete95_forest2water2"])
def waterbirds(tmp_path, request):
    """A root with 120 birds in three parts."""
    rng = np.random.default_rng(1)
    rows = [(n, f"{n % 9:03d}.Bird/{n}.jpg", *rng.integers(2, size=2), rng.integers(3)) for n in range(120)]
    folder = tmp_path / request.param
    header = ["img_id", "img_filename", "y", "split", "place", "place_filename"]
    write(folder / "metadata.csv", header, [(n, path, y, split, place, "/x") for n, path, y, place, split in rows])
    for n, path, *_ in rows:
        picture(folder / path, n)
    return tmp_path, rows


def worst(dataset, keys, seed=0):
    """The metric of random predictions, and the worst accuracy of the groups of samples with equal `keys`."""
    predictions = np.random.default_rng(seed).integers(0, 2, len(dataset))
    hits = {}
    for key, right in zip(keys, predictions == dataset.labels, strict=True):
        hits.setdefault(key, []).append(right)
    assert len(hits) == 4
    return score(dataset.metric, predictions, dataset.labels, 2).value, min(map(np.mean, hits.values()))


def test_waterbirds_are_scored_by_the_worst_of_bird_and_background(waterbirds):
    """Part 2 is the test; groups are combinations of the label and the place."""
    root, rows = waterbirds
    dataset = FIND["waterbirds"](root)
    wanted = [row for row in rows if row[4] == 2]
    assert numbers(dataset) == [row[0] for row in wanted]
    assert dataset.labels.tolist() == [row[2] for row in wanted]
    found, by_hand = worst(dataset, [(row[2], row[3]) for row in wanted])
    assert found == by_hand
    assert set(dataset.metric.groups) == {
        f"{bird} on {p}" for bird in ("landbird", "waterbird") for p in ("land", "water")
    }
    rows_of = dataset.metric.groups["waterbird on land"].tolist()
    assert {wanted[i][2:4] for i in rows_of} == {(1, 0)}


def test_a_number_that_is_no_group_is_refused(waterbirds):
    """The error names the line."""
    path = next(waterbirds[0].rglob("metadata.csv"))
    line = next(n for n, row in enumerate(waterbirds[1]) if row[4] == 2)
    lines = path.read_text().splitlines()
    lines[line + 1] = lines[line + 1].replace(",2,", ",2,7,", 1).rpartition(",")[0]
    path.write_text("\n".join(lines))
    with pytest.raises(SuiteError, match=f"expected 0 or 1 in line {line + 2}"):
        FIND["waterbirds"](waterbirds[0])


@pytest.mark.parametrize("no", ["-1", "0"])
def test_celeba_is_scored_by_the_worst_of_hair_and_sex(tmp_path, no):
    """Attributes are 1 or -1, in some copies 0; part 2 is the test."""
    rng = np.random.default_rng(3)
    rows = [(f"{n + 1:06d}.jpg", *rng.integers(2, size=2), rng.integers(3)) for n in range(90)]
    folder = tmp_path / "celebA_v1.0"
    attributes = [(name, "1", ("1" if blond else no), ("1" if male else no)) for name, blond, male, _ in rows]
    write(folder / "list_attr_celeba.csv", ["image_id", "Bald", "Blond_Hair", "Male"], attributes)
    write(folder / "list_eval_partition.csv", ["image_id", "partition"], [(row[0], row[3]) for row in rows])
    for n, row in enumerate(rows):
        picture(folder / "img_align_celeba" / row[0], n)
    dataset = FIND["celeba-hair"](tmp_path)
    wanted = [row for row in rows if row[3] == 2]
    assert [rows[n] for n in numbers(dataset)] == wanted
    assert dataset.labels.tolist() == [row[1] for row in wanted]
    found, by_hand = worst(dataset, [row[1:3] for row in wanted])
    assert found == by_hand
    write(folder / "list_attr_celeba.csv", ["image_id", "Blond_Hair", "Male"], [("000001.jpg", "yes", "1")])
    with pytest.raises(SuiteError, match=r"line 2 .*'000001\.jpg', 'yes' and '1'"):
        FIND["celeba-hair"](tmp_path)


def test_an_empty_folder_has_no_data_set(tmp_path):
    """A missing data set is not an error."""
    assert [find(tmp_path) for find in FIND.values()] == [None] * 5
