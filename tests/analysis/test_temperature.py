"""The temperature against torch's optimiser and a fine grid."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from mergekit_wise.analysis.temperature import COLDEST, HOTTEST, best_temperature, mean_nll


def drawn(images=2000, classes=10, seed=0, scale=6.0):
    """Overconfident logits float32 [N, K], and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    return (scale * (rng.standard_normal((images, classes)) + np.eye(classes)[labels])).astype(np.float32), labels


def by_lbfgs(logits, labels):
    """The temperature of Guo et al.'s own procedure, torch's LBFGS, in float64."""
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    z, y = torch.from_numpy(logits).double(), torch.from_numpy(labels)
    optimiser = torch.optim.LBFGS(
        [log_t], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        loss = functional.cross_entropy(z / log_t.exp(), y)
        loss.backward()
        return loss

    optimiser.step(closure)
    return float(log_t.exp().detach())


@pytest.mark.parametrize(("images", "classes", "scale"), [(2000, 10, 6.0), (500, 2, 0.3), (60, 1000, 20.0)])
def test_the_temperature_is_that_of_torchs_optimiser(images, classes, scale):
    """The same temperature as LBFGS finds, and no temperature of a grid has a lower NLL."""
    logits, labels = drawn(images, classes, scale=scale)
    found = best_temperature(logits, labels)
    assert found == pytest.approx(by_lbfgs(logits, labels), rel=1e-5)
    z, y = torch.from_numpy(logits).double(), torch.from_numpy(labels)
    for factor in np.linspace(0.5, 2, 61):
        assert mean_nll(logits, labels, found) <= float(functional.cross_entropy(z / (found * factor), y)) + 1e-12
    assert mean_nll(logits, labels) == pytest.approx(float(functional.cross_entropy(z, y)), rel=1e-12)


def test_labels_that_determine_no_temperature_give_a_bound():
    """All right: the colder the better. Nothing but wrong, or a single class: a bound too."""
    logits, _ = drawn(50, 4)
    assert best_temperature(logits, logits.argmax(axis=1)) == COLDEST
    assert best_temperature(logits, logits.argmin(axis=1)) == HOTTEST
    assert best_temperature(np.zeros((3, 1), np.float32), np.zeros(3, np.int64)) in (COLDEST, HOTTEST)


def test_classes_that_cannot_be_predicted_do_not_disturb():
    """A class whose logits are minus infinity, and labels' logits far below others, are no obstacle."""
    logits, labels = drawn(300, 4)
    more = np.concatenate([logits, np.full((300, 1), -np.inf, np.float32)], axis=1)
    with np.errstate(invalid="raise", over="raise"):
        assert best_temperature(more, labels) == pytest.approx(best_temperature(logits, labels), rel=1e-12)
    assert best_temperature(1000 * logits, labels) == HOTTEST
