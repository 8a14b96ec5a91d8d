"""The commands that fit or estimate something of one model on a data set: ``wise calibrate`` and ``wise fisher``."""

from dataclasses import KW_ONLY
from typing import Annotated

from mergekit_wise.option_types import ABSENT, FilePath, Option, OptionalPath, Options, options_class
from mergekit_wise.options.checkpoints import Checkpoint, Head, HeadFeatures, HeadRows, ImageSize, Model
from mergekit_wise.options.common import DATA, OUTPUT, BatchSize, Device, Mmap, Precision, ShardSize, UseCache, Workers
from mergekit_wise.options.data import CacheImages, ClassNames, DataRoot, Limit, LimitSeed, MaxBad, MaxPixels, Templates
from mergekit_wise.progress import Progress, silent

FISHER_KINDS = ("true", "empirical")


@options_class(frozen=True)
class CalibrateOptions(Options):
    """The options of ``wise calibrate``."""

    checkpoint: Checkpoint
    output: Annotated[
        FilePath,
        Option(
            "Checkpoint to write, in the format of its name's ending; beside an input folder, a name without an ending "
            "is a folder.",
            metavar="FILE",
            group=OUTPUT,
            short="-o",
            path="output",
        ),
    ]
    _: KW_ONLY
    on: Annotated[
        str,
        Option(
            "Data set that the temperature is fitted on, ideally held-out images of the reference; of a suite, its "
            "reference.",
            metavar="DATASET",
            group=DATA,
            path="input",
            completes="data sets",
        ),
    ]
    data: DataRoot = ABSENT
    classnames: ClassNames = None
    templates: Templates = None
    limit: Limit = None
    seed: LimitSeed = 0
    model: Model = None
    image_size: ImageSize = None
    device: Device = "cpu"
    precision: Precision = "auto"
    batch_size: BatchSize = 128
    workers: Workers = None
    cache_images: CacheImages = False
    max_bad: MaxBad = 0
    max_pixels: MaxPixels = None
    shard_size: ShardSize = None
    cache: UseCache = True
    mmap: Mmap = True
    progress: Progress = silent


@options_class(frozen=True)
class FisherOptions(Options):
    """The options of ``wise fisher``. There is no precision to choose: gradients are computed in float32."""

    checkpoint: Checkpoint
    output: Annotated[
        OptionalPath,
        Option(
            "File to write: .safetensors, or .pt, .pth, .bin, .ckpt (torch.save).",
            metavar="FILE",
            group=OUTPUT,
            short="-o",
            path="output",
            default="a state dict in memory",
            cli_required=True,
        ),
    ] = ABSENT
    _: KW_ONLY
    on: Annotated[
        str,
        Option(
            "Data set whose images are used, ideally the training images; of a suite, its reference. Some hundred "
            "images are enough, see --limit.",
            metavar="DATASET",
            group=DATA,
            path="input",
            completes="data sets",
        ),
    ]
    kind: Annotated[
        str,
        Option(
            "Classes whose log-probability is differentiated: drawn from the model's own predictions (true), or the "
            "labels (empirical).",
            group="Options",
            choices=FISHER_KINDS,
        ),
    ] = "true"
    data: DataRoot = ABSENT
    classnames: ClassNames = None
    templates: Templates = None
    limit: Annotated[int | None, Option("Use a random subset of N images.", metavar="N", group=DATA, minimum=1)] = None
    seed: Annotated[
        int, Option("Random seed for --limit and for the classes that are drawn.", metavar="N", group=DATA, minimum=0)
    ] = 0
    model: Model = None
    head: Head = None
    head_features: HeadFeatures = None
    head_rows: HeadRows = None
    image_size: ImageSize = None
    device: Device = "cpu"
    workers: Workers = None
    cache_images: CacheImages = False
    max_bad: MaxBad = 0
    max_pixels: MaxPixels = None
    cache: UseCache = True
    mmap: Mmap = True
    progress: Progress = silent
