"""A configuration that asks for more than the tensors can be is refused before anything is built."""

import json

import pytest
import timm

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import ModelError
from mergekit_wise.models.opening import open_model


@pytest.mark.parametrize("section", ["vision_cfg", "text_cfg"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("layers", 10_000_000), ("width", 10**9), ("layers", [10**7] * 4), ("image_size", [10**9, 10**9]), ("x", 10**19)],
    ids=str,
)
def test_no_tower_is_built_from_numbers_that_its_tensors_exclude(section, name, value, small, build, save, monkeypatch):
    """The error names the setting, and open_clip is not asked."""
    for builder in ("_build_vision_tower", "_build_text_tower"):
        monkeypatch.setattr(f"mergekit_wise.models.towers.{builder}", lambda *_, **__: pytest.fail("built"))
    state = build(small).state_dict()
    small[section][name] = value
    if section == "text_cfg":
        monkeypatch.setattr("mergekit_wise.models.building.visual_shapes", lambda _: pytest.fail("built"))
    with pytest.raises(ModelError, match=f"asks for {name} = "):
        open_model(save(state, {"model_cfg": small, "preprocess_cfg": {}}))


@pytest.mark.parametrize("settings", [{"num_classes": 10**12}, {"input_size": [3, 10**6, 10**6]}], ids=str)
def test_timms_settings_are_bounded_as_well(settings, save, tmp_path):
    """A config.json cannot ask for a head or an image of any size."""
    save(timm.create_model("test_vit", num_classes=5).state_dict(), name="hub/model.safetensors")
    config = {"architecture": "test_vit", "pretrained_cfg": settings}
    (tmp_path / "hub" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="asks for"):
        open_model(open_checkpoint(tmp_path / "hub"))


def test_an_image_encoder_that_timm_would_fetch_is_refused(small, build, save):
    """Whatever a file names as timm's model, nothing is downloaded and no local folder is read."""
    state = build(small).state_dict()
    for name in ("hf-hub:timm/test_vit", "hf_hub:timm/test_vit", "local-dir:/tmp"):
        small["vision_cfg"] = {"timm_model_name": name, "timm_model_pretrained": True, "image_size": 32}
        with pytest.raises(ModelError, match="would have to download"):
            open_model(save(state, {"model_cfg": small, "preprocess_cfg": {}}))
