"""What no mixture changes is computed once, and nothing else changes: logits are the same bit for bit."""

import pytest
import timm
import torch
from open_clip.model import _build_vision_tower
from torch import nn
from torch.nn import functional

from mergekit_wise.evaluation import Engine, Forward
from mergekit_wise.evaluation.engine import Observers, OutputEnsemble
from mergekit_wise.models.classifier import Classifier
from mergekit_wise.models.timm_classifier import TimmClassifier
from mergekit_wise.models.transform import Preprocess
from tests.evaluation.fakes import noise

CPU = torch.device("cpu")
CLIP = {"image_size": 32, "patch_size": 8, "layers": 4, "width": 64, "head_width": 32}
RESNET = {"image_size": 64, "layers": [2, 1, 1, 1], "width": 8, "patch_size": None}


def clip(**settings):
    """An image tower of open_clip with a head."""
    return Classifier(_build_vision_tower(32, settings), 32, 7)


def of_timm(name, **settings):
    return TimmClassifier(timm.create_model(name, num_classes=7, **settings))


def filled(module):
    """The module with every tensor, batch-norm statistics included, set to something."""
    torch.manual_seed(0)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5 if "running_var" in name else torch.randn_like(tensor) * 0.1)
    return module.eval()


def settings_of(module, names, count=3):
    """Functions that set the named tensors, each to other values."""

    def setter(seed):
        def set_weights():
            torch.manual_seed(seed)
            state = module.state_dict()
            for name in sorted(names):
                with torch.no_grad():
                    state[name].copy_(torch.rand_like(state[name]) * 0.2 + 0.1)

        return set_weights

    return [setter(seed) for seed in range(1, count + 1)]


def forward_of(module, size, precision="fp32", notes=None):
    return Forward(module, Preprocess(size=(size, size)), CPU, precision, print if notes is None else notes.append)


def names_from(module, first):
    """The names of the module's tensors from this part on."""
    names = [name for name, tensor in module.state_dict().items() if tensor.is_floating_point()]
    return set(names[next(at for at, name in enumerate(names) if name.startswith(first)) :])


MODELS = {
    "ViT": (lambda: clip(**CLIP), 32, "visual.transformer.resblocks.2.", {"visual.proj"}, (2, 4)),
    "ViT, all but the head": (lambda: clip(**CLIP), 32, "classification_head", set(), (4, 4)),
    "ModifiedResNet": (lambda: clip(**RESNET), 64, "visual.layer2.0.bn1.running_mean", set(), (2, 5)),
    "timm's ViT": (lambda: of_timm("test_vit", img_size=32), 32, "model.blocks.3.", set(), (3, 6)),
    "timm's ViT without a class token": (
        lambda: of_timm("test_vit", img_size=32, class_token=False, global_pool="avg"),
        32,
        "model.blocks.2.",
        set(),
        (2, 6),
    ),
    "timm's ResNet": (lambda: of_timm("test_resnet"), 32, "model.layer3", set(), (2, 4)),
    "timm's ConvNeXt": (lambda: of_timm("test_convnext"), 32, "model.stages.2", set(), (3, 9)),
    "timm's EfficientNet": (lambda: of_timm("test_efficientnet"), 32, "model.blocks.2", set(), (1, 4)),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model", MODELS)
def test_the_blocks_before_all_that_varies_are_found_and_logits_keep_every_bit(model, precision):
    """Whatever the architecture; a batch that is padded and parts of one included."""
    make, size, first, also, (blocks, total) = MODELS[model]
    module = filled(make())
    varying = names_from(module, first) | also
    forward, settings = forward_of(module, size, precision), settings_of(module, varying)
    found = forward.constant_prefix(settings, varying)
    assert (found.blocks, found.total) == (blocks, total)
    pixels = torch.randint(0, 256, (5, 3, size, size), dtype=torch.uint8)
    for at_once in (None, 3):
        forward.size = at_once
        with torch.inference_mode():
            settings[0]()
            logits, kept = forward.recorded(pixels, found)
            assert kept.nbytes == 5 * found.image_bytes
            assert torch.equal(logits, forward(pixels))
            for set_weights in settings:
                set_weights()
                assert torch.equal(forward.continued(kept, found), forward(pixels))


class Blocks(nn.Module):
    """Blocks in a list, called one after the other."""

    def __init__(self, count=4):
        super().__init__()
        self.stem = nn.Linear(192, 16)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(16, 16), nn.GELU()) for _ in range(count))
        self.last = nn.Linear(16, 7)

    def forward(self, images):
        x = self.stem(images.flatten(1))
        for block in self.blocks:
            x = block(x)
        return self.last(x)


class Skips(Blocks):
    """The end reads what the stem and all blocks gave."""

    def forward(self, images):
        seen = [self.stem(images.flatten(1))]
        for block in self.blocks:
            seen.append(block(seen[-1]))
        return self.last(sum(seen))


class InPlace(Blocks):
    """What a block gives is written to by the next one."""

    def forward(self, images):
        x = self.stem(images.flatten(1))
        for block in self.blocks:
            x = block(functional.relu_(x))
        return self.last(x)


class ReadsImages(Blocks):
    """The end reads the images."""

    def forward(self, images):
        return super().forward(images) + images.flatten(1)[:, :7]


class OneForAll(Blocks):
    """The same block is called four times."""

    def forward(self, images):
        x = self.stem(images.flatten(1))
        for _ in range(4):
            x = self.blocks[0](x)
        return self.blocks[1](x) @ self.last.weight.T


class OfTheBatch(Blocks):
    """The images of a batch are in the second dimension, as in old transformers."""

    def forward(self, images):
        x = self.stem(images.flatten(1)[None])
        for block in self.blocks:
            x = block(x)
        return self.last(x[0])


@pytest.mark.parametrize(
    ("kind", "layers"), [(Skips, 1), (InPlace, 4), (ReadsImages, 0), (OneForAll, 3), (OfTheBatch, 0)]
)
def test_a_model_that_needs_more_than_one_tensor_is_computed_from_where_one_is_enough(kind, layers):
    """Skip connections, outputs that are written to, images that are read again, other dimensions than the first."""
    module = filled(kind())
    varying = names_from(module, "last" if kind is OneForAll else "blocks.3")
    forward, settings = forward_of(module, 8), settings_of(module, varying)
    found = forward.constant_prefix(settings, varying)
    assert (0 if found is None else found.blocks) == layers
    predictions = [Engine(forward, batch_size=8).predict(settings, noise(), 7, prefix=p) for p in (found, None)]
    assert predictions[0].numbers.tobytes() == predictions[1].numbers.tobytes()


def test_a_model_is_computed_whole_if_what_comes_first_varies():
    """Also if only a buffer does."""
    module = filled(of_timm("test_resnet"))
    for name in ("model.conv1.0.weight", "model.bn1.running_mean"):
        varying = {name} & module.state_dict().keys() or {"model.bn1.running_mean"}
        assert forward_of(module, 32).constant_prefix(settings_of(module, varying), varying) is None


def test_a_part_is_used_only_after_it_gave_the_same_bits_on_noise():
    """A tensor that varies without being declared is noticed."""
    module = filled(Blocks())
    declared = names_from(module, "last")
    settings = settings_of(module, declared | {"stem.weight"})
    assert forward_of(module, 8).constant_prefix(settings_of(module, declared), declared) is not None
    assert forward_of(module, 8).constant_prefix(settings, declared) is None


@pytest.mark.parametrize("group", [1, 1 << 30])
@pytest.mark.parametrize("workers", [0, 2])
def test_predictions_are_the_same_bit_for_bit(workers, group):
    """Classes, numbers, output-space ensembles and what observers see, with groups of any size."""
    module = filled(Blocks())
    varying = names_from(module, "blocks.2")
    forward, settings = forward_of(module, 8), settings_of(module, varying)
    engine = Engine(forward, batch_size=8, workers=workers, group_bytes=group, max_bad=2)
    dataset, found = noise(broken={5, 30}), []
    calls = []
    module.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    prefix = forward.constant_prefix(settings, varying)
    for each in (None, prefix):
        calls.clear()
        seen = []
        observers = Observers((OutputEnsemble(0, 2, 0.25),), (0, 1), lambda *facts, seen=seen: seen.append(facts))
        predictions = engine.predict(settings, dataset, 7, prefix=each, observers=observers)
        logits = [torch.from_numpy(one) for both, _, _ in seen for one in both]
        found.append((predictions.classes.tolist(), predictions.numbers.tobytes(), torch.cat(logits)))
    assert found[0][:2] == found[1][:2]
    assert torch.equal(found[0][2], found[1][2])
    assert prefix.blocks == 3  # with the stem, of layers


def test_weights_that_are_written_after_all_are_computed_whole():
    """A variant that writes to the first part gets its own predictions."""
    module = filled(Blocks())
    declared = names_from(module, "last")
    forward = forward_of(module, 8)
    prefix = forward.constant_prefix(settings_of(module, declared), declared)
    settings = settings_of(module, declared | {"stem.weight"})
    with_prefix, whole = (Engine(forward, batch_size=8).predict(settings, noise(), 7, prefix=p) for p in (prefix, None))
    assert with_prefix.numbers.tobytes() == whole.numbers.tobytes()


def test_what_is_kept_counts_as_memory_of_a_group():
    """Groups become smaller by it, but hold a batch at least."""
    module = filled(Blocks())
    varying = names_from(module, "blocks.2")
    forward, settings = forward_of(module, 8), settings_of(module, varying, 2)
    prefix = forward.constant_prefix(settings, varying)
    batch = 8 * (3 * 64 + prefix.image_bytes)
    for group_bytes, groups in ((1, 7), (batch, 7), (2 * batch, 4), (3 * batch - 1, 4), (7 * batch, 1)):
        calls = []
        counted = [lambda calls=calls: calls.append(0), settings[1]]
        Engine(forward, batch_size=8, group_bytes=group_bytes).predict(counted, noise(), 7, prefix=prefix)
        assert len(calls) == groups
