"""Every option of the commands, as a user writes it."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from math import inf
from pathlib import Path
from typing import TypedDict

from mergekit_wise.errors import UsageError
from mergekit_wise.progress import Progress, silent

AUGMENTATIONS = ("none", "crop", "crop-flip", "strong")
"""In the order of how much they change an image.

``crop`` is what the authors' code does: 90 to 100 % of the image, as CLIP was trained. ``crop-flip`` is what ImageNet
is usually learned with: 8 to 100 % of the image, half of them mirrored. ``strong`` adds RandAugment (Cubuk et al.,
arXiv 1909.13719; two changes of magnitude 9).
"""

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class MergeKeywords(TypedDict, total=False):
    """The options of `merge` and `preview`, named as on the command line. See `MergeOptions`."""

    alpha: float
    alpha_for: tuple[str, ...]
    depth_alpha: str | None
    keep: tuple[str, ...]
    only: tuple[str, ...]
    fisher: tuple[str | Path, str | Path] | None
    fisher_floor: float
    extrapolate: bool
    allow_non_finite: bool
    dtype: str | None
    shard_size: str | None
    memory: str
    mmap: bool
    device: str
    recalibrate: str | None
    data: Path | None
    model: str | None


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """One merge.

    Attributes:
        zeroshot, finetuned: a file, an index of shards, a folder, ``hf-hub:ORG/NAME`` or open_clip's
            ``MODEL/PRETRAINED``.
        output: the safetensors file to write; a folder where a source is one.
        alpha: for every tensor to which nothing else applies.
        alpha_for: ``PATTERN=ALPHA``; the first that matches a name wins.
        depth_alpha: ``FIRST:LAST``, alphas of the first and last block.
        keep: ``zs:PATTERN`` or ``ft:PATTERN``: tensors to take from one side.
        only: patterns of the tensors to write.
        fisher: files of Fisher information, zero-shot and fine-tuned.
        fisher_floor: smaller values count as this.
        extrapolate: alphas outside [0, 1] are meant.
        allow_non_finite: write the file even where mixing made infinities or NaN.
        dtype: of the output's floating-point tensors, for example ``bf16``.
        shard_size: for example ``2GB``: write several files and an index.
        memory: the budget for blocks in flight, for example ``256MB``.
        mmap: map the sources; False reads them plainly, which network disks like better.
        device: where the arithmetic runs.
        recalibrate: the data set, or folder of images, on which batch-norm statistics are estimated again.
        data: the folder under which data sets are looked for.
        model: the architecture, where the checkpoint does not tell it; asked for by `recalibrate` alone.
    """

    zeroshot: str | Path
    finetuned: str | Path
    output: Path
    alpha: float = 0.5
    alpha_for: tuple[str, ...] = ()
    depth_alpha: str | None = None
    keep: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    fisher: tuple[str | Path, str | Path] | None = None
    fisher_floor: float = 1e-8
    extrapolate: bool = False
    allow_non_finite: bool = False
    dtype: str | None = None
    shard_size: str | None = None
    memory: str = "256MB"
    mmap: bool = True
    device: str = "cpu"
    recalibrate: str | None = None
    data: Path | None = None
    model: str | None = None


def parse_bytes(text: str, option: str) -> int:
    """A positive number of bytes: ``300000``, ``256MB``, ``1.5 GiB``. Raises UsageError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None or not (size := int(Decimal(found[1]) * unit)):
        raise UsageError(f"{option} {text}: expected a size such as 256MB or 2GB.")
    return size


Words = str | Path | Sequence[str] | None

ZERO_SHOT = "zero-shot"
"""What `head` is for a head of class names, even where the checkpoint has one of its own."""


class EvalKeywords(TypedDict, total=False):
    """The options of `evaluate` and `sweep`, named as on the command line. See `EvalOptions`."""

    data: Path | None
    strict: bool
    classnames: Words
    templates: Words
    limit: int | None
    seed: int
    model: str | None
    head: str | Path | None
    device: str
    precision: str
    batch_size: int
    workers: int | None
    max_bad: int
    results: Path | None
    redo: bool
    per_class: Path | None
    per_sample: Path | None
    progress: Progress


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """On what models are evaluated, and how.

    Attributes:
        suite: names of suites and data sets, or paths, with commas between them.
        data: the folder under which data sets are looked for; None: what ``WISE_DATA`` names.
        strict: whether a missing data set is an error.
        classnames, templates: in place of those of the data sets, for zero-shot heads and tables: files or lists.
        limit, seed: how many images of each data set are taken, balanced by class, and with what they are drawn; None:
            all.
        model: the architecture, where the checkpoint does not say it.
        head: the file of a head to use, or ``zero-shot`` for one of class names; None: the checkpoint's own, or, where
            it has none, one of class names.
        device: a torch device.
        precision: fp32, bf16, fp16, or auto: fp32 on the CPU, bf16 or fp16 on CUDA.
        batch_size: images at a time; another number changes nothing beyond rounding.
        workers: processes that decode images; None: one a core, at most 8.
        max_bad: how many images of a data set may be unreadable.
        results: a JSON Lines file that records are appended to; what stands there is not measured again.
        redo: measure also what stands there.
        per_class: a CSV file for the accuracy of each class.
        per_sample: a JSON Lines file for the prediction of each image. With either, everything is measured.
        progress: called as work goes on.
    """

    suite: str = "digits"
    data: Path | None = None
    strict: bool = False
    classnames: Words = None
    templates: Words = None
    limit: int | None = None
    seed: int = 0
    model: str | None = None
    head: str | Path | None = None
    device: str = "cpu"
    precision: str = "auto"
    batch_size: int = 128
    workers: int | None = None
    max_bad: int = 0
    results: Path | None = None
    redo: bool = False
    per_class: Path | None = None
    per_sample: Path | None = None
    progress: Progress = silent

    def __post_init__(self) -> None:
        """Raises UsageError for a number that makes no sense."""
        for name in ("data", "results", "per_class", "per_sample"):
            if isinstance(value := getattr(self, name), str):  # from Python
                object.__setattr__(self, name, Path(value))
        lowest = {"limit": 1, "batch_size": 1, "workers": 0, "max_bad": 0, "seed": 0}
        for name, least in lowest.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name.replace('_', '-')} {value}: expected {least} or more.")


OBJECTIVES = ("cross-entropy", "contrastive")
RATE, LINEAR_RATE = 3e-5, 1e-3
WARMUP = 500

MOST_SEED = 2**63 - 1
"""What torch's generators take."""

NUMBERS = {
    "epochs": (1, None),
    "batch_size": (2, None),
    "micro_batch": (1, None),
    "lr": (0, None),
    "weight_decay": (0, None),
    "warmup": (0, None),
    "clip": (0, None),
    "label_smoothing": (0, 1),
    "ema": (0, 1),
    "layer_decay": (0, 1),
    "mixup": (0, None),
    "seed": (0, MOST_SEED),
    "workers": (0, None),
    "max_bad": (0, None),
}
"""The smallest and the largest that each may be."""

LEFT_TO_IMAGES = {"augment": ("none",), "freeze": (), "layer_decay": (1.0,), "objective": ("cross-entropy",)}
"""Options that mean nothing to a head on features that do not change, and what they may be nevertheless."""


class FinetuneKeywords(TypedDict, total=False):
    """The options of `finetune`, named as on the command line. See `FinetuneOptions`."""

    linear: bool
    objective: str
    epochs: int
    batch_size: int
    micro_batch: int | None
    lr: float | None
    weight_decay: float
    warmup: int | None
    clip: float
    label_smoothing: float
    freeze: tuple[str, ...]
    ema: float | None
    layer_decay: float
    mixup: float
    augment: str | None
    seed: int
    model: str | None
    root: Path | None
    classnames: str | Path | Sequence[str] | None
    templates: str | Path | Sequence[str] | None
    precision: str
    device: str
    workers: int | None
    max_bad: int
    validate: str | None
    log: Path | None
    cache: Path | None
    state: Path | None
    restart: bool
    keep_epochs: bool


@dataclass(frozen=True, slots=True)
class FinetuneOptions:
    """One run of fine-tuning. Defaults are the paper's (section 4), augmentation that of its authors' code.

    Attributes:
        checkpoint: the zero-shot model: image tower and head; for the contrastive objective, both towers.
        data: the images to learn from: the name of a data set, a folder of class folders, a TOML file, or ``digits``.
        output: the safetensors file to write.
        linear: learn the head alone, from features that are computed once.
        objective: ``cross-entropy``, or ``contrastive``: as the model was pre-trained, both towers (FLYP).
        epochs, batch_size: how often each image comes, and how many make a step.
        micro_batch: images that are computed at once; a batch's gradients add up. By default as many as fit.
        lr: the highest learning rate; by default 3e-5, with `linear` 1e-3.
        weight_decay, clip: of matrices; the largest norm of all gradients together.
        warmup: steps; by default 500, or a tenth of a run that has no more steps than that.
        label_smoothing: the share of a label that is spread over all classes.
        freeze: patterns of the tensors that stay as they are.
        ema: the decay of an exponential moving average of the weights, which is then what is written.
        layer_decay: what the learning rate is multiplied with from each layer to the one below.
        mixup: the parameter of the distribution that pairs of images are mixed by; 0 mixes none.
        augment: ``none``, ``crop``, ``crop-flip`` or ``strong``; by default ``crop``, with `linear` ``none``.
        seed: of all random numbers.
        model: the architecture, where the checkpoint does not say it.
        root: the folder under which data sets are looked for by their names.
        classnames, templates: in place of the data set's own.
        precision: ``fp32``, ``bf16``, ``fp16``, or ``auto``: what the device is fast in.
        device: where to compute.
        workers: processes that decode; by default as many as there are cores, at most 8.
        max_bad: how many images may be unreadable.
        validate: a suite to measure after every epoch, with the mixture at alpha 0.5 beside the fine-tuned model.
        log: a JSON Lines file that tells of every step and epoch.
        cache: the folder for features.
        state: the folder of what it takes to go on; by default beside the output.
        restart: begin anew where an earlier run could be gone on with.
        keep_epochs: keep the checkpoint of every epoch.
    """

    checkpoint: str | Path
    data: str | Path
    output: Path
    linear: bool = False
    objective: str = "cross-entropy"
    epochs: int = 10
    batch_size: int = 512
    micro_batch: int | None = None
    lr: float | None = None
    weight_decay: float = 0.1
    warmup: int | None = None
    clip: float = 1.0
    label_smoothing: float = 0.0
    freeze: tuple[str, ...] = ()
    ema: float | None = None
    layer_decay: float = 1.0
    mixup: float = 0.0
    augment: str | None = None
    seed: int = 0
    model: str | None = None
    root: Path | None = None
    classnames: str | Path | Sequence[str] | None = None
    templates: str | Path | Sequence[str] | None = None
    precision: str = "auto"
    device: str = "cpu"
    workers: int | None = None
    max_bad: int = 0
    validate: str | None = None
    log: Path | None = None
    cache: Path | None = None
    state: Path | None = None
    restart: bool = False
    keep_epochs: bool = False

    def __post_init__(self) -> None:
        """Check what can be checked without opening anything. Raises UsageError."""
        for name in ("output", "root", "log", "cache", "state"):
            if isinstance(path := getattr(self, name), str):  # from Python
                object.__setattr__(self, name, Path(path))
        for name, (least, most) in NUMBERS.items():
            value = getattr(self, name)
            if value is not None and not (value >= least and (value < inf if most is None else value <= most)):
                upto = f" and at most {most}" if most is not None else " and no infinity" if value == inf else ""
                raise UsageError(f"--{name.replace('_', '-')} {value}: expected at least {least}{upto}.")
        for option, known in (("objective", OBJECTIVES), ("augment", (None, *AUGMENTATIONS))):
            if getattr(self, option) not in known:
                words = ", ".join(filter(None, known))
                raise UsageError(f"--{option} {getattr(self, option)}: expected one of {words}.")
        if self.linear:
            self._require_sense()
        if self.objective == "contrastive" and (self.mixup or self.label_smoothing):
            raise UsageError("--objective contrastive: has no labels to smooth or to mix; leave those options out.")

    def _require_sense(self) -> None:
        for option, allowed in LEFT_TO_IMAGES.items():
            value = getattr(self, option)
            if value is not None and value not in allowed and value != ():
                raise UsageError(
                    f"--linear learns the head from features that are computed once; --{option.replace('_', '-')} "
                    "has no place there. Leave one of the two out."
                )

    @property
    def augmentation(self) -> str:
        """What is done to images."""
        return self.augment or ("none" if self.linear else "crop")

    @property
    def folder(self) -> Path:
        """Where the state of the run is kept."""
        return self.state or self.output.with_name(f"{self.output.name.removesuffix('.safetensors')}.training")

    def settings(self) -> dict[str, object]:
        """What the weights that come out depend on, beside the checkpoint and the images; as JSON has it."""
        names = (
            *("linear", "objective", "epochs", "batch_size", "lr", "weight_decay", "warmup", "clip"),
            *("label_smoothing", "freeze", "ema", "layer_decay", "mixup", "seed", "precision"),
        )
        told = asdict(self)
        return {name: told[name] for name in names} | {"augment": self.augmentation, "freeze": list(self.freeze)}
