"""The options of ``wise soup``, which averages checkpoints and may choose them by an evaluation."""

from dataclasses import KW_ONLY
from typing import Annotated

from mergekit_wise.option_types import (
    ABSENT,
    EMPTY,
    Option,
    OptionalData,
    OptionalPath,
    Options,
    Sources,
    options_class,
)
from mergekit_wise.options.checkpoints import (
    AdapterBase,
    Head,
    HeadFeatures,
    HeadRows,
    ImageSize,
    Like,
    Model,
    Rename,
    Transform,
    Zeroshot,
)
from mergekit_wise.options.common import (
    ADVANCED,
    DATA,
    OUTPUT,
    RULES,
    AllowNonFinite,
    BatchSize,
    Device,
    Mmap,
    OutputDtype,
    Precision,
    ShardSize,
    UseCache,
    Workers,
)
from mergekit_wise.options.data import (
    Balanced,
    CacheImages,
    ClassNames,
    DataRoot,
    Limit,
    LimitSeed,
    MaxBad,
    MaxPixels,
    Recalibrate,
    Templates,
)
from mergekit_wise.options.evaluation import KeepAnswers, Redo
from mergekit_wise.options.merging import AllowOtherStarts, Keep, Only
from mergekit_wise.progress import Progress, silent


@options_class(frozen=True)
class SoupOptions(Options):
    """The options of ``wise soup``."""

    zeroshot: Zeroshot
    members: Annotated[
        Sources,
        Option(
            "Checkpoints of the same model after fine-tuning, all from the zero-shot one.",
            metavar="MEMBER",
            is_argument=True,
            path="input",
            cli_required=True,
        ),
    ] = EMPTY
    output: Annotated[
        OptionalPath,
        Option(
            "Checkpoint to write: .safetensors, or .pt, .pth, .bin, .ckpt (torch.save); beside input folders, a name "
            "without an ending is a folder.",
            metavar="FILE",
            group=OUTPUT,
            short="-o",
            path="output",
            default="a state dict in memory",
            cli_required=True,
        ),
    ] = ABSENT
    _: KW_ONLY
    how: Annotated[
        str,
        Option(
            "Kind of average: the mean of all members (uniform), the mean of those that do best together on "
            "--select-on (greedy), or Model Stock, which moves each tensor from the zero-shot model towards the mean "
            "by the angles between the members (stock).",
            group=RULES,
            choices=("uniform", "greedy", "stock"),
        ),
    ] = "uniform"
    select_on: Annotated[
        OptionalData,
        Option(
            "Held-out data set that greedy chooses the members on.",
            metavar="DATASET",
            group=DATA,
            path="input",
            completes="data sets",
        ),
    ] = ABSENT
    allow_other_starts: AllowOtherStarts = False
    base: AdapterBase = ABSENT
    keep: Keep = EMPTY
    only: Only = EMPTY
    like: Like = None
    rename: Rename = EMPTY
    allow_non_finite: AllowNonFinite = False
    dtype: OutputDtype = ABSENT
    shard_size: ShardSize = None
    recalibrate: Recalibrate = None
    data: DataRoot = ABSENT
    classnames: ClassNames = None
    templates: Templates = None
    limit: Limit = None
    balanced: Balanced = False
    seed: LimitSeed = 0
    model: Model = None
    head: Head = None
    head_features: HeadFeatures = None
    head_rows: HeadRows = None
    image_size: ImageSize = None
    device: Device = "cpu"
    precision: Precision = "auto"
    batch_size: BatchSize = 128
    workers: Workers = None
    cache_images: CacheImages = False
    max_bad: MaxBad = 0
    max_pixels: MaxPixels = None
    results: Annotated[
        OptionalPath,
        Option(
            "Results file (JSON Lines) of greedy. Results already in it are reused.",
            metavar="FILE",
            group=OUTPUT,
            path="output",
        ),
    ] = ABSENT
    answers: KeepAnswers = True
    redo: Redo = False
    memory: Annotated[str, Option("Memory budget for buffers.", metavar="SIZE", group=ADVANCED)] = "256MB"
    transform: Transform = None
    cache: UseCache = True
    mmap: Mmap = True
    progress: Progress = silent
