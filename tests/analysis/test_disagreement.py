"""All measures in one pass."""

import pickle
from dataclasses import asdict

import numpy as np
import pytest

from mergekit_wise.analysis import Disagreement
from mergekit_wise.analysis.diversity import CKAComplement, KappaComplement, KLDivergence, PredictionDiversity
from mergekit_wise.analysis.overrides import Confidence, EnsembleAgreement, Overrides
from mergekit_wise.errors import ResultsError


def drawn(n=400, classes=6):
    rng = np.random.default_rng(5)
    labels = rng.integers(0, classes, n)
    f = (rng.normal(size=(n, classes)) + 2 * np.eye(classes)[labels]).astype(np.float32)
    g = (f + rng.normal(size=f.shape)).astype(np.float32)
    return f, g, (0.5 * f + 0.5 * g + rng.normal(0, 0.3, f.shape)).astype(np.float32), labels


def test_each_number_is_that_of_its_measure():
    """Taken alone, on the same logits."""
    f, g, mixed, labels = drawn()
    seen = Disagreement()
    seen.update(f, g, mixed, labels)
    alone = [
        (PredictionDiversity(), (f, g, labels)),
        (KappaComplement(), (f, g)),
        (KLDivergence(), (f, g)),
        (CKAComplement(), (f, g)),
        (Confidence(), (f,)),
        (Confidence(), (g,)),
        (Overrides(), (f, g, mixed, labels)),
        (Confidence(), (mixed,)),
        (EnsembleAgreement(), (f, g, mixed, labels)),
    ]
    for measure, batch in alone:
        measure.update(*batch)
    found = seen.result()
    assert [getattr(found, name) for name in found.__slots__] == [400, 0, *(m.result() for m, _ in alone)]


def flat(numbers):
    return {(k, j): v for k, x in numbers.items() for j, v in (x.items() if isinstance(x, dict) else [("", x)])}


def test_parts_that_travelled_between_processes_give_the_whole():
    """Pickled, as torch.distributed gathers them; one process saw nothing."""
    f, g, mixed, labels = drawn()
    whole, *parts = (Disagreement() for _ in range(4))
    whole.update(f, g, mixed, labels)
    for part, rows in zip(parts, (np.arange(0), np.arange(399, 130, -1), np.r_[0:131]), strict=True):
        for batch in np.array_split(rows, 3):
            part.update(f[batch], g[batch], mixed[batch], labels[batch])
    a, b, c = (pickle.loads(pickle.dumps(part)) for part in parts)
    together = (a + b + c).result()
    assert flat(asdict(together)) == pytest.approx(flat(asdict(whole.result())), rel=1e-11)
    assert together.overrides == whole.result().overrides
    assert together.agreement == whole.result().agreement


def test_without_an_ensemble_there_is_no_word_of_it():
    """None, not 0."""
    f, g, _, labels = drawn()
    seen = Disagreement()
    seen.update(f, g, None, labels)
    found = seen.result()
    assert (found.overrides, found.ensemble_confidence, found.agreement) == (None, None, None)
    assert found.prediction_diversity > 0


def test_images_with_broken_logits_are_left_out_and_counted():
    """The rest is as if they were not there."""
    f, g, mixed, labels = drawn()
    clean = Disagreement()
    clean.update(f[3:], g[3:], mixed[3:], labels[3:])
    f[0, 1], g[1, 2], mixed[2, 0] = np.nan, np.inf, -np.inf
    seen = Disagreement()
    seen.update(f, g, mixed, labels)
    assert seen.left_out == seen.result().left_out == 3
    assert flat(asdict(seen.result())) == pytest.approx(flat(asdict(clean.result()) | {"left_out": 3}), rel=1e-11)
    with pytest.raises(ResultsError, match="No image"):
        nothing = Disagreement()
        nothing.update(f[:1], g[:1], None, labels[:1])
        nothing.result()


def test_a_class_that_is_never_predicted_leaves_every_number_finite():
    """-inf in one column of all models, as for a class without a column in the head."""
    f, g, mixed, labels = drawn()
    for logits in (f, g, mixed):
        logits[:, 3] = -np.inf
    seen = Disagreement()
    seen.update(f, g, mixed, labels)
    found = flat(asdict(seen.result()))
    assert found["total", ""] == 400
    assert np.isfinite(list(found.values())).all()
    assert seen.result() == seen.result()
