"""Predictions are those of a plain loop over single images."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mergekit_wise.errors import SuiteError
from mergekit_wise.evaluation import Engine, Forward
from mergekit_wise.evaluation.distributed import Ranks
from mergekit_wise.evaluation.engine import Observers, OutputEnsemble
from mergekit_wise.merging.torch_backend import fetch
from tests.evaluation.fakes import CLASSES, PREPROCESS, linear, looped, noise, renamed, setters

CPU = torch.device("cpu")


def engine(module, **settings):
    return Engine(Forward(module, PREPROCESS, CPU, "fp32", print), **settings)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("group", [1, 1 << 30])
@pytest.mark.parametrize("batch_size", [1, 7, 53, 64])
def test_predictions_are_those_of_a_loop_over_single_images(workers, group, batch_size):
    """They do not depend on the batch size, the size of groups or the number of workers."""
    dataset, module = noise(), linear()
    variants, weights = setters(module, 4)
    found = engine(module, batch_size=batch_size, workers=workers, group_bytes=group).predict(variants, dataset, 7)
    assert found.classes.shape == found.top5.shape == (4, 53)
    for row, weight in enumerate(weights):
        module[1].weight.data.copy_(weight)
        logits = looped(module, dataset)
        best = logits.topk(5).indices
        assert found.classes[row].tolist() == logits.argmax(1).tolist()
        assert found.top5[row].tolist() == [int(y) in b for y, b in zip(dataset.labels, best.tolist(), strict=True)]
    assert found.unsound == [0] * 4
    assert not found.bad


def test_the_weights_of_a_single_variant_are_set_once():
    """The weights of several variants are set once for each group."""
    module = linear()
    calls = []
    engine(module, batch_size=8).predict([lambda: calls.append(0)], noise(), 7)
    assert calls == [0]
    engine(module, batch_size=8).predict([lambda: calls.append(1), lambda: calls.append(2)], noise(), 7)
    assert calls == [0, 1, 2]


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_left_out_up_to_a_number(workers):
    """They are reported with their paths; one more than allowed stops the run."""
    dataset, module = noise(broken={5, 30}), linear()
    found = engine(module, batch_size=10, workers=workers, max_bad=2).predict([lambda: None], dataset, 7)
    assert found.bad == {5: "images/5.jpg: broken.", 30: "images/30.jpg: broken."}
    assert np.flatnonzero(found.classes[0] == -1).tolist() == [5, 30]
    assert not found.top5[0, [5, 30]].any()
    assert found.unsound == [0]
    good = [i for i in range(53) if i not in found.bad]
    assert found.classes[0, good].tolist() == looped(module, dataset, good).argmax(1).tolist()
    with pytest.raises(SuiteError, match=r"only 1 may .*images/5.jpg: broken. images/30.jpg: broken.*--max-bad"):
        engine(module, batch_size=10, workers=workers, max_bad=1).predict([lambda: None], dataset, 7)


def test_a_data_set_of_unreadable_images_has_no_accuracy():
    """It is an error however many unreadable images are allowed."""
    with pytest.raises(SuiteError, match="no image can be read"):
        engine(linear(), max_bad=99).predict([lambda: None], noise(9, range(9)), 7)


def test_images_whose_logits_are_not_finite_are_counted():
    """Such images predict no class."""
    module = linear()
    module[1].bias.data[2] = float("nan")
    found = engine(module).predict([lambda: None], noise(), 7)
    assert found.unsound == [53]
    assert (found.classes == -1).all()


def test_classes_are_the_largest_of_their_columns():
    """A head over a vocabulary has several columns for a class."""
    module = linear(outputs=1000)
    columns = tuple(tuple(range(7 * k, 7 * k + 1 + k)) for k in range(len(CLASSES)))
    dataset = renamed(noise(), columns=columns, vocabulary="imagenet")
    found = engine(module, batch_size=16).predict([lambda: None], dataset, 1000)
    logits = looped(module, dataset)
    wanted = torch.stack([logits[:, list(mine)].amax(1) for mine in columns], 1).argmax(1)
    assert found.classes[0].tolist() == wanted.tolist()


def test_progress_counts_images_of_all_variants():
    """The count reaches the total and never decreases."""
    calls = []
    listen = lambda what, done, total, unit: calls.append((what, done, total, unit))  # noqa: E731
    engine(linear(), batch_size=20, progress=listen).predict([lambda: None] * 3, noise(), 7)
    assert [done for _, done, _, _ in calls] == sorted(done for _, done, _, _ in calls)
    assert calls[-1] == ("Noise", 159, 159, "images")


def each(variants, module, dataset):
    """Logits [V, N, C] of the variants, one after the other."""
    logits = []
    for variant in variants:
        variant()
        logits.append(looped(module, dataset))
    return torch.stack(logits)


@pytest.mark.parametrize("workers", [0, 2])
def test_ensembles_of_outputs_are_those_of_the_logits(workers):
    """Their predictions follow those of the variants, in order."""
    module, dataset = linear(), noise()
    variants, _ = setters(module, 3)
    ensembles = (OutputEnsemble(0, 2, 0.25), OutputEnsemble(2, 1, 0.5))
    found = engine(module, batch_size=8, workers=workers).predict(variants, dataset, 7, observers=Observers(ensembles))
    logits = each(variants, module, dataset)
    wanted = [*logits, 0.75 * logits[0] + 0.25 * logits[2], 0.5 * logits[2] + 0.5 * logits[1]]
    assert found.classes.tolist() == [entry.argmax(1).tolist() for entry in wanted]


def test_an_observer_sees_the_logits_of_every_readable_image_once():
    """It is given the observed variants in its order, labels and indices, without padding."""
    module, dataset = linear(), noise(broken={3, 52})
    variants, _ = setters(module, 3)
    shown = []
    observers = Observers(observed=(2, 0), observe=lambda logits, *facts: shown.append((np.stack(logits), *facts)))
    engine(module, batch_size=8, max_bad=2).predict(variants, dataset, 7, observers=observers)
    good = [i for i in range(53) if i not in (3, 52)]
    wanted = each(variants, module, noise())[[2, 0]][:, good]
    torch.testing.assert_close(torch.from_numpy(np.concatenate([logits for logits, _, _ in shown], 1)), wanted)
    assert np.concatenate([labels for _, labels, _ in shown]).tolist() == dataset.labels[good].tolist()
    assert np.concatenate([indices for _, _, indices in shown]).tolist() == good


def test_a_small_set_is_divided_evenly_and_not_padded_to_the_batch_size():
    """135 images are two batches of 68 and 67, of one shape, for any number of processes."""
    module, shapes = linear(), []
    module.register_forward_pre_hook(lambda _, inputs: shapes.append(len(inputs[0])))
    engine(module, batch_size=128).predict([lambda: None], noise(135), 7)
    assert shapes == [68, 68]
    shared = [engine(module, batch_size=128, ranks=Ranks(rank, 2, CPU)).batches(135) for rank in range(2)]
    assert [[len(batch) for batch in batches] for batches in shared] == [[68], [67]]
    assert np.concatenate([*shared[0], *shared[1]]).tolist() == list(range(135))


@pytest.mark.parametrize("images", [1, 127, 128, 129, 1000, 50_000])
def test_batches_are_as_few_as_the_batch_size_allows_and_less_than_one_image_of_each_is_padding(images):
    """However many images there are."""
    batches = engine(linear(), batch_size=128).batches(images)
    size = max(map(len, batches))
    assert len(batches) == -(-images // 128)
    assert len(batches) * size - images < len(batches)


class Waits(TorchDispatchMode):
    """Counts the operations for whose result a GPU would be waited for."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "masked_select", "equal"):
            self.found.append(func)
        return func(*args, **kwargs or {})


def test_the_device_is_asked_for_answers_once_a_group_and_waited_for_nowhere_else():
    """All variants, batches and observed logits of a group come in one copy each."""
    module, dataset, copies = linear(), noise(40), []
    variants, _ = setters(module, 3)
    columns = tuple((2 * k, 2 * k + 1) for k in range(len(CLASSES)))
    wide = renamed(dataset, columns=columns, vocabulary="imagenet")
    observers = Observers([OutputEnsemble(0, 1, 0.5)], [0, 1], lambda *_: None)
    group = 3 * 10 * 192  # bytes of three batches

    def counted(values):
        copies.append(tuple(values.shape))
        return fetch(values)

    for data, outputs in ((dataset, 7), (wide, 1000)):
        copies.clear()
        own = module if outputs == 7 else linear(outputs)
        chosen = variants if outputs == 7 else [lambda: None] * 3
        with Waits() as waits:
            engine(own, batch_size=10, group_bytes=group, fetch=counted).predict(
                chosen, data, outputs, observers=observers
            )
        assert not waits.found
        assert copies == [(4, 6, 30), (2, 30, 7), (4, 6, 10), (2, 10, 7)]


class Casts(TorchDispatchMode):
    """Counts the matrices of one shape that are rounded to bfloat16."""

    def __init__(self, shape):
        super().__init__()
        self.shape, self.count = shape, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **kwargs or {})
        if func is torch.ops.aten._to_copy.default and found.dtype == torch.bfloat16 and found.shape == self.shape:
            self.count += 1
        return found


def test_weights_are_rounded_to_a_lower_precision_once_a_group_and_are_those_of_the_variant():
    """Also inside of a caller's autocast, which would keep rounded weights for longer."""
    module, dataset = linear(), noise(40)
    _, weights = setters(module, 3)
    setting = [lambda w=w: (torch.clear_autocast_cache(), module[1].weight.data.copy_(w)) for w in weights]
    low = Engine(Forward(module, PREPROCESS, CPU, "bf16", print), batch_size=10)
    with Casts((7, 192)) as casts:
        found = low.predict(setting, dataset, 7)
    assert casts.count == 3
    for row, weight in enumerate(weights):
        module[1].weight.data.copy_(weight)
        assert low.predict([lambda: None], dataset, 7).numbers[0].tolist() == found.numbers[row].tolist()
    with torch.autocast("cpu", torch.bfloat16):
        assert np.array_equal(low.predict(setting, dataset, 7).numbers, found.numbers)
