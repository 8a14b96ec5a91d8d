"""Answers of made-up mixtures to the same images, for tests of comparisons image by image."""

import numpy as np

from mergekit_wise.analysis import Answers, Candidate, Measurements, Point
from mergekit_wise.datasets.dataset import Metric

TOP1 = Metric("top-1")


def answers_of(classes, labels, *, name="shift", role="shift", metric=TOP1, same_images="", images=None, outputs=None):
    """Answers [V, N] of V models to N images."""
    classes, labels = np.asarray(classes, np.int32), np.asarray(labels, np.int64)
    images = np.arange(len(labels)) if images is None else images
    outputs = outputs or int(max(classes.max(), labels.max())) + 1
    numbers = np.zeros((len(classes), 4, len(labels)), np.float32)
    return Answers(name, name, role, metric, outputs, labels, images, same_images, classes, numbers)


def right_or_wrong(right, **options):
    """Answers of models that are right [V, N] on images of two classes."""
    right = np.asarray(right)
    return answers_of(np.where(right, 0, 1), np.zeros(right.shape[1], np.int64), outputs=2, **options)


def correlated(rng, accuracies, images, shared=0.9):
    """Which images V mixtures are right on, bool [V, N]: mixture v is right with probability `accuracies[v]`.

    A mixture is right on an image if its difficulty, standard normal, is below the accuracy's quantile. A share
    `shared` of the difficulty's variance is the image's, the rest is drawn for every fifth of the way between the
    mixtures and interpolated, so that neighbours answer alike, as mixtures of weights do.
    """
    from scipy.special import ndtri

    number = len(accuracies)
    knots = rng.standard_normal((6, images))
    at = np.linspace(0, 5, number)
    low = np.minimum(at.astype(int), 4)
    part = (at - low)[:, None]
    own = (knots[low] * (1 - part) + knots[low + 1] * part) / np.sqrt(part**2 + (1 - part) ** 2)
    difficulty = np.sqrt(shared) * rng.standard_normal(images) + np.sqrt(1 - shared) * own
    return difficulty < ndtri(np.asarray(accuracies))[:, None]


def measured(sets, points):
    """Measurements of mixtures at `points` from right answers [V, N] by data set, the reference first."""
    roles = ("reference", *["shift"] * (len(sets) - 1))
    answers = {
        name: right_or_wrong(right, name=name, role=role)
        for (name, right), role in zip(sets.items(), roles, strict=True)
    }
    return Measurements.of(candidates_of(answers, points), answers)


def candidates_of(answers, points):
    """A candidate per mixture with the counts of answers, of which the first are on the reference."""
    found = []
    for number, point in enumerate(points):
        counts = [(int(each.right[number].sum()), len(each.labels)) for each in answers.values()]
        keys = tuple(each.same_images for each in answers.values())
        found.append(Candidate(point, counts[0], tuple(counts[1:]), tuple(answers), same_images=keys))
    return found


def alphas(*values):
    """Points at these alphas."""
    return tuple(map(Point.of_alpha, values))
