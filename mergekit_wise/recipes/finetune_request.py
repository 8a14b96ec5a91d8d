"""What a user can ask of fine-tuning, as they would write it, and what it means."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import TypedDict

from mergekit_wise.errors import UsageError
from mergekit_wise.training.augmentation import AUGMENTATIONS
from mergekit_wise.training.optimizer import Optimization

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


class FinetuneOptions(TypedDict, total=False):
    """The options of `finetune`, named as on the command line. See `FinetuneRequest`."""

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
class FinetuneRequest:
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

    def optimization(self, batch_size: int, total: int) -> Optimization:
        """How `total` steps of `batch_size` images are taken."""
        warmup = self.warmup if self.warmup is not None else WARMUP if total > WARMUP else total // 10
        lr = self.lr if self.lr is not None else LINEAR_RATE if self.linear else RATE
        return Optimization(self.epochs, batch_size, lr, warmup, self.weight_decay, clip=self.clip)

    def settings(self) -> dict[str, object]:
        """What the weights that come out depend on, beside the checkpoint and the images; as JSON has it."""
        names = (
            *("linear", "objective", "epochs", "batch_size", "lr", "weight_decay", "warmup", "clip"),
            *("label_smoothing", "freeze", "ema", "layer_decay", "mixup", "seed", "precision"),
        )
        told = asdict(self)
        return {name: told[name] for name in names} | {"augment": self.augmentation, "freeze": list(self.freeze)}
