"""The paper's experiment in small: train, fine-tune, sweep, plot."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergekit_wise import __version__
from mergekit_wise.api.recipe import recipe
from mergekit_wise.api.result_object import ResultObject
from mergekit_wise.api.sweep_report import SweepReport
from mergekit_wise.checkpoint import (
    BY_TORCH,
    TensorInfo,
    closing,
    open_checkpoint,
    require_output,
    write_safetensors,
)
from mergekit_wise.datasets.glyphs import CLASSNAMES
from mergekit_wise.errors import CheckpointError, Interrupted, OutputError, Unsaved
from mergekit_wise.models.architecture import CLASSNAMES_KEY, CONFIG_KEY
from mergekit_wise.option_types import run, takes
from mergekit_wise.options import DemoOptions, RecipeOptions
from mergekit_wise.report.figures import draw_sweep
from mergekit_wise.report.table import Table

if TYPE_CHECKING:
    from torch import Tensor

RECIPE = """\
# The steps of 'wise demo' after training zeroshot.safetensors; 'wise recipe' repeats them.
# Change a copy: each demo rewrites this file.

[finetune]
checkpoint = "zeroshot.safetensors"
train = "digits"
seed = {seed}
# Suited to 797 small images; the paper's defaults are for a million large ones.
epochs = 25
batch-size = 32
lr = 3e-3
warmup = 25
augment = "none"

[sweep]
suite = "digits"

[report]
"""

RECIPE_FILE = "recipe.toml"
LEFT = ("zeroshot.safetensors", "finetuned.safetensors", "results.jsonl", "sweep.png", "report.html", RECIPE_FILE)
"""In the order of `DemoReport`."""

NOT_PRETRAINED = "Interrupted in pre-training, of which nothing is saved. Run the same command to start again."

MARK = "mergekit_wise_demo"
"""The metadata entry by which a later run recognises the output of an earlier one."""


@dataclass(frozen=True, slots=True, repr=False)
class DemoReport(ResultObject):
    """The files that the demo wrote, which of them an earlier run had trained, and the sweep."""

    zeroshot: Path
    finetuned: Path
    results: Path
    plot: Path
    page: Path
    recipe: Path
    reused: tuple[Path, ...]
    sweep: SweepReport

    def _summary(self) -> str:
        return self.sweep._summary()

    def _entry(self) -> Mapping[str, Any]:
        files = {name: getattr(self, name) for name in ("zeroshot", "finetuned", "results", "plot", "page", "recipe")}
        return {**files, "reused": self.reused, "sweep": self.sweep.to_dict()}

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        return self.sweep._rows()

    def _tables(self) -> Sequence[Table]:
        return self.sweep._tables()


@takes(DemoOptions)
def demo(options: DemoOptions) -> DemoReport:
    """Train a small CLIP on printed digits, fine-tune it on handwritten ones, and sweep alpha from 0 to 1.

    Leaves ``zeroshot.safetensors`` in `folder`, a recipe, and what that leaves: ``finetuned.safetensors``,
    ``results.jsonl``, ``sweep.png`` and ``report.html``. What an earlier run with the same seed and version trained is
    used again. Raises OutputError, SuiteError.
    """
    folder, seed = Path(options.folder), options.seed
    zeroshot, finetuned, results, plot, page, file = (folder / name for name in LEFT)
    _make(folder, RECIPE.format(seed=seed))
    for path in (zeroshot, finetuned, results, plot, page):
        require_output(path)
    reused: tuple[Path, ...] = (zeroshot,) if _is_trained(zeroshot, seed) else ()
    if not reused:
        from mergekit_wise.training.demo_model import pretrain

        try:
            _save(zeroshot, pretrain(seed, options.progress), seed)
        except KeyboardInterrupt as error:
            raise Interrupted.of(error, NOT_PRETRAINED) from error
    done = run(recipe, RecipeOptions(file, progress=options.progress, note=options.note))
    if "finetune" not in done.done:
        reused += (finetuned,)
    try:
        draw_sweep(done.sweep.records, done.sweep.recommendation, plot)
    except OutputError as error:
        raise Unsaved(str(error), done.sweep) from error
    return DemoReport(zeroshot, finetuned, results, plot, page, file, reused, done.sweep)


def _make(folder: Path, text: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECIPE_FILE).write_text(text)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}. Give another folder.") from error


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
    from mergekit_wise.training.demo_model import OPEN_CLIP_CONFIG

    tensors = {}
    for name, tensor in state.items():
        dtype = BY_TORCH[str(tensor.dtype).removeprefix("torch.")]
        tensors[name] = (TensorInfo(name, dtype, tuple(tensor.shape)), tensor.contiguous().numpy())
    config, names = json.dumps(OPEN_CLIP_CONFIG), json.dumps(list(CLASSNAMES))
    metadata = {"format": "pt", CONFIG_KEY: config, CLASSNAMES_KEY: names, MARK: _mark(seed)}
    write_safetensors(path, tensors, metadata)
