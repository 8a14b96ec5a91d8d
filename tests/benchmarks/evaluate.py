"""Images a second of ``wise eval`` beside a plain open_clip loop and CLIP_benchmark, on one model and one folder.

Seconds are those of opening and evaluating after imports, so that whoever starts slowly is not judged by it.
"""

import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import peers
from contest import Contest

RUN = Path(__file__).with_name("evaluate_run.py")
BATCH_SIZE = 64
"""CLIP_benchmark's default."""


def contests(home: Path, options: Namespace) -> Iterator[Contest]:
    """One in the precision of the device, float32 on the CPU, and one of what precedes the model."""
    others = peers.environment(home, "eval", peers.EVALUATORS, dependencies=False) if options.peers else None
    folder, checkpoint = prepare(home, options.model, options.images)
    device, precision = ("cuda", "bf16") if options.cuda else ("cpu", "fp32")
    workers = min(os.cpu_count() or 1, 8)
    words = [str(checkpoint), options.model, str(folder), str(BATCH_SIZE), str(workers), precision, device]
    commands = {
        "wise eval": [sys.executable, str(RUN), "wise", *words],
        "open_clip loop": [sys.executable, str(RUN), "loop", *words],
    }
    if others is not None:
        commands["CLIP_benchmark"] = [str(others / "bin/python"), str(RUN), "clip_benchmark", *words]
    what = f"{options.model}, {options.images} JPEGs of 500 x 375, {precision} on {device}"
    rivals = [name for name in commands if name != "wise eval"]
    timed = {"whole": False, "repeat": options.repeat}
    yield Contest("eval", what, commands, "wise eval", "open_clip loop", **timed, rivals=rivals)
    cached = ["env", f"XDG_CACHE_HOME={home / 'cache'}", sys.executable, str(RUN)]
    subprocess.run([*cached, "again", *words], check=True, stdout=subprocess.DEVNULL)
    commands = {
        "wise eval --cache-images": [*cached, "again", *words],
        "the first run": [sys.executable, str(RUN), "first", *words],
    }
    what = f"{options.model}, {options.images} JPEGs, 10 classes in 80 templates, again with what is cached"
    yield Contest("eval", what, commands, "wise eval --cache-images", **timed, rivals=("the first run",))
    loaders = {
        "wise": [sys.executable, str(RUN), "decoding", str(folder)],
        "torchvision and open_clip": [sys.executable, str(RUN), "loading", str(folder)],
    }
    what = f"decoding and resizing {options.images} JPEGs of 500 x 375, one process"
    yield Contest("eval", what, loaders, "wise", "torchvision and open_clip", **timed, rivals=[*loaders][1:])


def prepare(home: Path, model: str, images: int) -> tuple[Path, Path]:
    """Images and model, made unless they are there, and brought into the page cache."""
    folder, checkpoint = home / f"images-{images}", home / f"{model}.safetensors"
    if not (folder / "wds" / "classnames.txt").exists():
        subprocess.run([sys.executable, str(RUN), "data", str(folder), str(images)], check=True)
    if not checkpoint.exists():
        subprocess.run([sys.executable, str(RUN), "model", str(checkpoint), model], check=True)
    for path in (checkpoint, *folder.rglob("*.*")):
        if path.is_file():
            path.read_bytes()
    return folder, checkpoint
