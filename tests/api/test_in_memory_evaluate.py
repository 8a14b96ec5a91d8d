"""Evaluating models and data sets in memory, against the libraries' own forward passes and a loop by hand."""

import copy
from functools import cache

import numpy as np
import open_clip
import pytest
import timm
import torch
import transformers
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset
from torchvision import transforms

from mergekit_wise import evaluate, interpolate_, merge, predict, sweep
from mergekit_wise.errors import ModelError, SuiteError, UsageError
from tests.models.conftest import SMALL

NAMES = ["ant", "bee", "cat"]
TO_16 = transforms.Compose(
    [transforms.Resize((16, 16)), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.25] * 3)]
)


class Net(nn.Module):
    """A small network with batch norm and dropout, whose answers differ in training mode."""

    def __init__(self, seed, classes=3):
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(8, classes)
        self.body[1].running_mean.normal_()
        self.body[1].running_var.uniform_(0.5, 2)

    def forward(self, images):
        return self.head(self.body(images).mean((2, 3)))


class Data(list):
    """Pairs of an image and a label, with the names of the classes."""

    classes = NAMES


@cache
def images(seed=0, count=12, size=(20, 24)):
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (count, *size, 3), np.uint8)
    return Data(
        (Image.fromarray(each), int(label)) for each, label in zip(pixels, generator.integers(0, 3, count), strict=True)
    )


@torch.no_grad()
def by_hand(module, data, transform):
    """The class of each image, one at a time."""
    module = copy.deepcopy(module).eval()
    return [int(module(transform(image)[None])[0].argmax()) for image, _ in data]


def answers(measured, data=0):
    return measured.answers[data].classes


@pytest.mark.parametrize("workers", [0, 2])
def test_a_module_is_called_itself_and_left_as_it_was(workers, capfd):
    """Its answers are those of a loop by hand in evaluation mode; mode and versions stay, and nothing is printed."""
    module = Net(1).train()
    module.body[3].eval()  # parts may be in modes of their own
    modes = [part.training for part in module.modules()]
    versions = [tensor._version for tensor in module.state_dict(keep_vars=True).values()]
    measured = evaluate(module, images(), transform=TO_16, workers=workers, batch_size=7)
    assert answers(measured)[0].tolist() == by_hand(module, images(), TO_16)
    (record,) = measured.records
    assert record.correct == sum(a == b for a, (_, b) in zip(by_hand(module, images(), TO_16), images(), strict=True))
    assert [part.training for part in module.modules()] == modes
    assert [tensor._version for tensor in module.state_dict(keep_vars=True).values()] == versions
    assert capfd.readouterr() == ("", "")


def test_a_failing_transform_leaves_the_module_as_it_was():
    """An exception of the transform's own comes out, and the module is in training mode again."""

    def failing(image):
        if image.getpixel((0, 0)) == images()[9][0].getpixel((0, 0)):
            raise ZeroDivisionError
        return TO_16(image)

    module = Net(1).train()
    with pytest.raises(ZeroDivisionError):
        evaluate(module, images(), transform=failing, workers=0)
    assert all(part.training for part in module.modules())


def test_a_sweep_sets_the_weights_that_interpolating_sets(capfd):
    """At every alpha the answers, with their probabilities, are those of a module with the interpolated weights."""
    first, second = Net(1), Net(2)
    before = copy.deepcopy(first.state_dict())
    found = sweep(
        first,
        second,
        suite={"other": images(1)},
        reference=images(),
        transform=TO_16,
        alphas=[0, 0.25, 1],
        workers=0,
    )
    assert [(record.alpha, record.dataset, record.role) for record in found.records][:2] == [
        (0.0, "reference", "reference"),
        (0.0, "other", "shift"),
    ]
    for row, alpha in enumerate((0, 0.25, 1)):
        alone = interpolate_(Net(3), first, second, alpha=alpha)
        wanted = evaluate(alone, {"other": images(1)}, reference=images(), transform=TO_16, workers=0)
        for ours, theirs in zip(found.answers, wanted.answers, strict=True):
            assert np.array_equal(ours.classes[row], theirs.classes[0])
            assert np.array_equal(ours.numbers[row], theirs.numbers[0])
    assert all(torch.equal(first.state_dict()[name], tensor) for name, tensor in before.items())
    assert first.training
    assert found.merge_command.startswith("mergekit_wise.merge(zeroshot, finetuned, alpha=")
    assert capfd.readouterr() == ("", "")


def test_a_module_and_a_state_dict_or_a_file_are_swept_alike(tmp_path):
    """The side that is a module is called, and the weights of both are those that were given."""
    first, second = Net(1), Net(2)
    torch.save(first.state_dict(), tmp_path / "zs.pt")
    runs = [
        sweep(*pair, suite=images(), transform=TO_16, alphas="0,0.5", workers=0)
        for pair in ((first, second), (first.state_dict(), second), (tmp_path / "zs.pt", second))
    ]
    counts = [[record.correct for record in run.records] for run in runs]
    assert counts[0] == counts[1] == counts[2]


def test_a_prediction_has_the_probabilities_of_the_module():
    """Classes and softmax are those of the module, for images without labels, and of a mixture for a pair."""
    module, other = Net(1), Net(2)
    found = predict(module, [image for image, _ in images()], transform=TO_16, classnames=NAMES, workers=0)
    mixed = predict(module, images(), mix_with=other, alpha=0.25, transform=TO_16, workers=0)
    for report, wanted in ((found, module), (mixed, interpolate_(Net(3), module, other, alpha=0.25))):
        batch = torch.stack([TO_16(image) for image, _ in images()])
        with torch.no_grad():
            shares = wanted.eval()(batch).softmax(1).sort(dim=1, descending=True)
        assert [each.classes for each in report.predictions] == [tuple(row) for row in shares.indices.tolist()]
        probabilities = np.array([each.probabilities for each in report.predictions])
        np.testing.assert_allclose(probabilities, shares.values, rtol=0, atol=1e-6)
    assert found.predictions[0].file == "images[0]"
    assert found.predictions[0].names == tuple(NAMES[number] for number in found.predictions[0].classes)


# Models of libraries


def clip(seed=0, **changes):
    torch.manual_seed(seed)
    model = open_clip.CLIP(**copy.deepcopy({**SMALL, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@torch.no_grad()
def zero_shot(model, data, preprocess):
    """The class of each image by open_clip's own encoders and tokenizer."""
    tokens = open_clip.SimpleTokenizer(context_length=12)([f"a photo of a {name}." for name in NAMES])
    texts = model.encode_text(tokens, normalize=True)
    batch = torch.stack([preprocess(image) for image, _ in data])
    return (model.encode_image(batch, normalize=True) @ texts.T).argmax(dim=1).tolist()


@pytest.mark.parametrize(
    "changes",
    [{}, {"quick_gelu": True}, {"vision_cfg": {**SMALL["vision_cfg"], "head_width": 16, "mlp_ratio": 3.0}}],
    ids=["GELU", "QuickGELU", "narrow heads"],
)
def test_an_open_clip_model_is_computed_as_open_clip_computes_it(changes):
    """Without naming an architecture, zero-shot answers are those of the model's own encoders and preprocessing."""
    model = clip(**changes)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    open_clip.model.set_model_preprocess_cfg(
        model, {"size": 32, "mean": mean, "std": std, "interpolation": "bilinear", "resize_mode": "squash"}
    )
    preprocess = open_clip.image_transform(
        32, is_train=False, mean=mean, std=std, interpolation="bilinear", resize_mode="squash"
    )
    measured = evaluate(model, images(), workers=0)
    assert answers(measured)[0].tolist() == zero_shot(model, images(), preprocess)
    assert measured.records[0].preprocess["mean"] == list(mean)


def test_a_transform_takes_the_place_of_a_clips_preprocessing():
    """The towers are computed as before, of what the transform makes."""
    preprocess = transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor()])
    measured = evaluate(clip(), images(), transform=preprocess, workers=0)
    assert answers(measured)[0].tolist() == zero_shot(clip(), images(), preprocess)
    with pytest.raises(ModelError, match=r"takes images of shape \[3, 32, 32\], and `transform` makes \[3, 16, 16\]"):
        evaluate(clip(), images(), transform=TO_16, workers=0)


@pytest.mark.parametrize("own", [True, False], ids=["declared", "transform"])
def test_a_timm_model_is_computed_as_timm_computes_it(own):
    """Answers are those of timm's own preprocessing and forward pass, with the names that the model declares."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=3)
    model.pretrained_cfg = {**model.pretrained_cfg, "label_names": ["cat", "ant", "bee"]}
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))
    if own:
        measured = evaluate(model, images(), workers=0)
        column = [1, 2, 0]  # of ant, bee and cat
        with torch.no_grad():
            logits = [copy.deepcopy(model).eval()(transform(image)[None])[0, column] for image, _ in images()]
        assert answers(measured)[0].tolist() == [int(row.argmax()) for row in logits]
    else:
        model.pretrained_cfg.pop("label_names")
        measured = evaluate(model, images(), transform=transform, workers=0)
        assert answers(measured)[0].tolist() == by_hand(model, images(), transform)


def test_a_classifier_of_transformers_is_computed_as_transformers_computes_it():
    """Its id2label names the classes; called itself or computed from its weights, answers are those of its forward."""
    small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        vision_config={**small, "image_size": 32, "patch_size": 8},
        text_config={**small, "max_position_embeddings": 12},
        id2label=dict(enumerate(["cat", "ant", "bee"])),
    )
    torch.manual_seed(0)
    model = transformers.CLIPForImageClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    data = images(size=(32, 32))
    transform = open_clip.image_transform(32, is_train=False)
    with torch.no_grad():
        logits = model(torch.stack([transform(image) for image, _ in data])).logits
    wanted = logits[:, [1, 2, 0]].argmax(dim=1).tolist()
    assert answers(evaluate(model, data, workers=0))[0].tolist() == wanted
    assert answers(evaluate(model, data, workers=0, transform=transform))[0].tolist() == wanted
    assert "CLIP's default is assumed" in evaluate(model, data, workers=0).records[0].architecture


def test_a_merged_state_dict_is_evaluated_without_naming_its_architecture():
    """It carries what the modules declared, so its answers are those of the sweep at that alpha."""
    first, second = clip(1, quick_gelu=True), clip(2, quick_gelu=True)
    swept = sweep(first, second, suite=images(), alphas=[0.5], workers=0)
    alone = evaluate(merge(first, second, alpha=0.5), images(), workers=0)
    assert np.array_equal(answers(swept)[0], answers(alone)[0])


class Wrapped(nn.Module):
    """A CLIP with a linear head, as people write it."""

    def __init__(self):
        super().__init__()
        self.clip, self.fc = clip(), nn.Linear(16, 3)

    def forward(self, pixels):
        return self.fc(self.clip.encode_image(pixels))


def test_a_clip_inside_a_users_class_needs_a_transform():
    """Its weights do not show its forward pass, which the message says; with a transform it is called itself."""
    model, transform = Wrapped(), open_clip.image_transform(32, is_train=False)
    with pytest.raises(ModelError, match=r"module of its own class .*Wrapped.*Give `transform`"):
        evaluate(model, images())
    assert answers(evaluate(model, images(), transform=transform, workers=0))[0].tolist() == by_hand(
        model, images(), transform
    )


def changed_activation():
    model = clip()
    model.visual.transformer.resblocks[1].mlp.gelu = nn.ReLU()
    return model


def hooked():
    model = timm.create_model("test_resnet", num_classes=3)
    model.layer1.register_forward_hook(lambda module, inputs, output: output * 2)
    return model


def hooked_clip():
    model = clip()
    model.visual.register_forward_hook(lambda module, inputs, output: output * 2)
    return model


def adapted():
    import peft

    return peft.get_peft_model(clip(), peft.LoraConfig(r=2, target_modules=["c_fc"]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (changed_activation, r"resblocks\.1\.mlp\.gelu \(ReLU\) differs"),
        (hooked, "has hooks in layer1"),
        (hooked_clip, "differs"),
        (adapted, "is a PeftModel.*merge_and_unload"),
    ],
)
def test_a_changed_model_of_a_library_is_refused(make, message):
    """What its weights do not show is named, rather than computed without it."""
    with pytest.raises(ModelError, match=message):
        evaluate(make(), images())


# What a results file may reuse


def test_results_are_reused_with_transforms_whose_text_says_all(tmp_path):
    """A second run with an equal chain of torchvision's adds nothing; another size, or other weights, are measured."""
    results = tmp_path / "results.jsonl"

    def added(module, transform):
        return evaluate(module, images(), transform=transform, workers=0, results=results).added

    assert added(Net(1), TO_16) == 1
    assert added(Net(1), copy.deepcopy(TO_16)) == 0
    other = transforms.Compose([transforms.Resize((17, 17)), *TO_16.transforms[1:]])
    assert added(Net(1), other) == 1
    assert added(Net(2), TO_16) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: lambda image: TO_16(image),
        lambda: transforms.Compose([transforms.Lambda(lambda image: image), TO_16]),
        lambda: transforms.Compose([transforms.RandomHorizontalFlip(), TO_16]),
    ],
    ids=["function", "torchvision's Lambda", "random"],
)
def test_results_with_a_function_are_measured_again(make, tmp_path):
    """Two functions may look alike, so the file never answers for them, and a note says so once."""
    transform = make()
    runs = [
        evaluate(Net(1), images(), transform=transform, workers=0, results=tmp_path / "results.jsonl") for _ in range(2)
    ]
    assert [run.added for run in runs] == [1, 1]
    assert sum("measured again in every run" in note for note in runs[1].notes) == 1


# Bad input


class Pair(Net):
    def forward(self, images):
        return super().forward(images), None


@pytest.mark.parametrize(
    ("module", "data", "transform", "message"),
    [
        (Net(1), images(), lambda image: image, "expected a float tensor .* found a Image"),
        (Net(1), images(), transforms.PILToTensor(), "found a tensor of uint8 and shape"),
        (Net(1), images(), lambda image: TO_16(image)[None], r"of float32 and shape \[1, 3, 16, 16\]"),
        (Net(1), images(), lambda image: TO_16(image)[:1], r"cannot be called with images of shape \[B, 1, 16, 16\]"),
        (Pair(1), images(), TO_16, r"called for logits, .* and returned a tuple"),
        (Net(1, classes=2), images(), TO_16, "the data has 3 classes, the model's head 2"),
        (Net(1), images(), "x", "expected a function of an image, found a str"),
        (Net(1), images(), transforms.ToTensor, "found the class ToTensor"),
        (
            Net(1),
            [*images(count=3), *images(size=(9, 9), count=3)],
            transforms.ToTensor(),
            "tensors of different shapes",
        ),
    ],
    ids=["image", "uint8", "batch", "grey", "tuple", "classes", "text", "class", "sizes"],
)
def test_what_does_not_fit_is_refused_in_a_sentence(module, data, transform, message):
    """The message says what the transform or the module gave, and what is expected."""
    with pytest.raises(ModelError, match=message):
        evaluate(module, data, transform=transform, workers=0)


def test_options_of_weights_have_no_effect_on_a_module_that_is_called():
    """The message names both options."""
    with pytest.raises(UsageError, match=r"`model` has no effect .* `transform`"):
        evaluate(Net(1), images(), transform=TO_16, model="ViT-B-32")


def test_tensors_that_were_transformed_already_need_the_identity():
    """Without a transform the message names both ways out; with the identity, tensors are the module's input."""
    tensors = torch.stack([TO_16(image) for image, _ in images()])
    data = TensorDataset(tensors, torch.tensor([label for _, label in images()]))
    with pytest.raises(SuiteError, match=r"float tensors.*torch\.nn\.Identity"):
        evaluate(clip(), data)
    measured = evaluate(Net(1), data, transform=nn.Identity(), workers=0)
    assert answers(measured)[0].tolist() == by_hand(Net(1), images(), TO_16)


def test_labels_without_names_are_numbers_of_the_heads_classes():
    """All classes of the head compete, also those of which no label occurs, and a note says so."""
    data = [(image, 0) for image, _ in images()]
    measured = evaluate(Net(1), data, transform=TO_16, workers=0)
    assert answers(measured)[0].tolist() == by_hand(Net(1), images(), TO_16)
    assert any("taken as the numbers of the head's 3 classes" in note for note in measured.notes)


def test_a_module_that_cannot_be_copied_is_refused_in_a_sweep():
    """A tensor that the module keeps from an earlier pass is named as the cause."""
    module = Net(1)
    module.kept = module.head(torch.ones(1, 8))
    with pytest.raises(ModelError, match="cannot be copied"):
        sweep(module, Net(2), suite=images(), transform=TO_16, workers=0)
