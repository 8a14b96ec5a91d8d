"""`predict`: classes and probabilities of images without labels, against a plain loop over the images."""

import csv
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import load_file, save_file

import mergekit_wise
from mergekit_wise.analysis.dynamic import fit_mixture, mixing_lambda
from mergekit_wise.api.merge import merge
from mergekit_wise.api.predict import predict
from mergekit_wise.checkpoint import writing
from mergekit_wise.errors import ModelError, OutputError, SuiteError, Unsaved, UsageError
from mergekit_wise.models.architecture import CLASSNAMES_KEY

CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"size": 16, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}
TRANSFORM = image_transform_v2(PreprocessCfg(**CONFIG["preprocess_cfg"]), is_train=False)
NAMES = ("ant", "bee", "cat", "=dog", "elk", "fox")
FILES = [f"{folder}{number}.png" for folder in ("", "a/", "a/b/") for number in range(5)]


def clip(seed):
    """A small CLIP with random weights."""
    torch.manual_seed(seed)
    return open_clip.CLIP(**CONFIG["model_cfg"]).eval()


def save(path, seed, names=NAMES, scale=6.0):
    """A checkpoint of the image encoder and a head, which names its classes if there are names."""
    visual = clip(seed).visual
    tensors = {f"visual.{name}": tensor.contiguous() for name, tensor in visual.state_dict().items()}
    weight = scale * torch.randn(len(NAMES), 16)
    with torch.no_grad():  # features of a random tower hardly differ; what they share is taken off
        shared = torch.nn.functional.normalize(visual(torch.randn(64, 3, 16, 16)), dim=-1).mean(0)
    tensors |= {"classification_head.weight": weight, "classification_head.bias": -weight @ shared}
    declared = {CLASSNAMES_KEY: json.dumps(names)} if names else {}
    save_file(tensors, path, {"open_clip_config": json.dumps(CONFIG), **declared})
    return path


@pytest.fixture
def photos(tmp_path):
    """A folder of images at several depths."""
    rng = np.random.default_rng(0)
    for file in FILES:
        path = tmp_path / "photos" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (18, 20, 3), np.uint8)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def sides(tmp_path):
    """A zero-shot and a fine-tuned checkpoint."""
    return save(tmp_path / "zs.safetensors", 0), save(tmp_path / "ft.safetensors", 1, scale=9.0)


@torch.no_grad()
def looped(path, photos, files):
    """Probabilities [N, 6] by open_clip's tower and a plain head, one image at a time."""
    state = load_file(path)
    visual = clip(0).visual
    visual.load_state_dict({name.removeprefix("visual."): t for name, t in state.items() if name.startswith("visual.")})
    rows = []
    for file in files:
        feature = visual(TRANSFORM(Image.open(photos / file))[None])
        feature = torch.nn.functional.normalize(feature, dim=-1)
        logits = feature @ state["classification_head.weight"].T + state["classification_head.bias"]
        rows.append(logits.double().softmax(dim=1)[0].numpy())
    return np.array(rows)


def assert_same(predictions, probabilities):
    """Whether the predictions are these probabilities, the largest first."""
    for found, row in zip(predictions, probabilities, strict=True):
        order = np.argsort(-row)[: len(found.classes)]
        assert list(found.classes) == order.tolist()
        assert found.probabilities == pytest.approx(row[order], abs=1e-5)
        assert found.names == tuple(NAMES[one] for one in order)


def test_predictions_are_those_of_a_plain_loop(sides, photos):
    """Every image at any depth has its most probable classes, by one checkpoint."""
    report = mergekit_wise.predict(sides[0], photos, batch_size=4, workers=0)
    assert sorted(each.file for each in report.predictions) == sorted(FILES)
    assert_same(report.predictions, looped(sides[0], photos, [each.file for each in report.predictions]))
    assert all(len(each.classes) == 5 and each.alpha is None for each in report.predictions)
    assert len({each.classes[0] for each in report.predictions}) > 1
    assert (report.classnames, report.mixtures, report.output) == (NAMES, (), None)


def test_a_mixture_predicts_what_the_merged_file_does(sides, photos, tmp_path):
    """Two checkpoints and an alpha give the very numbers of the file that merge writes, whose default is 0.5, too."""
    for alpha in (0.3, None):
        merge(*sides, tmp_path / "merged.safetensors", **({} if alpha is None else {"alpha": alpha}))
        mixed = predict(sides[0], photos, mix_with=sides[1], alpha=alpha, workers=0)
        alone = predict(tmp_path / "merged.safetensors", photos, workers=0)
        pairs = list(zip(mixed.predictions, alone.predictions, strict=True))
        assert all((a.classes, a.probabilities, a.names) == (b.classes, b.probabilities, b.names) for a, b in pairs)
        assert {each.alpha for each in mixed.predictions} == {alpha or 0.5}
        assert mixed.mixtures == ((alpha or 0.5, len(FILES)),)


def entropy(probabilities):
    """In nats, of each row."""
    return -(probabilities * np.log(probabilities)).sum(axis=1)


def test_each_image_is_predicted_by_the_mixture_of_its_cluster(sides, photos, tmp_path):
    """Clusters are fitted to the entropies of both ends; each image has the numbers of its merged file."""
    report = predict(sides[0], photos, mix_with=sides[1], dynamic=True, clusters=2, workers=0)
    files = [each.file for each in report.predictions]
    lambdas = mixing_lambda(*(entropy(looped(side, photos, files)) for side in sides))
    fitted = fit_mixture(lambdas, 2)
    assert [each.alpha for each in report.predictions] == pytest.approx(fitted.alphas[fitted.members], abs=1e-4)
    assert len(report.mixtures) == 2
    assert sum(images for _, images in report.mixtures) == len(FILES)
    for alpha, images in report.mixtures:
        merge(*sides, tmp_path / "merged.safetensors", alpha=alpha)
        own = [each for each in report.predictions if each.alpha == alpha]
        assert len(own) == images
        assert_same(own, looped(tmp_path / "merged.safetensors", photos, [each.file for each in own]))
    (note,) = [note for note in report.notes if "fitted to these images" in note]
    assert all(f"alpha {alpha:.3f} for {images} image" in note for alpha, images in report.mixtures)


def test_one_cluster_is_the_static_mixture_bit_for_bit(sides, photos):
    """K = 1 has the predictions and probabilities of its alpha, unreadable images among them."""
    (photos / "a" / "2.png").write_bytes(b"no image")
    given = {"mix_with": sides[1], "max_bad": 1, "batch_size": 4, "workers": 0}
    dynamic = predict(sides[0], photos, dynamic=True, clusters=1, **given)
    ((alpha, images),) = dynamic.mixtures
    assert images == len(FILES)
    assert dynamic.predictions == predict(sides[0], photos, alpha=alpha, **given).predictions


def test_equal_models_make_one_cluster_and_say_so(sides, photos):
    """With the same model at both ends every image gets alpha 0.5, and a note says that clusters are fewer."""
    report = predict(sides[0], photos, mix_with=sides[0], dynamic=True, workers=0)
    assert report.mixtures == ((0.5, len(FILES)),)
    assert any("3 clusters were asked for, and 1 made" in note for note in report.notes)


def test_zero_shot_heads_are_made_of_class_names(photos, tmp_path):
    """A CLIP without a head predicts among the given names, with open_clip's text features and the given templates."""
    model = clip(3)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, path := tmp_path / "clip.safetensors", {"open_clip_config": json.dumps(CONFIG)})
    with pytest.raises(UsageError, match="`classnames` FILE"):
        predict(path, photos, workers=0)
    found = predict(path, photos, classnames=["ant", "bee"], templates=["a {}.", "one {}"], workers=0, top=2)
    tokenize = open_clip.SimpleTokenizer(context_length=12)
    with torch.no_grad():
        rows = []
        for name in ("ant", "bee"):
            features = model.encode_text(tokenize([f"a {name}.", f"one {name}"]), normalize=True).mean(0)
            rows.append(torch.nn.functional.normalize(features, dim=-1))
        for each in found.predictions:
            image = model.encode_image(TRANSFORM(Image.open(photos / each.file))[None], normalize=True)
            shares = (model.logit_scale.exp() * image @ torch.stack(rows).T).softmax(dim=1)[0]
            assert [shares[one].item() for one in each.classes] == pytest.approx(each.probabilities, abs=1e-5)
            assert each.names == tuple(("ant", "bee")[one] for one in each.classes)


def test_names_come_from_the_head_or_are_given(sides, photos, tmp_path):
    """A head without names gives numbers and says so; given names must be as many, and of a naming head's own."""
    bare = save(tmp_path / "bare.safetensors", 0, names=())
    numbers = predict(bare, photos, workers=0)
    assert numbers.classnames == ()
    assert all(each.names == () and each.ranking[0][1] is None for each in numbers.predictions)
    assert any("does not name its classes" in note and "`classnames`" not in note for note in numbers.notes)
    named = predict(bare, photos, classnames=NAMES, workers=0)
    assert_same(named.predictions, looped(bare, photos, [each.file for each in named.predictions]))
    with pytest.raises(UsageError, match="names 2 classes, and the head"):
        predict(bare, photos, classnames=["x", "y"], workers=0)
    some = predict(sides[0], photos, classnames=["cat", "ant"], workers=0)
    whole = looped(sides[0], photos, [each.file for each in some.predictions])[:, [2, 0]]
    for each, row in zip(some.predictions, whole / whole.sum(axis=1, keepdims=True), strict=True):
        assert each.probabilities == pytest.approx(row[list(each.classes)], abs=1e-5)
        assert each.names == tuple(("cat", "ant")[one] for one in each.classes)
    with pytest.raises(ModelError, match="not among the head's 6"):
        predict(sides[0], photos, classnames=["cat", "yak"], workers=0)


def test_files_hold_a_line_for_each_image(sides, photos, tmp_path):
    """JSON Lines and CSV hold the same: file, class, name, probability, the next classes, alpha, or the error."""
    (photos / "a" / "-x.png").write_bytes(b"no image")
    given = {"mix_with": sides[1], "alpha": 0.25, "max_bad": 1, "top": 2, "workers": 0}
    report = predict(sides[0], photos, output=tmp_path / "out.jsonl", **given)
    predict(sides[0], photos, output=tmp_path / "out.csv", **given)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert len(lines) == len(rows) == len(FILES) + 1
    for each, line, row in zip(report.predictions, lines, rows, strict=True):
        assert line["file"] == row["file"].removeprefix("'") == each.file
        if each.file == "a/-x.png":
            assert "no known format" in each.error
            assert line == {"file": each.file, "error": each.error}
            assert (row["error"], row["class"], row["alpha"]) == (each.error, "", "")
            continue
        assert [(top["class"], top["name"], top["probability"]) for top in line["top"]] == each.ranking
        assert (line["class"], line["name"], line["probability"]) == each.ranking[0]
        assert line["alpha"] == float(row["alpha"]) == 0.25
        for ending, (number, name, share) in zip(("", "_2"), each.ranking, strict=True):
            assert (int(row[f"class{ending}"]), float(row[f"probability{ending}"])) == (number, share)
            assert row[f"name{ending}"] == (f"'{name}" if name == "=dog" else name)
    assert any("1 image without a prediction, such as a/-x.png" in note for note in report.notes)
    with pytest.raises(SuiteError, match="only 0 may be"):
        predict(sides[0], photos, workers=0)


def test_tars_and_single_images_are_read(sides, photos, tmp_path):
    """A tar gives its members' names; a single image is predicted as in its folder."""
    whole = {each.file: each for each in predict(sides[0], photos, workers=0).predictions}
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        for number in range(5):
            tar.add(photos / f"{number}.png", f"{number}.png")
    packed = predict(sides[0], tmp_path / "photos.tar", workers=0).predictions
    assert [each.ranking for each in packed] == [whole[f"{number}.png"].ranking for number in range(5)]
    assert [each.file for each in packed] == [f"{number}.png" for number in range(5)]
    (single,) = predict(sides[0], photos / "a" / "3.png", workers=0).predictions
    assert single.file == "3.png"
    assert single.ranking == [(n, name, pytest.approx(p, abs=1e-6)) for n, name, p in whole["a/3.png"].ranking]


def test_logits_that_are_not_finite_are_an_error_of_the_image(photos, tmp_path):
    """A head of infinities predicts nothing, and every line says so; --dynamic has nothing to compare."""
    path = save(tmp_path / "inf.safetensors", 0, scale=float("inf"))
    report = predict(path, photos, workers=0)
    assert {each.error for each in report.predictions} == {"The model's logits are infinite or NaN."}
    with pytest.raises(ModelError, match="`precision` fp32"):
        predict(path, photos, mix_with=path, dynamic=True, workers=0)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"alpha": 0.5}, "`alpha` is for a mixture"),
        ({"dynamic": True}, "`dynamic` is for a mixture"),
        ({"rename": "zs:a=b"}, "`rename` is for a mixture"),
        ({"mix_with": True, "alpha": 0.5, "dynamic": True}, "Leave one out"),
        ({"mix_with": True, "clusters": 2}, "Add `dynamic`"),
        ({"mix_with": True, "alpha": 1.5}, "from 0 .zero-shot. to 1"),
        ({"clusters": 0, "mix_with": True, "dynamic": True}, "at least 1"),
        ({"output": "x.txt"}, r"ends in .jsonl .JSON Lines. or .csv"),
        ({"templates": "plain"}, "does not use templates"),
        ({"head_rows": "classes"}, "Add `head` FILE"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, part, sides, photos):
    """Each error names what is missing or too much."""
    given = options | ({"mix_with": sides[1]} if "mix_with" in options else {})
    with pytest.raises(UsageError, match=part):
        predict(sides[0], photos, workers=0, **given)


def test_what_is_no_image_is_refused(sides, photos, tmp_path):
    """A second checkpoint in place of images is answered with --mix-with; an output beside the images is not read."""
    with pytest.raises(UsageError, match="--mix-with FINETUNED IMAGES"):
        predict(*sides)
    with pytest.raises(SuiteError, match="nowhere"):
        predict(sides[0], tmp_path / "nowhere")
    (photos / "old.csv").write_text("mine")
    with pytest.raises(OutputError, match="would be replaced"):
        predict(sides[0], photos, output=photos / "old.csv", workers=0)
    assert (photos / "old.csv").read_text() == "mine"


def test_an_interrupted_write_leaves_the_earlier_file(sides, photos, tmp_path, monkeypatch):
    """If the disk fills up, the earlier file stays, nothing is left beside it, and the error carries the report."""
    output = tmp_path / "out" / "predictions.csv"
    output.parent.mkdir()
    output.write_text("earlier")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.os, "pwrite", full)
    with pytest.raises(Unsaved, match="No space left") as caught:
        predict(sides[0], photos, output=output, workers=0)
    assert len(caught.value.found.predictions) == len(FILES)
    assert output.read_text() == "earlier"
    assert list(output.parent.iterdir()) == [output]


def test_the_command_prints_a_table_or_lines(wise, sides, photos, tmp_path):
    """Without -o a table shows the first images; --json prints all as JSON Lines; -o says what was written."""
    table = wise("predict", sides[0], photos, "--workers", 0)
    assert table.exit_code == 0, table.output
    best = predict(sides[0], photos, workers=0).predictions[0]
    assert f"{best.file} {best.names[0]} {100 * best.probabilities[0]:.1f}" in " ".join(table.stdout.split())
    lines = wise("predict", sides[0], "--mix-with", sides[1], "--dynamic", photos, "--workers", 0, "--json")
    assert [json.loads(line)["file"] for line in lines.stdout.splitlines()] == [
        each.file for each in predict(sides[0], photos, workers=0).predictions
    ]
    assert "fitted to these images" in " ".join(lines.stderr.split())
    written = wise("predict", sides[0], photos, "-o", tmp_path / "p.csv", "--workers", 0)
    assert written.stdout == ""
    assert f"15 images to {tmp_path / 'p.csv'}" in " ".join(written.stderr.split())
    assert len(Path(tmp_path / "p.csv").read_text().splitlines()) == 16
