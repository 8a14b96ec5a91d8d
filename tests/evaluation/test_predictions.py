"""Predicted classes are those that sorting gives."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.errors import ModelError, SuiteError
from mergekit_wise.evaluation.predictions import choose_columns, class_logits, predict_classes


def dataset(classes, labels=(0,), **facts):
    return Dataset("x", "X", tuple(map(str, range(classes))), np.array(labels, np.int64), None, **facts)


@given(st.integers(1, 12).flatmap(lambda k: arrays(np.float32, (4, k), elements=st.integers(-2, 2))), st.data())
def test_ties_go_to_the_lower_index_also_among_the_best_five(logits, data):
    """A stable sort gives the same order."""
    labels = data.draw(arrays(np.int64, 4, elements=st.integers(0, logits.shape[1] - 1)))
    predicted, top5 = predict_classes(torch.from_numpy(logits), torch.from_numpy(labels))
    order = np.argsort(-logits, axis=1, kind="stable")
    assert predicted.tolist() == order[:, 0].tolist()
    assert top5.tolist() == [label in row[:5] for label, row in zip(labels, order, strict=True)]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_logits_that_overflowed_predict_nothing(wrong):
    """Such a row predicts no class, and its label is not among the best five; other rows are unchanged."""
    logits = torch.tensor([[1.0, wrong, 0.0], [1.0, 2.0, 0.0]])
    predicted, top5 = predict_classes(logits, torch.tensor([1, 1]))
    assert predicted.tolist() == [-1, 1]
    assert top5.tolist() == [False, True]


@given(arrays(np.float32, (3, 1000), elements=st.floats(-50, 50, width=32)), st.data())
def test_a_class_is_the_largest_of_its_columns(logits, data):
    """A class without columns is never predicted."""
    columns = data.draw(st.lists(st.lists(st.integers(0, 999), max_size=4), min_size=2, max_size=6))
    if not any(columns):
        return
    chosen = choose_columns(dataset(len(columns), columns=tuple(map(tuple, columns)), vocabulary="imagenet"), 1000)
    found = class_logits(torch.from_numpy(logits), chosen)
    for k, mine in enumerate(columns):
        wanted = [max((float(row[c]) for c in mine), default=-np.inf) for row in logits]
        assert found[:, k].tolist() == wanted


def test_a_head_of_the_classes_themselves_needs_no_columns():
    """A data set with columns in a vocabulary accepts a head over either."""
    part = dataset(2, columns=((3,), (7, 8)), vocabulary="imagenet")
    assert choose_columns(part, 2) is None
    assert choose_columns(part, 1000).tolist() == [[3, -1], [7, 8]]
    with pytest.raises(ModelError, match=r"2 classes \(or 1000, .*head 10\."):
        choose_columns(part, 10)
    with pytest.raises(ModelError, match="wise zeroshot"):
        choose_columns(dataset(2), 1000)


def test_labels_that_are_no_class_and_data_sets_without_images_are_refused():
    """The error says what was found."""
    with pytest.raises(SuiteError, match="2 labels .* 2 classes, the first being 5 of 1"):
        choose_columns(dataset(2, (0, 5, -1)), 2)
    with pytest.raises(SuiteError, match="no images in /there"):
        choose_columns(dataset(2, (), location="/there"), 2)
