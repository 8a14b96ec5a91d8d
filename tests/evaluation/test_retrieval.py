"""Retrieval of mixtures is what open_clip's own model finds, one image and one text at a time."""

import json
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from mergekit_wise.analysis import Point
from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.datasets.captions import open_captions
from mergekit_wise.errors import ModelError, SuiteError, UsageError
from mergekit_wise.evaluation.distributed import ALONE
from mergekit_wise.evaluation.own_evaluator import Mixture
from mergekit_wise.evaluation.retrieval import Retrieval, names_of, open_caption_sets, ranked, reference_of
from mergekit_wise.evaluation.two_encoders import open_encoders
from mergekit_wise.evaluation.variants import InterpolatedWeights, Variant, reader
from mergekit_wise.merging import Pair, Rules
from mergekit_wise.options import EvalOptions
from tests.evaluation.captioned import mixed, places_by_hand, write_captions, write_clip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("retrieval")
    write_captions(home)
    for seed in (0, 1):
        write_clip(home / f"{seed}.safetensors", seed)
    write_clip(home / "lit.safetensors", 1, frozen=["visual."])
    write_clip(home / "words.safetensors", 1, frozen=["transformer.", "token_", "positional_", "ln_final", "text_pro"])
    return home


def mixtures(home, alphas, second="1"):
    """The variants of a sweep, each knowing which come next."""
    sides = [open_checkpoint(home / f"{name}.safetensors") for name in ("0", second)]
    weights = InterpolatedWeights(Pair(*sides, tuple(sides[0].tensors)))
    variants = [Variant.mixed("0", weights, Point.of_alpha(a), Rules(alpha=a)) for a in alphas]
    return sides[0], [Mixture(v, sides[0], None, None, variants[i + 1 :]) for i, v in enumerate(variants)]


def retrieval(home, template, name="flickr.csv", said=None, feature_bytes=1 << 30, **options):
    given = EvalOptions("x", precision="fp32", **{"workers": 0, "batch_size": 8, **options})
    sets = open_caption_sets(str(home / name), given)
    note = (said if said is not None else []).append
    return Retrieval(sets, reference_of(sets, None), open_encoders(template, given, ALONE, "cpu", note), feature_bytes)


@pytest.mark.parametrize("second", ["1", "lit", "words"])
def test_recall_is_that_of_open_clips_own_model(home, second):
    """Every hit at 1, and recall at 5 and 10, in both directions, also where one encoder is frozen."""
    template, given = mixtures(home, (0.3, 0.8), second)
    evaluator = retrieval(home, template)
    found = open_captions(home / "flickr.csv")
    samples = [found.sample(index) for index in range(len(found))]
    differ = []
    for mixture, alpha in zip(given, (0.3, 0.8), strict=True):
        results = evaluator(mixture)
        state = {n: torch.from_numpy(np.array(mixture.variant.read(n)[1])) for n in template.tensors}
        model = mixed(0, 0, 0)
        model.load_state_dict({n: t.reshape(model.state_dict()[n].shape) for n, t in state.items()})
        if second == "1":
            for name, tensor in mixed(alpha, 0, 1).state_dict().items():
                torch.testing.assert_close(model.state_dict()[name], tensor)
        for result, places in zip(results, places_by_hand(model, samples, found.captions), strict=True):
            assert result.metric == "recall@1"
            assert result.items.tolist() == (places < 1).astype(float).tolist()
            assert result.values == {f"recall@{k}": (places < k).mean() for k in (5, 10)}
            differ.append(result.items)
    assert [result.dataset for result in results] == ["flickr image-to-text", "flickr text-to-image"]
    assert 0 < sum(map(np.sum, differ)) < sum(map(len, differ))
