"""Output-space ensembles are scored as the models themselves are."""

import numpy as np

from mergekit_wise.analysis import LogitDisagreement
from mergekit_wise.datasets.dataset import Metric
from mergekit_wise.evaluation.pair_analysis import PairAnalysis, ensemble_name
from mergekit_wise.evaluation.predictions import Predictions
from tests.evaluation.fakes import noise, renamed

DRAFT = dict.fromkeys(
    ("model", "suite", "dataset", "title", "role", "data", "weights", "architecture", "preprocess", "head", "prompts"),
    "x",
) | {"precision": "fp32", "limit": None}


def ensemble(dataset, predictions, bad):
    """The result of the ensemble at 0.5, which predicts `predictions`."""
    pair = PairAnalysis([0.0, 0.5, 1.0], analyze=False, output_ensemble=True)
    classes = np.stack([np.zeros(len(dataset)), np.zeros(len(dataset)), np.zeros(len(dataset)), predictions])
    found = Predictions(
        classes.astype(np.int32), classes > 9, np.zeros((len(classes), 4, classes.shape[1]), np.float32), bad
    )
    analysis = pair.result(dataset, [0, 1, 2], [DRAFT] * 3, found, LogitDisagreement())
    return analysis.values[ensemble_name(0.5)]


def test_unreadable_images_do_not_change_the_metric():
    """Without them, the worst group is still the metric, and further labels still count."""
    dataset = renamed(noise(6), labels=np.array([0, 1, 2, 3, 4, 5]))
    predictions = np.array([0, 1, 6, -1, 0, 5])
    groups = {"a": np.array([0, 1, 5]), "b": np.array([2, 3, 4])}
    worst = renamed(dataset, metric=Metric("worst-group", groups))
    assert ensemble(worst, predictions, {3: "broken"}) == 0
    several = tuple(frozenset({label, 6}) for label in range(6))
    assert ensemble(renamed(dataset, metric=Metric(accepted=several)), predictions, {3: "broken"}) == 4 / 5
