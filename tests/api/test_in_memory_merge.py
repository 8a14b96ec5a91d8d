"""Merging models in memory gives the bytes of the merged file, whatever form each model has."""

import copy
import itertools
import json
from pathlib import Path

import open_clip
import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import parametrizations

from mergekit_wise import interpolate_, merge
from mergekit_wise.errors import CheckpointError, MismatchError, UsageError
from tests.models.conftest import SMALL

SMALL_HF = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 1}


def moved(module, seed):
    """The module with random weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module


def clip(seed, **changes):
    return moved(open_clip.CLIP(**copy.deepcopy(SMALL), **changes), seed)


def hugging_face(seed):
    config = transformers.CLIPConfig(
        projection_dim=16,
        vision_config={**SMALL_HF, "image_size": 32, "patch_size": 8},
        text_config={**SMALL_HF, "max_position_embeddings": 12},
    )
    return moved(transformers.CLIPModel(config), seed)


def resnet(seed):
    return moved(timm.create_model("test_resnet", num_classes=3), seed)


class Plain(nn.Module):
    """Layers whose tensors are tied, transposed, empty, whole numbers, and of several dtypes."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Linear(6, 6)
        self.tied = nn.Linear(6, 6)
        self.tied.weight = self.first.weight
        self.half = nn.Linear(5, 2).bfloat16()
        self.strided = nn.Parameter(torch.randn(4, 3).T)
        self.image = nn.Parameter(torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last))
        self.empty = nn.Parameter(torch.empty(0, 3))
        self.register_buffer("steps", torch.tensor(seed))


def saved(module, path):
    torch.save(module.state_dict(), path)
    return path


def saved_folder(module, path):
    module.save_pretrained(path)
    return path


@pytest.mark.parametrize(
    ("make", "save", "ending"),
    [(clip, saved, ".pt"), (resnet, saved, ".pt"), (Plain, saved, ".pt"), (hugging_face, saved_folder, "")],
    ids=["open_clip", "timm", "plain", "transformers"],
)
def test_every_combination_of_forms_gives_the_bytes_of_the_merged_file(make, save, ending, tmp_path, capfd):
    """Module, state dict and file, on either side, give the tensors of the file, and leave both models as they were."""
    models = [make(1), make(2)]
    before = [copy.deepcopy(model.state_dict()) for model in models]
    versions = [[p._version for p in model.parameters()] for model in models]
    paths = [save(model, tmp_path / f"{number}{ending}") for number, model in enumerate(models)]
    merge(*paths, tmp_path / "out.safetensors", alpha=0.3)
    wanted = load_file(tmp_path / "out.safetensors")
    capfd.readouterr()
    forms = [[model, model.state_dict(), path] for model, path in zip(models, paths, strict=True)]
    for first, second in itertools.product(*forms):
        if isinstance(first, Path) and isinstance(second, Path):
            continue
        found = merge(first, second, alpha=0.3)
        assert found.keys() == wanted.keys()
        for name, tensor in wanted.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor), name
    assert capfd.readouterr() == ("", "")
    for model, state, counts in zip(models, before, versions, strict=True):
        assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())
        assert [p._version for p in model.parameters()] == counts


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.bfloat16), (torch.float16, torch.float16)])
def test_dtypes_are_promoted_as_in_files(dtypes, tmp_path):
    """Models in other or in different dtypes give what their files give, dtype included."""
    models = [nn.Linear(9, 7).to(dtype) for dtype in dtypes]
    paths = [saved(model, tmp_path / f"{number}.pt") for number, model in enumerate(models)]
    merge(*paths, tmp_path / "out.safetensors", alpha=0.7)
    wanted, found = load_file(tmp_path / "out.safetensors"), merge(*models, alpha=0.7)
    assert {name: value.dtype for name, value in found.items()} == {name: v.dtype for name, v in wanted.items()}
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile], ids=["DataParallel", "compile"])
def test_wrappers_are_no_part_of_the_model(wrap):
    """A compiled or parallel module gives the state dict of the module inside."""
    first, second = resnet(1), resnet(2)
    found = merge(wrap(first), second, alpha=0.5)
    assert found.keys() == second.state_dict().keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in merge(first, second, alpha=0.5).items())


def test_the_state_dict_loads_without_this_package(tmp_path):
    """What is returned loads strictly, and a file that torch.save wrote of it holds an ordinary dictionary."""
    first, second = resnet(1), resnet(2)
    found = merge(first, second)
    first.load_state_dict(found)
    torch.save(found, tmp_path / "x.pt")
    assert type(torch.load(tmp_path / "x.pt", weights_only=True)).__name__ == "OrderedDict"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_set_in_place(dtype):
    """The module gets the mixture's values in its own dtype, under another library's names, and keeps its gradients."""
    first, second = clip(1, quick_gelu=True), clip(2, quick_gelu=True)
    module = hugging_face(3).to(dtype)
    weights = list(module.parameters())
    weights[0].grad = torch.ones_like(weights[0])
    assert interpolate_(module, first, second, alpha=0.4) is module
    assert all(one is other for one, other in zip(weights, module.parameters(), strict=True))
    assert bool((weights[0].grad == 1).all())
    wanted = moved(open_clip.CLIP(**copy.deepcopy(SMALL), quick_gelu=True), 4).eval()
    mixed = {
        name: ((1 - alpha_32(0.4)) * a + alpha_32(0.4) * second.state_dict()[name])
        for name, a in first.state_dict().items()
    }
    wanted.load_state_dict(mixed)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = module.eval().float().get_image_features(images)
        features = getattr(features, "pooler_output", features)
        torch.testing.assert_close(
            features, wanted.encode_image(images), rtol=0, atol=1e-4 if dtype == torch.float32 else 0.05
        )


def alpha_32(alpha):
    return torch.tensor(alpha, dtype=torch.float32)


def test_the_module_may_be_one_of_the_two():
    """Every mixture is of the values from before the call, so 0.5 twice from one module is a quarter of it."""
    first, second = resnet(1), resnet(2)
    wanted = merge(first, second, alpha=0.5)
    interpolate_(first, first, second, alpha=0.5)
    assert all(torch.equal(first.state_dict()[name], tensor) for name, tensor in wanted.items())


def test_the_module_keeps_the_order_of_its_own_classes():
    """Rows of the head are found by the names of the classes that each module declares."""

    def named(seed, names):
        model = resnet(seed)
        model.pretrained_cfg = {**model.pretrained_cfg, "label_names": names}
        return model

    first, second = named(1, ["cat", "dog", "eel"]), named(2, ["cat", "dog", "eel"])
    module = named(3, ["eel", "cat", "dog"])
    wanted = merge(first, second, alpha=0.5)["fc.weight"]
    interpolate_(module, first, second, alpha=0.5)
    assert torch.equal(module.fc.weight, wanted[[2, 0, 1]])


def test_nothing_is_set_if_the_mixture_does_not_fit():
    """A module of other shapes is a MismatchError, and keeps every value."""
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 5))
    before = copy.deepcopy(module.state_dict())
    pair = [nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 6)) for _ in range(2)]
    with pytest.raises(MismatchError, match=r"1\.weight"):
        interpolate_(module, *pair)
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())


LAZY = nn.Sequential(nn.LazyLinear(3))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"epoch": 3, "model": {"w": torch.ones(2)}}, r"'epoch', an entry of type int.*checkpoint\['model'\]"),
        ({"w": torch.ones(2).numpy()}, r"an entry of type ndarray.*torch\.from_numpy"),
        ({1: torch.ones(2)}, "whose name is no text"),
        (nn.ReLU(), "has no tensors"),
        (nn.Linear(2, 2, device="meta"), "on the meta device"),
        (LAZY, "has no shape yet"),
        ({"w": torch.ones(2).to_sparse()}, "sparse"),
    ],
    ids=["nested", "numpy", "number", "empty", "meta", "lazy", "sparse"],
)
def test_what_is_no_state_dict_is_refused_in_a_sentence(model, message):
    """The message says what was found in the place of a tensor, and what to give."""
    with pytest.raises(CheckpointError, match=message):
        merge(model, model)


@pytest.mark.parametrize("model", [nn.Linear, lambda images: images], ids=["class", "function"])
def test_a_class_or_a_function_is_no_model(model):
    """It is refused by the name of the argument."""
    with pytest.raises(UsageError, match=r"^`zeroshot` .*expected a path, a name, a module"):
        merge(model, nn.Linear(2, 2))


def test_a_parametrized_module_is_refused():
    """Mixing the parts of a parametrization is not mixing the weights that they make."""
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 3)))
    with pytest.raises(CheckpointError, match="remove_parametrizations"):
        merge(model, model)


def test_a_quantized_tensor_is_refused():
    """Its elements are no weights without scale and zero point."""
    tensor = torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.qint8)
    with pytest.raises(CheckpointError, match="qint8"):
        merge({"w": tensor}, {"w": tensor})


def test_the_metadata_is_what_a_file_of_the_model_declares():
    """An open_clip model's configuration is among what the merged weights record, with QuickGELU."""
    found = merge(clip(1, quick_gelu=True), clip(2, quick_gelu=True))
    config = json.loads(found.metadata["open_clip_config"])
    assert config["model_cfg"]["quick_gelu"] is True
    assert config["model_cfg"]["vision_cfg"]["width"] == 64
