"""What is measured of a model and what is kept of it, for all commands that evaluate.

Those with one model: ``wise eval`` and ``wise predict``.
"""

from dataclasses import KW_ONLY, replace
from typing import Annotated

from mergekit_wise.option_types import (
    ABSENT,
    EMPTY,
    Data,
    Option,
    OptionalEvaluator,
    OptionalPath,
    OptionalSuite,
    OptionalWeights,
    Options,
    Words,
    options_class,
)
from mergekit_wise.options.checkpoints import (
    Checkpoint,
    Head,
    HeadFeatures,
    HeadRows,
    ImageSize,
    Model,
    Rename,
    Transform,
)
from mergekit_wise.options.common import (
    DATA,
    MEASURE,
    MODEL,
    OUTPUT,
    RULES,
    BatchSize,
    Device,
    Mmap,
    Precision,
    UseCache,
    Workers,
)
from mergekit_wise.options.data import (
    DIGITS,
    SUITE,
    Balanced,
    CacheImages,
    ClassNames,
    DataRoot,
    Limit,
    LimitSeed,
    MaxBad,
    MaxPixels,
    ReferenceOfTask,
    Strict,
    Templates,
)
from mergekit_wise.progress import Progress, silent

Command = Annotated[
    str | None,
    Option(
        "Evaluate any task: run this command line for every model, without a shell. {file} is the model's file; the "
        'last JSON object that the command prints is the result: {"correct": 812, "total": 1000}, {"score": 0.43} or '
        '{"items": [0.2, 1, ...]}, or an object of several of these, by data set.',
        metavar="COMMAND",
        group=MEASURE,
    ),
]
Evaluator = Annotated[
    OptionalEvaluator,
    Option(
        "Evaluate any task: 'retrieval:PATH,PATH...' (recall between images and captions, from tables, COCO's JSON or "
        "tars), or an evaluator of an installed package. In Python also a function of the model: of its state dict, or "
        "of a module if the model is one.",
        metavar="NAME[:ARGUMENT]",
        group=MEASURE,
    ),
]
EvaluatorVersion = Annotated[
    str | None,
    Option(
        "Version of --command or --evaluator: any text. Change it when their data or settings change, so that earlier "
        "results are not reused.",
        metavar="TEXT",
        group=MEASURE,
    ),
]
ResultsFile = Annotated[
    OptionalPath,
    Option(
        "Results file (JSON Lines). Results already in it are reused.",
        metavar="FILE",
        group=OUTPUT,
        cli_default="results.jsonl",
        path="output",
    ),
]
KeepAnswers = Annotated[
    bool,
    Option(
        "Do not keep the answer for each image beside the results file (in NAME.answers), where later comparisons find "
        "it.",
        group=OUTPUT,
    ),
]
Redo = Annotated[bool, Option("Ignore earlier results and run every measurement again.", group=OUTPUT)]
PerClass = Annotated[
    OptionalPath,
    Option(
        "Write the accuracy of each class as CSV; re-runs every measurement.",
        metavar="FILE",
        group=OUTPUT,
        path="output",
    ),
]
PerSample = Annotated[
    OptionalPath,
    Option(
        "Write the prediction for each image as JSON Lines; re-runs every measurement.",
        metavar="FILE",
        group=OUTPUT,
        path="output",
    ),
]


@options_class(frozen=True)
class EvalOptions(Options):
    """The options of ``wise eval``."""

    checkpoint: Checkpoint
    suite: Annotated[OptionalSuite, replace(SUITE, default=DIGITS)] = ABSENT
    _: KW_ONLY
    reference: ReferenceOfTask = ABSENT
    command: Command = None
    evaluator: Evaluator = ABSENT
    evaluator_version: EvaluatorVersion = None
    data: DataRoot = ABSENT
    strict: Strict = False
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
    results: ResultsFile = ABSENT
    answers: KeepAnswers = True
    redo: Redo = False
    per_class: PerClass = ABSENT
    per_sample: PerSample = ABSENT
    transform: Transform = None
    cache: UseCache = True
    mmap: Mmap = True
    progress: Progress = silent


@options_class(frozen=True)
class PredictOptions(Options):
    """The options of ``wise predict``."""

    checkpoint: Checkpoint
    images: Annotated[
        Data,
        Option(
            "Images without classes: an image, a folder with images at any depth, a tar, or a folder of tars.",
            is_argument=True,
            path="input",
        ),
    ]
    _: KW_ONLY
    mix_with: Annotated[
        OptionalWeights,
        Option(
            "Predict with the mixture of CHECKPOINT and this one, the same model after fine-tuning.",
            metavar="FINETUNED",
            group=RULES,
            path="input",
        ),
    ] = ABSENT
    alpha: Annotated[
        float | None,
        Option("Mixing coefficient of --mix-with: 0 is CHECKPOINT, 1 the other.", group=RULES, default="0.5"),
    ] = None
    dynamic: Annotated[
        bool,
        Option(
            "Choose the alpha of --mix-with for each image, from how certain both models are of it (DaWin).",
            group=RULES,
        ),
    ] = False
    clusters: Annotated[
        int | None,
        Option(
            "Mixtures of --dynamic, each for the images with similar alphas.",
            metavar="K",
            group=RULES,
            minimum=1,
            default="3",
        ),
    ] = None
    base: Annotated[
        OptionalWeights,
        Option(
            "Checkpoint that adapters (LoRA) are applied to.",
            metavar="BASE",
            group=MODEL,
            default="CHECKPOINT",
            path="input",
        ),
    ] = ABSENT
    rename: Rename = EMPTY
    classnames: Annotated[
        Words | None,
        Option(
            "Class names: ImageNet's, or a file (lines, JSON or YAML). For a head that names its classes, those that "
            "compete.",
            metavar="imagenet|FILE",
            group=DATA,
            default="what the head declares",
            path="input",
        ),
    ] = None
    templates: Annotated[
        Words | None,
        Option(
            "Prompt templates for a zero-shot head: OpenAI's 80, their 7 best, 'a photo of a {}.', or a text file with "
            "one per line, where {} is the class name.",
            metavar="openai|simple|plain|FILE",
            group=DATA,
            default="plain",
            path="input",
        ),
    ] = None
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
    max_bad: Annotated[
        int,
        Option("Tolerate up to N unreadable images; their lines have an error.", metavar="N", group=DATA, minimum=0),
    ] = 0
    max_pixels: MaxPixels = None
    output: Annotated[
        OptionalPath,
        Option("Write a line for each image: .jsonl or .csv.", metavar="FILE", group=OUTPUT, short="-o", path="output"),
    ] = ABSENT
    top: Annotated[
        int,
        Option("List the N most probable classes of each image.", metavar="N", group=OUTPUT, minimum=1),
    ] = 5
    transform: Transform = None
    cache: UseCache = True
    mmap: Mmap = True
    progress: Progress = silent
