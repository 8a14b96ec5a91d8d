"""The options of ``wise zeroshot``, which makes what training starts from, and of ``wise finetune``."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, replace
from pathlib import Path
from typing import Annotated, Any

from mergekit_wise.errors import UsageError
from mergekit_wise.option_types import (
    ABSENT,
    EMPTY,
    Option,
    OptionalNames,
    OptionalPath,
    OptionalWeights,
    Options,
    Source,
    Texts,
    Words,
    options_class,
)
from mergekit_wise.options.checkpoints import Checkpoint, HeadFeatures, HeadRows, ImageSize, Model
from mergekit_wise.options.common import (
    ADVANCED,
    DATA,
    MODEL,
    OUTPUT,
    Device,
    Mmap,
    OutputFile,
    Precision,
    UseCache,
    Workers,
)
from mergekit_wise.options.data import CacheImages, ClassNames, DataRoot, MaxBad, MaxPixels
from mergekit_wise.options.training import LINEAR_RATE, TrainingOptions
from mergekit_wise.progress import Progress, silent

TRACKERS = ("tensorboard", "wandb")


@options_class(frozen=True)
class ZeroshotOptions(Options):
    """The options of ``wise zeroshot``."""

    checkpoint: Checkpoint
    output: OutputFile
    _: KW_ONLY
    classes: Annotated[
        Words,
        Option(
            "ImageNet's class names, or a file of class names (lines, JSON or YAML).",
            metavar="imagenet|FILE",
            group=DATA,
            path="input",
        ),
    ] = "imagenet"
    head_of: Annotated[
        OptionalWeights,
        Option(
            "Make the head for the classes that the head of this checkpoint names, in place of --classes.",
            metavar="CHECKPOINT",
            group=DATA,
            path="input",
        ),
    ] = ABSENT
    dataset: Annotated[
        str | None,
        Option(
            "Take the class names and the prompt templates of this data set, or of a suite's reference.",
            metavar="DATASET",
            group=DATA,
            path="input",
            completes="data sets",
        ),
    ] = None
    templates: Annotated[
        Words | None,
        Option(
            "Prompt templates: OpenAI's 80 for ImageNet, their 7 best, 'a photo of a {}.', or a text file with "
            "one per line, where {} is the class name.",
            metavar="openai|simple|plain|FILE",
            group=DATA,
            default="the data set's own, or openai for ImageNet's classes, plain for others",
            path="input",
        ),
    ] = None
    data: DataRoot = ABSENT
    model: Model = None
    image_size: ImageSize = None
    device: Device = "cpu"
    cache: UseCache = True
    mmap: Mmap = True
    progress: Progress = silent


@options_class(frozen=True)
class FinetuneOptions(TrainingOptions):
    """The options of ``wise finetune``. Defaults are the paper's (section 4), augmentation that of their code."""

    _: KW_ONLY
    model: Model = None
    image_size: ImageSize = None
    head: Annotated[
        Source | None,
        Option(
            "Start from the head in this file (a checkpoint, or scikit-learn's coefficients in .npz).",
            metavar="FILE",
            group=MODEL,
            default="the checkpoint's own head",
            path="input",
        ),
    ] = None
    head_features: HeadFeatures = None
    head_rows: HeadRows = None
    new_head: Annotated[
        bool, Option("Start from a new head of zeros for the classes of the training data.", group=MODEL)
    ] = False
    data: Annotated[
        OptionalPath,
        Option(
            "Root folder of the data sets.",
            metavar="ROOT",
            group=DATA,
            default="$WISE_DATA",
            envvar="WISE_DATA",
            path="input",
            aliases=("root",),
        ),
    ] = ABSENT
    shots: Annotated[
        int | None,
        Option("Train on K images of each class, drawn at random by --seed.", metavar="K", group=DATA, minimum=1),
    ] = None
    classnames: ClassNames = None
    templates: Annotated[
        Words | None,
        Option(
            "Caption templates for --objective contrastive: OpenAI's 80, their 7 best, 'a photo of a {}.', or a "
            "text file with one per line, where {} is the class name.",
            metavar="openai|simple|plain|FILE",
            group=DATA,
            default="the data set's own",
            path="input",
        ),
    ] = None
    precision: Precision = "auto"
    device: Device = "cpu"
    workers: Workers = None
    cache_images: CacheImages = False
    max_bad: MaxBad = 0
    max_pixels: MaxPixels = None
    validate: Annotated[
        OptionalNames,
        Option(
            "Suite to evaluate after each epoch, for the fine-tuned model and for the mixture at alpha 0.5.",
            metavar="NAMES",
            group=DATA,
            path="input",
            completes="suites",
        ),
    ] = ABSENT
    log: Annotated[
        OptionalPath,
        Option(
            "JSON Lines file with a line for each step and epoch.",
            metavar="FILE",
            group=OUTPUT,
            default="next to the output",
            path="output",
        ),
    ] = ABSENT
    track: Annotated[
        Texts,
        Option(
            "Also write the log for TensorBoard, into a folder next to the output, or to Weights & Biases. May be "
            "repeated.",
            group=OUTPUT,
            choices=TRACKERS,
        ),
    ] = EMPTY
    cache: Annotated[
        OptionalPath,
        Option(
            "Folder to cache features in.",
            metavar="DIR",
            group=ADVANCED,
            default="that of 'wise cache ls'",
            path="folder",
        ),
    ] = ABSENT
    state: Annotated[
        OptionalPath,
        Option(
            "Folder for the resumable training state.",
            metavar="DIR",
            group=ADVANCED,
            default="next to the output",
            path="folder",
        ),
    ] = ABSENT
    save_every: Annotated[
        float | None,
        Option(
            "Also save the training state within an epoch, each time so many minutes have passed.",
            metavar="MINUTES",
            group=ADVANCED,
            above=0,
            default="after each epoch",
        ),
    ] = None
    restart: Annotated[bool, Option("Discard a saved training state and start over.", group=ADVANCED)] = False
    keep_epochs: Annotated[bool, Option("Keep the checkpoint of every epoch.", group=ADVANCED)] = False
    mmap: Mmap = True
    progress: Progress = silent
    note: Callable[[str], object] = str

    def __post_init__(self) -> None:
        """Raises UsageError for a value that an option cannot have, and for options that contradict each other."""
        Options.__post_init__(self)
        if self.linear:
            for name, allowed in UNUSED_BY_LINEAR.items():
                if getattr(self, name) not in allowed:
                    raise UsageError(
                        f"--linear trains the head on cached features, and --{name.replace('_', '-')} has no effect "
                        "there. Leave one of the two out."
                    )
        for name, outcome in (("weight_decay", "erase the weights"), ("anchor", "undo all steps before it")):
            if self.peak * (value := getattr(self, name)) >= 1:
                option = f"--{name.replace('_', '-')}"
                raise UsageError(
                    f"{option} {value:g} with a learning rate of {self.peak:g}: the product is at least 1, so that one "
                    f"step would {outcome}. Choose a smaller {option} or --lr."
                )
        if self.lp_ft and (self.linear or self.objective == "contrastive"):
            other = "--linear trains the head alone" if self.linear else "--objective contrastive trains no head"
            raise UsageError(f"--lp-ft trains the head first and then all weights; {other}. Leave one of the two out.")
        for name in ("lp_epochs", "lp_lr"):
            if getattr(self, name) is not None and not self.lp_ft:
                raise UsageError(
                    f"--{name.replace('_', '-')} is an option of the first stage of --lp-ft. Add --lp-ft, or leave it "
                    "out."
                )
        if self.new_head and self.head is not None:
            raise UsageError("--new-head and --head both choose the head to start from. Leave one of the two out.")
        if self.objective == "contrastive" and (self.new_head or self.head is not None):
            raise UsageError("--objective contrastive needs no head. Leave --head and --new-head out.")
        if self.objective == "contrastive" and (self.mixup or self.label_smoothing):
            raise UsageError(
                "--objective contrastive has no labels for --label-smoothing and --mixup. Leave those options out."
            )

    @property
    def stem(self) -> str:
        """The name of the output, from which those of the files next to it are made."""
        return Path(self.output).name.removesuffix(".safetensors")

    @property
    def folder(self) -> Path:
        """The folder of the resumable state."""
        return self.state or Path(self.output).with_name(f"{self.stem}.training")

    @property
    def probe(self) -> "FinetuneOptions":
        """The first stage of ``lp_ft``: the options of the linear probe.

        What acts on all weights, or on a long run, is not among them: layer-wise decay, frozen tensors, augmentation,
        the anchor, the moving average, and the warm-up, which has its default.
        """
        log = self.log
        if log is not None:
            stem = log.name.removesuffix(".jsonl").removesuffix(".log")
            log = log.with_name(f"{stem}-probe{log.name[len(stem) :]}")
        return replace(
            self,
            output=Path(self.output).with_name(f"{Path(self.output).stem}-probe.safetensors"),
            state=self.folder / "probe",
            log=log,
            linear=True,
            lp_ft=False,
            lp_epochs=None,
            lp_lr=None,
            epochs=self.lp_epochs or self.epochs,
            lr=self.lp_lr,
            warmup=None,
            ema=None,
            anchor=0.0,
            **{name: allowed[0] for name, allowed in UNUSED_BY_LINEAR.items()},
        )

    @property
    def after_probe(self) -> "FinetuneOptions":
        """The second stage of ``lp_ft``: all weights, from the checkpoint that the probe has written."""
        start = Path(self.probe.output)
        return replace(self, checkpoint=start, new_head=False, head=None, head_features=None, head_rows=None)

    def settings(self) -> dict[str, object]:
        """What the trained weights depend on, besides the checkpoint and the images; as JSON has it."""
        names = (
            *("linear", "objective", "epochs", "batch_size", "lr", "weight_decay", "decay", "warmup", "clip"),
            *("label_smoothing", "freeze", "ema", "layer_decay", "mixup", "seed", "precision"),
            *("new_head", "image_size"),
        )
        found = {name: getattr(self, name) for name in names}
        # Left out where they are not used, so that a run has the record that it had before there were such options.
        given = {name: getattr(self, name) for name in ("anchor", "shots", "compile") if getattr(self, name)}
        probe = {"lp_ft": {"epochs": self.lp_epochs or self.epochs, "lr": self.lp_lr or LINEAR_RATE}}
        return (
            found | {"augment": self.augmentation, "freeze": list(self.freeze)} | given | (probe if self.lp_ft else {})
        )


UNUSED_BY_LINEAR: Mapping[str, tuple[Any, ...]] = {
    "augment": (None, "none"),
    "compile": (False,),
    "freeze": ((),),
    "grad_checkpointing": (False,),
    "layer_decay": (1.0,),
    "objective": ("cross-entropy",),
}
"""Options without effect on a head that is trained on cached features, and the values that they may have anyway."""
