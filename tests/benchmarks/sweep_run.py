"""One run of one contestant of ``sweep.py``, in a process of its own: ``python sweep_run.py CONTESTANT ...``.

A run prints the seconds that the work took after imports, and how many images were found right over all alphas.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

from mergekit_wise.api.evaluate import evaluate
from mergekit_wise.api.merge import merge
from mergekit_wise.api.sweep import sweep
from mergekit_wise.datasets.own_folders import open_folder
from mergekit_wise.evaluation.image_batches import decoded, default_workers
from mergekit_wise.models.towers import create_clip
from mergekit_wise.models.transform import Preprocess

ALPHAS = tuple(step / 10 for step in range(11))
CLASSES, MANY = 10, 1000


@contextmanager
def timed(found: dict[str, int]) -> Iterator[None]:
    """Print how many seconds the block took, and what it left in `found`."""
    began = time.perf_counter()
    yield
    print(f"\nseconds {time.perf_counter() - began:.4f}")
    print("result " + ", ".join(f"{count} {what}" for what, count in found.items()))


def ends(folder: str, model: str) -> None:
    """Random image towers and heads: a zero-shot model, one that differs everywhere, one that differs in the head.

    And one whose lower half is frozen, and the first two with heads of 1,000 classes.
    """
    config = {"model_cfg": open_clip.get_model_config(model), "preprocess_cfg": {"size": 224}}
    Path(folder).mkdir()
    towers = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        towers.append({f"visual.{key}": t for key, t in create_clip(config["model_cfg"]).visual.state_dict().items()})
    blocks = config["model_cfg"]["vision_cfg"]["layers"]
    upper = [f"visual.transformer.resblocks.{number}." for number in range(blocks // 2, blocks)]
    upper += ["visual.ln_post.", "visual.proj"]
    frozen = {key: towers[1][key] if key.startswith(tuple(upper)) else t for key, t in towers[0].items()}
    models = {
        "zs": (towers[0], 0, CLASSES),
        "ft": (towers[1], 1, CLASSES),
        "linear": (towers[0], 1, CLASSES),
        "frozen": (frozen, 1, CLASSES),
        "zs-many": (towers[0], 0, MANY),
        "ft-many": (towers[1], 1, MANY),
    }
    for name, (tower, seed, classes) in models.items():
        torch.manual_seed(seed)
        head = torch.randn(classes, config["model_cfg"]["embed_dim"])
        tensors = {
            **tower,
            "classification_head.weight": head,
            "classification_head.bias": torch.zeros(classes),
        }
        told = {"open_clip_config": json.dumps(config)}
        save_file({key: t.contiguous() for key, t in tensors.items()}, Path(folder, f"{name}.safetensors"), told)


def decoding(folder: str, model: str, images: str, batch_size: str, *_: str) -> None:
    """All images, decoded as the tool does."""
    dataset, size, found = open_folder(Path(images)), int(batch_size), {"images": 0}
    batches = [torch.arange(at, min(at + size, len(dataset))).numpy() for at in range(0, len(dataset), size)]
    with timed(found):
        for batch in decoded(dataset, Preprocess(), batches, size, workers=default_workers(), hold=4):
            found["images"] += len(batch.indices)


def forward(folder: str, model: str, images: str, batch_size: str, precision: str, device: str) -> None:
    """All images once through the tower and a head, from pixels that lie on the device."""
    tower = create_clip(open_clip.get_model_config(model)).visual.eval().to(device)
    head = torch.nn.Linear(tower.output_dim, CLASSES).to(device)
    pixels = torch.zeros(int(batch_size), 3, 224, 224, device=device)
    count, found = len(open_folder(Path(images))), {"images": 0}
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
        head(tower(pixels))  # what the first call sets up is not the matter
        with timed(found):
            for at in range(0, count, len(pixels)):
                int(head(tower(pixels)).argmax(1)[0])
                found["images"] += min(len(pixels), count - at)


def options_of(batch_size: str, precision: str, device: str) -> dict[str, Any]:
    """As keywords."""
    return {"batch_size": int(batch_size), "precision": precision, "device": device}


def whole(
    folder: str, model: str, images: str, *options: str, first: str = "zs", other: str = "ft", **more: Any
) -> None:
    """The tool's sweep."""
    found: dict[str, int] = {}
    with timed(found):
        zs, ft = Path(folder, f"{first}.safetensors"), Path(folder, f"{other}.safetensors")
        done = sweep(zs, ft, alphas=ALPHAS, suite=images, **options_of(*options), **more)
        found["right"] = sum(record.correct for record in done.records)


def linear(folder: str, model: str, images: str, *options: str) -> None:
    """The tool's sweep of ends that differ in the head."""
    whole(folder, model, images, *options, other="linear")


def frozen(folder: str, model: str, images: str, *options: str) -> None:
    """The tool's sweep of ends whose lower half is the same."""
    whole(folder, model, images, *options, other="frozen")


def many(folder: str, model: str, images: str, *options: str, **more: Any) -> None:
    """The tool's sweep with 1,000 classes and a results file, beside which answers are kept unless `more` says no."""
    with tempfile.TemporaryDirectory(prefix="wise-bench-") as name:
        results = Path(name, "results.jsonl")
        whole(folder, model, images, *options, first="zs-many", other="ft-many", results=results, **more)


def unkept(folder: str, model: str, images: str, *options: str) -> None:
    """The same without answers."""
    many(folder, model, images, *options, answers=False)


def analyzed(folder: str, model: str, images: str, *options: str) -> None:
    """The same with answers and the analysis of the pair."""
    many(folder, model, images, *options, analyze=True)


def separate(folder: str, model: str, images: str, *options: str) -> None:
    """Eleven merges, each evaluated."""
    found = {"right": 0}
    with tempfile.TemporaryDirectory(prefix="wise-bench-") as name, timed(found):
        output = Path(name, "merged.safetensors")
        for alpha in ALPHAS:
            merge(Path(folder, "zs.safetensors"), Path(folder, "ft.safetensors"), output, alpha=alpha)
            (record,) = evaluate(output, images, **options_of(*options)).records
            found["right"] += record.correct


def one(folder: str, model: str, images: str, *options: str) -> None:
    """One evaluation."""
    found: dict[str, int] = {}
    with timed(found):
        (record,) = evaluate(Path(folder, "zs.safetensors"), images, **options_of(*options)).records
        found["right"] = record.correct


if __name__ == "__main__":
    contestants = (ends, decoding, forward, whole, linear, frozen, many, unkept, analyzed, separate, one)
    {contestant.__name__: contestant for contestant in contestants}[sys.argv[1]](*sys.argv[2:])
