"""What is kept of the answers for each image, and that it comes back as it was."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from mergekit_wise.analysis import NUMBERS, Answers, stacked
from mergekit_wise.datasets.dataset import Metric
from mergekit_wise.errors import ResultsError
from mergekit_wise.evaluation.predictions import probability_numbers
from mergekit_wise.results import AnswerStore, Record

GROUPS = {"day": np.array([0, 2, 5]), "night": np.array([1, 3, 4])}


def record(weights="w", metric="worst-group", total=6, correct=None):
    """A record of six images, by default of what `answers()` says."""
    correct = int(answers().right.sum()) if correct is None else correct
    return Record(
        weights=weights,
        model="m",
        alpha=0.5,
        suite="s",
        dataset="d",
        title="D",
        role="shift",
        correct=correct,
        total=total,
        metric=metric,
        data="digest",
    )


def answers(seed=0, metric=None, images=range(6)):
    """Answers of one model."""
    rng, count = np.random.default_rng(seed), len(images)
    return Answers(
        dataset="d",
        title="D",
        role="shift",
        metric=metric or Metric("worst-group", GROUPS),
        outputs=4,
        labels=np.arange(6)[list(images)] % 4,
        images=np.array(images),
        same_images="",
        classes=rng.integers(-1, 4, (1, count)).astype(np.int32),
        numbers=rng.random((1, len(NUMBERS), count)).astype(np.float32),
    )


def equal(one, other):
    """Whether two answers hold the same."""
    arrays = ("labels", "images", "classes", "numbers")
    groups = one.metric.groups
    return (
        all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)
        and (one.metric.kind, one.metric.accepted) == (other.metric.kind, other.metric.accepted)
        and list(groups) == list(other.metric.groups)
        and all(np.array_equal(groups[name], other.metric.groups[name]) for name in groups)
        and (one.dataset, one.title, one.role, one.outputs) == (other.dataset, other.title, other.role, other.outputs)
    )


@pytest.mark.parametrize(
    "metric",
    [
        Metric("worst-group", GROUPS),
        Metric(),
        Metric("top-1", {}, tuple(frozenset({i % 4, 3}) if i else frozenset() for i in range(6))),
        Metric("top-1", {"none": np.array([], np.int64), "all": np.arange(6)}),
    ],
)
def test_answers_come_back_as_they_were(metric, tmp_path):
    """Groups and accepted classes are kept too, empty ones included."""
    store, written = AnswerStore.beside(tmp_path / "results.jsonl"), answers(metric=metric)
    counted = record(metric=metric.kind, correct=int(written.right.sum()))
    store.save(counted, written)
    assert store.folder == tmp_path / "results.answers"
    read = store.load([counted])
    assert equal(read, written)
    assert np.array_equal(read.right, written.right)


def test_models_are_compared_on_the_images_that_all_of_them_read(tmp_path):
    """An image that one of two models could not read is left out for both, and out of its group."""
    store, first, second = AnswerStore(tmp_path), answers(0), answers(1).of_images(np.array([0, 1, 3, 4, 5]))
    of_second = record("b", total=5, correct=int(second.right.sum()))
    store.save(record("a"), first)
    store.save(of_second, second)
    both = store.load([record("a"), of_second])
    assert both.images.tolist() == [0, 1, 3, 4, 5]
    assert np.array_equal(both.classes, [first.classes[0][[0, 1, 3, 4, 5]], second.classes[0]])
    assert {name: both.images[rows].tolist() for name, rows in both.metric.groups.items()} == {
        "day": [0, 5],
        "night": [1, 3, 4],
    }


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"PK" + data])
def test_damaged_answers_count_as_missing(damage, tmp_path):
    """They can be measured again, so a damaged file is no error; nothing is made up in its place."""
    store = AnswerStore(tmp_path)
    store.save(record(), answers())
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert store.load([record()]) is None
    assert store.load([record("never measured")]) is None


def test_answers_of_another_number_of_images_are_not_used(tmp_path):
    """The counts of the record decide."""
    store = AnswerStore(tmp_path)
    store.save(record(), answers())
    assert store.load([record(total=7)]) is None
    assert store.load([record(correct=record().correct + 1)]) is None


def test_answers_of_other_weights_are_not_used_under_any_name(tmp_path):
    """A file that was copied over another one, which has as many images and right answers, counts as missing."""
    store = AnswerStore(tmp_path)
    store.save(record("a"), answers())
    (file,) = tmp_path.iterdir()
    store.save(record("b"), answers())
    (other,) = (each for each in tmp_path.iterdir() if each != file)
    other.write_bytes(file.read_bytes())
    assert store.load([record("a")]) is not None
    assert store.load([record("b")]) is None


def test_a_folder_that_cannot_be_made_is_an_error_with_the_way_out(tmp_path):
    """The message names the option that leaves answers out."""
    (tmp_path / "results.answers").write_text("a file")
    with pytest.raises(ResultsError, match="--no-answers"):
        AnswerStore.beside(tmp_path / "results.jsonl").save(record(), answers())


def test_stacking_needs_no_common_image():
    """Two models that read no image in common have no answers in common."""
    assert stacked(
        [answers(metric=Metric(), images=[0, 1]), answers(metric=Metric(), images=[2, 3])]
    ).classes.shape == (2, 0)


def test_the_numbers_of_probabilities_are_those_of_torch():
    """Confidence, negative log-likelihood, Brier score and entropy against torch's own functions in float64."""
    rng = torch.Generator().manual_seed(0)
    logits, labels = 5 * torch.randn(50, 7, generator=rng), torch.randint(7, (50,), generator=rng)
    found = dict(zip(NUMBERS, probability_numbers(logits, labels), strict=True))
    exact = logits.double()
    softmax, one_hot = exact.softmax(1), functional.one_hot(labels, 7)
    assert torch.allclose(found["confidence"].double(), softmax.max(1).values, atol=1e-6)
    assert torch.allclose(found["nll"].double(), functional.cross_entropy(exact, labels, reduction="none"), atol=1e-5)
    assert torch.allclose(found["brier"].double(), (softmax - one_hot).square().sum(1), atol=1e-6)
    assert torch.allclose(found["entropy"].double(), torch.distributions.Categorical(softmax).entropy(), atol=1e-5)


def test_probabilities_of_logits_that_are_not_finite_are_unknown():
    """A class without columns has probability 0; NaN and infinity leave every number of the image unknown."""
    logits = torch.tensor([[1.0, 2.0, -torch.inf], [torch.nan, 0.0, 0.0], [torch.inf, 0.0, 0.0], [200.0, 0.0, 0.0]])
    found = probability_numbers(logits, torch.tensor([0, 0, 0, 0]))
    assert torch.isfinite(found[:, 0]).all()
    assert found[:, 1:3].isnan().all()
    assert found[:, 3].tolist() == [1, 0, 0, 0]
    assert not torch.signbit(found[:, 3]).any()
