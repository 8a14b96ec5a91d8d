"""What wise writes keeps the preprocessing that its input declares, and two inputs that differ are reported."""

import json

import numpy as np
import open_clip
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from mergekit_wise.api.convert import convert
from mergekit_wise.api.merge import merge
from mergekit_wise.api.zeroshot import zeroshot
from mergekit_wise.checkpoint import closing
from mergekit_wise.errors import ModelError
from mergekit_wise.models.architecture import declared_preprocessing
from mergekit_wise.models.opening import open_model
from mergekit_wise.models.source import open_source
from mergekit_wise.models.transform import Preprocess

TOWER = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = TOWER | {"image_size": 32, "patch_size": 8}
CONFIG = transformers.CLIPConfig(vision_config=VISION, text_config=TOWER, projection_dim=16, num_labels=5)


def folder(path, kind=transformers.CLIPModel, **changes):
    """A folder of a random model, whose images are resized to 40 pixels and cropped to 32."""
    torch.manual_seed(0)
    model = kind(CONFIG)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(path)
    transformers.CLIPImageProcessorPil(**{"size": 40, "crop_size": 32, **changes}).save_pretrained(path)
    return path


def pictures():
    rng = np.random.default_rng(0)
    sides = rng.integers(20, 90, (80, 2)).tolist()
    return [Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize(size, 3) for size in sides]


def opened(path):
    """The model and the preprocessing of a checkpoint, with its weights set."""
    checkpoint = open_source(path)
    with closing(checkpoint):
        model = open_model(checkpoint)
        model.set_weights({name: (checkpoint.info(name), checkpoint.read(name)) for name in model.names})
    return model, Preprocess.of(model.preprocess)


def inputs(preprocess):
    return torch.stack([preprocess.normalise(preprocess.pixels(image)) for image in pictures()])


@torch.no_grad()
def test_a_folder_predicts_what_it_predicts_in_transformers(tmp_path):
    """In all of 80 images of many shapes, with a size beside the crop and another filter."""
    path = folder(tmp_path / "hub", transformers.CLIPForImageClassification, resample=1)
    processor = transformers.CLIPImageProcessorPil.from_pretrained(path)
    pixels = processor(pictures(), return_tensors="pt").pixel_values
    theirs = transformers.CLIPForImageClassification.from_pretrained(path).eval()(pixels).logits
    model, preprocess = opened(path)
    ours = model.module(inputs(preprocess))
    assert len(theirs.argmax(1).unique()) > 1
    assert torch.equal(ours.argmax(1), theirs.argmax(1))


def test_every_output_keeps_the_preprocessing(tmp_path):
    """A zero-shot model, a merged file and folder, and converted files and folders see the same pixels."""
    path = folder(tmp_path / "hub", resample=5)
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    zeroshot(path, tmp_path / "zs.safetensors", classes=str(tmp_path / "names.txt"))
    for name in ("merged.safetensors", "merged"):
        merge(path, path, tmp_path / name, alpha=0.5)
    convert(path, tmp_path / "oc.safetensors", to="open_clip")
    report = convert(path, tmp_path / "oc", to="open_clip")
    convert(tmp_path / "oc", tmp_path / "hf", to="hf")
    wanted = inputs(opened(path)[1])
    for name in ("zs.safetensors", "merged.safetensors", "merged", "oc.safetensors", "oc", "hf"):
        assert torch.equal(inputs(opened(tmp_path / name)[1]), wanted), name
    processor = transformers.CLIPImageProcessorPil.from_pretrained(tmp_path / "hf")
    torch.testing.assert_close(processor(pictures(), return_tensors="pt").pixel_values, wanted)
    (note,) = (note for note in report.notes if "open_clip itself" in note)
    assert "resize [40, 40]" in note
    assert "interpolation hamming" in note
    assert open_clip.create_model(f"local-dir:{tmp_path / 'oc'}") is not None


def test_open_clips_crops_are_said_to_change_in_a_folder_for_transformers(tmp_path):
    """A model that is only squashed loses nothing."""
    for mode, expected in (("shortest", 1), ("squash", 0)):
        convert(folder(tmp_path / mode), tmp_path / f"{mode}-oc", to="open_clip")
        tensors = load_file(tmp_path / f"{mode}-oc" / "open_clip_model.safetensors")
        config = json.loads((tmp_path / f"{mode}-oc" / "open_clip_config.json").read_text())
        config["preprocess_cfg"] = {"resize_mode": mode}
        save_file(tensors, tmp_path / f"{mode}.safetensors", {"open_clip_config": json.dumps(config)})
        notes = convert(tmp_path / f"{mode}.safetensors", tmp_path / f"{mode}-hf", to="hf").notes
        assert sum("by up to one pixel" in note for note in notes) == expected


def test_a_pair_with_different_preprocessing_is_noted(tmp_path):
    """The note names what differs and whose is used; equal ones need no note."""
    first, second = folder(tmp_path / "zs"), folder(tmp_path / "ft", resample=2)
    notes = merge(first, second, tmp_path / "out").notes
    assert "preprocessing differs (interpolation: bicubic and bilinear): that of ft is used" in notes
    assert opened(tmp_path / "out")[1].interpolation == "bilinear"
    assert not any("preprocessing differs" in note for note in merge(first, first, tmp_path / "same").notes)


def test_a_siglip_folder_declares_its_preprocessing_for_a_conversion(tmp_path):
    """Its architecture has to be named, but its preprocessing does not; what cannot be done is refused."""
    vision = VISION | {"num_hidden_layers": 1}
    model = transformers.SiglipModel(transformers.SiglipConfig(vision_config=vision, text_config=TOWER))
    model.save_pretrained(tmp_path / "hub")
    processor = {"size": {"height": 32, "width": 32}, "resample": 2, "image_mean": [0.4] * 3}
    (tmp_path / "hub" / "preprocessor_config.json").write_text(json.dumps(processor))
    checkpoint = open_source(tmp_path / "hub")
    with closing(checkpoint):
        preprocess_cfg, name = declared_preprocessing(checkpoint, 32)
        with pytest.raises(ModelError, match="32 x 32, and the model takes 64 x 64"):
            declared_preprocessing(checkpoint, 64)
    found = Preprocess.of({"size": 32, **preprocess_cfg})
    wanted = transformers.SiglipImageProcessorPil(**processor)(pictures(), return_tensors="pt").pixel_values
    torch.testing.assert_close(inputs(found), wanted)
    assert name == "preprocessor_config.json"


def test_settings_that_open_clip_ignores_are_named(tmp_path):
    """They are ignored here, too, and where the configuration is from says so."""
    convert(folder(tmp_path / "hub"), tmp_path / "oc", to="open_clip")
    path = tmp_path / "oc" / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["preprocess_cfg"] = {"resize_mode": "squash", "crop_pct": 0.5, "unheard_of": 1}
    path.write_text(json.dumps(config))
    model, preprocess = opened(tmp_path / "oc")
    assert "ignored in preprocess_cfg, as by open_clip: crop_pct, unheard_of" in model.architecture
    assert (preprocess.resized, preprocess.library) == ((32, 32), "open_clip")
