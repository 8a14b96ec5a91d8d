"""Every kind of pair is swept with every rule: what is measured is what is written, and what the last line makes."""

import json
import shlex
from contextlib import chdir

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mergekit_wise.api.evaluate import evaluate
from mergekit_wise.api.merge import merge
from mergekit_wise.api.sweep import sweep
from mergekit_wise.api.verify import verify
from mergekit_wise.api.zeroshot import zeroshot
from mergekit_wise.errors import MismatchError, OutputError, SuiteError, Unsaved, UsageError
from tests.api.test_families import hugging_face

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
VIT = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
DIGITS = ["nine", "eight", "seven", "six", "five", "four", "three", "two", "one", "zero"]
SUITE, LIMIT = "digits-noisy", 20


def config(vision):
    model_cfg = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": TEXT}
    return json.loads(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": {"size": 32}}))


def clip(seed, vision=VIT):
    """The weights of a small CLIP, under open_clip's names; statistics of batch norms are no zeros and ones."""
    torch.manual_seed(seed)
    state = open_clip.CLIP(**config(vision)["model_cfg"]).state_dict()
    return {
        name: tensor + 0.05 * torch.rand(tensor.shape) if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }


def head(seed, classes=10):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, 16, generator=generator)
    return {"classification_head.weight": weight, "classification_head.bias": torch.zeros(classes)}


def classifier(seed, vision=VIT):
    return {name: tensor for name, tensor in clip(seed, vision).items() if name.startswith("visual.")} | head(seed)


def save(state, path, vision=VIT, **metadata):
    save_file(state, path, {"open_clip_config": json.dumps(config(vision)), **metadata})
    return path


def clips(folder):
    return save(clip(0), folder / "zs.safetensors"), save(clip(1), folder / "ft.safetensors")


def classifiers(folder):
    return save(classifier(0), folder / "zs.safetensors"), save(classifier(1), folder / "ft.safetensors")


def clip_and_classifier(folder):
    names = {"classnames": json.dumps(DIGITS)}
    return save(clip(0), folder / "zs.safetensors"), save(classifier(1), folder / "ft.safetensors", **names)


def two_libraries(folder):
    save_file(hugging_face(classifier(0)) | head(0), folder / "zs.safetensors")
    return folder / "zs.safetensors", save(classifier(1), folder / "ft.safetensors")


def resnets(folder):
    sides = (save(classifier(seed, RESNET), folder / f"{seed}.safetensors", RESNET) for seed in (0, 1))
    return tuple(sides)


def timm_resnets(folder):
    paths = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = timm.create_model("resnet10t", num_classes=10)
        settings = {"architecture": "resnet10t", "pretrained_cfg": {"input_size": [3, 32, 32]}}
        state = {
            name: tensor + torch.rand(tensor.shape) if "running" in name else tensor
            for name, tensor in model.state_dict().items()
        }
        save_file(state, folder / f"{seed}.safetensors", {"timm_config": json.dumps(settings)})
        paths.append(folder / f"{seed}.safetensors")
    return tuple(paths)


KINDS = (clips, classifiers, clip_and_classifier, two_libraries, resnets, timm_resnets)
RULES = {
    "none": {},
    "keep": {"keep": "ft:*bias"},
    "patterns": {"alpha_for": ("*conv1*=0.9", "*bias=0.123456789")},
    "depth": {"depth_alpha": "0.2:0.8"},
    "dtype": {"dtype": "bf16", "frozen_tolerance": 0.0},
    "fisher": {"fisher_floor": 1e-6},
    "statistics": {"recalibrate": "digits-noisy"},
}
CASES = [
    (kind, rule)
    for kind in KINDS
    for rule in RULES
    if (rule != "statistics" or kind in (resnets, timm_resnets))
    and (rule in ("none", "keep", "statistics") or kind in (clip_and_classifier, resnets))
]


def fishers(pair, folder):
    """Fisher information of half the tensors of the fine-tuned file, for both sides."""
    state = load_file(pair[1])
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        some = [name for name in state if name.startswith("visual.") and state[name].is_floating_point()]
        fisher = {name: torch.rand(state[name].shape, generator=generator) for name in sorted(some)[::2]}
        save_file(fisher, folder / f"fisher{seed}.safetensors")
    return folder / "fisher0.safetensors", folder / "fisher1.safetensors"


@pytest.mark.parametrize(("kind", "rule"), CASES, ids=[f"{kind.__name__} {rule}" for kind, rule in CASES])
def test_what_is_measured_is_what_is_written_and_what_the_last_line_makes(kind, rule, tmp_path, wise):
    """Records agree with `wise eval` of the written file, weights' digest and key included, and of the line's file."""
    pair, rules = kind(tmp_path), dict(RULES[rule])
    if rule == "fisher":
        rules["fisher"] = fishers(pair, tmp_path)
    alphas = (0.3,) if rule == "depth" else (0.3, 1.0)
    best = tmp_path / "best.safetensors"
    report = sweep(*pair, alphas=alphas, suite=SUITE, limit=LIMIT, output=best, **rules)
    chosen = [record for record in report.records if record.alpha == report.recommendation.alpha]
    (alone,) = evaluate(best, SUITE, limit=LIMIT).records
    assert (chosen[0].weights, chosen[0].correct, chosen[0].key) == (alone.weights, alone.correct, alone.key)
    assert bool(chosen[0].rule) == bool(rules)
    assert report.saved == (best,)
    written = best.read_bytes()
    best.unlink()
    with chdir(tmp_path):
        for command in report.merge_command.split(" && "):
            result = wise(*shlex.split(command)[1:])
            assert result.exit_code == 0, f"{command}\n{result.output}"
    assert best.read_bytes() == written
    sources = (tmp_path / "zs-head.safetensors" if kind is clip_and_classifier else pair[0], pair[1])
    verdict = verify(best, zeroshot=sources[0], finetuned=sources[1], fisher=rules.get("fisher"))
    assert (verdict.difference, verdict.notes if rule != "statistics" else ()) == (None, ())


@pytest.mark.parametrize("declared", [True, False])
def test_the_head_of_a_clip_is_that_of_wise_zeroshot(declared, tmp_path):
    """The sweep of a CLIP beside a classifier equals that of the file made by `zeroshot`; the note counts classes."""
    names = {"classnames": json.dumps(DIGITS)} if declared else {}
    pair = save(clip(0), tmp_path / "zs.safetensors"), save(classifier(1), tmp_path / "ft.safetensors", **names)
    report = sweep(*pair, alphas=(0, 0.5), suite=SUITE, limit=LIMIT, save=str(tmp_path / "{alpha}"))
    of = {"head_of": pair[1]} if declared else {"dataset": SUITE}
    zeroshot(pair[0], tmp_path / "made", templates=["a photo of a {}."], **of)
    plain = sweep(tmp_path / "made", pair[1], alphas=(0, 0.5), suite=SUITE, limit=LIMIT)
    assert [record.correct for record in report.records] == [record.correct for record in plain.records]
    assert [record.weights for record in report.records] == [record.weights for record in plain.records]
    (note,) = (note for note in report.notes if "no classification head" in note)
    assert "10 classes of " in note
    assert str(pair[1] if declared else SUITE) in note
    merge(tmp_path / "made", pair[1], tmp_path / "merged", alpha=0.5)
    merged = load_file(tmp_path / "merged")
    assert all(torch.equal(tensor, merged[name]) for name, tensor in load_file(tmp_path / "0.5").items())


def test_a_head_of_other_classes_is_not_made(tmp_path, wise):
    """Without names, and with another number of classes in the data, the pair is refused; the advice works."""
    tower = {name: tensor for name, tensor in clip(1).items() if name.startswith("visual.")}
    pair = save(clip(0), tmp_path / "zs.safetensors"), save(tower | head(1, 7), tmp_path / "ft.safetensors")
    result = wise("sweep", *pair, "--suite", SUITE, "--limit", "20", "--results", tmp_path / "r.jsonl")
    assert result.exit_code == 1
    lines = [line.strip() for line in result.stderr.splitlines() if line.startswith("    ")]
    assert any(line.startswith("wise zeroshot ") for line in lines)
    (options,) = (shlex.split(line) for line in lines if line.startswith("--keep"))
    with pytest.raises(MismatchError):
        sweep(*pair, suite=SUITE, limit=LIMIT)
    folder = tmp_path / "seven"
    for number in range(7):
        (folder / f"n{number}").mkdir(parents=True)
        torch.manual_seed(number)
        Image.fromarray((torch.rand(8, 8, 3) * 255).byte().numpy()).save(folder / f"n{number}" / "x.png")
    result = wise("sweep", *pair, "--suite", folder, "--alphas", "0.5", "--results", tmp_path / "r.jsonl", *options)
    assert result.exit_code == 0, result.output


def test_tensors_that_no_evaluation_needs_may_differ(tmp_path):
    """They are named in a note, change no number, and are in the merged file."""
    first = classifier(0) | {"logit_scale": torch.tensor(1.0), "old.adam": torch.ones(3), "ids": torch.arange(3)}
    second = classifier(1) | {"logit_scale": torch.tensor([1.0]), "new.adam": torch.ones(2), "ids": torch.ones(3)}
    pair = save(first, tmp_path / "zs.safetensors"), save(second, tmp_path / "ft.safetensors")
    report = sweep(*pair, alphas=(0.4,), suite=SUITE, limit=LIMIT, output=tmp_path / "best.safetensors")
    plain = sweep(*classifiers(tmp_path), alphas=(0.4,), suite=SUITE, limit=LIMIT)
    assert [record.weights for record in report.records] == [record.weights for record in plain.records]
    text = " ".join(report.notes)
    assert all(name in text for name in ("logit_scale", "old.adam", "new.adam", "ids"))
    written = load_file(tmp_path / "best.safetensors")
    assert {"old.adam", "new.adam"} <= written.keys()
    assert written["ids"].dtype == torch.float32


def test_tensors_that_the_evaluation_needs_may_not(tmp_path):
    """A missing layer is refused with an option that `sweep` has, and a rule that leaves one out is refused."""
    pair = classifiers(tmp_path)
    with pytest.raises(UsageError, match=r"leaves out classification_head\.bias"):
        sweep(*pair, suite=SUITE, only="visual.*")
    state = classifier(0)
    del state["visual.ln_pre.bias"]
    save(state, pair[0])
    with pytest.raises(MismatchError, match=r"keep=\['ft:visual\.ln_pre\.bias'\]"):
        sweep(*pair, suite=SUITE)


def test_rules_that_leave_nothing_to_vary_are_refused(tmp_path):
    """Where every tensor has an alpha of its own, several alphas would all give the same weights."""
    with pytest.raises(UsageError, match="changes no tensor"):
        sweep(*classifiers(tmp_path), suite=SUITE, depth_alpha="0.2:0.8")


def test_an_output_that_cannot_be_written_is_refused_before_measuring(tmp_path):
    """Neither a folder that does not exist, nor an input, nor a format that nothing writes costs an evaluation."""
    pair = classifiers(tmp_path)
    results = tmp_path / "r.jsonl"
    for output in (tmp_path / "none" / "x.safetensors", pair[1], tmp_path / "x.onnx"):
        with pytest.raises(OutputError):
            sweep(*pair, suite=SUITE, output=output, results=results)
    assert not results.exists()


def test_statistics_are_estimated_for_every_alpha_from_images_that_are_decoded_once(tmp_path, monkeypatch):
    """Each alpha has the statistics of its own merge; the images are read once."""
    pair = resnets(tmp_path)
    from mergekit_wise.evaluation import recalibration

    decoded, calls = recalibration.decoded, []
    monkeypatch.setattr(recalibration, "decoded", lambda *args, **kw: calls.append(1) or decoded(*args, **kw))
    report = sweep(*pair, alphas=(0, 0.4, 1), suite=SUITE, limit=LIMIT, recalibrate="digits-rotated")
    assert len(calls) == 1
    assert len({record.weights for record in report.records}) == 3
    for record in report.records:
        merge(*pair, tmp_path / "one", alpha=record.alpha, recalibrate="digits-rotated")
        assert evaluate(tmp_path / "one", SUITE, limit=LIMIT).records[0].weights == record.weights
    assert any("--recalibrate" in note for note in sweep(*pair, alphas=(0.4,), suite=SUITE, limit=LIMIT).notes)


def as_predicted(pair, folder):
    """A folder of noisy images, most of them in the class that the mixture at 0.4 predicts."""
    rng, names = np.random.default_rng(0), sorted(DIGITS)
    images, labelled, mixed = folder / "images", folder / "labelled", folder / "0.4.safetensors"
    for number in range(40):
        (images / names[number % 10]).mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(noise).resize((32, 32)).save(images / names[number % 10] / f"{number:02}.png")
    sweep(*pair, alphas=(0.4,), suite=SUITE, limit=4, save=str(folder / "{alpha}.safetensors"))
    evaluate(mixed, str(images), per_sample=folder / "details.jsonl")
    predicted = [json.loads(line)["predicted"] for line in (folder / "details.jsonl").read_text().splitlines()]
    for number, file in enumerate(sorted(images.glob("*/*.png"))):
        name = names[predicted[number] if number % 10 > 2 else number // 3 % 10]
        (labelled / name).mkdir(parents=True, exist_ok=True)
        file.rename(labelled / name / file.name)
    for name in names:  # so that the data set has all classes
        (labelled / name).mkdir(exist_ok=True)
        Image.new("RGB", (32, 32), (names.index(name) * 20, 0, 0)).save(labelled / name / "plain.png")
    return labelled


@pytest.mark.parametrize(
    ("kind", "ending"), [(clip_and_classifier, ".safetensors"), (clips, ".pt"), (timm_resnets, ".safetensors")]
)
def test_the_mixture_is_written_calibrated_and_the_last_line_gives_the_same_file(kind, ending, tmp_path, wise):
    """The report has the temperature; merge, then calibrate, as the last line says, write the same tensors."""
    pair, output = kind(tmp_path), tmp_path / f"best{ending}"
    images = as_predicted(pair, tmp_path)
    given = ("--suite", SUITE, "--limit", "40", "--alphas", "0.4", "--results", tmp_path / "r.jsonl")
    result = wise("sweep", *pair, *given, "-o", output, "--calibrate", images)
    assert result.exit_code == 0, result.output
    report = sweep(*pair, alphas=(0.4,), suite=SUITE, limit=40, output=output, calibrate=str(images))
    fit = report.calibrated.fit
    assert f"T = {fit.temperature:.4f}" in result.stdout
    assert fit.after.values["nll"] < fit.before.values["nll"]
    (before,) = (record for record in report.records if record.alpha == 0.4)
    (after,) = evaluate(output, SUITE, limit=40).records
    assert (after.correct, after.weights == before.weights) == (before.correct, False)
    (own,) = evaluate(output, str(images), limit=40).records
    assert own.calibration["nll"] == pytest.approx(fit.after.values["nll"], rel=1e-6)
    written = output.read_bytes()
    output.unlink()
    assert report.merge_command in result.stdout
    with chdir(tmp_path):
        for command in report.merge_command.split(" && "):
            result = wise(*shlex.split(command)[1:])
            assert result.exit_code == 0, f"{command}\n{result.output}"
    assert output.read_bytes() == written


def test_what_needs_an_evaluation_is_refused_without_one(tmp_path, wise):
    """--save without --suite measures nothing, so it neither recommends a mixture nor draws anything."""
    pair, save = classifiers(tmp_path), tmp_path / "wise-{alpha}.safetensors"
    for option, value in (("-o", "best.safetensors"), ("--plot", "plot.png"), ("--calibrate", SUITE)):
        result = wise("sweep", *pair, "--alphas", "0.5", "--save", save, option, value)
        assert (result.exit_code, "Add --suite" in result.stderr) == (2, True), result.output
    assert not (tmp_path / "wise-0.5.safetensors").exists()


def test_where_no_temperature_is_found_the_last_line_only_merges(tmp_path, monkeypatch):
    """The error has the whole report, and following its line does not end in the same error."""

    def fails(*_):
        raise SuiteError("no temperature")

    monkeypatch.setattr("mergekit_wise.api.sweep.merge_calibrated", fails)
    best = tmp_path / "best.safetensors"
    with pytest.raises(Unsaved, match="no temperature") as caught:
        sweep(*classifiers(tmp_path), alphas=(0.4,), suite=SUITE, limit=4, output=best, calibrate=SUITE)
    words = shlex.split(caught.value.found.merge_command)
    assert (words.count("wise"), words[words.index("-o") + 1]) == (1, str(best))


def test_calibrating_needs_a_file_and_its_own_head(tmp_path):
    """Without -o, with another head, or on several data sets, nothing is measured."""
    pair, results = classifiers(tmp_path), tmp_path / "r.jsonl"
    best = {"output": tmp_path / "best.safetensors", "calibrate": SUITE}
    for options, message in (
        ({"calibrate": SUITE}, "Add .*or leave"),
        ({**best, "head": pair[0]}, "evaluates with another one"),
        ({**best, "calibrate": "digits-noisy,digits-small"}, "expected one data set, found 2"),
    ):
        with pytest.raises(UsageError, match=message):
            sweep(*pair, suite=SUITE, results=results, **options)
    assert not results.exists()
