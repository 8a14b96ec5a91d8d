"""wise calibrate: the temperature that is divided into a head, whatever the model, and what it leaves as it was."""

import json
import re

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional

from mergekit_wise.api.calibrate import calibrate, merge_calibrated
from mergekit_wise.api.evaluate import evaluate
from mergekit_wise.errors import ModelError, OutputError, SuiteError, UsageError, WiseError
from mergekit_wise.options import CalibrateOptions, MergeOptions

TIMM = "timm:test_vit.r160_in1k"
CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic"},
}
NAMES = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """A folder of noisy images of three classes."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in NAMES:
        (root / name).mkdir()
        for number in range(20):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(root / name / f"{number}.png")
    return root


def clip(path, *, classes=3, dtype=torch.float32, head=True, scale=30.0):
    """A tiny CLIP with an overconfident head, or without head, as a file."""
    torch.manual_seed(0)
    model = open_clip.CLIP(**CONFIG["model_cfg"])
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if head:
        state = {name: tensor for name, tensor in state.items() if name.startswith("visual.")}
        state["classification_head.weight"] = scale * torch.randn(classes, 16)
        state["classification_head.bias"] = torch.randn(classes)
    metadata = {"open_clip_config": json.dumps(CONFIG)}
    save_file({name: tensor.to(dtype).contiguous() for name, tensor in state.items()}, path, metadata)
    return path


def vit(path, *, classes=3, **changes):
    """A tiny classifier of timm's, overconfident, as a file."""
    torch.manual_seed(0)
    model = timm.create_model("test_vit.r160_in1k", num_classes=classes, **changes)
    with torch.no_grad():
        model.get_classifier().weight.mul_(300)
    save_file(model.state_dict(), path)
    return path


def labelled(source, noise, **options):
    """A folder of the same images, seven of ten in the class that the model predicts, the others in the next one."""
    root = source.with_name(f"{source.stem}-images")
    files = sorted(noise.glob("*/*.png"))
    for number, predicted in enumerate(numbers(source, noise, **options)[0]):
        name = NAMES[(predicted + (number % 10 > 6)) % 3 if number > 2 else number]
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / f"{number}.png").write_bytes(files[number].read_bytes())
    return root


def numbers(path, images, **options):
    """Classes predicted for every image, and the record."""
    details = path.with_name("details.jsonl")
    record = evaluate(path, str(images), results=None, per_sample=details, **options).records[0]
    return [json.loads(line)["predicted"] for line in details.read_text().splitlines()], record


def test_a_head_is_divided_and_nothing_else_changes(noise, tmp_path):
    """Weight and bias divided by T; every other byte, and every prediction, as before; the NLL is the lowest."""
    source, output = clip(tmp_path / "m.safetensors"), tmp_path / "c.safetensors"
    images = labelled(source, noise)
    report = calibrate(source, output, on=str(images))
    before, after = load_file(source), load_file(output)
    t = report.fit.temperature
    assert t > 1
    for name, tensor in before.items():
        if name.startswith("classification_head."):
            assert torch.equal(after[name], (tensor.double() / t).float())
        else:
            assert torch.equal(after[name], tensor)
    first, second = numbers(source, images), numbers(output, images)
    assert first[0] == second[0]
    assert second[1].calibration["nll"] < first[1].calibration["nll"]
    assert report.fit.before.values == pytest.approx(first[1].calibration)
    assert report.fit.after.values == pytest.approx(second[1].calibration)
    for other in (0.98, 1.02):
        changed = {n: v / other if n.startswith("classification_head.") else v for n, v in after.items()}
        save_file(changed, tmp_path / "o.safetensors", {"open_clip_config": json.dumps(CONFIG)})
        assert numbers(tmp_path / "o.safetensors", images)[1].calibration["nll"] > second[1].calibration["nll"]


def test_the_file_says_what_it_was_divided_by(noise, tmp_path, wise):
    """The metadata keep what was there and list T, data set and tensors; inspect shows it; twice lists two."""
    source, output = clip(tmp_path / "m.safetensors"), tmp_path / "c.safetensors"
    images = labelled(source, noise)
    calibrate(source, output, on=str(images), limit=30)
    calibrate(output, tmp_path / "d.safetensors", on=str(images))
    with safe_open(tmp_path / "d.safetensors", "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["open_clip_config"]) == CONFIG
    first, second = json.loads(metadata["mergekit_wise_calibration"])
    assert (first["images"], second["images"]) == (30, 60)
    assert set(second["tensors"]) == {"classification_head.weight", "classification_head.bias"}
    assert first["temperature"] > 1
    assert "mergekit_wise_calibration" in wise("inspect", output).stdout


def test_a_clip_without_head_gets_another_logit_scale(noise, tmp_path):
    """ln T is taken from logit_scale, so that the head of class names is divided; the text tower is the same."""
    source, output = clip(tmp_path / "m.safetensors", head=False), tmp_path / "c.safetensors"
    images = labelled(source, noise)
    report = calibrate(source, output, on=str(images))
    before, after = load_file(source), load_file(output)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"logit_scale"}
    assert float(after["logit_scale"]) == pytest.approx(float(before["logit_scale"]) - np.log(report.fit.temperature))
    first, second = numbers(source, images), numbers(output, images)
    assert first[0] == second[0]
    assert second[1].calibration["nll"] == pytest.approx(report.fit.after.values["nll"], rel=1e-6)


def test_a_classifier_of_timms_is_calibrated(noise, tmp_path):
    """timm's own module gives the logits of the written file divided by T, and the NLL that torch finds lowest."""
    source, output = vit(tmp_path / "m.safetensors"), tmp_path / "c.safetensors"
    images = labelled(source, noise, model=TIMM)
    report = calibrate(source, output, on=str(images), model=TIMM)
    model = timm.create_model("test_vit.r160_in1k", num_classes=3).eval()
    pixels = torch.randn(4, 3, 160, 160)
    with torch.no_grad():
        model.load_state_dict(load_file(source))
        before = model(pixels)
        model.load_state_dict(load_file(output))
        assert torch.allclose(model(pixels), before / report.fit.temperature, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_of_a_narrow_head_is_counted(dtype, noise, tmp_path):
    """The dtype stays; predictions that rounding changes are counted in a note, and are those that evaluation sees."""
    source, output = clip(tmp_path / "m.safetensors", dtype=dtype), tmp_path / "c.safetensors"
    images = labelled(source, noise)
    report = calibrate(source, output, on=str(images))
    assert load_file(output)["classification_head.weight"].dtype == dtype
    changed = sum(a != b for a, b in zip(numbers(source, images)[0], numbers(output, images)[0], strict=True))
    assert report.fit.changed == changed
    assert any("changed" in note for note in report.notes) == (changed > 0)


def test_several_files_and_folders(noise, tmp_path):
    """Shards hold what one file holds, and a folder comes with the files beside the weights."""
    source = clip(tmp_path / "m.safetensors")
    images = labelled(source, noise)
    calibrate(source, tmp_path / "one.safetensors", on=str(images))
    calibrate(source, tmp_path / "c.safetensors", on=str(images), shard_size="20kB")
    shards = sorted(tmp_path.glob("c-*.safetensors"))
    assert len(shards) > 1
    joined = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    assert joined.keys() == (one := load_file(tmp_path / "one.safetensors")).keys()
    assert all(torch.equal(joined[name], one[name]) for name in one)
    folder = tmp_path / "folder"
    folder.mkdir()
    clip(folder / "open_clip_model.safetensors", head=False)
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG))
    report = calibrate(folder, tmp_path / "written", on=str(labelled(folder / "open_clip_model.safetensors", noise)))
    assert (tmp_path / "written" / "open_clip_config.json").read_text() == json.dumps(CONFIG)
    written = load_file(tmp_path / "written" / "open_clip_model.safetensors")
    assert float(written["logit_scale"]) == pytest.approx(np.log(1 / 0.07) - np.log(report.fit.temperature), rel=1e-6)


def test_labels_that_determine_no_temperature_are_refused(noise, tmp_path):
    """One image that is right, and a model that is right on all, give an error that says why, and no file."""
    source, output = clip(tmp_path / "m.safetensors"), tmp_path / "c.safetensors"
    images = labelled(source, noise)
    predicted = numbers(source, images)[0]
    right = tmp_path / "right"
    for number, name in enumerate(predicted):
        (right / NAMES[name]).mkdir(parents=True, exist_ok=True)
        file = sorted(images.glob("*/*.png"))[number]
        (right / NAMES[name] / f"{number}.png").write_bytes(file.read_bytes())
    with pytest.raises(SuiteError, match="determine no temperature.*right on all"):
        calibrate(source, output, on=str(right), classnames=list(NAMES))
    assert not output.exists()


def test_logits_that_are_not_finite_are_refused(noise, tmp_path):
    """NaN in the head is an error that counts the images, and no file."""
    source, output = clip(tmp_path / "m.safetensors"), tmp_path / "c.safetensors"
    images = labelled(source, noise)
    state = load_file(source)
    state["classification_head.bias"][1] = torch.nan
    save_file(state, source, {"open_clip_config": json.dumps(CONFIG)})
    with pytest.raises(ModelError, match="60 images.*infinite or NaN"):
        calibrate(source, output, on=str(images))
    assert not output.exists()


def test_a_model_whose_last_layer_is_not_linear_is_refused(noise, tmp_path):
    """A distilled model of timm's has two heads, whose average are the logits."""
    torch.manual_seed(0)
    model = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=3, embed_dim=24, depth=1, num_heads=2)
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    with pytest.raises(WiseError, match=r"linear layer|fit the architecture"):
        calibrate(
            tmp_path / "m.safetensors",
            tmp_path / "c.safetensors",
            on=str(noise),
            model="timm:deit_tiny_distilled_patch16_224",
        )
    assert not (tmp_path / "c.safetensors").exists()


def test_inputs_are_not_replaced_and_one_data_set_is_needed(noise, tmp_path, wise):
    """The output is not the input, and two data sets are an error; both before any work."""
    source = clip(tmp_path / "m.safetensors")
    with pytest.raises(OutputError, match="would be replaced"):
        calibrate(source, source, on=str(noise))
    with pytest.raises(UsageError, match="expected one data set, found 2"):
        calibrate(source, tmp_path / "c.safetensors", on="digits-noisy,digits-small")


def test_a_calibrated_mixture_is_still_verified(noise, tmp_path, wise):
    """verify compares the divided tensors with recorded checksums, all others with the sources, and finds a change."""
    first = clip(tmp_path / "zs.safetensors")
    state = {name: tensor + 0.01 for name, tensor in load_file(first).items()}
    save_file(state, tmp_path / "ft.safetensors", {"open_clip_config": json.dumps(CONFIG)})
    wise("merge", first, tmp_path / "ft.safetensors", "-o", tmp_path / "m.safetensors")
    images = labelled(tmp_path / "m.safetensors", noise)
    done = wise("calibrate", tmp_path / "m.safetensors", "--on", images, "-o", tmp_path / "c.safetensors")
    assert done.exit_code == 0, done.output
    assert re.search(r"logits divided by T = \d+\.\d{4}", done.stdout)
    sources = ("--zeroshot", first, "--finetuned", tmp_path / "ft.safetensors")
    found = wise("verify", tmp_path / "c.safetensors", *sources)
    assert found.exit_code == 0, found.output
    assert "2 recomputed after merging" in found.stdout
    with safe_open(tmp_path / "c.safetensors", "pt") as file:
        metadata = file.metadata()
    changed = load_file(tmp_path / "c.safetensors")
    changed["classification_head.bias"] += 1
    save_file(changed, tmp_path / "c.safetensors", metadata)
    assert wise("verify", tmp_path / "c.safetensors", *sources).exit_code == 1


def test_the_temperature_is_that_of_the_logits_by_torch(noise, tmp_path):
    """A fine grid over T on logits that open_clip computes has its lowest NLL at the fitted temperature."""
    source = clip(tmp_path / "m.safetensors")
    images = labelled(source, noise)
    report = calibrate(source, tmp_path / "c.safetensors", on=str(images))
    state = load_file(source)
    model = open_clip.CLIP(**CONFIG["model_cfg"])
    model.load_state_dict({n: t for n, t in state.items() if n.startswith("visual.")}, strict=False)
    files = sorted(images.glob("*/*.png"))
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255 for file in files])
    with torch.no_grad():
        features = functional.normalize(model.eval().visual((pixels - 0.5) / 0.25), dim=-1)
        logits = features @ state["classification_head.weight"].T + state["classification_head.bias"]
    labels = torch.tensor([NAMES.index(file.parent.name) for file in files])
    grid = report.fit.temperature * torch.linspace(0.9, 1.1, 2001, dtype=torch.float64)
    losses = [float(functional.cross_entropy(logits.double() / t, labels)) for t in grid]
    assert abs(int(np.argmin(losses)) - 1000) <= 2


def test_a_merged_and_calibrated_file_is_that_of_two_commands(noise, tmp_path, wise):
    """Merging and calibrating at once writes the bytes of both commands, and leaves nothing else."""
    first, second = clip(tmp_path / "zs.safetensors"), tmp_path / "ft.safetensors"
    save_file({n: t + 0.01 for n, t in load_file(first).items()}, second, {"open_clip_config": json.dumps(CONFIG)})
    wise("merge", first, second, "--alpha", "0.3", "-o", tmp_path / "one.safetensors")
    images = labelled(tmp_path / "one.safetensors", noise)
    calibrate(tmp_path / "one.safetensors", tmp_path / "two.safetensors", on=str(images))
    before = set(tmp_path.iterdir())
    merge_calibrated(
        MergeOptions(first, second, tmp_path / "one-step.safetensors", alpha=0.3),
        CalibrateOptions(first, tmp_path / "one-step.safetensors", on=str(images)),
    )
    assert set(tmp_path.iterdir()) - before == {tmp_path / "one-step.safetensors"}
    assert (tmp_path / "one-step.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
