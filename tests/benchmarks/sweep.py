"""What a sweep costs beside its parts: ``python tests/benchmarks/sweep.py``.

Eleven alphas of two models of open_clip's, over a folder of photographs: one decoding alone, one forward pass of all
images alone, the sweep, eleven evaluations one by one, and a sweep whose ends differ in the head alone. All in one
process, after a round to warm up, by turns; it prints a Markdown table of medians and asserts nothing. CPU only.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from evaluate_run import data
from safetensors.torch import save_file

from mergekit_wise.evaluation.decoding import decoded, default_workers
from mergekit_wise.models.clip import create_clip
from mergekit_wise.models.transform import Preprocess
from mergekit_wise.recipes.evaluate import evaluate
from mergekit_wise.recipes.merge import merge
from mergekit_wise.recipes.sweep import sweep
from mergekit_wise.suites.own import open_folder

ALPHAS = tuple(step / 10 for step in range(11))


def config_of(model: str) -> dict[str, Any]:
    """What open_clip_config.json would hold."""
    import open_clip

    return {"model_cfg": open_clip.get_model_config(model), "preprocess_cfg": {"size": 224}}


def save(path: Path, model: str, tower: int, head: int, classes: int) -> Path:
    """A random image tower and head, each of its seed."""
    config = config_of(model)
    torch.manual_seed(tower)
    tensors = {f"visual.{name}": t for name, t in create_clip(config["model_cfg"]).visual.state_dict().items()}
    torch.manual_seed(head)
    tensors["classification_head.weight"] = torch.randn(classes, config["model_cfg"]["embed_dim"])
    tensors["classification_head.bias"] = torch.zeros(classes)
    save_file({name: t.contiguous() for name, t in tensors.items()}, path, {"open_clip_config": json.dumps(config)})
    return path


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def contestants(home: Path, images: str, options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """The name in the table, and the work."""
    dataset = open_folder(Path(images))
    classes = len(dataset.classnames)
    zs, ft, linear = (
        save(home / f"{name}.safetensors", options.model, *seeds, classes)
        for name, seeds in (("zs", (0, 0)), ("ft", (1, 1)), ("linear", (0, 1)))
    )
    size = options.batch_size
    batches = [range(at, min(at + size, len(dataset))) for at in range(0, len(dataset), size)]

    def decode() -> None:
        indices = [torch.tensor(list(batch)).numpy() for batch in batches]
        for _ in decoded(dataset, Preprocess(), indices, size, workers=default_workers(), hold=4):
            pass

    module = create_clip(config_of(options.model)["model_cfg"]).visual.eval()
    head = torch.nn.Linear(module.output_dim, classes)
    pixels = torch.zeros(size, 3, 224, 224)

    def forward() -> None:
        with torch.inference_mode():
            for _ in batches:
                head(module(pixels))

    def one_by_one() -> None:
        for alpha in ALPHAS:
            merge(zs, ft, home / "merged.safetensors", alpha=alpha)
            evaluate(home / "merged.safetensors", images, batch_size=size)

    return {
        "decoding": decode,
        "one forward pass": forward,
        "one evaluation": lambda: evaluate(zs, images, batch_size=size),
        "sweep, 11 alphas": lambda: sweep(zs, ft, alphas=ALPHAS, suite=images, batch_size=size),
        "11 merges and evaluations": one_by_one,
        "sweep, 11 alphas, same tower": lambda: sweep(zs, linear, alphas=ALPHAS, suite=images, batch_size=size),
    }


def main() -> None:
    """Read the options, make the data, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wise-bench-") as name:
        home = Path(name)
        data(str(home / "photographs"), str(options.images))
        works = contestants(home, str(home / "photographs" / "folders"), options)
        works["one evaluation"]()
        seconds: dict[str, list[float]] = {what: [] for what in works}
        for turn in range(options.repeat):
            for what, work in works.items():
                seconds[what].append(timed(work))
                print(f"  {turn + 1}/{options.repeat} {what}: {seconds[what][-1]:.1f} s", file=sys.stderr)
    medians = {what: statistics.median(found) for what, found in seconds.items()}
    one = medians["one evaluation"]
    print(f"{options.model}, {options.images} images, medians of {options.repeat} runs\n")
    print("| | s | × one evaluation |\n|---|--:|--:|")
    for what, found in medians.items():
        print(f"| {what} | {found:.2f} | {found / one:.2f} |")
    parts = medians["decoding"] + 11 * medians["one forward pass"]
    print(f"\nThe sweep takes {medians['sweep, 11 alphas'] / parts:.2f} times one decoding and eleven forward passes.")


if __name__ == "__main__":
    main()
