"""The diagonal Fisher information, against closed forms in float64."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import nn

from mergekit_wise.evaluation.fisher import SquaredGradients, draw

IMAGES, FEATURES, CLASSES = 3000, 4, 3


@pytest.fixture(scope="module")
def regression():
    """A linear layer, fixed features [N, 4], and the probabilities [N, 3] that NumPy computes of them."""
    rng = np.random.default_rng(0)
    layer, features = nn.Linear(FEATURES, CLASSES), rng.normal(size=(IMAGES, FEATURES)).astype(np.float32)
    weight, bias = rng.normal(size=(CLASSES, FEATURES)), rng.normal(size=CLASSES)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
    exponentials = np.exp(features.astype(np.float64) @ weight.T + bias)
    return layer, features, exponentials / exponentials.sum(axis=1, keepdims=True)


def summed(layer, features, choose):
    """The mean squared gradients of log p(choose(index, logits) | x)."""
    sums = SquaredGradients(layer, ["bias", "weight"])
    for index, row in enumerate(torch.from_numpy(features)):
        sums.add(
            row[None], lambda logits, index=index: logits[0].log_softmax(0)[choose(index, logits[0].detach().numpy())]
        )
    assert sums.count == len(features)
    return {name: sums.mean(name).numpy() for name in sums.sums}


def test_the_empirical_fisher_of_logistic_regression_is_its_closed_form(regression):
    """The mean of (1[y = k] - p_k)^2 x^2, and without x^2 for the bias, in float64."""
    layer, features, p = regression
    labels = np.random.default_rng(1).integers(0, CLASSES, IMAGES)
    found = summed(layer, features, lambda index, _: labels[index])
    residuals = (np.eye(CLASSES)[labels] - p) ** 2
    assert found["weight"].dtype == np.float64
    np.testing.assert_allclose(found["bias"], residuals.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found["weight"], residuals.T @ features.astype(float) ** 2 / IMAGES, rtol=1e-5)


def test_the_true_fisher_of_logistic_regression_is_its_closed_form(regression):
    """Over the draws the mean of p_k (1 - p_k) x^2, which the mean over 3000 images meets within 5 standard errors."""
    layer, features, p = regression
    found = summed(layer, features, lambda index, logits: draw(logits, 0, index))
    squared = features.astype(float) ** 2
    for k in range(CLASSES):
        # (1[y = k] - p_k)^2 has the mean p (1 - p) and the variance p (1 - p) (1 - 2 p)^2.
        mean, variance = p[:, k] * (1 - p[:, k]), p[:, k] * (1 - p[:, k]) * (1 - 2 * p[:, k]) ** 2
        error = 5 * np.sqrt(variance @ squared**2) / IMAGES
        assert (np.abs(found["weight"][k] - mean @ squared / IMAGES) < error).all()
        assert abs(found["bias"][k] - mean.mean()) < 5 * np.sqrt(variance.sum()) / IMAGES


def test_classes_are_drawn_with_their_probabilities():
    """20,000 draws are distributed as the softmax; a class without probability never comes; seeds differ."""
    logits = np.array([-np.inf, 0.0, 1.0, -2.0, -np.inf], np.float32)
    drawn = np.array([draw(logits, 3, index) for index in range(20_000)])
    counts = np.bincount(drawn, minlength=5)
    assert (counts[0], counts[4]) == (0, 0)
    shares = np.exp([0.0, 1.0, -2.0]) / np.exp([0.0, 1.0, -2.0]).sum()
    assert chisquare(counts[1:4], shares * len(drawn)).pvalue > 1e-3
    assert draw(logits, 3, 7) == drawn[7]
    assert [draw(logits, 4, index) for index in range(50)] != drawn[:50].tolist()


def test_buffers_frozen_and_unused_tensors_have_no_sum():
    """Only parameters that require gradients and take part in the logits have one."""
    module = nn.Sequential(nn.BatchNorm1d(FEATURES), nn.Linear(FEATURES, CLASSES)).eval()
    module.unused = nn.Parameter(torch.ones(2))
    module.forward = lambda x: module[1](module[0](x))
    module[0].bias.requires_grad_(False)
    sums = SquaredGradients(module, sorted(module.state_dict()))
    sums.add(torch.ones(1, FEATURES), lambda logits: logits[0, 0])
    assert sums.sums.keys() == {"0.weight", "1.weight", "1.bias"}
    assert torch.equal(module[0].running_mean, torch.zeros(FEATURES))
