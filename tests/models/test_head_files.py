"""Heads in files of their own give the predictions of the library that made them."""

import json

import numpy as np
import open_clip
import pytest
import torch
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from torch import nn
from torch.nn import functional

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import CheckpointError, ModelError
from mergekit_wise.models.head_files import HeadReading, open_head, read_head
from mergekit_wise.models.opening import open_model


@pytest.fixture
def opened(small, build, save, filled):
    """A head's file and how it is read -> the model with this head on a random tower, and features of images."""
    clip = build(small)
    tower = save(clip.visual.state_dict(), {"model_cfg": small, "preprocess_cfg": {}}, "tower.safetensors")
    images = torch.randn(60, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        raw = clip.encode_image(images)

    def opened(path, *reading):
        with open_head(path) as file:
            return filled(open_model(tower, head=file, reading=HeadReading(*reading)), tower)

    return opened, images, raw.numpy(), functional.normalize(raw, dim=-1).numpy()


@torch.no_grad()
def logits(model, images):
    return model.module(images).numpy()


def read(path):
    with open_head(path) as file:
        return read_head(file, 4)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("kind", ["normalized", "raw"])
def test_predictions_are_scikit_learns_image_for_image(kind, classes, suffix, opened, tmp_path):
    """Probabilities agree, too, also of a binary probe, whose coefficients are one row."""
    opened, images, raw, normalized = opened
    features, path = raw if kind == "raw" else normalized, tmp_path / f"probe.{suffix}"
    labels = np.arange(len(images)) % classes
    probe = LogisticRegression(max_iter=1000).fit(features, labels)
    # safetensors writes memory as it lies, and coef_ may lie by column.
    numbers = {name: np.ascontiguousarray(getattr(probe, name)) for name in ("coef_", "intercept_", "classes_")}
    np.savez(path, **numbers) if suffix == "npz" else save_file(numbers, path)
    model = opened(path, kind)
    found = logits(model, images)
    np.testing.assert_array_equal(found.argmax(axis=1), probe.predict(features))
    np.testing.assert_allclose(
        torch.softmax(torch.from_numpy(found), 1).numpy(), probe.predict_proba(features), atol=1e-4
    )
    said = " ".join(model.notes)
    assert ("features that are not normalised" if kind == "raw" else "normalised features") in said
    assert ("row of zeros" in said) == (classes == 2)


def test_one_versus_rest_is_read_the_same_way(opened, tmp_path):
    """A ridge classifier's decisions are the largest of its columns."""
    opened, images, _, features = opened
    probe = RidgeClassifier().fit(features, np.arange(len(images)) % 4)
    np.savez(tmp_path / "probe.npz", coef_=probe.coef_, intercept_=probe.intercept_)
    found = logits(opened(tmp_path / "probe.npz"), images)
    np.testing.assert_array_equal(found.argmax(axis=1), probe.predict(features))


def test_names_of_classes_go_with_the_head(tmp_path):
    """Those of scikit-learn's classes_, in its order; other numbers than 0, 1, 2 ... are refused."""
    numbers = {"coef_": np.ones((3, 4)), "intercept_": np.zeros(3)}
    np.savez(tmp_path / "named.npz", **numbers, classes_=np.array(["cat", "dog", "newt"]))
    with open_head(tmp_path / "named.npz") as file:
        assert json.loads(read_head(file, 4).metadata["classnames"]) == ["cat", "dog", "newt"]
    np.savez(tmp_path / "numbered.npz", **numbers, classes_=np.array([3, 5, 8]))
    with (
        pytest.raises(ModelError, match=r"classes_ are 3, 5, 8 .*Save their names"),
        open_head(tmp_path / "numbered.npz"),
    ):
        pass


def test_a_pickle_in_an_archive_is_not_loaded(tmp_path):
    """Names as objects are pickled by NumPy, and never opened."""
    np.savez(tmp_path / "probe.npz", coef_=np.ones((2, 4)), classes_=np.array(["a", "b"], object))
    with pytest.raises(CheckpointError, match=r"astype\(str\)"), open_head(tmp_path / "probe.npz"):
        pass


@pytest.mark.parametrize("suffix", ["npy", "pt"])
def test_open_clips_head_is_transposed(suffix, small, build, opened, tmp_path):
    """What open_clip.build_zero_shot_classifier gives has a column for each class."""
    opened, images, _, features = opened
    tokenizer = open_clip.SimpleTokenizer(context_length=12)
    head = open_clip.build_zero_shot_classifier(build(small), tokenizer, ["cat", "dog", "newt"], ["a {}"]).detach()
    path = tmp_path / f"head.{suffix}"
    np.save(path, head.numpy()) if suffix == "npy" else torch.save({"weight": head}, path)
    model = opened(path)
    np.testing.assert_allclose(logits(model, images), features @ head.numpy(), rtol=1e-4, atol=1e-5)
    assert any("transposed" in note for note in model.notes)


def test_a_square_matrix_is_ambiguous_unless_a_name_or_an_option_decides(opened, tmp_path):
    """As many classes as features: torch's layer with its bias is known, a matrix by itself is not."""
    opened, images, _, features = opened
    layer = nn.Linear(16, 16)
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    with torch.no_grad():
        wanted = layer(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(logits(opened(tmp_path / "layer.pt"), images), wanted, rtol=1e-4, atol=1e-5)
    matrix = layer.weight.detach().numpy()
    np.save(tmp_path / "matrix.npy", matrix)
    with pytest.raises(ModelError, match="--head-rows classes .* --head-rows features"):
        opened(tmp_path / "matrix.npy")
    for rows, own in (("classes", matrix.T), ("features", matrix)):
        found = logits(opened(tmp_path / "matrix.npy", None, rows), images)
        np.testing.assert_allclose(found, features @ own, rtol=1e-4, atol=1e-5)


def test_a_whole_zero_shot_file_is_a_head(small, build, save, opened):
    """Of what wise zeroshot writes, the head is taken and the tower is left."""
    opened, images, _, features = opened
    weight = torch.randn(5, 16, generator=torch.Generator().manual_seed(4))
    head = {"classification_head.weight": weight, "classification_head.bias": torch.zeros(5)}
    save(build(small, 1).visual.state_dict() | head, name="whole.safetensors")
    tower = {f"visual.{name}": tensor for name, tensor in build(small, 1).visual.state_dict().items()}
    path = save(tower | head, name="whole.safetensors").path
    np.testing.assert_allclose(logits(opened(path), images), features @ weight.numpy().T, rtol=1e-4, atol=1e-5)


def test_a_head_for_other_features_is_refused(opened, tmp_path):
    """Neither side of the matrix has the model's features; or the option contradicts the shape."""
    opened = opened[0]
    np.savez(tmp_path / "probe.npz", coef_=np.ones((3, 8)), intercept_=np.zeros(3))
    with pytest.raises(ModelError, match=r"expected a head for 16 features, found one of shape \[3, 8\]"):
        opened(tmp_path / "probe.npz")
    np.savez(tmp_path / "probe.npz", coef_=np.ones((3, 16)), intercept_=np.zeros(3))
    with pytest.raises(ModelError, match=r"--head-rows features: .* holds a matrix \[3, 16\]"):
        opened(tmp_path / "probe.npz", None, "features")
    np.savez(tmp_path / "probe.npz", coef_=np.ones((3, 16)), intercept_=np.zeros(4))
    with pytest.raises(ModelError, match="3 classes, but a bias of 4"):
        opened(tmp_path / "probe.npz")


def test_metadata_says_that_features_are_raw(save, tmp_path):
    """As before; the option overrules it."""
    from safetensors.torch import save_file as save_torch

    save_torch(nn.Linear(4, 3).state_dict(), tmp_path / "head.safetensors", {"normalize": "false"})
    head = open_checkpoint(tmp_path / "head.safetensors")
    said = read_head(head, 4)
    assert said.metadata["classification_head.normalize"] == "false"
    assert "its metadata" in said.notes[-1]
    assert read_head(head, 4, HeadReading("normalized")).metadata["classification_head.normalize"] == "true"
