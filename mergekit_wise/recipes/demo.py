"""What the paper does, small and real: train, fine-tune, sweep, draw."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mergekit_wise import __version__
from mergekit_wise.checkpoint import (
    BY_TORCH,
    TensorInfo,
    closing,
    open_checkpoint,
    write_safetensors,
)
from mergekit_wise.errors import CheckpointError, OutputError
from mergekit_wise.models.telling import CONFIG_KEY
from mergekit_wise.progress import Progress, silent
from mergekit_wise.recipes.finetune_request import FinetuneOptions
from mergekit_wise.recipes.sweep import SweepReport, sweep
from mergekit_wise.report.scatter import draw_scatter

if TYPE_CHECKING:
    from torch import Tensor

FINETUNING: FinetuneOptions = {"epochs": 25, "batch_size": 32, "lr": 3e-3, "warmup": 25, "augment": "none"}
"""What suits 797 small images; the paper's defaults are for a million large ones."""

MARK = "mergekit_wise_demo"
"""The metadata entry by which a later run knows what an earlier one trained."""


@dataclass(frozen=True, slots=True)
class DemoReport:
    """The files that the demo left, which of them an earlier run had trained, and the sweep."""

    zeroshot: Path
    finetuned: Path
    results: Path
    plot: Path
    reused: tuple[Path, ...]
    sweep: SweepReport


def demo(folder: Path, *, seed: int = 0, progress: Progress = silent) -> DemoReport:
    """Train a small CLIP on printed digits, fine-tune it on handwritten ones, and sweep alpha from 0 to 1.

    Leaves ``zeroshot.safetensors``, ``finetuned.safetensors``, ``results.jsonl`` and ``sweep.png`` in `folder`; what
    an earlier run with the same seed and version trained is used again. Raises OutputError, SuiteError.
    """
    zeroshot, finetuned = folder / "zeroshot.safetensors", folder / "finetuned.safetensors"
    results, plot = folder / "results.jsonl", folder / "sweep.png"
    _make(folder)
    reused = _train_missing(zeroshot, finetuned, seed, progress)
    results.unlink(missing_ok=True)
    report = sweep(zeroshot, finetuned, suite="digits", results=results, progress=progress)
    draw_scatter(report.candidates, report.recommendation.alpha, plot)
    return DemoReport(zeroshot, finetuned, results, plot, reused, report)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}. Give another folder.") from error


def _train_missing(zeroshot: Path, finetuned: Path, seed: int, progress: Progress) -> tuple[Path, ...]:
    """Train what is not there; returns the files that were. A new zero-shot model makes the fine-tuned one stale."""
    if _is_trained(zeroshot, seed) and _is_trained(finetuned, seed):
        return (zeroshot, finetuned)
    from mergekit_wise.recipes.demo_training import pretrain
    from mergekit_wise.recipes.finetune import finetune

    reused = (zeroshot,) if _is_trained(zeroshot, seed) else ()
    if not reused:
        _save(zeroshot, pretrain(seed, progress), seed)
    # What a stopped run left is of the zero-shot model that was there then.
    options: FinetuneOptions = {**FINETUNING, "seed": seed, "restart": not reused}
    finetune(zeroshot, "digits", finetuned, progress=progress, **options)
    return reused


def _mark(seed: int) -> str:
    return json.dumps({"seed": seed, "version": __version__})


def _is_trained(path: Path, seed: int) -> bool:
    if not path.exists():
        return False
    try:
        checkpoint = open_checkpoint(path)
    except CheckpointError:
        return False
    with closing(checkpoint):
        return checkpoint.metadata.get(MARK) == _mark(seed)


def _save(path: Path, state: Mapping[str, "Tensor"], seed: int) -> None:
    from mergekit_wise.recipes.demo_training import OPEN_CLIP_CONFIG

    tensors = {}
    for name, tensor in state.items():
        dtype = BY_TORCH[str(tensor.dtype).removeprefix("torch.")]
        tensors[name] = (TensorInfo(name, dtype, tuple(tensor.shape)), tensor.contiguous().numpy())
    metadata = {"format": "pt", CONFIG_KEY: json.dumps(OPEN_CLIP_CONFIG), MARK: _mark(seed)}
    write_safetensors(path, tensors, metadata)
