"""Batch-norm statistics are recomputed on images."""

import pytest
import torch
from torch import nn

from mergekit_wise.errors import ModelError, SuiteError
from mergekit_wise.evaluation.recalibration import recalibrate
from tests.evaluation.fakes import PREPROCESS, linear, noise

CPU = torch.device("cpu")


def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(7)).eval()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_statistics_are_those_that_the_images_have(workers):
    """Previous statistics do not matter, and the module is in evaluation mode afterwards."""
    module, dataset = convolutional(), noise(20)
    module[1].running_mean.fill_(100)
    calls = []
    named, bad = recalibrate(
        module, PREPROCESS, dataset, device=CPU, workers=workers, progress=lambda *step: calls.append(step)
    )
    assert not bad
    assert named == ["1.running_mean", "1.running_var", "1.num_batches_tracked"]
    assert not any(part.training for part in module.modules())
    images = torch.stack([PREPROCESS.normalise(PREPROCESS.pixels(dataset.image(i))) for i in range(20)])
    with torch.no_grad():
        seen = module[0](images)
    torch.testing.assert_close(module[1].running_mean, seen.mean((0, 2, 3)))
    torch.testing.assert_close(module[1].running_var, seen.var((0, 2, 3)))
    assert calls[-1] == ("Recalibrating", 20, 20, "images")


def test_an_image_that_cannot_be_read_stops_it():
    """Without that image the statistics would be those of other images than were named."""
    with pytest.raises(SuiteError, match=r"Noise: .*images/3\.jpg: broken\. .*--max-bad"):
        recalibrate(convolutional(), PREPROCESS, noise(20, {3}), device=CPU)


def test_an_image_that_is_tolerated_is_in_no_average():
    """The statistics are those of the other images, and the reason is returned."""
    module, dataset = convolutional(), noise(20, {3})
    _, bad = recalibrate(module, PREPROCESS, dataset, device=CPU, max_bad=1)
    assert bad == {3: "images/3.jpg: broken."}
    readable = [i for i in range(20) if i != 3]
    images = torch.stack([PREPROCESS.normalise(PREPROCESS.pixels(dataset.image(i))) for i in readable])
    with torch.no_grad():
        seen = module[0](images)
    torch.testing.assert_close(module[1].running_mean, seen.mean((0, 2, 3)))
    torch.testing.assert_close(module[1].running_var, seen.var((0, 2, 3)))


def test_a_model_without_such_statistics_is_refused():
    """A batch norm that keeps no statistics is refused, too."""
    for module in (linear(), nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False))):
        with pytest.raises(ModelError, match="no batch-norm statistics"):
            recalibrate(module, PREPROCESS, noise(20), device=CPU)
