"""Retrieval of mixtures is what open_clip's own model finds, one image and one text at a time."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mergekit_wise.analysis import Point
from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.datasets.captions import open_captions
from mergekit_wise.errors import ModelError, SuiteError, UsageError
from mergekit_wise.evaluation.own_evaluator import Mixture
from mergekit_wise.evaluation.retrieval import names_of, open_caption_sets, open_retrieval, ranked, reference_of
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
    given = [Mixture(variant, sides[0], None, None, None) for variant in variants]
    for number, mixture in enumerate(given):
        mixture.coming = variants[number + 1 :]
    return sides[0], given


def retrieval(home, template, name="flickr.csv", said=None, feature_bytes=1 << 30, **options):
    given = EvalOptions("x", **{"precision": "fp32", "workers": 0, "batch_size": 8, **options})
    evaluator = open_retrieval(str(home / name), given)
    evaluator.feature_bytes = feature_bytes
    evaluator.open(template, (said if said is not None else []).append)
    return evaluator


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
        state = {
            name: torch.from_numpy(np.array(mixture.variant.read(name)[1])).reshape(template.info(name).shape)
            for name in template.tensors
        }
        if second == "1":
            for name, tensor in mixed(alpha).items():
                torch.testing.assert_close(state[name], tensor)
        for result, places in zip(results, places_by_hand(state, samples, found.captions), strict=True):
            assert result.metric == "recall@1"
            assert result.items.tolist() == (places < 1).astype(float).tolist()
            assert result.values == {f"recall@{k}": (places < k).mean() for k in (5, 10)}
            differ.append(result.items)
    assert [result.dataset for result in results] == ["flickr image-to-text", "flickr text-to-image"]
    assert 0 < sum(map(np.sum, differ)) < sum(map(len, differ))


def test_mixtures_are_the_same_one_at_a_time_and_together(home):
    """Whether images are decoded for each mixture or once for all, and whatever the size of a batch."""
    template, given = mixtures(home, (0.0, 0.5, 1.0))
    together, alone = retrieval(home, template), retrieval(home, template, feature_bytes=1)
    for mixture in given:
        for one, other in zip(together(mixture), alone(mixture), strict=True):
            assert (one.items.tolist(), one.values) == (other.items.tolist(), other.values)


def counted(evaluator):
    """Counts how often each image is decoded."""
    found, seen = evaluator.sets[0], []

    def image(index):
        seen.append(index)
        return found.image(index)

    evaluator.sets = (replace(found, image=image),)
    return seen


def test_images_are_decoded_once_for_all_mixtures(home):
    """Those that come later find the features of theirs."""
    template, given = mixtures(home, (0.0, 0.5, 1.0))
    evaluator = retrieval(home, template)
    seen = counted(evaluator)
    for mixture in given:
        evaluator(mixture)
    assert sorted(seen) == list(range(20))


def test_the_features_of_few_mixtures_are_kept_where_memory_is_short(home):
    """With room for two of three, images are decoded twice."""
    template, given = mixtures(home, (0.0, 0.5, 1.0))
    evaluator = retrieval(home, template, feature_bytes=2 * 20 * 16 * 4)
    seen = counted(evaluator)
    for mixture in given:
        evaluator(mixture)
    assert sorted(seen) == sorted([*range(20), *range(20)])


@pytest.mark.parametrize(("second", "images", "texts"), [("1", 3, 3), ("lit", 1, 3), ("words", 3, 1)])
def test_a_frozen_encoder_is_computed_once(home, second, images, texts):
    """Its features are the same in all mixtures."""
    template, given = mixtures(home, (0.0, 0.5, 1.0), second)
    evaluator = retrieval(home, template)
    calls = {"visual": 0, "text": 0}
    for name in calls:
        encoder = getattr(evaluator.encoders.model.module, name)
        encoder.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    for mixture in given:
        evaluator(mixture)
    assert calls == {"visual": images * 3, "text": texts}  # 20 images in batches of 8


def test_blocks_of_similarities_give_the_same_places():
    """Whatever fits into memory."""
    random = np.random.default_rng(0)
    queries, candidates = (random.standard_normal((n, 8)).astype(np.float32) for n in (37, 23))
    wanted, owners = random.integers(0, 5, 37), np.arange(23) % 5
    whole, blocks = (ranked(queries, candidates, wanted, owners, torch.device("cpu"), n) for n in (1 << 20, 400))
    assert whole.tolist() == blocks.tolist()


def test_unreadable_images_are_left_out_with_their_captions(home, tmp_path):
    """Neither they nor their captions are queries or candidates, and a note names them."""
    template, given = mixtures(home, (0.5,))
    write_captions(tmp_path)
    (tmp_path / "images" / "3.png").write_bytes(b"broken")
    with pytest.raises(SuiteError, match="--max-bad"):
        retrieval(tmp_path, template)(given[0])
    said = []
    got = retrieval(tmp_path, template, said=said, max_bad=1)(given[0])
    lines = (tmp_path / "flickr.csv").read_text().splitlines()
    (tmp_path / "without.csv").write_text("\n".join(line for line in lines if "images/3.png" not in line))
    for one, other in zip(got, retrieval(tmp_path, template, "without.csv")(given[0]), strict=True):
        assert (one.items.tolist(), one.values) == (other.items.tolist(), other.values)
    assert any("3.png" in note and "captions" in note for note in said)


def test_captions_that_are_cut_off_are_counted(home, tmp_path):
    """The context of this model has 12 tokens."""
    template, given = mixtures(home, (0.5,))
    write_captions(tmp_path, images=3)
    with (tmp_path / "flickr.csv").open("a") as file:
        file.write(f"images/0.png\t{'a long caption ' * 9}\n")
    said = []
    retrieval(tmp_path, template, said=said)(given[0])
    assert any("1 of " in note and "captions is longer" in note for note in said)
    assert any("recall@10 is 1 whatever" in note for note in said)


def test_a_part_of_the_images_is_drawn_with_their_captions(home):
    """A smaller part lies in a larger one, and captions stay with their images."""
    whole = open_captions(home / "flickr.csv")
    of = {whole.sample(index): captions for index, captions in enumerate(whole.captions)}
    (small,), (large,) = (
        open_caption_sets(str(home / "flickr.csv"), EvalOptions("x", limit=n, seed=3)) for n in (5, 9)
    )
    drawn = [[part.sample(index) for index in range(len(part))] for part in (small, large)]
    assert [len(each) for each in drawn] == [5, 9]
    assert set(drawn[0]) < set(drawn[1]) < set(of)
    assert [of[path] for path in drawn[0]] == list(small.captions)
    assert small.fingerprint != whole.fingerprint


def test_the_identity_tells_data_model_and_precision(home, tmp_path):
    """A run is resumed only if all of them are the same."""
    template, _ = mixtures(home, (0.5,))
    write_captions(tmp_path, seed=1)
    first = retrieval(home, template)
    assert first.identity == retrieval(home, template, batch_size=4, workers=1).identity
    others = [
        retrieval(tmp_path, template),
        retrieval(home, template, precision="bf16"),
        retrieval(home, template, limit=7),
    ]
    assert len({each.identity for each in (first, *others)}) == 4
    json.loads(first.identity)


def test_sets_have_names_of_their_own(home, tmp_path):
    """The first is the reference, or the one that is asked for."""
    write_captions(tmp_path, images=2)
    write_captions(tmp_path, images=2, name="coco,val.csv")
    options = EvalOptions("x")
    sets = open_caption_sets(f"{home / 'flickr.csv'},{tmp_path / 'flickr.csv'}", options)
    names = [name for each in sets for name in names_of(each)]
    assert names == [f"{p / 'flickr.csv'} {d}" for p in (home, tmp_path) for d in ("image-to-text", "text-to-image")]
    assert reference_of(sets, None) == names[0]
    (one,) = open_caption_sets(str(tmp_path / "coco,val.csv"), options)
    assert reference_of((one,), None) == reference_of((one,), "coco,val") == "coco,val image-to-text"
    assert reference_of((one,), "coco,val text-to-image") == "coco,val text-to-image"
    with pytest.raises(UsageError, match="--reference flickr: is none of"):
        reference_of((one,), "flickr")
    for text, message in (("", "name the images"), (f"{home / 'flickr.csv'},{home / 'flickr.csv'}", "named twice")):
        with pytest.raises(UsageError, match=message):
            open_caption_sets(text, options)


def test_a_checkpoint_without_a_text_encoder_is_refused(home):
    """The sentence says what retrieval needs."""
    whole = open_checkpoint(home / "0.safetensors")
    towerless = replace(whole, tensors={n: info for n, info in whole.tensors.items() if n.startswith("visual.")})
    with pytest.raises(ModelError, match="no text encoder"):
        retrieval(home, towerless)


def test_keeping_images_and_keeping_nothing_is_refused(home):
    """--cache-images with --no-cache, as in other evaluations."""
    with pytest.raises(UsageError, match="--cache-images .* --no-cache"):
        retrieval(home, open_checkpoint(home / "0.safetensors"), cache_images=True, cache=False)


def test_a_checkpoint_by_itself_is_measured(home):
    """It is a variant without a pair."""
    template, (mixture, _) = mixtures(home, (1.0, 0.5))
    whole = open_checkpoint(home / "1.safetensors")
    alone = Mixture(Variant("1", None, reader(whole)), whole, None, None, None)
    for one, other in zip(retrieval(home, whole)(alone), retrieval(home, template)(mixture), strict=True):
        assert one.items.tolist() == other.items.tolist()
