"""ImageNet-C's 75 folders against torchvision's ImageFolder, and the mean corruption error over them."""

from dataclasses import replace

import numpy as np
import pytest
import torchvision
from PIL import Image
from timm.data import ImageNetInfo

from mergekit_wise.analysis.corruption_error import ALEXNET_ERRORS, mean_corruption_error
from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.imagenet_c import CORRUPTIONS, ENTRIES, SEVERITIES, name_of
from mergekit_wise.errors import SuiteError
from mergekit_wise.evaluation.image_batches import decoded, is_taken_as_stored
from mergekit_wise.models.transform import Preprocess

FIND = {entry.name: entry.find for entry in ENTRIES}
WNIDS = ImageNetInfo("imagenet-1k").label_names()
SOME = (3, 500, 999)


def make(folder, seed):
    """Write two images of each of three classes into folders named by WordNet id."""
    for label in SOME:
        for n in range(2):
            path = folder / WNIDS[label] / f"ILSVRC2012_val_{n:08d}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (6, 6), (label % 256, n, seed)).save(path, quality=90)


@pytest.mark.parametrize("place", ["imagenet-c/fog/4", "ImageNet-C/fog/4", "imagenet-c/weather/fog/4"])
def test_labels_are_those_of_all_thousand_classes(tmp_path, place):
    """Labels do not depend on which class folders exist, nor on a folder with the name of the archive."""
    make(tmp_path / place, 0)
    dataset = FIND["imagenet-c-fog-4"](tmp_path)
    wanted = torchvision.datasets.ImageFolder(str(tmp_path / place))
    assert [dataset.sample(i) for i in range(len(dataset))] == [path for path, _ in wanted.samples]
    assert dataset.labels.tolist() == [SOME[folder] for _, folder in wanted.samples]
    assert (len(dataset.classnames), dataset.expected, dataset.columns) == (1000, 50_000, None)
    assert np.array_equal(np.asarray(dataset.image(4)), np.asarray(wanted[4][0]))


def test_stored_crops_are_not_cropped_again(tmp_path):
    """The authors' evaluation crops at the centre and resizes nothing, so a timm model (crop_pct) sees whole images.

    Images of any other size than the model's are resized and cropped as usual.
    """
    folder = tmp_path / "imagenet-c" / "fog" / "4" / WNIDS[0]
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    Image.fromarray(np.tile(pixels, (2, 2, 1))).save(folder / "b.png")
    dataset = FIND["imagenet-c-fog-4"](tmp_path)
    preprocess = Preprocess(size=(24, 24), crop_pct=0.9, library="timm")
    (batch,) = decoded(dataset, preprocess, [np.arange(2)], 2, workers=0, hold=1)
    official = torchvision.transforms.Compose(
        [torchvision.transforms.CenterCrop(24), torchvision.transforms.ToTensor()]
    )
    assert np.array_equal(batch.pixels[0] / np.float32(255), official(Image.open(folder / "a.png")).numpy())
    assert np.array_equal(batch.pixels[1], preprocess.pixels(Image.open(folder / "b.png")).numpy())
    assert is_taken_as_stored(dataset, preprocess)
    assert not is_taken_as_stored(dataset, Preprocess(size=(32, 32)))
    assert not is_taken_as_stored(replace(dataset, is_cropped=False), preprocess)


def test_the_suite_lists_the_data_sets_that_are_missing(tmp_path):
    """With one corruption of 15 at five severities, 70 data sets and ImageNet itself are missing."""
    for severity in SEVERITIES:
        make(tmp_path / "imagenet-c" / "pixelate" / str(severity), severity)
    suite = open_suite("imagenet-c", tmp_path)
    assert [dataset.name for dataset in suite.shifts] == [name_of("pixelate", severity) for severity in SEVERITIES]
    assert len(suite.missing) == 71
    assert {part.hint.split(".tar")[0] for part in suite.missing} > {"noise", "blur", "weather", "digital"}


def test_the_corruptions_are_those_with_published_errors_of_alexnet():
    """The suite's errors can therefore be combined into a mean corruption error."""
    assert set(CORRUPTIONS) == set(ALEXNET_ERRORS)
    assert mean_corruption_error({name: [1.0] * len(SEVERITIES) for name in CORRUPTIONS}) > 1


def test_an_unknown_class_folder_is_refused(tmp_path):
    """A folder of severity 5 inside that of severity 4 is a sign of files in the wrong folder."""
    (tmp_path / "imagenet-c" / "fog" / "4" / "5").mkdir(parents=True)
    with pytest.raises(SuiteError, match="class folders.*WordNet ids.*'5'"):
        FIND["imagenet-c-fog-4"](tmp_path)


def test_75_data_sets_are_known_and_none_is_found_in_an_empty_folder(tmp_path):
    """There are 15 corruptions with five severities each."""
    assert len(ENTRIES) == len(FIND) == 75
    assert [find(tmp_path) for find in FIND.values()] == [None] * 75
