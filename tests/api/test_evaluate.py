"""Predictions on ImageNet and its shifts, in their usual layouts, against a loop that uses open_clip alone."""

import csv
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass, replace
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file
from timm.data import ImageNetInfo

from mergekit_wise.analysis import clopper_pearson
from mergekit_wise.api.evaluate import evaluate
from mergekit_wise.results import read_records

CONFIG = {
    "model_cfg": {
        "embed_dim": 48,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 48, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic"},
}
TRANSFORM = image_transform_v2(PreprocessCfg(**CONFIG["preprocess_cfg"]), is_train=False)
WNIDS = tuple(ImageNetInfo("imagenet-1k").label_names())
OBJECTS = {"chair": (423, 559, 765), "banana": (954,), "mug": (504, 968)}
"""The scored folders of ObjectNet, and the classes of ImageNet that correspond to each."""


def subset(letter: str) -> tuple[int, ...]:
    """The classes of ImageNet-R or ImageNet-A, from timm's list of their WordNet ids."""
    text = (files("timm.data") / "_info" / f"imagenet_{letter}_synsets.txt").read_text()
    return tuple(sorted(WNIDS.index(wnid) for wnid in text.split()))


@dataclass(frozen=True)
class Known:
    """An image: its file, its label among the data set's classes, and the head's columns of each class."""

    path: Path
    label: int
    columns: tuple[tuple[int, ...], ...]
    border: int = 0


def pattern(column: int) -> np.ndarray:
    """The 4 x 4 colours of a class."""
    return np.random.default_rng(column).integers(0, 256, (4, 4, 3))


def draw(column: int, seed: int) -> Image.Image:
    """A noisy oblong image of a class, larger than the model's input."""
    rng = np.random.default_rng([column, seed])
    noisy = np.clip(pattern(column) + rng.normal(0, 40, (4, 4, 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(noisy).resize((44, 38), Image.Resampling.NEAREST)


def paint(path: Path, column: int, seed: int) -> None:
    """Save an image of a class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(column, seed).save(path, "JPEG", quality=90)


def plant(root: Path) -> dict[str, list[Known]]:
    """Write ImageNet and its shifts in their own layouts."""
    whole = tuple((column,) for column in range(1000))
    layouts = {
        "imagenet": ("imagenet/val_in_folder", WNIDS, range(1000), whole),
        "imagenet-v2": ("ImageNetV2-matched-frequency", tuple(map(str, range(1000))), range(1000), whole),
        "imagenet-sketch": ("sketch", WNIDS, range(0, 1000, 4), whole),
    }
    tree: dict[str, list[Known]] = {}
    for seed, (name, (folder, names, columns, classes)) in enumerate(layouts.items()):
        tree[name] = []
        for column in columns:
            path = root / folder / names[column] / f"{name}_{column}.JPEG"
            paint(path, column, seed)
            tree[name].append(Known(path, column, classes))
    for seed, letter in enumerate("ra", 10):
        classes = tuple((column,) for column in subset(letter))
        tree[f"imagenet-{letter}"] = []
        for label, (column,) in enumerate(classes):
            path = root / f"imagenet-{letter}" / WNIDS[column] / f"{letter}_{column}.jpg"
            paint(path, column, seed)
            tree[f"imagenet-{letter}"].append(Known(path, label, classes))
    tree["objectnet"] = plant_objects(root / "objectnet-1.0")
    return tree


def plant_objects(root: Path) -> list[Known]:
    """Write ObjectNet with its border, one folder that does not count, and a map like the download's."""
    lines = np.random.default_rng(0).permutation(1000)
    texts = [""] * 1000
    for column, line in enumerate(lines):
        texts[line] = f"label of {WNIDS[column]}"
    maps = {
        "folder_to_objectnet_label.json": {folder: folder.title() for folder in (*OBJECTS, "alarm_bell")},
        "objectnet_to_imagenet_1k.json": {
            folder.title(): "; ".join(f"label of {WNIDS[column]}" for column in columns)
            for folder, columns in OBJECTS.items()
        },
        "pytorch_to_imagenet_2012_id.json": {str(column): int(line) for column, line in enumerate(lines)},
    }
    (root / "mappings").mkdir(parents=True)
    for name, content in maps.items():
        (root / "mappings" / name).write_text(json.dumps(content))
    (root / "mappings" / "imagenet_to_label_2012_v2").write_text("\n".join(texts))
    paint(root / "images" / "alarm_bell" / "x.png", 0, 0)
    known, classes = [], tuple(OBJECTS[folder] for folder in sorted(OBJECTS))
    for label, folder in enumerate(sorted(OBJECTS)):
        for number in range(12):
            path = root / "images" / folder / f"{folder}_{number}.png"
            path.parent.mkdir(exist_ok=True)
            framed = Image.new("RGB", (48, 42), "red")
            framed.paste(draw(OBJECTS[folder][number % len(OBJECTS[folder])], number), (2, 2))
            framed.save(path, "PNG")
            known.append(Known(path, label, classes, border=2))
    return known


def pack(tree: dict[str, list[Known]], root: Path, mappings: Path) -> None:
    """Write the same images as WebDataset shards of two images each, in clip-benchmark's order."""
    for name, images in tree.items():
        folder = {"imagenet": "imagenet1k", "imagenet-v2": "imagenetv2", "imagenet-sketch": "imagenet_sketch"}
        test = root / f"wds_{folder.get(name, name)}" / "test"
        test.mkdir(parents=True)
        (test / "nshards.txt").write_text("2")
        order = np.random.default_rng(1).permutation(len(images))
        for shard, rows in enumerate(np.array_split(order, 2)):
            with tarfile.open(test / f"{shard}.tar", "w") as tar:
                for row in rows:
                    image = images[row]
                    parts = ((image.path.name.lower(), image.path.read_bytes()),)
                    parts += ((f"{image.path.stem.lower()}.cls", str(image.label).encode()),)
                    for member, content in parts:
                        info = tarfile.TarInfo(member.replace(".jpeg", ".jpg"))
                        info.size = len(content)
                        tar.addfile(info, BytesIO(content))
    (root / "objectnet-1.0").mkdir()
    (root / "objectnet-1.0" / "mappings").symlink_to(mappings)


@dataclass(frozen=True)
class World:
    """Data in both layouts, a model that is often right, its checkpoint, and a checkpoint without the head."""

    home: Path
    tree: dict[str, list[Known]]
    clip: torch.nn.Module
    head: tuple[torch.Tensor, torch.Tensor]
    checkpoint: Path
    headless: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    home = tmp_path_factory.mktemp("world")
    tree = plant(home / "folders")
    pack(tree, home / "tars", home / "folders" / "objectnet-1.0" / "mappings")
    torch.manual_seed(0)
    clip = open_clip.CLIP(**CONFIG["model_cfg"]).eval()
    with torch.no_grad():
        patterns = [Image.fromarray(pattern(c).astype(np.uint8)).resize((32, 32), 0) for c in range(1000)]
        features = clip.encode_image(torch.stack(list(map(TRANSFORM, patterns))), normalize=True)
    # Random towers give all images nearly the same features; what sets them apart is found by whitening them.
    centred = features - features.mean(0)
    weight = centred @ torch.linalg.inv(centred.T @ centred / 1000 + 1e-7 * torch.eye(48))
    bias = -(weight * (features + features.mean(0))).sum(1) / 2
    state = {**clip.state_dict(), "classification_head.weight": weight, "classification_head.bias": bias}
    metadata = {"open_clip_config": json.dumps(CONFIG)}
    for name, tensors in (("model", state), ("headless", clip.state_dict())):
        save_file({k: v.contiguous() for k, v in tensors.items()}, home / f"{name}.safetensors", metadata)
    return World(home, tree, clip, (weight, bias), home / "model.safetensors", home / "headless.safetensors")


@torch.no_grad()
def looped(world: World, images: list[Known], head: torch.Tensor | None = None) -> dict[str, tuple[int, bool]]:
    """By file name: the predicted class, and whether the label is in the top 5, from open_clip's API alone."""
    inputs = []
    for image in images:
        with Image.open(image.path) as opened:
            picture = opened.convert("RGB")
        width, height = picture.size
        inputs.append(
            TRANSFORM(picture.crop((image.border, image.border, width - image.border, height - image.border)))
        )
    features = torch.cat([world.clip.encode_image(part, normalize=True) for part in torch.stack(inputs).split(50)])
    if head is None:
        weight, bias = world.head
        every = features @ weight.T + bias
        logits = torch.stack([every[:, list(columns)].amax(1) for columns in images[0].columns], 1)
    else:
        logits = features @ head.T
    order = logits.argsort(dim=1, descending=True, stable=True)[:, :5].tolist()
    return {image.path.stem.lower(): (best[0], image.label in best) for image, best in zip(images, order, strict=True)}


def predictions_in(path: Path) -> dict[str, dict[str, tuple[int, bool]]]:
    """The same as `--per-sample` writes it, by data set."""
    found: dict[str, dict[str, tuple[int, bool]]] = {}
    for line in map(json.loads, path.read_text().splitlines()):
        stem = Path(line["sample"].replace(":", "/")).stem.lower()
        found.setdefault(line["dataset"], {})[stem] = (line["predicted"], line["top5"])
    return found


@pytest.fixture(scope="module")
def wanted(world):
    return {name: looped(world, images) for name, images in world.tree.items()}


@pytest.mark.parametrize("layout", ["folders", "tars"])
def test_predictions_are_those_of_a_loop_in_open_clip(layout, world, wanted, tmp_path):
    """Every prediction and count on all six data sets equals the loop's, from folders and from tar files."""
    found = evaluate(
        world.checkpoint,
        "imagenet-shifts",
        data=world.home / layout,
        strict=True,
        batch_size=100,
        per_sample=tmp_path / "samples",
    )
    predictions = predictions_in(tmp_path / "samples")
    assert predictions.keys() == wanted.keys() == {record.dataset for record in found.records}
    for record in found.records:
        images, loop = world.tree[record.dataset], wanted[record.dataset]
        assert predictions[record.dataset] == loop
        right = sum(loop[image.path.stem.lower()][0] == image.label for image in images)
        assert (record.correct, record.total) == (right, len(images))
        assert 0 < right < len(images)
        assert record.interval == clopper_pearson(right, len(images))
        if record.top5 is not None:
            assert record.top5 == sum(loop[image.path.stem.lower()][1] for image in images)
    assert [record.role for record in found.records] == ["reference", *["shift"] * 5]


def test_two_processes_find_what_one_finds(world, tmp_path):
    """Two processes under torchrun write the records of a single process, and only the first prints."""
    words = ["eval", str(world.checkpoint), "--suite", "imagenet-a,objectnet", "--data", str(world.home / "folders")]
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*run, "-m", "mergekit_wise", *words, "--batch-size", "16", "--workers", "1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    # In the table of results, and in that of calibration.
    assert done.stdout.count("ImageNet-A") == done.stdout.count("ObjectNet") == 2
    alone = evaluate(world.checkpoint, "imagenet-a,objectnet", data=world.home / "folders", batch_size=16)
    together = read_records(tmp_path / "results.jsonl")
    assert [replace(r, seconds=0) for r in together] == [replace(r, seconds=0) for r in alone.records]


@pytest.mark.parametrize("templates", [("a photo of a {}.",), ("a {}.", "art of the {}.")])
def test_a_checkpoint_without_a_head_gets_a_zero_shot_head(templates, world, tmp_path):
    """Without a head, predictions are those of open_clip's build_zero_shot_classifier for the set's classes."""
    names = [open_clip.IMAGENET_CLASSNAMES[column] for column in subset("r")]
    tokenizer = open_clip.SimpleTokenizer(context_length=12)
    head = open_clip.build_zero_shot_classifier(
        world.clip, tokenizer, names, [lambda name, t=t: t.format(name) for t in templates]
    ).T
    found = evaluate(
        world.headless,
        "imagenet-r,objectnet",
        data=world.home / "folders",
        templates=templates,
        per_sample=tmp_path / "samples",
    )
    assert predictions_in(tmp_path / "samples")["imagenet-r"] == looped(world, world.tree["imagenet-r"], head)
    assert {record.head for record in found.records} == {"zero-shot"}
    assert len({record.prompts for record in found.records}) == 2


def test_the_accuracy_of_each_class_is_written(world, wanted, tmp_path):
    """The table by class has one row per class, with the loop's counts, which add up to the record's."""
    table = tmp_path / "classes.csv"
    (record,) = evaluate(world.checkpoint, "objectnet", data=world.home / "tars", per_class=table).records
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == sorted(OBJECTS)
    assert sum(int(row["correct"]) for row in rows) == record.correct
    for row in rows:
        loop = [found for stem, (found, _) in wanted["objectnet"].items() if stem.startswith(row["name"])]
        assert int(row["correct"]) == loop.count(int(row["class"]))
